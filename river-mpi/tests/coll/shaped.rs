//! Operations on datatypes, blocking and started, compared with the same operations on slices.

use river_core::testing::for_each_topology;
use river_mpi::coll::consecutive;
use river_mpi::testing::{try_world, world};
use river_mpi::{Committed, Communicator, Datatype, ErrorClass, ErrorHandler, SUM, run_on};

use super::{Compose, Result, composed, maps, number, numbers, same};

/// Every second number of a buffer.
pub(crate) fn sparse() -> Committed {
    Datatype::of::<u64>().with_bounds(0, 16).commit()
}

/// Numbers with gaps between them.
pub(crate) fn spread(numbers: &[u64]) -> Vec<u64> {
    numbers.iter().flat_map(|&number| [number, 9]).collect()
}

fn moves(world: &Communicator, count: usize) -> Result {
    let (me, p, root) = (world.rank(), world.size(), world.size() - 1);
    let (dense, sparse) = (Datatype::of::<u64>().commit(), sparse());
    let gaps = |len: usize| spread(&vec![0; len]);
    let everything: Vec<u64> = (0..p).flat_map(|rank| numbers(rank, count)).collect();

    for started in [false, true] {
        let mut vector = if me == root { spread(&numbers(root, count)) } else { gaps(count) };
        if started {
            world.ibcast_as(&mut vector, (count, &sparse), root)?.wait()?;
        } else {
            world.bcast_as(&mut vector, (count, &sparse), root)?;
        }
        same(world, &vector, &spread(&numbers(root, count)), "bcast_as");

        let mine = spread(&numbers(me, count));
        let mut all = gaps(if me == root { p * count } else { 0 });
        if started {
            world.igather_as(&mine, (count, &sparse), &mut all, (count, &sparse), root)?.wait()?;
        } else {
            world.gather_as(&mine, (count, &sparse), &mut all, (count, &sparse), root)?;
        }
        if me == root {
            same(world, &all, &spread(&everything), "gather_as");
        }
        let given = if me == root { spread(&everything) } else { Vec::new() };
        let mut got = vec![0; count];
        if started {
            world.iscatter_as(&given, (count, &sparse), &mut got, (count, &dense), root)?.wait()?;
        } else {
            world.scatter_as(&given, (count, &sparse), &mut got, (count, &dense), root)?;
        }
        same(world, &got, &numbers(me, count), "scatter_as");

        let mut all = gaps(p * count);
        if started {
            world.iallgather_as(&mine, (count, &sparse), &mut all, (count, &sparse))?.wait()?;
        } else {
            world.allgather_as(&mine, (count, &sparse), &mut all, (count, &sparse))?;
        }
        same(world, &all, &spread(&everything), "allgather_as");

        let given: Vec<u64> = (0..p).flat_map(|to| numbers(me * 100 + to, count)).collect();
        let expected: Vec<u64> = (0..p).flat_map(|from| numbers(from * 100 + me, count)).collect();
        let mut got = gaps(p * count);
        if started {
            world.ialltoall_as(&given, (count, &dense), &mut got, (count, &sparse))?.wait()?;
        } else {
            world.alltoall_as(&given, (count, &dense), &mut got, (count, &sparse))?;
        }
        same(world, &got, &spread(&expected), "alltoall_as");
    }
    Ok(())
}

/// Rank `i` has `i` numbers; in buffers for all ranks, the blocks are in reverse order.
fn moves_of_different_lengths(world: &Communicator) -> Result {
    let (me, p) = (world.rank(), world.size());
    let (dense, sparse) = (Datatype::of::<u64>().commit(), sparse());
    let mut blocks: Vec<_> = consecutive(&(0..p).rev().collect::<Vec<_>>());
    blocks.reverse();
    let total = blocks.iter().map(|block| block.end).max().unwrap_or(0);
    let mut everything = spread(&vec![0; total]);
    for (rank, block) in blocks.iter().enumerate() {
        for (at, place) in block.clone().enumerate() {
            everything[2 * place] = number(rank, at);
        }
    }
    let mine = numbers(me, me);
    for started in [false, true] {
        let mut all = spread(&vec![0; total]);
        if started {
            world.igatherv_as(&mine, (me, &dense), &mut all, (&blocks, &sparse), 0)?.wait()?;
        } else {
            world.gatherv_as(&mine, (me, &dense), &mut all, (&blocks, &sparse), 0)?;
        }
        if me == 0 {
            same(world, &all, &everything, "gatherv_as");
        }
        let mut got = spread(&vec![0; me]);
        if started {
            world.iscatterv_as(&everything, (&blocks, &sparse), &mut got, (me, &sparse), 0)?.wait()?;
        } else {
            world.scatterv_as(&everything, (&blocks, &sparse), &mut got, (me, &sparse), 0)?;
        }
        same(world, &got, &spread(&mine), "scatterv_as");
        let mut all = spread(&vec![0; total]);
        if started {
            world.iallgatherv_as(&mine, (me, &dense), &mut all, (&blocks, &sparse))?.wait()?;
        } else {
            world.allgatherv_as(&mine, (me, &dense), &mut all, (&blocks, &sparse))?;
        }
        same(world, &all, &everything, "allgatherv_as");
        // Every rank gives rank `i` its `i` numbers, and gets as many from each rank as its own number is.
        let incoming = consecutive(&vec![me; p]);
        let mut got = vec![0; p * me];
        if started {
            world.ialltoallv_as(&everything, (&blocks, &sparse), &mut got, (&incoming, &dense))?.wait()?;
        } else {
            world.alltoallv_as(&everything, (&blocks, &sparse), &mut got, (&incoming, &dense))?;
        }
        same(world, &got, &mine.repeat(p), "alltoallv_as");
    }
    Ok(())
}

/// Two maps out of three places; what lies between is not touched.
fn reductions(world: &Communicator, count: usize) -> Result {
    let (me, p, root) = (world.rank(), world.size(), world.size() - 1);
    let two_of_three = Datatype::of::<[u64; 2]>().contiguous(2).with_bounds(0, 48).commit();
    let spread = |maps: &[[u64; 2]]| -> Vec<[u64; 2]> {
        maps.chunks(2).flat_map(|pair| [pair[0], pair[1], [7, 7]]).collect()
    };
    let mine = spread(&maps(me, 2 * count));
    let each = (count, &two_of_three);
    let nothing = spread(&vec![[0; 2]; 2 * count]);
    for started in [false, true] {
        let mut got = nothing.clone();
        if started {
            world.ireduce_as(&mine, &mut got, each, Compose, root)?.wait()?;
        } else {
            world.reduce_as(&mine, &mut got, each, &Compose, root)?;
        }
        if me == root {
            same(world, &got, &spread(&composed(0..p, 2 * count)), "reduce_as");
        }
        let mut got = nothing.clone();
        if started {
            world.iallreduce_as(&mine, &mut got, each, Compose)?.wait()?;
        } else {
            world.allreduce_as(&mine, &mut got, each, &Compose)?;
        }
        same(world, &got, &spread(&composed(0..p, 2 * count)), "allreduce_as");
        let mut got = nothing.clone();
        if started {
            world.iscan_as(&mine, &mut got, each, Compose)?.wait()?;
        } else {
            world.scan_as(&mine, &mut got, each, &Compose)?;
        }
        same(world, &got, &spread(&composed(0..me + 1, 2 * count)), "scan_as");
        let mut got = nothing.clone();
        if started {
            world.iexscan_as(&mine, &mut got, each, Compose)?.wait()?;
        } else {
            world.exscan_as(&mine, &mut got, each, &Compose)?;
        }
        let expected = if me == 0 { nothing.clone() } else { spread(&composed(0..me, 2 * count)) };
        same(world, &got, &expected, "exscan_as");
        // `count` pairs to each rank.
        let given = spread(&maps(me, 2 * count * p));
        let (counts, mut got) = (vec![count; p], nothing.clone());
        if started {
            world.ireduce_scatter_as(&given, &mut got, (&counts, &two_of_three), Compose)?.wait()?;
        } else {
            world.reduce_scatter_as(&given, &mut got, (&counts, &two_of_three), &Compose)?;
        }
        let all = composed(0..p, 2 * count * p);
        same(world, &got, &spread(&all[2 * count * me..2 * count * (me + 1)]), "reduce_scatter_as");
    }
    Ok(())
}

fn everything(world: &Communicator) -> Result {
    for count in [0, 1, 3, 3000] {
        moves(world, count)?;
        reductions(world, count)?;
    }
    moves_of_different_lengths(world)
}

#[test]
fn datatypes_in_all_operations_on_all_topologies() {
    for_each_topology(|name, make_vms| {
        let ran = river_core::try_run(|vr| Ok(run_on(vr, &make_vms(vr, 4)?, everything)?));
        assert_eq!(ran.expect(name), [(); 4]);
    });
}

#[test]
fn datatypes_in_all_operations_on_one_to_six_ranks() {
    for ranks in 1..=6 {
        world(ranks, everything);
    }
}

#[test]
fn a_datatype_that_reaches_beyond_its_buffer_or_has_other_elements_is_refused() {
    let error = |call: fn(&Communicator) -> river_mpi::Result| {
        let tried = try_world(2, |world| {
            world.set_error_handler(ErrorHandler::Return);
            Ok(call(world).expect_err("it is refused").class())
        });
        tried.expect("both ranks go on")
    };
    let beyond = error(|world| world.bcast_as(&mut [0_u64; 3], (3, &sparse()), 0));
    assert_eq!(beyond, [ErrorClass::Type; 2]);
    let v = error(|world| {
        world.allgatherv_as(&[1_u64], (1, &sparse()), &mut [0_u64; 3], (&[0..1, 2..3], &sparse()))
    });
    assert_eq!(v, [ErrorClass::Type; 2]);
    let odd = error(|world| {
        let three_bytes = Datatype::of::<u8>().contiguous(3).commit();
        world.allreduce_as(&[1_u16; 9], &mut [0; 9], (1, &three_bytes), &SUM)
    });
    assert_eq!(odd, [ErrorClass::Type; 2]);
}
