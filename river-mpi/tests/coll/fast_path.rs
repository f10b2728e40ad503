//! Ranks that are threads of one process read each other's memory; that must change no result and no report.

use river_core::testing::for_each_topology;
use river_mpi::testing::{surviving_world, try_world, world};
use river_mpi::{Communicator, ErrorClass, ErrorHandler, SUM, op, run_on, wait_any};

use super::every::{all, all_v};
use super::{Result, same};

/// Long enough to be lent, and to be sent by rendezvous as a message.
const LONG: usize = 40_000;

#[test]
fn some_ranks_share_a_process_and_others_do_not() {
    for_each_topology(|name, make_vms| {
        let ran = river_core::try_run(|vr| {
            let vms = make_vms(vr, 2)?;
            let ranks = [0, 0, 1, 1, 0].map(|vm: usize| vms[vm.min(vms.len() - 1)].clone());
            Ok(run_on(vr, &ranks, |world| {
                for count in [0, 1, 7, 600, 3000] {
                    all(world, count)?;
                }
                all_v(world, 700)
            })?)
        });
        assert_eq!(ran.expect(name), [(); 5]);
    });
}

/// MPI's progress rule: a rank that waits in a collective operation receives what was posted before.
#[test]
fn messages_come_in_while_a_rank_waits_for_the_others() {
    world(2, |world| {
        for _ in 0..20 {
            if world.rank() == 0 {
                let mut long = vec![0; LONG];
                let receive = world.irecv_into(&mut long, 1, 0)?;
                world.barrier()?;
                receive.wait()?;
                assert_eq!(long, vec![7; LONG]);
            } else {
                // Returns once rank 0 has received it, which happens in the barrier.
                world.send(&vec![7; LONG], 0, 0)?;
                world.barrier()?;
            }
        }
        Ok(())
    });
}

#[test]
fn started_operations_go_on_while_a_rank_waits_for_the_others() {
    world(3, |world| {
        let mut sum = [0];
        let request = world.iallreduce(&[world.rank()], &mut sum, SUM)?;
        world.barrier()?;
        let mut all = [0; 3];
        world.allgather(&[world.rank()], &mut all)?;
        request.wait()?;
        assert_eq!((sum, all), ([3], [0, 1, 2]));
        Ok(())
    });
}

#[test]
fn a_deadlock_of_operations_and_messages_is_found() {
    let error = try_world(3, |world| {
        if world.rank() == 1 {
            world.recv::<u8>(0, 5)?;
        }
        Ok(world.barrier()?)
    });
    let text = error.expect_err("all wait").to_string();
    assert!(text.contains("deadlock: every rank waits"), "{text}");
    assert!(text.contains("rank 1 waits for a message from rank 0 with tag 5 (the world)"), "{text}");
    assert!(text.contains("rank 0 waits for rank 1 in barrier on the world"), "{text}");
}

/// Started operations advance in the background of the operation that their rank waits for.
#[test]
fn a_deadlock_names_the_operation_that_a_rank_is_in_and_not_what_it_has_started() {
    let error = try_world(2, |world| {
        if world.rank() == 1 {
            world.recv::<u8>(0, 7)?;
            return Ok(());
        }
        let started = world.ibarrier()?;
        world.allgather_values(&0_u8)?;
        started.wait()?;
        Ok(())
    });
    let text = error.expect_err("both wait").to_string();
    assert!(text.contains("rank 0 waits for rank 1 in allgather on the world"), "{text}");
    let error = try_world(2, |world| {
        if world.rank() == 1 {
            world.recv::<u8>(0, 7)?;
            return Ok(());
        }
        let mut byte = [0_u8];
        wait_any(&mut [world.irecv_into(&mut byte, 1, 3)?, world.ibarrier()?])?;
        Ok(())
    });
    let text = error.expect_err("both wait").to_string();
    let all =
        "rank 0 waits for a message from rank 1 with tag 3 (the world), or rank 1 in barrier on the world";
    assert!(text.contains(all), "{text}");
}

#[test]
fn memory_can_be_used_again_as_soon_as_an_operation_returns() {
    world(4, |world| {
        let me = world.rank();
        for round in 0..200_u64 {
            // The root returns early; what it then does with its buffer must not matter.
            let mut vector = vec![if me == 0 { round } else { 0 }; LONG / 8];
            world.bcast(&mut vector, 0)?;
            same(world, &vector, &vec![round; LONG / 8], "bcast");
            vector.fill(u64::MAX);
            let mut mine = vec![0; 800];
            let blocks: Vec<u64> = (0..3200).map(|at| round + at / 800).collect();
            world.scatter(if me == 1 { &blocks } else { &[] }, &mut mine, 1)?;
            drop(blocks);
            same(world, &mine, &vec![round + me as u64; 800], "scatter");
        }
        Ok(())
    });
}

/// Vectors that all ranks read from and write to at the same time.
#[test]
fn long_vectors_in_place_by_every_algorithm() {
    world(4, |world| {
        for algorithm in ["recursive_doubling", "ring", "rabenseifner", "reduce_bcast", "direct", "two_level"]
        {
            let tuned =
                world.with_tuning(river_mpi::coll::Tuning::default().with_named("allreduce", algorithm)?);
            for round in 0..10 {
                let mut vector: Vec<u64> = (0..LONG as u64).map(|at| at + round).collect();
                tuned.allreduce_in_place(&mut vector, &SUM)?;
                let expected: Vec<u64> = (0..LONG as u64).map(|at| 4 * (at + round)).collect();
                same(world, &vector, &expected, algorithm);
            }
        }
        Ok(())
    });
}

#[test]
fn a_panic_while_memory_is_lent_ends_the_job_with_its_text() {
    fn broken(world: &Communicator) -> Result {
        let operator = op::commutative(|a: f64, b: f64| {
            assert!(a + b < 3.0, "this operator does not count to three");
            a + b
        });
        let mut sums = vec![1.0; LONG];
        world.allreduce_in_place(&mut sums, &operator)?;
        Ok(())
    }
    for_each_topology(|name, make_vms| {
        let ran = river_core::try_run(|vr| Ok(run_on(vr, &make_vms(vr, 4)?, broken)?));
        let text = ran.expect_err(name).to_string();
        assert!(text.contains("does not count to three"), "{name}: {text}");
    });
}

#[test]
fn survivors_of_a_rank_go_on_without_it() {
    let ended = surviving_world(4, |world| {
        world.set_error_handler(ErrorHandler::Return);
        let mut sums = vec![1_u64; LONG];
        world.allreduce_in_place(&mut sums, &SUM)?;
        if world.rank() == 1 {
            return Err(river_core::VrError::msg("rank 1 has had enough"));
        }
        // Some ranks may be done before others notice the failure.
        if let Err(error) = world.allreduce_in_place(&mut sums, &SUM) {
            assert!(matches!(error.class(), ErrorClass::ProcFailed | ErrorClass::Revoked), "{error}");
        }
        world.revoke();
        let rest = world.shrink()?;
        let mut sums = vec![1_u64; LONG];
        rest.allreduce_in_place(&mut sums, &SUM)?;
        rest.barrier()?;
        Ok(sums == vec![3; LONG])
    });
    let ended = ended.expect("the others go on");
    assert_eq!(ended.iter().filter(|result| matches!(result, Ok(true))).count(), 3, "{ended:?}");
}
