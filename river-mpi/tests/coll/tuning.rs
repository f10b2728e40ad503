//! Every algorithm, chosen by name, and user-defined algorithms.

use river_core::testing::for_each_topology;
use river_mpi::coll::{
    Algorithm, Allgather, Allgatherv, Allreduce, Alltoall, Alltoallv, Barrier, Bcast, Exscan, Gather,
    Gatherv, NOTHING, Operation, Plan, Reduce, ReduceScatter, Scan, Scatter, Scatterv, Shape, Tuning, input,
    log2_ceil, output,
};
use river_mpi::testing::{try_world, world};
use river_mpi::{Communicator, run_on};

use super::every::{BLOCKS, EQUAL, SUMS};
use super::{Compose, Result};

/// The names of all algorithms, by operation.
fn names() -> Vec<(&'static str, &'static str)> {
    fn of<O: Operation>() -> Vec<(&'static str, &'static str)> {
        O::algorithms().iter().map(|algorithm| (O::NAME, algorithm.name())).collect()
    }
    [
        of::<Barrier>(),
        of::<Bcast>(),
        of::<Gather>(),
        of::<Gatherv>(),
        of::<Scatter>(),
        of::<Scatterv>(),
        of::<Allgather>(),
        of::<Allgatherv>(),
        of::<Alltoall>(),
        of::<Alltoallv>(),
        of::<Reduce>(),
        of::<Allreduce>(),
        of::<ReduceScatter>(),
        of::<Scan>(),
        of::<Exscan>(),
    ]
    .concat()
}

/// Algorithms that require a commutative operator, and so cannot run all tests.
const NEEDS_COMMUTATIVE: [(&str, &str); 3] =
    [("allreduce", "ring"), ("reduce_scatter", "ring"), ("reduce_scatter", "recursive_halving")];

/// Every algorithm carries out its operation with few elements, and with blocks of more than one piece.
fn with_every_algorithm(world: &Communicator) -> Result {
    for (operation, algorithm) in names() {
        let tuned = world.with_tuning(Tuning::default().with_named(operation, algorithm)?);
        let commutes = NEEDS_COMMUTATIVE.contains(&(operation, algorithm));
        let tests = if commutes { &SUMS[..] } else { &[&EQUAL[..], &BLOCKS].concat() };
        let (_, test) = tests.iter().find(|(name, _)| *name == operation).expect("it is tested");
        for count in [1, 3, 5000] {
            test(&tuned, count)?;
        }
    }
    Ok(())
}

#[test]
fn every_algorithm_on_all_topologies() {
    for_each_topology(|name, make_vms| {
        for ranks in [4, 8] {
            let ran = river_core::try_run(|vr| Ok(run_on(vr, &make_vms(vr, ranks)?, with_every_algorithm)?));
            assert_eq!(ran.expect(name), vec![(); ranks]);
        }
    });
}

/// A user-defined dissemination barrier.
#[derive(Debug)]
struct Mine;

impl Algorithm<Barrier> for Mine {
    fn name(&self) -> &str {
        "mine"
    }

    fn plan(&self, i: usize, shape: &Shape, plan: &mut Plan) {
        let p = shape.size();
        for k in 0..log2_ceil(p) {
            let dest = (i + (1 << k)) % p;
            let src = (i + p - (1 << k)) % p;
            plan.send(NOTHING, dest);
            plan.recv(NOTHING, src);
        }
    }
}

/// Copies one element too many.
#[derive(Debug)]
struct Greedy;

impl Algorithm<Allreduce> for Greedy {
    fn name(&self) -> &str {
        "greedy"
    }

    fn plan(&self, _: usize, shape: &Shape, plan: &mut Plan) {
        plan.copy(input(0..shape.count() + 1), output(0..shape.count() + 1));
    }
}

#[test]
fn an_algorithm_of_the_users_own_replaces_one_and_is_inherited() {
    world(5, |world| {
        let tuned = world.with_tuning(Tuning::default().barrier(Mine));
        assert_eq!(tuned.tuning().to_string(), "barrier=mine");
        tuned.barrier()?;
        world.barrier()?;
        let copy = tuned.dup()?;
        assert_eq!(copy.tuning().to_string(), "barrier=mine");
        copy.barrier()?;
        assert_eq!(world.tuning().to_string(), "");
        Ok(())
    });
}

#[test]
fn what_an_algorithm_cannot_do_is_an_error_that_says_why() {
    let error = try_world(3, |world| {
        let tuned = world.with_tuning(Tuning::default().with_named("allreduce", "ring")?);
        let mut sums = [[0; 2]; 4];
        Ok(tuned.allreduce(&[[1; 2]; 4], &mut sums, &Compose)?)
    });
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("`ring`, which was chosen for allreduce, needs an operator that commutes"),
        "{text}"
    );

    let error = try_world(2, |world| {
        let tuned = world.with_tuning(Tuning::default().allreduce(Greedy));
        Ok(tuned.allreduce_in_place(&mut [1; 4], &river_mpi::SUM)?)
    });
    let text = error.unwrap_err().to_string();
    assert!(text.contains("`greedy`") && text.contains("reaches beyond a buffer"), "{text}");
}

/// Set in the child process, whose environment chooses the algorithm.
const CHILD: &str = "RIVER_TEST_CHILD";

/// Runs this test in a child process with this choice; returns its output, and whether it succeeded.
fn with_choice(test: &str, algorithm: &str) -> (bool, String) {
    let output = std::process::Command::new(std::env::current_exe().expect("this is a process"))
        .args([test, "--exact", "--nocapture"])
        .env("RIVER_MPI_ALLREDUCE", algorithm)
        .env(CHILD, "1")
        .output()
        .expect("it can be started again");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn the_environment_chooses_for_all_ranks() {
    if std::env::var_os(CHILD).is_some() {
        let chosen = river_mpi::Launch::new(3).per_vm(1).try_run(|world| Ok(world.tuning().to_string()));
        println!("chosen: {:?}", chosen.map_err(|error| error.to_string()));
        return;
    }
    let test = "tuning::the_environment_chooses_for_all_ranks";
    let (ended_well, text) = with_choice(test, "ring");
    let expected = ["allreduce=ring"; 3];
    assert!(ended_well && text.contains(&format!("chosen: Ok({expected:?})")), "{text}");
    let (_, text) = with_choice(test, "rings");
    assert!(
        text.contains("allreduce has no algorithm `rings` (RIVER_MPI_ALLREDUCE), but recursive_doubling"),
        "{text}"
    );
}

/// The reduction within a group, which precedes the exchange between groups, uses the algorithm of the tuning.
#[test]
fn operations_between_groups_follow_the_tuning() {
    let error = |tune: fn(Tuning) -> river_mpi::Result<Tuning>| {
        let tried = try_world(4, move |world| {
            let odd = world.rank() % 2;
            let half = world.split(Some(odd), 0)?.expect("every rank is in a half");
            let inter = half.create_intercomm(0, world, 1 - odd, 17)?;
            let tuned = inter.with_tuning(tune(inter.tuning().clone())?);
            let mut sum = [0];
            tuned.allreduce(&[world.rank()], &mut sum, &river_mpi::SUM)?;
            assert_eq!(sum, [4 - 2 * odd]);
            Ok(())
        });
        tried.err().map(|error| error.to_string())
    };
    assert_eq!(error(|tuning| tuning.with_named("bcast", "chain")?.with_named("reduce", "linear")), None);
    let text = "the algorithm `nobody`, which was chosen for reduce, needs a miracle";
    let error = error(|tuning| Ok(tuning.reduce(Nobody))).unwrap_or_default();
    assert!(error.contains(text), "{error}");
}

/// Supports no shape.
#[derive(Debug)]
struct Nobody;

impl<O: Operation> Algorithm<O> for Nobody {
    fn name(&self) -> &str {
        "nobody"
    }

    fn supports(&self, _: &Shape) -> std::result::Result<(), &'static str> {
        Err("a miracle")
    }

    fn plan(&self, _: usize, _: &Shape, _: &mut Plan) {}
}
