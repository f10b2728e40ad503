//! Short operations between processes of one machine, again and again: after some messages they go through rings in shared
//! memory.

use std::thread;
use std::time::Duration;

use river_core::testing::for_each_topology;
use river_core::{VrError, try_run};
use river_mpi::{Communicator, ErrorClass, ErrorHandler, Launch, SUM, run_on};

use super::every::{all, all_v};
use super::{Result, number, numbers};

/// More than enough for each pair of ranks to have its ring.
const MANY: usize = 30;

#[test]
fn operations_that_are_called_again_and_again_stay_right() {
    for_each_topology(|name, make_vms| {
        let ran = try_run(|vr| {
            let vms = make_vms(vr, 3)?;
            let ranks = [0, 1, 2, 0].map(|vm: usize| vms[vm].clone());
            Ok(run_on(vr, &ranks, |world| {
                for turn in 0..MANY {
                    all(world, [0, 1, 7, 60][turn % 4])?;
                }
                // Short and long ones in turn, and those that not all ranks know to be short.
                for count in [1, 600, 2, 3000, 5] {
                    all(world, count)?;
                    all_v(world, count)?;
                }
                let half = world.split(Some(world.rank() % 2), 0)?;
                half.map_or(Ok(()), |half| (0..MANY).try_for_each(|turn| all(&half, turn % 9)))
            })?)
        });
        assert_eq!(ran.expect(name), [(); 4]);
    });
}

/// Many more bytes than any ring has room for.
fn ahead(world: &Communicator<'_>) -> Result {
    const COUNT: usize = 150;
    let bcasts = |range: std::ops::Range<usize>| {
        range.into_iter().try_for_each(|turn| {
            let mut data = if world.rank() == 0 { numbers(turn, COUNT) } else { vec![0; COUNT] };
            world.bcast(&mut data, 0)?;
            assert_eq!(data, numbers(turn, COUNT), "operation {turn}");
            Ok::<_, VrError>(())
        })
    };
    bcasts(0..MANY)?;
    world.barrier()?;
    // A root need not wait for the others, and does not do so here.
    if world.rank() == 0 {
        bcasts(MANY..2000)?;
        for rank in 1..world.size() {
            world.send(&[0_u8], rank, 0)?;
        }
    } else {
        world.recv::<u8>(0, 0)?;
        bcasts(MANY..2000)?;
    }
    bcasts(2000..2000 + MANY)
}

#[test]
fn a_root_that_is_far_ahead_loses_nothing() {
    for_each_topology(|name, make_vms| {
        let ran = try_run(|vr| Ok(run_on(vr, &make_vms(vr, 3)?, ahead)?));
        assert_eq!(ran.expect(name), [(); 3]);
    });
}

fn drowsy(world: &Communicator<'_>) -> Result {
    for turn in 0..2 * MANY {
        if turn % world.size() == world.rank() && turn >= MANY {
            // Longer than any rank polls before it sleeps: it is the pace of this rank.
            thread::sleep(Duration::from_millis(5));
        }
        let mut sum = [0];
        world.allreduce(&[number(world.rank(), turn)], &mut sum, &SUM)?;
        assert_eq!(sum[0], (0..world.size()).map(|rank| number(rank, turn)).sum::<u64>());
    }
    Ok(())
}

#[test]
fn who_sleeps_is_woken() {
    for_each_topology(|name, make_vms| {
        let ran = try_run(|vr| Ok(run_on(vr, &make_vms(vr, 3)?, drowsy)?));
        assert_eq!(ran.expect(name), [(); 3]);
    });
}

fn mistaken(world: &Communicator<'_>) -> Result<Vec<String>> {
    world.set_error_handler(ErrorHandler::Return);
    let mut errors = Vec::new();
    for turn in 0..MANY {
        world.bcast(&mut [turn], 0)?;
    }
    for (sent, expected) in [(2, 1), (600, 1), (30_000, 1), (1, 2), (1, 600), (1, 30_000)] {
        let mut data = vec![0_u64; if world.rank() == 0 { sent } else { expected }];
        if let Err(error) = world.bcast(&mut data, 0) {
            errors.push(error.to_string());
        }
        // So that no rank is ahead.
        world.barrier()?;
    }
    Ok(errors)
}

#[test]
fn who_expects_another_length_is_told() {
    for_each_topology(|name, make_vms| {
        let ran = try_run(|vr| Ok(run_on(vr, &make_vms(vr, 2)?, mistaken)?)).expect(name);
        assert_eq!(ran[0], [""; 0], "{name}");
        assert!(ran[1].iter().all(|error| error.contains("rank 0 of the job sent")), "{name}: {ran:?}");
        assert_eq!(ran[1].len(), 6, "{name}");
    });
}

/// Rank 1's process dies while the others wait for it.
fn bereft(world: &Communicator<'_>) -> Result<ErrorClass> {
    world.set_error_handler(ErrorHandler::Return);
    (0..MANY).try_for_each(|_| world.barrier())?;
    if world.rank() == 1 {
        std::process::abort();
    }
    Ok(world.barrier().unwrap_err().class())
}

#[test]
fn whoever_waits_for_a_process_that_has_died_is_told() {
    let ends = try_run(|vr| {
        let vms = vr.start_local(3)?;
        Ok(Launch::new(3).survive_failures().run_each(vr, &vms, bereft)?)
    });
    let ends = ends.unwrap();
    assert!(ends[1].is_err());
    for rank in [0, 2] {
        assert_eq!(*ends[rank].as_ref().unwrap(), ErrorClass::ProcFailed, "rank {rank}");
    }
}
