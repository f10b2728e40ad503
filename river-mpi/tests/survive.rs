//! Jobs after a failure: agreements, revoked communicators, and ranks that continue.

use std::time::Duration;

use river_core::testing::for_each_topology;
use river_core::{Result, VrError, try_run};
use river_mpi::testing::{surviving_world, world};
use river_mpi::{ANY_SOURCE, Communicator, ErrorClass, ErrorHandler, Launch, MpiError, SUM, op, run_on};

/// Two disjoint groups with the same context.
#[test]
fn groups_made_by_one_split_agree_apart() {
    for_each_topology(|name, make_vms| {
        let agree = |world: &Communicator<'_>| {
            let me = world.rank();
            let half = world.split(Some(me % 2), 0)?.ok_or(MpiError::Stopped)?;
            let mut agreed = Vec::new();
            for round in 0..10 {
                agreed.push(half.agree(0b1100 << (me % 2) | 1 << (round + 10))?);
            }
            assert_eq!(half.shrink()?.size(), 2);
            Ok((me, agreed))
        };
        let ends = try_run(|vr| {
            let vms = make_vms(vr, 4)?;
            Ok(Launch::new(4).survive_failures().run_each(vr, &vms, agree)?)
        });
        for end in ends.expect(name) {
            let (me, agreed) = end.expect(name);
            let expected: Vec<u64> = (0..10).map(|round| 0b1100 << (me % 2) | 1 << (round + 10)).collect();
            assert_eq!(agreed, expected, "{name}");
        }
    });
}

fn class<T>(result: river_mpi::Result<T>) -> Option<ErrorClass> {
    result.err().map(|error| error.class())
}

fn use_revoked(world: &Communicator<'_>) -> Result<Vec<Option<ErrorClass>>> {
    world.set_error_handler(ErrorHandler::Return);
    let other = world.dup()?;
    // Rank 0 revokes the communicator; all ranks wait until they know.
    if world.rank() == 0 {
        other.revoke();
    }
    while !other.is_revoked() {
        std::thread::yield_now();
    }
    world.barrier()?;
    let to = (world.rank() + 1) % world.size();
    let (mut sum, mut sums) = ([0], vec![0_u64; 50_000]);
    let used = vec![
        class(other.send(&[1_u8], to, 0)),
        class(other.send(&[1_u8; 100_000], to, 0)),
        class(other.isend(&[1_u8], to, 0)),
        class(other.isend_from(&[1_u8], to, 0)),
        class(other.send_value(&"value", to, 0)),
        class(other.recv::<u8>(to, 0)),
        class(other.barrier()),
        class(other.bcast(&mut sum, 0)),
        class(other.allreduce(&[1], &mut sum, &SUM)),
        class(other.allreduce_in_place(&mut sums, &SUM)),
        class(other.allgather_values(&1)),
        class(other.ibarrier()),
        class(other.dup()),
    ];
    world.barrier()?;
    Ok(used)
}

#[test]
fn nothing_can_be_done_on_a_revoked_communicator() {
    for_each_topology(|name, make_vms| {
        let ends = try_run(|vr| {
            let vms = make_vms(vr, 3)?;
            Ok(Launch::new(3).survive_failures().run_each(vr, &vms, use_revoked)?)
        });
        for end in ends.expect(name) {
            let used = end.expect(name);
            assert!(used.iter().all(|class| *class == Some(ErrorClass::Revoked)), "{name}: {used:?}");
        }
    });
}

/// The rank forgot to set an error handler.
#[test]
fn a_rank_that_goes_on_after_a_fatal_error_is_told_that_it_is_over() {
    let ends = surviving_world(3, |world| {
        if world.rank() == 1 {
            return Err(VrError::msg("it fails"));
        }
        if world.rank() == 0 {
            assert_eq!(class(world.recv::<u8>(1, 0)), Some(ErrorClass::ProcFailed));
            assert_eq!(class(world.agree(1)), Some(ErrorClass::Stopped));
            return Ok(0);
        }
        world.set_error_handler(ErrorHandler::Return);
        Ok(world.shrink()?.size())
    });
    let ends = ends.unwrap();
    assert_eq!(ends[2], Ok(1));
    assert!(ends[0].is_err() && ends[1].is_err(), "{ends:?}");
}

/// The ranks have offered each other data that will never be read.
fn leave_after_a_failure(world: &Communicator<'_>) -> Result<usize> {
    world.set_error_handler(ErrorHandler::Return);
    if world.rank() == 1 {
        return Err(VrError::msg("it fails"));
    }
    let mut sums = vec![1_u64; 1 << 17];
    assert_eq!(class(world.allreduce_in_place(&mut sums, &SUM)), Some(ErrorClass::ProcFailed));
    Ok(world.shrink()?.size())
}

#[test]
fn survivors_of_a_collective_operation_end_well() {
    for_each_topology(|name, make_vms| {
        let ends = try_run(|vr| {
            let vms = make_vms(vr, 4)?;
            Ok(Launch::new(4).survive_failures().run_each(vr, &vms, leave_after_a_failure)?)
        });
        let ends = ends.expect(name);
        assert!([0, 2, 3].iter().all(|&rank: &usize| ends[rank] == Ok(3)), "{name}: {ends:?}");
    });
}

#[test]
fn a_job_without_ranks_is_an_error() {
    let ran = try_run(|vr| Ok(run_on(vr, &[], |_| Ok(()))?));
    assert!(ran.unwrap_err().to_string().contains("at least one rank"));
}

#[test]
fn what_was_started_goes_on_after_an_operator_has_panicked() {
    world(2, |world| {
        let me = world.rank();
        let mut sum = [0];
        let broken = op::commutative(move |a: i32, b: i32| {
            assert!(me == 1, "this operator is broken");
            a + b
        });
        if me == 0 {
            let waits = || {
                let _sums = world.iallreduce(&[1], &mut sum, broken);
                world.recv::<u8>(1, 1)
            };
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(waits)).is_err());
        } else {
            world.iallreduce(&[1], &mut sum, broken)?.wait()?;
        }
        // This operation must make progress while its rank waits for something else.
        let barrier = world.ibarrier()?;
        if me == 0 {
            world.recv::<u8>(1, 0)?;
            barrier.wait()?;
        } else {
            barrier.wait()?;
            world.send(&[1_u8], 0, 0)?;
        }
        Ok(())
    });
}

/// Rank 1 fails long after the others began to wait for it, and ends some time later.
fn wait_for_one_that_fails_late(world: &Communicator<'_>) -> Result<Option<ErrorClass>> {
    if world.rank() == 1 {
        // Longer than the others wait before they report it. If the machine is so slow that they have not, this tests nothing.
        std::thread::sleep(Duration::from_millis(1500));
        let failed = world.send(&[1_u8], 99, 0);
        std::thread::sleep(Duration::from_millis(300));
        return Ok(failed.map(|()| None)?);
    }
    world.set_error_handler(ErrorHandler::Return);
    let class = class(world.recv::<u8>(1, 0));
    assert_eq!(world.shrink()?.size(), 2);
    Ok(class)
}

#[test]
fn who_waits_long_for_a_rank_that_then_fails_is_told_and_not_taken_for_a_deadlock() {
    for_each_topology(|name, make_vms| {
        let ends = try_run(|vr| {
            let vms = make_vms(vr, 3)?;
            Ok(Launch::new(3).survive_failures().run_each(vr, &vms, wait_for_one_that_fails_late)?)
        });
        let ends = ends.expect(name);
        assert!(ends[1].is_err(), "{name}");
        for rank in [0, 2] {
            assert_eq!(ends[rank].as_ref().ok(), Some(&Some(ErrorClass::ProcFailed)), "{name}: {ends:?}");
        }
    });
}

fn acknowledge(world: &Communicator<'_>) -> Result<Vec<u8>> {
    world.set_error_handler(ErrorHandler::Return);
    match world.rank() {
        0 => {
            assert_eq!(class(world.recv::<u8>(ANY_SOURCE, 0)), Some(ErrorClass::ProcFailed));
            assert_eq!(world.acknowledge_failures(), [1]);
            world.send(&[1_u8], 2, 0)?;
            Ok(world.recv::<u8>(ANY_SOURCE, 0)?.0)
        }
        1 => Err(VrError::msg("it fails")),
        _ => {
            let (data, _) = world.recv::<u8>(0, 0)?;
            world.send(&data, 0, 0)?;
            Ok(data)
        }
    }
}

#[test]
fn receives_from_any_source_ignore_failures_that_were_acknowledged() {
    for_each_topology(|name, make_vms| {
        let ends = try_run(|vr| {
            let vms = make_vms(vr, 3)?;
            Ok(Launch::new(3).survive_failures().run_each(vr, &vms, acknowledge)?)
        });
        let ends = ends.expect(name);
        assert!(ends[0] == Ok(vec![1]) && ends[1].is_err() && ends[2] == Ok(vec![1]), "{name}: {ends:?}");
    });
}

fn receive_on_revoked(world: &Communicator<'_>) -> Result<Vec<Option<ErrorClass>>> {
    world.set_error_handler(ErrorHandler::Return);
    let other = world.dup()?;
    let to = 1 - world.rank();
    for tag in 0..3 {
        other.send(&[1_u8], to, tag)?;
    }
    world.barrier()?;
    other.revoke();
    world.barrier()?;
    let received = vec![
        class(other.recv::<u8>(to, 0)),
        class(other.recv_into(&mut [0_u8], to, 1)),
        class(other.iprobe(to, 2)),
        class(other.probe(to, 2)),
    ];
    world.barrier()?;
    Ok(received)
}

#[test]
fn what_has_come_on_a_revoked_communicator_cannot_be_received() {
    for received in surviving_world(2, receive_on_revoked).unwrap() {
        let received = received.unwrap();
        assert!(received.iter().all(|class| *class == Some(ErrorClass::Revoked)), "{received:?}");
    }
}

/// Two groups of two ranks. None of them may wait forever in operations of both groups.
fn revoke_between_groups(world: &Communicator<'_>) -> Result<Vec<Option<ErrorClass>>> {
    world.set_error_handler(ErrorHandler::Return);
    let low = world.rank() < 2;
    let half = world.split(Some(usize::from(low)), 0)?.ok_or(MpiError::Stopped)?;
    let inter = half.create_intercomm(0, world, if low { 2 } else { 0 }, 0)?;
    let copy = inter.dup()?;
    // The others may still be making it.
    world.barrier()?;
    if world.rank() == 3 {
        inter.revoke();
    }
    while !inter.is_revoked() {
        std::thread::yield_now();
    }
    let failed = vec![class(inter.merge(low)), class(inter.dup()), class(inter.barrier())];
    // A duplicate is not affected, nor is the group's own communicator.
    assert_eq!(copy.merge(low)?.size(), 4);
    assert_eq!(half.dup()?.size(), 2);
    Ok(failed)
}

#[test]
fn all_ranks_of_both_groups_hear_of_a_revoked_intercommunicator() {
    for_each_topology(|name, make_vms| {
        let ends = try_run(|vr| {
            let vms = make_vms(vr, 4)?;
            Ok(Launch::new(4).survive_failures().run_each(vr, &vms, revoke_between_groups)?)
        });
        for end in ends.expect(name) {
            let failed = end.expect(name);
            assert!(failed.iter().all(|class| *class == Some(ErrorClass::Revoked)), "{name}: {failed:?}");
        }
    });
}

/// The leader of the second group is dead. The leader of the first group notices it, and tells its group.
fn merge_with_a_dead_leader(world: &Communicator<'_>) -> Result<Option<ErrorClass>> {
    world.set_error_handler(ErrorHandler::Return);
    let low = world.rank() < 2;
    let half = world.split(Some(usize::from(low)), 0)?.ok_or(MpiError::Stopped)?;
    let inter = half.create_intercomm(0, world, if low { 2 } else { 0 }, 0)?;
    if world.rank() == 2 {
        return Err(VrError::msg("the leader fails"));
    }
    if world.rank() == 3 {
        return Ok(None);
    }
    let class = class(inter.merge(low));
    half.barrier()?;
    Ok(class)
}

#[test]
fn the_death_of_a_leader_is_told_to_the_other_group() {
    let ends = surviving_world(4, merge_with_a_dead_leader).unwrap();
    for end in &ends[..2] {
        assert_eq!(end.as_ref().ok(), Some(&Some(ErrorClass::ProcFailed)), "{ends:?}");
    }
}
