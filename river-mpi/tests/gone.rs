//! Ranks whose peers are gone: a rank that polls is told so just like one that waits, and operations with other ranks go on.

use std::time::{Duration, Instant};

use river_core::testing::for_each_topology;
use river_core::{Channel, Selector, VrError, try_run};
use river_mpi::testing::{surviving_world, world};
use river_mpi::{
    ANY_SOURCE, Communicator, ErrorClass, ErrorHandler, Launch, MpiError, PROC_NULL, Request, Result, run_on,
    test_all, test_any, test_some,
};

/// Polls until there is an error.
fn poll_error<T>(mut ask: impl FnMut() -> Result<Option<T>>) -> MpiError {
    let start = Instant::now();
    loop {
        match ask() {
            Ok(Some(_)) => panic!("there is nothing that it could get"),
            Ok(None) => assert!(start.elapsed() < Duration::from_secs(60), "it is never told"),
            Err(error) => return error,
        }
        std::thread::yield_now();
    }
}

fn poll<T>(ask: impl FnMut() -> Result<Option<T>>) -> ErrorClass {
    poll_error(ask).class()
}

/// One way to poll, in a rank that has not been told of the death in any other way.
fn asks(world: &Communicator<'_>, way: usize) -> Result<ErrorClass> {
    let mut bytes = [0_u8];
    Ok(match way {
        0 => poll(|| world.iprobe(1, 0)),
        1 => {
            let mut request = world.irecv_into(&mut bytes, 1, 0)?;
            poll(|| request.test())
        }
        2 => {
            let mut receive = world.irecv::<u8>(1, 0)?;
            poll(|| receive.test())
        }
        3 => poll_some(world.irecv_into(&mut bytes, 1, 0)?, |requests| Ok(test_any(requests)?.map(drop))),
        4 => poll_some(world.irecv_into(&mut bytes, 1, 0)?, |requests| Ok(test_all(requests)?.map(drop))),
        5 => poll_some(world.irecv_into(&mut bytes, 1, 0)?, |requests| {
            Ok(test_some(requests)?.pop().map(drop))
        }),
        6 => {
            let mut receive = world.recv_init(vec![0_u8], 1, 0)?;
            receive.start()?;
            poll(|| receive.test())
        }
        7 => {
            let mut barrier = world.ibarrier()?;
            poll(|| barrier.test())
        }
        8 => poll_some(world.ibarrier()?, |requests| Ok(test_any(requests)?.map(drop))),
        _ => poll_some(world.ibarrier()?, |requests| Ok(test_all(requests)?.map(drop))),
    })
}

fn poll_some(request: Request<'_>, ask: impl Fn(&mut [Request<'_>]) -> Result<Option<()>>) -> ErrorClass {
    let mut requests = [request];
    poll(|| ask(&mut requests))
}

#[test]
fn who_asks_again_and_again_hears_that_the_other_is_gone() {
    for way in 1..10 {
        for fails in [true, false] {
            let ends = surviving_world(2, |world| {
                world.set_error_handler(ErrorHandler::Return);
                match world.rank() {
                    0 => Ok(asks(world, way)?),
                    _ if fails => Err(VrError::msg("it fails")),
                    _ => Ok(ErrorClass::Other),
                }
            });
            assert_eq!(ends.unwrap()[0], Ok(ErrorClass::ProcFailed), "way {way}, fails {fails}");
        }
    }
}

/// The program may get the notice of a death itself, by a receive of its own.
#[test]
fn who_waits_hears_of_a_death_that_the_program_was_told_of() {
    let ends = surviving_world(2, |world| {
        world.set_error_handler(ErrorHandler::Return);
        if world.rank() == 0 {
            let mut byte = [0_u8];
            let mut request = world.irecv_into(&mut byte, 1, 0)?;
            // From now on, this rank is notified of the other's end.
            assert!(request.test()?.is_none());
            world.send(&[0_u8], 1, 0)?;
            assert!(world.vr().receive(Selector::on(Channel::named("test.own"))).is_err());
            assert_eq!(request.wait().map_err(|error| error.class()), Err(ErrorClass::ProcFailed));
        } else {
            world.recv::<u8>(0, 0)?;
        }
        Ok(())
    });
    assert_eq!(ends.unwrap(), [Ok(()), Ok(())]);
}

#[test]
fn errors_say_what_was_waited_for() {
    for_each_topology(|_, make_vms| {
        let says = |world: &Communicator<'_>| {
            world.set_error_handler(ErrorHandler::Return);
            if world.rank() == 1 {
                return Err(VrError::msg("it fails"));
            }
            let mut barrier = world.ibarrier()?;
            let text = |error: MpiError| error.to_string();
            Ok(vec![
                text(poll_error(|| barrier.test())),
                text(world.probe(1, 3).unwrap_err()),
                text(world.send(&[0_u8; 100_000], 1, 4).unwrap_err()),
                // Within a process, a short message leaves even if the receiver is gone.
                world.send(&[0_u8], 1, 5).map_or_else(text, |()| String::new()),
            ])
        };
        let ends = try_run(|vr| {
            let vms = make_vms(vr, 2)?;
            Ok(Launch::new(2).survive_failures().run_each(vr, &vms, says)?)
        });
        let texts = ends.unwrap().swap_remove(0).unwrap();
        let expected = [
            "rank 1 in barrier on the world",
            "a message from rank 1 with tag 3 (the world)",
            "rank 1 to receive what was sent with tag 4 (the world)",
            "rank 1 to receive what was sent with tag 5 (the world)",
        ];
        let why = "rank 1 of the job ended with an error: it fails";
        for (text, what) in texts.iter().zip(expected).filter(|(text, _)| !text.is_empty()) {
            assert_eq!(*text, format!("waiting for {what}: {why}"));
        }
    });
}

/// That a rank has ended well only means that it has no message.
#[test]
fn who_looks_for_messages_hears_of_a_failure() {
    for_each_topology(|_, make_vms| {
        let looks = |world: &Communicator<'_>| {
            world.set_error_handler(ErrorHandler::Return);
            match world.rank() {
                0 => Ok(asks(world, 0)? as u32),
                1 => Err(VrError::msg("it fails")),
                _ => Ok(0),
            }
        };
        let ends = try_run(|vr| {
            let vms = make_vms(vr, 3)?;
            Ok(Launch::new(3).survive_failures().run_each(vr, &vms, looks)?)
        });
        assert_eq!(ends.unwrap()[0], Ok(ErrorClass::ProcFailed as u32));
    });
    world(2, |world| {
        if world.rank() == 0 {
            // The other rank is gone when its last message has arrived.
            world.recv::<u8>(1, 0)?;
            world.set_error_handler(ErrorHandler::Return);
            assert!(world.irecv::<u8>(1, 0)?.wait().is_err());
            assert_eq!(world.iprobe(1, 0)?, None);
        } else {
            world.send(&[1_u8], 0, 0)?;
        }
        Ok(())
    });
}

#[test]
fn what_is_there_comes_before_what_will_never_come() {
    surviving_world(3, |world| {
        world.set_error_handler(ErrorHandler::Return);
        match world.rank() {
            0 => {
                let (mut never, mut comes) = ([0_u8], [0_u8]);
                let mut requests =
                    vec![world.irecv_into(&mut never, 1, 0)?, world.irecv_into(&mut comes, 2, 0)?];
                world.recv::<u8>(2, 1)?;
                assert_eq!(test_any(&mut requests)?.map(|(index, _)| index), Some(1));
                assert_eq!(poll(|| test_any(&mut requests)), ErrorClass::ProcFailed);
            }
            1 => {}
            _ => {
                world.send(&[7_u8], 0, 0)?;
                world.send(&[8_u8], 0, 1)?;
            }
        }
        Ok(())
    })
    .unwrap()
    .into_iter()
    .for_each(|end| end.unwrap());
}

/// What a rank sends to one that is gone is lost; what it sends to others is not.
#[test]
fn what_was_sent_to_others_comes_though_one_receiver_is_gone() {
    const LONG: usize = 300_000;
    for buffered in [false, true] {
        let ends = surviving_world(3, |world| {
            world.set_error_handler(ErrorHandler::Return);
            match world.rank() {
                0 => {
                    if buffered {
                        world.buffer_attach(2 * LONG)?;
                    }
                    for dest in [1, 2] {
                        let data = vec![9_u8; LONG];
                        if buffered {
                            world.bsend(&data, dest, 0)?;
                        } else {
                            drop(world.isend_vec(data, dest, 0)?);
                        }
                    }
                    world.send(&[0_u8], 1, 1)?;
                    if buffered {
                        assert_eq!(world.buffer_detach().unwrap_err().class(), ErrorClass::ProcFailed);
                        assert_eq!(world.buffer_detach(), Ok(2 * LONG));
                    }
                }
                1 => drop(world.recv::<u8>(0, 1)?),
                _ => {
                    // Received only after rank 1 is known to be gone.
                    assert_eq!(
                        poll_some(world.irecv_into(&mut [0_u8], 1, 5)?, |requests| {
                            Ok(test_any(requests)?.map(drop))
                        }),
                        ErrorClass::ProcFailed
                    );
                    assert_eq!(world.recv::<u8>(0, 0)?.0, vec![9; LONG]);
                }
            }
            Ok(())
        });
        assert_eq!(ends.unwrap(), [Ok(()), Ok(()), Ok(())]);
    }
}

#[test]
fn a_receive_from_nobody_is_complete_once() {
    world(1, |world| {
        let mut receive = world.irecv::<u8>(PROC_NULL, 0)?;
        assert_eq!(receive.test()?.map(|(data, _)| data), Some(Vec::new()));
        assert!(receive.test()?.is_none());
        world.set_error_handler(ErrorHandler::Return);
        assert!(matches!(receive.wait(), Err(MpiError::Request(_))));
        Ok(())
    });
}

/// A communicator of two halves.
fn halves<'v>(world: &Communicator<'v>) -> river_core::Result<Communicator<'v>> {
    let low = world.rank() < world.size() / 2;
    let half = world.split(Some(usize::from(low)), 0)?.ok_or(MpiError::Stopped)?;
    Ok(half.create_intercomm(0, world, if low { world.size() / 2 } else { 0 }, 7)?)
}

#[test]
fn two_groups_are_revoked_together_and_agree() {
    let ends = surviving_world(4, |world| {
        let inter = halves(world)?;
        inter.set_error_handler(ErrorHandler::Return);
        assert_eq!(inter.agree(1 << world.rank() | 16)?, 16);
        if world.rank() == 0 {
            inter.revoke();
        } else {
            let error = inter.recv::<u8>(ANY_SOURCE, 0).unwrap_err();
            assert_eq!(error.class(), ErrorClass::Revoked);
        }
        Ok(inter.agree(if world.rank() == 3 { 1 } else { 3 })?)
    });
    assert_eq!(ends.unwrap(), [Ok(1), Ok(1), Ok(1), Ok(1)]);
}

/// What a failed job leaves behind in its processes does not affect the next one.
#[test]
fn a_job_runs_after_one_that_failed_half_way() {
    for_each_topology(|_, make_vms| {
        try_run(|vr| {
            // All ranks in one process.
            let vms = vec![make_vms(vr, 1)?.swap_remove(0); 3];
            for _ in 0..5 {
                let failing = run_on(vr, &vms, |world| {
                    if world.rank() == 1 {
                        return Err(VrError::msg("it fails before all have met"));
                    }
                    world.barrier()?;
                    Ok(())
                });
                assert!(failing.is_err());
                let job = run_on(vr, &vms, |world| {
                    let mut sum = [world.rank()];
                    world.barrier()?;
                    world.allreduce_in_place(&mut sum, &river_mpi::SUM)?;
                    Ok(sum[0])
                });
                assert_eq!(job?, [3, 3, 3]);
            }
            Ok(())
        })
        .unwrap();
    });
}
