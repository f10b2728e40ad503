//! Operations on datatypes between two groups: what one group gives the other gets, in the shape that it asks for.

use river_core::testing::for_each_topology;
use river_mpi::coll::consecutive;
use river_mpi::testing::world;
use river_mpi::{Communicator, Datatype, Operator, ROOT, run_on};

use super::between::Sides;
use super::shaped::{sparse, spread};
use super::{Compose, Result, maps, numbers, same};

const COUNT: usize = 3;

/// Ranks that have no part have no buffers.
fn with_a_root(world: &Communicator, started: bool) -> Result {
    let Sides { inter, root, theirs } = &Sides::of(world)?;
    let (root, is_root, gives) = (*root, *root == ROOT, world.rank() % 2 == 1);
    let (dense, sparse) = (Datatype::of::<u64>().commit(), sparse());
    let only = |has_part: bool, buffer: Vec<u64>| if has_part { buffer } else { Vec::new() };
    let gaps = |count: usize| spread(&vec![0; count]);

    let values = spread(&numbers(9, COUNT));
    let mut vector = only(gives || is_root, if is_root { values.clone() } else { gaps(COUNT) });
    if started {
        inter.ibcast_as(&mut vector, (COUNT, &sparse), root)?.wait()?;
    } else {
        inter.bcast_as(&mut vector, (COUNT, &sparse), root)?;
    }
    same(world, &vector, &only(gives || is_root, values), "bcast_as");

    let everything: Vec<u64> = theirs.iter().flat_map(|&rank| numbers(rank, COUNT)).collect();
    let blocks = consecutive(&vec![COUNT; theirs.len()]);
    let mine = only(gives, numbers(world.rank(), COUNT));
    let mut all = only(is_root, gaps(everything.len()));
    if started {
        inter.igather_as(&mine, (COUNT, &dense), &mut all, (COUNT, &sparse), root)?.wait()?;
    } else {
        inter.gather_as(&mine, (COUNT, &dense), &mut all, (COUNT, &sparse), root)?;
    }
    same(world, &all, &only(is_root, spread(&everything)), "gather_as");
    all.fill(9);
    if started {
        inter.igatherv_as(&mine, (COUNT, &dense), &mut all, (&blocks, &sparse), root)?.wait()?;
    } else {
        inter.gatherv_as(&mine, (COUNT, &dense), &mut all, (&blocks, &sparse), root)?;
    }
    same(world, &all, &only(is_root, spread(&everything)), "gatherv_as");

    let mut got = only(gives, gaps(COUNT));
    if started {
        inter.iscatter_as(&all, (COUNT, &sparse), &mut got, (COUNT, &sparse), root)?.wait()?;
    } else {
        inter.scatter_as(&all, (COUNT, &sparse), &mut got, (COUNT, &sparse), root)?;
    }
    same(world, &got, &spread(&mine), "scatter_as");
    let mut got = only(gives, vec![0; COUNT]);
    if started {
        inter.iscatterv_as(&all, (&blocks, &sparse), &mut got, (COUNT, &dense), root)?.wait()?;
    } else {
        inter.scatterv_as(&all, (&blocks, &sparse), &mut got, (COUNT, &dense), root)?;
    }
    same(world, &got, &mine, "scatterv_as");

    let pairs = Datatype::of::<[u64; 2]>().contiguous(2).commit();
    let only = |has_part: bool, maps: Vec<[u64; 2]>| if has_part { maps } else { Vec::new() };
    let (mine, each) = (only(gives, maps(world.rank(), 2 * COUNT)), (COUNT, &pairs));
    let mut got = only(is_root, vec![[0; 2]; 2 * COUNT]);
    if started {
        inter.ireduce_as(&mine, &mut got, each, Compose, root)?.wait()?;
    } else {
        inter.reduce_as(&mine, &mut got, each, &Compose, root)?;
    }
    same(world, &got, &only(is_root, in_order(theirs, 2 * COUNT)), "reduce_as");
    Ok(())
}

fn for_all(world: &Communicator, started: bool) -> Result {
    let Sides { inter, theirs, .. } = &Sides::of(world)?;
    let (here, there, me) = (inter.size(), inter.remote_size(), world.rank());
    let (dense, sparse) = (Datatype::of::<u64>().commit(), sparse());
    let blocks = consecutive(&vec![COUNT; there]);
    let gaps = || spread(&vec![0; COUNT * there]);

    let mine = numbers(me, COUNT);
    let everything: Vec<u64> = theirs.iter().flat_map(|&rank| numbers(rank, COUNT)).collect();
    let mut all = gaps();
    if started {
        inter.iallgather_as(&mine, (COUNT, &dense), &mut all, (COUNT, &sparse))?.wait()?;
    } else {
        inter.allgather_as(&mine, (COUNT, &dense), &mut all, (COUNT, &sparse))?;
    }
    same(world, &all, &spread(&everything), "allgather_as");
    let mut all = gaps();
    if started {
        inter.iallgatherv_as(&mine, (COUNT, &dense), &mut all, (&blocks, &sparse))?.wait()?;
    } else {
        inter.allgatherv_as(&mine, (COUNT, &dense), &mut all, (&blocks, &sparse))?;
    }
    same(world, &all, &spread(&everything), "allgatherv_as");

    let given: Vec<u64> = theirs.iter().flat_map(|to| numbers(me * 100 + to, COUNT)).collect();
    let expected: Vec<u64> = theirs.iter().flat_map(|from| numbers(from * 100 + me, COUNT)).collect();
    let mut got = gaps();
    if started {
        inter.ialltoall_as(&given, (COUNT, &dense), &mut got, (COUNT, &sparse))?.wait()?;
    } else {
        inter.alltoall_as(&given, (COUNT, &dense), &mut got, (COUNT, &sparse))?;
    }
    same(world, &got, &spread(&expected), "alltoall_as");
    let mut got = gaps();
    if started {
        inter.ialltoallv_as(&given, (&blocks, &dense), &mut got, (&blocks, &sparse))?.wait()?;
    } else {
        inter.alltoallv_as(&given, (&blocks, &dense), &mut got, (&blocks, &sparse))?;
    }
    same(world, &got, &spread(&expected), "alltoallv_as");

    let pairs = Datatype::of::<[u64; 2]>().contiguous(2).commit();
    let mut got = vec![[0; 2]; 2 * COUNT];
    let (mine, each) = (maps(me, 2 * COUNT), (COUNT, &pairs));
    if started {
        inter.iallreduce_as(&mine, &mut got, each, Compose)?.wait()?;
    } else {
        inter.allreduce_as(&mine, &mut got, each, &Compose)?;
    }
    same(world, &got, &in_order(theirs, 2 * COUNT), "allreduce_as");
    // Both groups divide vectors of one length among themselves: `here` blocks of `there` pairs, or the other way round.
    let vector = 2 * here * there;
    let (mut got, counts) = (vec![[0; 2]; 2 * there], vec![there; here]);
    if started {
        inter.ireduce_scatter_as(&maps(me, vector), &mut got, (&counts, &pairs), Compose)?.wait()?;
    } else {
        inter.reduce_scatter_as(&maps(me, vector), &mut got, (&counts, &pairs), &Compose)?;
    }
    let at = 2 * there * inter.rank();
    same(world, &got, &in_order(theirs, vector)[at..at + 2 * there], "reduce_scatter_as");
    Ok(())
}

/// The maps of these ranks, one after the other.
fn in_order(ranks: &[usize], count: usize) -> Vec<[u64; 2]> {
    let mut all = maps(ranks[0], count);
    ranks[1..].iter().for_each(|&rank| Compose.fold_right(&mut all, &maps(rank, count)));
    all
}

fn everything(world: &Communicator) -> Result {
    for started in [false, true] {
        with_a_root(world, started)?;
        for_all(world, started)?;
    }
    Ok(())
}

#[test]
fn datatypes_between_two_groups_on_all_topologies() {
    for_each_topology(|name, make_vms| {
        let ran = river_core::try_run(|vr| Ok(run_on(vr, &make_vms(vr, 5)?, everything)?));
        assert_eq!(ran.expect(name), [(); 5]);
    });
}

#[test]
fn datatypes_between_groups_of_several_sizes() {
    for ranks in [2, 3, 4, 7] {
        world(ranks, everything);
    }
}
