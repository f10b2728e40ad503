//! Compares the result of every operation with the expected one.

use std::ops::Range;

use river_core::testing::for_each_topology;
use river_mpi::coll::consecutive;
use river_mpi::testing::world;
use river_mpi::{Communicator, Datatype, Located, MAXLOC, SUM, run_on};

use super::{Compose, Result, composed, maps, number, numbers, same};

/// Calls an operation with this many elements, with two buffers and in place, and compares the results.
pub(super) type Test = fn(&Communicator, usize) -> Result;

/// The operations whose ranks have the same number of elements, by name.
pub(super) const EQUAL: [(&str, Test); 10] = [
    ("barrier", |world, _| Ok(world.barrier()?)),
    ("bcast", bcast),
    ("gather", gather),
    ("scatter", scatter),
    ("allgather", allgather),
    ("alltoall", alltoall),
    ("reduce", reduce),
    ("allreduce", allreduce),
    ("scan", scan),
    ("exscan", exscan),
];

/// The operations with blocks of different lengths, some of them empty.
pub(super) const BLOCKS: [(&str, Test); 5] = [
    ("gatherv", gatherv),
    ("scatterv", scatterv),
    ("allgatherv", allgatherv),
    ("alltoallv", alltoallv),
    ("reduce_scatter", reduce_scatter),
];

/// The operations for whose operator the order does not matter.
pub(super) const SUMS: [(&str, Test); 2] =
    [("allreduce", allreduce_sums), ("reduce_scatter", reduce_scatter_sums)];

pub(super) fn all(world: &Communicator, count: usize) -> Result {
    EQUAL.iter().try_for_each(|(_, test)| test(world, count))
}

pub(super) fn all_v(world: &Communicator, count: usize) -> Result {
    BLOCKS.iter().try_for_each(|(_, test)| test(world, count))
}

fn root(world: &Communicator, count: usize) -> usize {
    (count + 1) % world.size()
}

/// What all ranks contribute.
fn everything(world: &Communicator, count: usize) -> Vec<u64> {
    (0..world.size()).flat_map(|rank| numbers(rank, count)).collect()
}

fn bcast(world: &Communicator, count: usize) -> Result {
    let root = root(world, count);
    let mut vector = if world.rank() == root { numbers(99, count) } else { vec![0; count] };
    world.bcast(&mut vector, root)?;
    same(world, &vector, &numbers(99, count), "bcast");
    Ok(())
}

fn gather(world: &Communicator, count: usize) -> Result {
    let (me, root) = (world.rank(), root(world, count));
    let (mine, everything) = (numbers(me, count), everything(world, count));
    let mut all = vec![0; if me == root { everything.len() } else { 0 }];
    world.gather(&mine, &mut all, root)?;
    if me == root {
        same(world, &all, &everything, "gather");
        all.fill(0);
        all[me * count..][..count].copy_from_slice(&mine);
        world.gather_in_place(&mut all, root)?;
        same(world, &all, &everything, "gather in place");
    } else {
        world.gather(&mine, &mut [], root)?;
    }
    Ok(())
}

fn scatter(world: &Communicator, count: usize) -> Result {
    let (me, root) = (world.rank(), root(world, count));
    let given = if me == root { everything(world, count) } else { Vec::new() };
    let mut got = vec![0; count];
    world.scatter(&given, &mut got, root)?;
    same(world, &got, &numbers(me, count), "scatter");
    got.fill(0);
    if me == root {
        return Ok(world.scatter_in_place(&given, root)?);
    }
    world.scatter(&[], &mut got, root)?;
    same(world, &got, &numbers(me, count), "scatter from what stays in place");
    Ok(())
}

fn allgather(world: &Communicator, count: usize) -> Result {
    let (mine, everything) = (numbers(world.rank(), count), everything(world, count));
    let mut all = vec![0; everything.len()];
    world.allgather(&mine, &mut all)?;
    same(world, &all, &everything, "allgather");
    all.fill(0);
    all[world.rank() * count..][..count].copy_from_slice(&mine);
    world.allgather_in_place(&mut all)?;
    same(world, &all, &everything, "allgather in place");
    Ok(())
}

fn alltoall(world: &Communicator, count: usize) -> Result {
    let (me, p) = (world.rank(), world.size());
    let block = |from: usize, to: usize| (0..count).map(move |at| number(from * 100 + to, at));
    let mut given: Vec<u64> = (0..p).flat_map(|to| block(me, to)).collect();
    let wanted: Vec<u64> = (0..p).flat_map(|from| block(from, me)).collect();
    let mut got = vec![0; count * p];
    world.alltoall(&given, &mut got)?;
    same(world, &got, &wanted, "alltoall");
    world.alltoall_in_place(&mut given)?;
    same(world, &given, &wanted, "alltoall in place");
    Ok(())
}

fn reduce(world: &Communicator, count: usize) -> Result {
    let (me, p, root) = (world.rank(), world.size(), root(world, count));
    let mine = numbers(me, count);
    let sums: Vec<u64> = (0..count).map(|at| (0..p).map(|rank| number(rank, at)).sum()).collect();
    let mut got = vec![0; count];
    world.reduce(&mine, &mut got, &SUM, root)?;
    let mut buffer = mine.clone();
    world.reduce_in_place(&mut buffer, &SUM, root)?;
    let mut composition = vec![[0; 2]; count];
    world.reduce(&maps(me, count), &mut composition, &Compose, root)?;
    if me == root {
        same(world, &got, &sums, "reduce");
        same(world, &composition, &composed(0..p, count), "reduce in order");
    }
    same(world, &buffer, if me == root { &sums } else { &mine }, "reduce in place");
    Ok(())
}

fn allreduce(world: &Communicator, count: usize) -> Result {
    let mut got = vec![[0; 2]; count];
    world.allreduce(&maps(world.rank(), count), &mut got, &Compose)?;
    same(world, &got, &composed(0..world.size(), count), "allreduce in order");
    allreduce_sums(world, count)
}

fn allreduce_sums(world: &Communicator, count: usize) -> Result {
    let (mine, p) = (numbers(world.rank(), count), world.size());
    let sums: Vec<u64> = (0..count).map(|at| (0..p).map(|rank| number(rank, at)).sum()).collect();
    let mut got = vec![0; count];
    world.allreduce(&mine, &mut got, &SUM)?;
    same(world, &got, &sums, "allreduce");
    let mut buffer = mine;
    world.allreduce_in_place(&mut buffer, &SUM)?;
    same(world, &buffer, &sums, "allreduce in place");
    Ok(())
}

fn scan(world: &Communicator, count: usize) -> Result {
    let me = world.rank();
    let mut buffer = maps(me, count);
    let mut got = vec![[0; 2]; count];
    world.scan(&buffer, &mut got, &Compose)?;
    same(world, &got, &composed(0..me + 1, count), "scan");
    world.scan_in_place(&mut buffer, &Compose)?;
    same(world, &buffer, &got, "scan in place");
    Ok(())
}

fn exscan(world: &Communicator, count: usize) -> Result {
    let me = world.rank();
    let mut buffer = maps(me, count);
    let mut got = buffer.clone();
    let wanted = if me == 0 { buffer.clone() } else { composed(0..me, count) };
    world.exscan(&buffer, &mut got, &Compose)?;
    same(world, &got, &wanted, "exscan");
    world.exscan_in_place(&mut buffer, &Compose)?;
    same(world, &buffer, &wanted, "exscan in place");
    Ok(())
}

/// The number of elements of a rank.
fn len(count: usize, rank: usize) -> usize {
    count * (rank % 3)
}

/// Blocks in reverse rank order, with an element between them, and a buffer with the elements of all ranks, and sevens.
fn apart(p: usize, count: usize) -> (Vec<Range<usize>>, Vec<u64>) {
    let mut blocks = consecutive(&(0..p).rev().map(|rank| len(count, rank) + 1).collect::<Vec<_>>());
    blocks.reverse();
    let blocks: Vec<_> = blocks.into_iter().map(|block| block.start..block.end - 1).collect();
    let mut wanted = vec![7; (0..p).map(|rank| len(count, rank) + 1).sum()];
    for (rank, block) in blocks.iter().enumerate() {
        wanted[block.clone()].copy_from_slice(&numbers(rank, block.len()));
    }
    (blocks, wanted)
}

fn gatherv(world: &Communicator, count: usize) -> Result {
    let (me, root) = (world.rank(), world.size() / 2);
    let (blocks, wanted) = apart(world.size(), count);
    let mine = numbers(me, len(count, me));
    if me != root {
        world.gatherv(&mine, &mut [], &[], root)?;
        return Ok(world.gatherv(&mine, &mut [], &[], root)?);
    }
    let mut all = vec![7; wanted.len()];
    world.gatherv(&mine, &mut all, &blocks, root)?;
    same(world, &all, &wanted, "gatherv");
    all.fill(7);
    all[blocks[me].clone()].copy_from_slice(&mine);
    world.gatherv_in_place(&mut all, &blocks, root)?;
    same(world, &all, &wanted, "gatherv in place");
    Ok(())
}

fn scatterv(world: &Communicator, count: usize) -> Result {
    let (me, root) = (world.rank(), world.size() / 2);
    let (blocks, given) = apart(world.size(), count);
    let mut got = vec![0; len(count, me)];
    world.scatterv(if me == root { &given } else { &[] }, &blocks, &mut got, root)?;
    same(world, &got, &numbers(me, got.len()), "scatterv");
    if me == root {
        return Ok(world.scatterv_in_place(&given, &blocks, root)?);
    }
    got.fill(0);
    world.scatterv(&[], &[], &mut got, root)?;
    same(world, &got, &numbers(me, got.len()), "scatterv from what stays in place");
    Ok(())
}

fn allgatherv(world: &Communicator, count: usize) -> Result {
    let me = world.rank();
    let (blocks, wanted) = apart(world.size(), count);
    let mine = numbers(me, len(count, me));
    let mut all = vec![7; wanted.len()];
    world.allgatherv(&mine, &mut all, &blocks)?;
    same(world, &all, &wanted, "allgatherv");
    all.fill(7);
    all[blocks[me].clone()].copy_from_slice(&mine);
    world.allgatherv_in_place(&mut all, &blocks)?;
    same(world, &all, &wanted, "allgatherv in place");
    Ok(())
}

fn alltoallv(world: &Communicator, count: usize) -> Result {
    let (me, p) = (world.rank(), world.size());
    let pair = |from: usize, to: usize| len(count, from + 2 * to);
    let outgoing: Vec<usize> = (0..p).map(|to| pair(me, to)).collect();
    let incoming: Vec<usize> = (0..p).map(|from| pair(from, me)).collect();
    let given: Vec<u64> = (0..p).flat_map(|to| numbers(me * 100 + to, pair(me, to))).collect();
    let wanted: Vec<u64> = (0..p).flat_map(|from| numbers(from * 100 + me, pair(from, me))).collect();
    let mut got = vec![0; wanted.len()];
    world.alltoallv(&given, &consecutive(&outgoing), &mut got, &consecutive(&incoming))?;
    same(world, &got, &wanted, "alltoallv");
    Ok(())
}

fn reduce_scatter(world: &Communicator, count: usize) -> Result {
    let (me, p) = (world.rank(), world.size());
    let mut got = vec![[0; 2]; count];
    world.reduce_scatter_block(&maps(me, count * p), &mut got, &Compose)?;
    same(world, &got, &composed(0..p, count * p)[me * count..][..count], "reduce_scatter_block");

    let counts: Vec<usize> = (0..p).map(|rank| len(count, rank)).collect();
    let (vector, mine) = (counts.iter().sum(), consecutive(&counts)[me].clone());
    let mut buffer = maps(me, vector);
    let mut got = vec![[0; 2]; mine.len()];
    world.reduce_scatter(&buffer, &mut got, &counts, &Compose)?;
    same(world, &got, &composed(0..p, vector)[mine.clone()], "reduce_scatter");
    world.reduce_scatter_in_place(&mut buffer, &counts, &Compose)?;
    same(world, &buffer[..mine.len()], &got, "reduce_scatter in place");
    reduce_scatter_sums(world, count)
}

fn reduce_scatter_sums(world: &Communicator, count: usize) -> Result {
    let (me, p) = (world.rank(), world.size());
    let counts: Vec<usize> = (0..p).map(|rank| len(count, rank)).collect();
    for counts in [vec![count; p], counts] {
        let (vector, mine) = (counts.iter().sum(), consecutive(&counts)[me].clone());
        let mut buffer = numbers(me, vector);
        let sums: Vec<u64> = mine.clone().map(|at| (0..p).map(|rank| number(rank, at)).sum()).collect();
        let mut got = vec![0; mine.len()];
        world.reduce_scatter(&buffer, &mut got, &counts, &SUM)?;
        same(world, &got, &sums, "reduce_scatter of sums");
        world.reduce_scatter_in_place(&mut buffer, &counts, &SUM)?;
        same(world, &buffer[..mine.len()], &sums, "reduce_scatter of sums in place");
    }
    Ok(())
}

fn program(world: &Communicator) -> Result {
    for count in [0, 1, world.size(), 1000, 40_000] {
        all(world, count)?;
    }
    all_v(world, 1)?;
    all_v(world, 5000)?;
    types(world)?;
    datatypes(world)?;
    values(world)
}

/// Elements for which not all bytes are valid, and elements with a location.
fn types(world: &Communicator) -> Result {
    let (me, p) = (world.rank(), world.size());
    let mut flags = vec![false; p];
    world.allgather(&[me % 2 == 0], &mut flags)?;
    same(world, &flags, &(0..p).map(|rank| rank % 2 == 0).collect::<Vec<_>>(), "bools");
    let mut letters = vec![if me == 0 { 'x' } else { ' ' }; 3000];
    world.bcast(&mut letters, 0)?;
    same(world, &letters, &['x'; 3000], "chars");
    let mut any = [me == p - 1];
    world.allreduce_in_place(&mut any, &river_mpi::LOR)?;
    same(world, &any, &[true], "or of bools");
    let mut best = [Located { value: -((me as f64) - 1.0).abs(), index: me as u32 }];
    world.allreduce_in_place(&mut best, &MAXLOC)?;
    same(
        world,
        &best,
        &[Located { value: if p > 1 { 0.0 } else { -1.0 }, index: u32::from(p > 1) }],
        "maxloc",
    );
    Ok(())
}

/// A matrix of `p` by `p` with a row on each rank is transposed, and then gathered.
fn datatypes(world: &Communicator) -> Result {
    let (me, p) = (world.rank(), world.size());
    let element = Datatype::of::<u64>().commit();
    let row = Datatype::of::<u64>().contiguous(p).commit();
    // A column whose extent is one element.
    let column = Datatype::of::<u64>().vector(p, 1, p.cast_signed()).with_bounds(0, 8).commit();
    let matrix: Vec<u64> = (0..p).flat_map(|rank| numbers(rank, p)).collect();
    let transposed: Vec<u64> = (0..p).flat_map(|at| (0..p).map(move |rank| number(rank, at))).collect();

    let mut all = vec![0; p * p];
    world.allgather_as(&numbers(me, p), (1, &row), &mut all, (1, &column))?;
    same(world, &all, &transposed, "allgather_as");
    let mut all = vec![0; p * p];
    world.gather_as(&numbers(me, p), (p, &element), &mut all, (1, &column), p - 1)?;
    same(world, &all, if me == p - 1 { &transposed[..] } else { &all }, "gather_as");
    let mut mine = vec![0; p];
    world.scatter_as(&transposed, (1, &column), &mut mine, (1, &row), 0)?;
    same(world, &mine, &numbers(me, p), "scatter_as");
    let mut mine = vec![0; p];
    world.alltoall_as(&matrix[me * p..][..p], (1, &element), &mut mine, (1, &element))?;
    same(world, &mine, &transposed[me * p..][..p], "alltoall_as");
    let mut got = vec![0; p * p];
    world.reduce_as(&matrix, &mut got, (1, &column), &SUM, 0)?;
    if me == 0 {
        let expected: Vec<u64> =
            (0..p * p).map(|at| if at % p == 0 { matrix[at] * p as u64 } else { 0 }).collect();
        same(world, &got, &expected, "reduce_as");
    }
    Ok(())
}

fn values(world: &Communicator) -> Result {
    let (me, p) = (world.rank(), world.size());
    let word = |rank: usize| "ab".repeat(rank * rank);
    let words: Vec<String> = (0..p).map(word).collect();
    let mut value = if me == p - 1 { Some(words.clone()) } else { None };
    world.bcast_value(&mut value, p - 1)?;
    same(world, &value.unwrap_or_default(), &words, "bcast_value");
    same(world, &world.allgather_values(&word(me))?, &words, "allgather_values");
    let gathered = world.gather_values(&word(me), 0)?;
    same(world, &gathered.unwrap_or_default(), if me == 0 { &words } else { &[] }, "gather_values");
    let mine: String = world.scatter_values(if me == 0 { &words } else { &[] }, 0)?;
    same(world, &[mine], &[word(me)], "scatter_values");
    let back = world.alltoall_values(&words)?;
    same(world, &back, &vec![word(me); p], "alltoall_values");
    let joined = world.allreduce_value(me.to_string(), |left, right| left + &right)?;
    let expected: String = (0..p).map(|rank| rank.to_string()).collect();
    same(world, &[joined], &[expected], "allreduce_value");
    Ok(())
}

#[test]
fn all_operations_on_all_topologies() {
    for_each_topology(|name, make_vms| {
        let ran = river_core::try_run(|vr| Ok(run_on(vr, &make_vms(vr, 4)?, program)?));
        assert_eq!(ran.expect(name), [(); 4]);
    });
}

#[test]
fn all_operations_on_one_to_nine_and_sixteen_ranks() {
    for ranks in (1..=9).chain([16]) {
        world(ranks, |world| {
            let p = world.size();
            for count in [0, 1, p - 1, p, p + 1, 500] {
                all(world, count)?;
                all_v(world, count)?;
            }
            types(world)?;
            values(world)
        });
    }
}

/// Long messages are sent in pieces, shared and forwarded.
#[test]
fn long_vectors() {
    for ranks in [2, 3, 4] {
        world(ranks, |world| all(world, 100_000));
    }
}
