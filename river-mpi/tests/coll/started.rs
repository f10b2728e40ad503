//! Operations that are started and completed later.

use river_core::testing::for_each_topology;
use river_mpi::coll::consecutive;
use river_mpi::testing::world;
use river_mpi::{Communicator, Request, SUM, run_on, wait_all, wait_any};

use super::{Compose, Result, composed, maps, number, numbers, same};

/// Many at once, completed in another order than they were started.
fn several_at_once(world: &Communicator) -> Result {
    let (me, p) = (world.rank(), world.size());
    for count in [1, 3000, 20_000] {
        let (mut vector, mut sums, mut all) = (vec![0; count], vec![0; count], vec![0; count * p]);
        let (mut in_order, mut so_far) = (vec![[0; 2]; count], vec![[0; 2]; count]);
        if me == 0 {
            vector = numbers(5, count);
        }
        let barrier = world.ibarrier()?;
        let bcast = world.ibcast(&mut vector, 0)?;
        let allreduce = world.iallreduce(&numbers(me, count), &mut sums, SUM)?;
        let allgather = world.iallgather(&numbers(me, count), &mut all)?;
        let reduce = world.ireduce(&maps(me, count), &mut in_order, Compose, p - 1)?;
        let mut scan = world.iscan(&maps(me, count), &mut so_far, Compose)?;
        while scan.test()?.is_none() {}
        drop(scan);
        wait_all(&mut [reduce, allgather])?;
        allreduce.wait()?;
        bcast.wait()?;
        barrier.wait()?;
        same(world, &vector, &numbers(5, count), "ibcast");
        let expected: Vec<u64> = (0..count).map(|at| (0..p).map(|rank| number(rank, at)).sum()).collect();
        same(world, &sums, &expected, "iallreduce");
        let expected: Vec<u64> = (0..p).flat_map(|rank| numbers(rank, count)).collect();
        same(world, &all, &expected, "iallgather");
        let reduced = if me == p - 1 { composed(0..p, count) } else { vec![[0; 2]; count] };
        same(world, &in_order, &reduced, "ireduce");
        same(world, &so_far, &composed(0..me + 1, count), "iscan");
    }
    the_others(world)
}

fn the_others(world: &Communicator) -> Result {
    let (me, p) = (world.rank(), world.size());
    let all_zeros = vec![0; p];
    let mut all = all_zeros.clone();
    world.igather(&[number(me, 0)], &mut all, 0)?.wait()?;
    let everything: Vec<u64> = (0..p).map(|rank| number(rank, 0)).collect();
    let gathered = if me == 0 { everything.clone() } else { all_zeros.clone() };
    same(world, &all, &gathered, "igather");
    let counts = vec![1; p];
    let mut all = vec![0; p];
    world.igatherv(&[number(me, 0)], &mut all, &consecutive(&counts), 0)?.wait()?;
    same(world, &all, &gathered, "igatherv");
    let mut mine = [0];
    world.iscatter(if me == 0 { &everything } else { &[] }, &mut mine, 0)?.wait()?;
    same(world, &mine, &[number(me, 0)], "iscatter");
    mine = [0];
    world.iscatterv(if me == 0 { &everything } else { &[] }, &consecutive(&counts), &mut mine, 0)?.wait()?;
    same(world, &mine, &[number(me, 0)], "iscatterv");
    let mut all = vec![0; p];
    world.iallgatherv(&[number(me, 0)], &mut all, &consecutive(&counts))?.wait()?;
    same(world, &all, &everything, "iallgatherv");
    let mut column = vec![0; p];
    world.ialltoall(&vec![me; p], &mut column)?.wait()?;
    same(world, &column, &(0..p).collect::<Vec<_>>(), "ialltoall");
    column.fill(0);
    let blocks = consecutive(&counts);
    world.ialltoallv(&vec![me; p], &blocks, &mut column, &blocks)?.wait()?;
    same(world, &column, &(0..p).collect::<Vec<_>>(), "ialltoallv");
    let mut mine = [[0; 2]];
    world.ireduce_scatter(&maps(me, p), &mut mine, &counts, Compose)?.wait()?;
    same(world, &mine, &composed(0..p, p)[me..me + 1], "ireduce_scatter");
    mine = [[0; 2]];
    world.ireduce_scatter_block(&maps(me, p), &mut mine, Compose)?.wait()?;
    same(world, &mine, &composed(0..p, p)[me..me + 1], "ireduce_scatter_block");
    let mut before = vec![[7; 2]; 2];
    world.iexscan(&maps(me, 2), &mut before, Compose)?.wait()?;
    same(world, &before, &if me == 0 { vec![[7; 2]; 2] } else { composed(0..me, 2) }, "iexscan");
    Ok(())
}

#[test]
fn several_operations_at_once_on_all_topologies() {
    for_each_topology(|name, make_vms| {
        let ran = river_core::try_run(|vr| Ok(run_on(vr, &make_vms(vr, 4)?, several_at_once)?));
        assert_eq!(ran.expect(name), [(); 4]);
    });
}

#[test]
fn several_operations_at_once_on_one_to_nine_ranks() {
    for ranks in 1..=9 {
        world(ranks, several_at_once);
    }
}

/// MPI's progress rule: an operation goes on while its rank waits for something else.
#[test]
fn an_operation_goes_on_while_the_rank_waits_for_something_else() {
    world(6, |world| {
        let barrier = world.ibarrier()?;
        if world.rank() == 0 {
            // The others send this only once the barrier has let them through, for which it needs this rank.
            for other in 1..world.size() {
                world.recv::<u8>(other, 0)?;
            }
            barrier.wait()?;
        } else {
            barrier.wait()?;
            world.send(&[1_u8], 0, 0)?;
        }
        Ok(())
    });
}

#[test]
fn a_dropped_request_is_harmless() {
    world(6, |world| {
        let mut sum = [0];
        drop(world.iallreduce(&[1], &mut sum, SUM)?);
        drop(world.ibarrier()?);
        let mut all = [0];
        world.allreduce(&[1], &mut all, &SUM)?;
        assert_eq!(all, [6]);
        drop(world.ibarrier()?);
        Ok(())
    });
}

#[test]
fn messages_and_operations_are_waited_for_together() {
    world(4, |world| {
        let (next, before) = ((world.rank() + 1) % 4, (world.rank() + 3) % 4);
        let (mut sum, mut theirs) = ([0], [0]);
        let mut requests: Vec<Request> =
            vec![world.irecv_into(&mut theirs, before, 3)?, world.iallreduce(&[1], &mut sum, SUM)?];
        world.send(&[world.rank()], next, 3)?;
        let mut seen = Vec::new();
        while let Some((place, _)) = wait_any(&mut requests)? {
            seen.push(place);
        }
        drop(requests);
        seen.sort_unstable();
        assert_eq!((seen, sum, theirs), (vec![0, 1], [4], [before]));
        Ok(())
    });
}
