//! Collective operations between the two groups of an intercommunicator.

use river_core::testing::for_each_topology;
use river_mpi::coll::consecutive;
use river_mpi::testing::{try_world, world};
use river_mpi::{Communicator, PROC_NULL, ROOT, Root, SUM, run_on, wait_all};

use super::{Compose, Result, maps, number, numbers, same};

/// An intercommunicator between the even and the odd ranks of the world. A rank's number is half of that in the world.
pub(crate) struct Sides<'v> {
    pub(crate) inter: Communicator<'v>,
    /// The root is rank 1 of the even ranks, or rank 0 if there is only one.
    pub(crate) root: Root,
    /// The world ranks of the other group.
    pub(crate) theirs: Vec<usize>,
}

impl<'v> Sides<'v> {
    pub(crate) fn of(world: &Communicator<'v>) -> Result<Self> {
        let odd = world.rank() % 2;
        let half = world.split(Some(odd), 0)?.expect("every rank is in a half");
        let inter = half.create_intercomm(0, world, 1 - odd, 17)?;
        let evens = if odd == 0 { inter.size() } else { inter.remote_size() };
        let root_rank = (evens - 1).min(1);
        let root = match (odd, inter.rank() == root_rank) {
            (0, true) => ROOT,
            (0, false) => PROC_NULL.into(),
            _ => root_rank.into(),
        };
        let theirs = (0..inter.remote_size()).map(|rank| 2 * rank + 1 - odd).collect();
        Ok(Self { inter, root, theirs })
    }
}

fn between(world: &Communicator) -> Result {
    let Sides { inter, root, theirs } = Sides::of(world)?;
    let odd = world.rank() % 2;
    let (here, there) = (inter.size(), inter.remote_size());
    let me = inter.rank();
    // Each rank's data is derived from its rank in the world.
    let theirs = |rank: usize| theirs[rank];
    let mine = world.rank();

    inter.barrier()?;

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
        // Both groups must provide vectors of the same length, each of which is divided among the other group.
        let vector = count * here * there;
        let mut got = vec![[0; 2]; count * there];
        inter.reduce_scatter_block(&maps(mine, vector), &mut got, &Compose)?;
        same(world, &got, &in_order(vector)[me * count * there..(me + 1) * count * there], "reduce_scatter");
    }

    Ok(())
}

/// Runs all operations, all in progress at the same time.
fn started_between(world: &Communicator) -> Result {
    let Sides { inter, root, theirs } = Sides::of(world)?;
    let (odd, mine, is_root) = (world.rank() % 2 == 1, world.rank(), root == ROOT);
    let (here, there) = (inter.size(), inter.remote_size());
    let blocks = consecutive(&vec![2; there]);
    let everything: Vec<u64> = theirs.iter().flat_map(|&rank| numbers(rank, 2)).collect();
    let at_root = |count: usize| vec![0; if is_root { count } else { 0 }];
    let mut vector = if is_root { numbers(50, 2) } else { vec![0; 2] };
    let (mut gathered, mut gathered_v) = (at_root(2 * there), at_root(2 * there));
    let (mut mine_of_all, mut mine_of_blocks) = (vec![0; 2], vec![0; 2]);
    let [mut all, mut all_v, mut each, mut each_v] = [(); 4].map(|()| vec![0; 2 * there]);
    let (mut sum_at_root, mut sum, mut sums, mut sums_v) = ([0], [0], vec![0; there], vec![0; there]);
    let to_each: Vec<u64> = theirs.iter().map(|to| number(mine, *to)).flat_map(|each| [each; 2]).collect();
    let from_root = if is_root { &everything[..] } else { &[] };
    wait_all(&mut [
        inter.ibarrier()?,
        inter.ibcast(&mut vector, root)?,
        inter.igather(&numbers(mine, 2), &mut gathered, root)?,
        inter.igatherv(&numbers(mine, 2), &mut gathered_v, if is_root { &blocks } else { &[] }, root)?,
        inter.iscatter(from_root, &mut mine_of_all, root)?,
        inter.iscatterv(from_root, if is_root { &blocks } else { &[] }, &mut mine_of_blocks, root)?,
        inter.iallgather(&numbers(mine, 2), &mut all)?,
        inter.iallgatherv(&numbers(mine, 2), &mut all_v, &blocks)?,
        inter.ialltoall(&to_each, &mut each)?,
        inter.ialltoallv(&to_each, &blocks, &mut each_v, &blocks)?,
        inter.ireduce(&[1], &mut sum_at_root, SUM, root)?,
        inter.iallreduce(&[1], &mut sum, SUM)?,
        inter.ireduce_scatter_block(&vec![1; here * there], &mut sums, SUM)?,
        inter.ireduce_scatter(&vec![1; here * there], &mut sums_v, &vec![there; here], SUM)?,
    ])?;
    let got = if odd || is_root { numbers(50, 2) } else { vec![0; 2] };
    same(world, &vector, &got, "ibcast");
    let got = if is_root { &everything[..] } else { &[] };
    same(world, &gathered, got, "igather");
    same(world, &gathered_v, got, "igatherv");
    let got = if odd { numbers(mine, 2) } else { vec![0; 2] };
    same(world, &mine_of_all, &got, "iscatter");
    same(world, &mine_of_blocks, &got, "iscatterv");
    same(world, &all, &everything, "iallgather");
    same(world, &all_v, &everything, "iallgatherv");
    let got: Vec<u64> = theirs.iter().flat_map(|from| [number(*from, mine); 2]).collect();
    same(world, &each, &got, "ialltoall");
    same(world, &each_v, &got, "ialltoallv");
    same(world, &sum_at_root, &[if is_root { there } else { 0 }], "ireduce");
    same(world, &sum, &[there], "iallreduce");
    same(world, &sums, &vec![there; there], "ireduce_scatter_block");
    same(world, &sums_v, &vec![there; there], "ireduce_scatter");
    Ok(())
}

#[test]
fn between_two_groups_on_all_topologies() {
    for_each_topology(|name, make_vms| {
        let ran = river_core::try_run(|vr| {
            run_on(vr, &make_vms(vr, 5)?, between)?;
            Ok(run_on(vr, &make_vms(vr, 5)?, started_between)?)
        });
        assert_eq!(ran.expect(name), [(); 5]);
    });
}

#[test]
fn between_groups_of_several_sizes() {
    for ranks in [2, 3, 4, 7] {
        world(ranks, between);
        world(ranks, started_between);
    }
}

#[test]
fn there_is_no_scan_and_nothing_in_place_between_two_groups() {
    type Call = fn(&Communicator, Root) -> river_mpi::Result;
    let error = |call: Call| {
        let tried = try_world(2, |world| {
            let half = world.split(Some(world.rank()), 0)?.expect("every rank is in a half");
            let inter = half.create_intercomm(0, world, 1 - world.rank(), 0)?;
            Ok(call(&inter, if world.rank() == 0 { ROOT } else { 0.into() })?)
        });
        tried.unwrap_err().to_string()
    };
    assert!(error(|inter, _| inter.scan(&[1], &mut [0], &SUM)).contains("no scans between two groups"));
    let in_place: [Call; 9] = [
        |inter, _| inter.allreduce_in_place(&mut [0], &SUM),
        |inter, root| inter.reduce_in_place(&mut [1, 2], &SUM, root),
        |inter, root| inter.gather_in_place(&mut [1, 2], root),
        |inter, root| inter.gatherv_in_place(&mut [1, 2], &consecutive(&[2]), root),
        |inter, root| inter.scatter_in_place(&[1, 2], root),
        |inter, root| inter.scatterv_in_place(&[1, 2], &consecutive(&[2]), root),
        |inter, _| inter.allgather_in_place(&mut [1, 2]),
        |inter, _| inter.alltoall_in_place(&mut [1, 2]),
        |inter, _| inter.reduce_scatter_in_place(&mut [1, 2], &[2], &SUM),
    ];
    for (at, call) in in_place.into_iter().enumerate() {
        let error = error(call);
        assert!(error.contains("in place between two groups"), "call {at}: {error}");
    }
}
