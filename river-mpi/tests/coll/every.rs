//! Checks the results of every operation.

use river_core::testing::for_each_topology;
use river_mpi::coll::consecutive;
use river_mpi::testing::world;
use river_mpi::{Communicator, Datatype, Located, MAXLOC, SUM, run_on};

use super::{Compose, Result, composed, maps, number, numbers, same};

/// All operations, with this many elements.
pub(super) fn all(world: &Communicator, count: usize) -> Result {
    let (me, p) = (world.rank(), world.size());
    let root = (count + 1) % p;
    let mine = numbers(me, count);
    let everything: Vec<u64> = (0..p).flat_map(|rank| numbers(rank, count)).collect();
    let none = || vec![0; if me == root { count * p } else { 0 }];

    world.barrier()?;

    let mut vector = if me == root { numbers(99, count) } else { vec![0; count] };
    world.bcast(&mut vector, root)?;
    same(world, &vector, &numbers(99, count), "bcast");

    let mut all = none();
    world.gather(&mine, &mut all, root)?;
    if me == root {
        same(world, &all, &everything, "gather");
    }

    let given = if me == root { everything.clone() } else { Vec::new() };
    let mut got = vec![0; count];
    world.scatter(&given, &mut got, root)?;
    same(world, &got, &mine, "scatter");

    let mut all = vec![0; count * p];
    world.allgather(&mine, &mut all)?;
    same(world, &all, &everything, "allgather");

    let block = |from: usize, to: usize| (0..count).map(move |at| number(from * 100 + to, at));
    let given: Vec<u64> = (0..p).flat_map(|to| block(me, to)).collect();
    let wanted: Vec<u64> = (0..p).flat_map(|from| block(from, me)).collect();
    let mut got = vec![0; count * p];
    world.alltoall(&given, &mut got)?;
    same(world, &got, &wanted, "alltoall");
    let mut buffer = given.clone();
    world.alltoall_in_place(&mut buffer)?;
    same(world, &buffer, &wanted, "alltoall in place");

    let sums: Vec<u64> = (0..count).map(|at| (0..p).map(|rank| number(rank, at)).sum()).collect();
    let mut got = vec![0; count];
    world.reduce(&mine, &mut got, &SUM, root)?;
    if me == root {
        same(world, &got, &sums, "reduce");
    }
    world.allreduce(&mine, &mut got, &SUM)?;
    same(world, &got, &sums, "allreduce");
    let mut buffer = mine.clone();
    world.allreduce_in_place(&mut buffer, &SUM)?;
    same(world, &buffer, &sums, "allreduce in place");

    let in_order = composed(0..p, count);
    let mut got = vec![[0; 2]; count];
    world.reduce(&maps(me, count), &mut got, &Compose, root)?;
    if me == root {
        same(world, &got, &in_order, "reduce in order");
    }
    world.allreduce(&maps(me, count), &mut got, &Compose)?;
    same(world, &got, &in_order, "allreduce in order");
    world.scan(&maps(me, count), &mut got, &Compose)?;
    same(world, &got, &composed(0..me + 1, count), "scan");
    let mut buffer = maps(me, count);
    world.exscan_in_place(&mut buffer, &Compose)?;
    same(world, &buffer, &if me == 0 { maps(0, count) } else { composed(0..me, count) }, "exscan");

    let mut got = vec![[0; 2]; count];
    world.reduce_scatter_block(&maps(me, count * p), &mut got, &Compose)?;
    same(world, &got, &composed(0..p, count * p)[me * count..(me + 1) * count], "reduce_scatter_block");
    Ok(())
}

/// All operations with blocks of different lengths, some of them empty, and gaps.
pub(super) fn all_v(world: &Communicator, count: usize) -> Result {
    let (me, p) = (world.rank(), world.size());
    let root = p / 2;
    let len = |rank: usize| count * (rank % 3);
    let counts: Vec<usize> = (0..p).map(len).collect();
    // In reverse order of the ranks, with an element between them.
    let mut blocks = consecutive(&counts.iter().rev().map(|count| count + 1).collect::<Vec<_>>());
    blocks.reverse();
    let blocks: Vec<_> = blocks.into_iter().map(|block| block.start..block.end - 1).collect();
    let total = counts.iter().sum::<usize>() + p;
    let mut wanted = vec![7; total];
    for (rank, block) in blocks.iter().enumerate() {
        wanted[block.clone()].copy_from_slice(&numbers(rank, len(rank)));
    }

    let mut all = vec![7; total];
    if me == root {
        world.gatherv(&numbers(me, len(me)), &mut all, &blocks, root)?;
        same(world, &all, &wanted, "gatherv");
    } else {
        world.gatherv(&numbers(me, len(me)), &mut [], &[], root)?;
    }
    let mut got = vec![0; len(me)];
    world.scatterv(if me == root { &wanted } else { &[] }, &blocks, &mut got, root)?;
    same(world, &got, &numbers(me, len(me)), "scatterv");

    let mut all = vec![7; total];
    world.allgatherv(&numbers(me, len(me)), &mut all, &blocks)?;
    same(world, &all, &wanted, "allgatherv");
    let mut all = vec![7; total];
    all[blocks[me].clone()].copy_from_slice(&numbers(me, len(me)));
    world.allgatherv_in_place(&mut all, &blocks)?;
    same(world, &all, &wanted, "allgatherv in place");

    let pair = |from: usize, to: usize| len(from + 2 * to);
    let outgoing: Vec<usize> = (0..p).map(|to| pair(me, to)).collect();
    let incoming: Vec<usize> = (0..p).map(|from| pair(from, me)).collect();
    let given: Vec<u64> = (0..p).flat_map(|to| numbers(me * 100 + to, pair(me, to))).collect();
    let wanted: Vec<u64> = (0..p).flat_map(|from| numbers(from * 100 + me, pair(from, me))).collect();
    let mut got = vec![0; wanted.len()];
    world.alltoallv(&given, &consecutive(&outgoing), &mut got, &consecutive(&incoming))?;
    same(world, &got, &wanted, "alltoallv");

    let vector = counts.iter().sum();
    let mine = consecutive(&counts)[me].clone();
    let mut got = vec![[0; 2]; len(me)];
    world.reduce_scatter(&maps(me, vector), &mut got, &counts, &Compose)?;
    same(world, &got, &composed(0..p, vector)[mine.clone()], "reduce_scatter");
    let mut buffer = maps(me, vector);
    world.reduce_scatter_in_place(&mut buffer, &counts, &Compose)?;
    same(world, &buffer[..mine.len()], &composed(0..p, vector)[mine], "reduce_scatter in place");
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

/// Elements for which not every byte pattern is valid, and elements with an index.
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

/// A `p` by `p` matrix with a row on each rank is turned into columns, and put together again.
fn datatypes(world: &Communicator) -> Result {
    let (me, p) = (world.rank(), world.size());
    let element = Datatype::of::<u64>().commit();
    let row = Datatype::of::<u64>().contiguous(p).commit();
    // A column whose neighbour begins one element further on.
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
