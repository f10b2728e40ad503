//! Collective operations between the two groups of an intercommunicator.

use river_core::testing::for_each_topology;
use river_mpi::coll::consecutive;
use river_mpi::testing::{try_world, world};
use river_mpi::{Communicator, PROC_NULL, ROOT, Root, SUM, run_on};

use super::{Compose, Result, maps, numbers, same};

/// The even ranks of the world and the odd ones; ranks are those of the world divided by two.
fn between(world: &Communicator) -> Result {
    let odd = world.rank() % 2;
    let half = world.split(Some(odd), 0)?.expect("every rank is in a half");
    let inter = half.create_intercomm(0, world, 1 - odd, 17)?;
    let (here, there) = (inter.size(), inter.remote_size());
    let me = inter.rank();
    // Ranks of the other group, numbered as in the world, have the data of these numbers.
    let theirs = |rank: usize| 2 * rank + 1 - odd;
    let mine = world.rank();

    inter.barrier()?;
    // The root is rank 1 of the even ones, or 0 if there is only one.
    let root_rank = if odd == 0 { (here - 1).min(1) } else { (there - 1).min(1) };
    let root: Root = match (odd, me == root_rank) {
        (0, true) => ROOT,
        (0, false) => PROC_NULL.into(),
        _ => root_rank.into(),
    };

    for count in [0, 1, 20_000] {
        let mut vector = if root == ROOT { numbers(50, count) } else { vec![0; count] };
        inter.bcast(&mut vector, root)?;
        let expected = if odd == 1 || root == ROOT { numbers(50, count) } else { vec![0; count] };
        same(world, &vector, &expected, "bcast");

        let mut all = vec![0; if root == ROOT { count * there } else { 0 }];
        inter.gather(&numbers(mine, count), &mut all, root)?;
        let expected: Vec<u64> = (0..there).flat_map(|rank| numbers(theirs(rank), count)).collect();
        if root == ROOT {
            same(world, &all, &expected, "gather");
        }
        let mut got = vec![0; if odd == 1 { count } else { 0 }];
        inter.scatter(if root == ROOT { &expected } else { &[] }, &mut got, root)?;
        if odd == 1 {
            same(world, &got, &numbers(mine, count), "scatter");
        }

        let mut all = vec![0; count * there];
        inter.allgather(&numbers(mine, count), &mut all)?;
        same(world, &all, &expected, "allgather");
        let mut all = vec![0; count * there];
        inter.allgatherv(&numbers(mine, count), &mut all, &consecutive(&vec![count; there]))?;
        same(world, &all, &expected, "allgatherv");

        let given: Vec<u64> = (0..there).flat_map(|to| numbers(mine * 100 + theirs(to), count)).collect();
        let expected: Vec<u64> =
            (0..there).flat_map(|from| numbers(theirs(from) * 100 + mine, count)).collect();
        let mut got = vec![0; count * there];
        inter.alltoall(&given, &mut got)?;
        same(world, &got, &expected, "alltoall");
        let blocks = consecutive(&vec![count; there]);
        got.fill(0);
        inter.alltoallv(&given, &blocks, &mut got, &blocks)?;
        same(world, &got, &expected, "alltoallv");

        let in_order = |count| {
            let mut all = maps(theirs(0), count);
            for rank in 1..there {
                river_mpi::Operator::fold_right(&Compose, &mut all, &maps(theirs(rank), count));
            }
            all
        };
        let mut got = vec![[0; 2]; count];
        inter.reduce(&maps(mine, count), &mut got, &Compose, root)?;
        if root == ROOT {
            same(world, &got, &in_order(count), "reduce");
        }
        inter.allreduce(&maps(mine, count), &mut got, &Compose)?;
        same(world, &got, &in_order(count), "allreduce");
        // Both groups must give vectors of one length, which they divide among themselves.
        let vector = count * here * there;
        let mut got = vec![[0; 2]; count * there];
        inter.reduce_scatter_block(&maps(mine, vector), &mut got, &Compose)?;
        same(world, &got, &in_order(vector)[me * count * there..(me + 1) * count * there], "reduce_scatter");
    }

    let mut sum = [0];
    let request = inter.iallreduce(&[1], &mut sum, SUM)?;
    request.wait()?;
    same(world, &sum, &[there], "iallreduce");
    Ok(())
}

#[test]
fn between_two_groups_on_all_topologies() {
    for_each_topology(|name, make_vms| {
        let ran = river_core::try_run(|vr| Ok(run_on(vr, &make_vms(vr, 5)?, between)?));
        assert_eq!(ran.expect(name), [(); 5]);
    });
}

#[test]
fn between_groups_of_several_sizes() {
    for ranks in [2, 3, 4, 7] {
        world(ranks, between);
    }
}

#[test]
fn there_is_no_scan_and_nothing_in_place_between_two_groups() {
    let error = |call: fn(&Communicator) -> river_mpi::Result| {
        let tried = try_world(2, |world| {
            let half = world.split(Some(world.rank()), 0)?.expect("every rank is in a half");
            Ok(call(&half.create_intercomm(0, world, 1 - world.rank(), 0)?)?)
        });
        tried.unwrap_err().to_string()
    };
    assert!(error(|inter| inter.scan(&[1], &mut [0], &SUM)).contains("no scans between two groups"));
    assert!(error(|inter| inter.allreduce_in_place(&mut [0], &SUM)).contains("in place between two groups"));
}
