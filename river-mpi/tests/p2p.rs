//! Point-to-point communication, as programs use it.

use std::cell::RefCell;
use std::rc::Rc;

use river_mpi::testing::world;
use river_mpi::{
    ANY_SOURCE, ANY_TAG, Complex64, ErrorClass, ErrorHandler, Located, MpiError, PROC_NULL, test_all,
    test_some, wait_all, wait_any, wait_some,
};

/// Short messages, those at and beyond the eager limit, and those of several pieces.
const SIZES: [usize; 9] = [0, 1, 7, 4097, 8192, 8193, 70_000, 300_000, 1_000_001];

#[test]
fn a_ring_of_slices_of_every_size() {
    for size in SIZES {
        world(3, |world| {
            let (rank, p) = (world.rank(), world.size());
            let mine: Vec<f64> = (0..size).map(|i| (i * 10 + rank) as f64).collect();
            let mut theirs = vec![0.0; size];
            let left = (rank + p - 1) % p;
            let status = world.sendrecv(&mine, (rank + 1) % p, 5, &mut theirs, left, 5)?;
            assert_eq!(
                (status.source(), status.tag(), status.count::<f64>()),
                (Some(left), Some(5), Some(size))
            );
            assert!(theirs.iter().enumerate().all(|(i, &x)| x == (i * 10 + left) as f64));
            Ok(())
        });
    }
}

#[test]
fn blocking_sends_and_receives_of_every_mode() {
    for size in SIZES {
        world(2, |world| {
            let data: Vec<u32> = (0..size as u32).collect();
            if world.rank() == 0 {
                world.buffer_attach(size * 4)?;
                world.send(&data, 1, 1)?;
                world.ssend(&data, 1, 2)?;
                world.bsend(&data, 1, 3)?;
                world.recv::<u8>(1, 0)?;
                world.rsend(&data, 1, 4)?;
                world.isend(&data, 1, 5)?.wait()?;
                world.issend(&data, 1, 6)?.wait()?;
                world.isend_vec(data.clone(), 1, 7)?.wait()?;
                world.isend_from(&data, 1, 8)?.wait()?;
                assert_eq!(world.buffer_detach()?, size * 4);
            } else {
                let mut buffer = vec![0; size + 1];
                for tag in 1..4 {
                    world.recv_into(&mut buffer, 0, tag)?;
                    assert_eq!(buffer[..size], data);
                }
                let ready = world.irecv_into(&mut buffer, 0, 4)?;
                world.send(&[0_u8], 0, 0)?;
                ready.wait()?;
                for tag in 5..9 {
                    assert_eq!(world.recv::<u32>(0, tag)?.0, data);
                }
            }
            Ok(())
        });
    }
}

#[test]
fn a_rank_has_one_buffer_for_buffered_sends() {
    world(1, |world| {
        world.set_error_handler(ErrorHandler::Return);
        world.buffer_attach(100)?;
        assert_eq!(world.buffer_attach(200), Err(MpiError::BufferAttached(100)));
        assert_eq!(world.dup()?.buffer_attach(200).unwrap_err().class(), ErrorClass::Buffer);
        assert_eq!(world.buffer_detach()?, 100);
        world.buffer_attach(200)?;
        assert_eq!(world.buffer_detach()?, 200);
        Ok(())
    });
}

/// Whatever its length, and although its receive is not posted (MPI 1.3, section 3.7.3).
#[test]
fn a_buffered_send_is_complete_once_it_is_started() {
    for size in SIZES {
        world(2, |world| {
            let other = 1 - world.rank();
            world.buffer_attach(size + 1)?;
            let mut request = world.ibsend(&vec![1_u8; size], other, 0)?;
            assert!(request.test()?.is_some());
            request.wait()?;
            assert_eq!(world.recv::<u8>(other, 0)?.0, vec![1; size]);
            world.buffer_detach()?;
            Ok(())
        });
    }
}

#[test]
fn a_function_is_called_with_each_error() {
    world(1, |world| {
        let errors = Rc::new(RefCell::new(Vec::new()));
        let seen = errors.clone();
        world.set_error_handler(ErrorHandler::Call(Rc::new(move |error| {
            seen.borrow_mut().push(error.class());
        })));
        assert_eq!(world.send(&[1], 9, 0).unwrap_err().class(), ErrorClass::Rank);
        let dup = world.dup()?;
        assert_eq!(dup.send(&[1], 0, -1).unwrap_err().class(), ErrorClass::Tag);
        assert_eq!(*errors.borrow(), [ErrorClass::Rank, ErrorClass::Tag]);
        Ok(())
    });
}

#[test]
fn every_kind_of_element() {
    #[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
    #[repr(C)]
    struct Particle {
        position: [f32; 3],
        charge: i32,
    }
    fn echo<T: river_mpi::Element + PartialEq + std::fmt::Debug>(
        world: &river_mpi::Communicator<'_>,
        values: &[T],
        zero: T,
    ) -> river_mpi::Result {
        let mut copy = vec![zero; values.len()];
        world.sendrecv(values, world.rank(), 0, &mut copy, world.rank(), 0)?;
        assert_eq!(copy, values);
        Ok(())
    }
    world(1, |world| {
        echo(world, &[1_i8, -1], 0)?;
        echo(world, &[u64::MAX], 0)?;
        echo(world, &[1.5_f32], 0.0)?;
        echo(world, &[Complex64::new(1.0, -2.0)], Complex64::default())?;
        echo(world, &[true, false, true], false)?;
        echo(world, &['x', 'é'], '\0')?;
        echo(world, &[[1_u16, 2], [3, 4]], [0; 2])?;
        echo(world, &[Located { value: 2.5, index: 3 }], Located { value: 0.0, index: 0 })?;
        let particle = Particle { position: [1.0, 2.0, 3.0], charge: -1 };
        echo(world, &vec![particle; 30_000], bytemuck::Zeroable::zeroed())?;
        Ok(())
    });
}

#[test]
fn messages_do_not_overtake_and_wildcards_take_the_earliest() {
    world(2, |world| {
        if world.rank() == 0 {
            // A long message must not be overtaken by short messages sent after it.
            let long = world.isend_vec(vec![0_u32; 100_000], 1, 1)?;
            for i in 1..100_u32 {
                world.send(&[i], 1, 1)?;
                world.send(&[i], 1, 2)?;
            }
            long.wait()?;
        } else {
            assert_eq!(world.recv::<u32>(0, 2)?.0, [1]);
            assert_eq!(world.recv::<u32>(ANY_SOURCE, ANY_TAG)?.0.len(), 100_000);
            for i in 1..100_u32 {
                let (values, status) = world.recv::<u32>(ANY_SOURCE, 1)?;
                assert_eq!((values, status.source()), (vec![i], Some(0)));
                if i > 1 {
                    assert_eq!(world.recv::<u32>(0, ANY_TAG)?.0, [i]);
                }
            }
        }
        Ok(())
    });
}

#[test]
fn probes_see_what_a_receive_would_get() {
    world(2, |world| {
        if world.rank() == 0 {
            world.send(&[1_u8; 10], 1, 3)?;
            world.send(&vec![2_u8; 200_000], 1, 4)?;
        } else {
            let status = world.probe(ANY_SOURCE, 4)?;
            assert_eq!((status.source(), status.bytes()), (Some(0), 200_000));
            let status = world.iprobe(0, ANY_TAG)?.expect("it was sent before");
            assert_eq!((status.tag(), status.count::<u8>()), (Some(3), Some(10)));
            assert_eq!(world.iprobe(0, 5)?, None);
            assert_eq!(world.recv::<u8>(0, 4)?.0.len(), 200_000);
            assert_eq!(world.recv::<u8>(0, 3)?.0, [1; 10]);
        }
        Ok(())
    });
}

#[test]
fn nobody_is_a_peer_that_does_nothing() {
    world(1, |world| {
        world.send(&[1], PROC_NULL, 0)?;
        let mut buffer = [7];
        let status = world.recv_into(&mut buffer, PROC_NULL, 0)?;
        assert_eq!((status.source(), status.bytes(), buffer), (None, 0, [7]));
        let status = world.sendrecv(&[1], PROC_NULL, 0, &mut buffer, PROC_NULL, 0)?;
        assert_eq!(status.count::<i32>(), Some(0));
        world.irecv_into(&mut buffer, PROC_NULL, 0)?.wait()?;
        Ok(())
    });
}

#[test]
fn what_does_not_fit_is_an_error_and_the_next_message_is_not() {
    for (size, room) in [(3, 2), (100_000, 99_999), (100_000, 0)] {
        world(2, |world| {
            world.set_error_handler(ErrorHandler::Return);
            if world.rank() == 0 {
                world.send(&vec![1_i32; size], 1, 0)?;
                world.send(&[1_u8; 6], 1, 0)?;
                world.send(&[2_i32], 1, 0)?;
            } else {
                let mut buffer = vec![0_i32; room.max(2)];
                let error = world.recv_into(&mut buffer[..room], 0, 0).unwrap_err();
                assert_eq!(error.class(), ErrorClass::Truncate);
                assert!(
                    matches!(error, MpiError::Truncated { source_rank: 0, sent, .. } if sent == size * 4)
                );
                assert_eq!(world.recv_into(&mut buffer, 0, 0).unwrap_err().class(), ErrorClass::Type);
                assert_eq!(world.recv::<i32>(0, 0)?.0, [2]);
            }
            Ok(())
        });
    }
}

#[test]
fn arguments_that_make_no_sense() {
    world(2, |world| {
        world.set_error_handler(ErrorHandler::Return);
        let class = |error: MpiError| error.class();
        assert_eq!(world.send(&[1], 2, 0).map_err(class), Err(ErrorClass::Rank));
        assert_eq!(world.send(&[1], ANY_SOURCE, 0).map_err(class), Err(ErrorClass::Rank));
        assert_eq!(world.send(&[1], 0, -1).map_err(class), Err(ErrorClass::Tag));
        assert_eq!(world.recv::<u8>(9, 0).map_err(class), Err(ErrorClass::Rank));
        assert_eq!(world.bsend(&[1_u8], 0, 0).map_err(class), Err(ErrorClass::Buffer));
        Ok(())
    });
}

#[test]
fn requests_complete_in_any_order_and_borrow_their_buffers() {
    world(3, |world| {
        if world.rank() == 0 {
            let (mut a, mut b) = ([0_u8; 4], vec![0_u8; 100_000]);
            let mut requests = [
                world.irecv_into(&mut a, 1, 0)?,
                world.irecv_into(&mut b, 2, 0)?,
                world.irecv_into(&mut [0_u8; 0], PROC_NULL, 0)?,
            ];
            assert!(wait_any(&mut requests)?.is_some());
            wait_all(&mut requests)?;
            assert_eq!(wait_any(&mut requests)?, None);
            drop(requests);
            assert!(a == [1; 4] && b.iter().all(|&x| x == 2));
            let mut later = world.irecv::<u8>(1, 9)?;
            assert!(later.test()?.is_none());
            world.send(&[0_u8], 1, 1)?;
            assert_eq!(later.wait()?.0, [9]);
        } else {
            let n = if world.rank() == 1 { 4 } else { 100_000 };
            world.send(&vec![world.rank() as u8; n], 0, 0)?;
            if world.rank() == 1 {
                world.recv::<u8>(0, 1)?;
                world.send(&[9_u8], 0, 9)?;
            }
        }
        Ok(())
    });
}

/// Rank 0 receives from the others in the order in which it allows them to send.
#[test]
fn some_of_many_are_completed_each_once() {
    world(4, |world| {
        if world.rank() > 0 {
            for tag in [0, 1] {
                world.recv::<u8>(0, tag)?;
                world.send(&[world.rank() as u8], 0, tag)?;
                // When this message has arrived, so has the one sent before it.
                world.send(&[0_u8], 0, 10 + tag)?;
            }
            return Ok(());
        }
        for tag in [0, 1] {
            let mut memory = [[0_u8; 1]; 3];
            let mut requests = Vec::new();
            for (rank, buffer) in (1..).zip(&mut memory) {
                requests.push(world.irecv_into(buffer, rank, tag)?);
            }
            assert_eq!(test_some(&mut requests)?, []);
            for rank in [2, 3, 1] {
                world.send(&[0_u8], rank, tag)?;
                let some = match tag {
                    0 => wait_some(&mut requests)?,
                    _ => {
                        world.recv::<u8>(rank, 11)?;
                        test_some(&mut requests)?
                    }
                };
                let from: Vec<_> = some.iter().map(|(index, status)| (*index, status.source())).collect();
                assert_eq!(from, [(rank - 1, Some(rank))], "nobody else has sent");
            }
            assert_eq!(wait_some(&mut requests)?, [], "none is active");
            assert_eq!(test_some(&mut requests)?, []);
            drop(requests);
            assert_eq!(memory, [[1], [2], [3]]);
        }
        Ok(())
    });
}

#[test]
fn all_are_complete_or_none_is() {
    world(3, |world| {
        if world.rank() > 0 {
            world.recv::<u8>(0, 0)?;
            world.send(&[world.rank() as u8; 3], 0, 1)?;
            world.send(&[0_u8], 0, 2)?;
            return Ok(());
        }
        let (mut a, mut b) = ([0_u8; 3], [0_u8; 3]);
        let mut requests = [world.irecv_into(&mut a, 1, 1)?, world.irecv_into(&mut b, 2, 1)?];
        assert_eq!(test_all(&mut requests)?, None);
        world.send(&[0_u8], 1, 0)?;
        world.recv::<u8>(1, 2)?;
        assert_eq!(test_all(&mut requests)?, None);
        assert!(requests[0].is_active(), "it stays as it was, though its message has come");
        world.send(&[0_u8], 2, 0)?;
        world.recv::<u8>(2, 2)?;
        let sources = test_all(&mut requests)?.map(|all| all.iter().map(river_mpi::Status::source).collect());
        assert_eq!(sources, Some(vec![Some(1), Some(2)]));
        assert!(!requests[0].is_active() && !requests[1].is_active());
        drop(requests);
        assert_eq!((a, b), ([1; 3], [2; 3]));
        Ok(())
    });
}

/// Takes some seconds in a release build; run by `.ci/run`.
#[test]
#[ignore = "takes 4 GiB of memory"]
fn a_message_may_have_more_than_2_to_the_31_elements() {
    const COUNT: usize = (1 << 31) + 8;
    world(2, |world| {
        if world.rank() == 0 {
            let mut data = vec![7_u8; COUNT];
            (data[0], data[COUNT - 1]) = (1, 9);
            world.send(&data, 1, 0)?;
        } else {
            let mut data = vec![0_u8; COUNT];
            let status = world.recv_into(&mut data, 0, 0)?;
            assert_eq!(status.count::<u8>(), Some(COUNT));
            assert_eq!((data[0], data[1 << 31], data[COUNT - 1]), (1, 7, 9));
            assert!(data[1..COUNT - 1].iter().all(|&byte| byte == 7));
        }
        Ok(())
    });
}

#[test]
fn a_dropped_request_is_harmless() {
    world(2, |world| {
        let other = 1 - world.rank();
        drop(world.irecv::<u8>(other, 0)?);
        drop(world.isend_vec(vec![world.rank() as u8; 200_000], other, 0)?);
        let (data, _) = world.recv::<u8>(other, 0)?;
        assert!(data.len() == 200_000 && data[0] == other as u8);
        Ok(())
    });
}

#[test]
fn what_is_not_matched_yet_can_be_cancelled() {
    world(2, |world| {
        if world.rank() == 0 {
            for size in [1, 100_000] {
                let mut request = world.isend_vec(vec![1_u8; size], 1, 0)?;
                request.cancel()?;
                assert!(request.wait()?.is_cancelled());
                let mut request = world.issend(&vec![1_u8; size], 1, 1)?;
                world.recv::<u8>(1, 2)?;
                request.cancel()?;
                assert!(!request.wait()?.is_cancelled());
            }
            let mut never = world.irecv::<u8>(1, 77)?;
            never.cancel()?;
            assert!(never.wait()?.1.is_cancelled());
            world.send(&[0_u8; 0], 1, 3)?;
        } else {
            for size in [1, 100_000] {
                assert_eq!(world.recv::<u8>(0, 1)?.0.len(), size);
                world.send(&[1_u8], 0, 2)?;
            }
            world.recv::<u8>(0, 3)?;
            assert_eq!(world.iprobe(ANY_SOURCE, ANY_TAG)?, None);
        }
        Ok(())
    });
}

#[test]
fn what_is_sent_from_a_slice_arrives_though_its_request_is_dropped_or_waits_for_others() {
    for size in SIZES {
        world(2, |world| {
            let other = 1 - world.rank();
            let mut mine = vec![1_u32; size];
            drop(world.isend_from(&mine, other, 0)?);
            mine.fill(2);
            let sent = world.isend_from(&mine, other, 1)?;
            // The messages are received in reverse order, so the peer never waits for the one received first.
            let (second, first) = (world.recv::<u32>(other, 1)?.0, world.recv::<u32>(other, 0)?.0);
            assert!(first == vec![1; size] && second == vec![2; size]);
            sent.wait()?;
            mine.fill(3);
            let mut cancelled = world.isend_from(&mine, other, 2)?;
            cancelled.cancel()?;
            assert!(cancelled.wait()?.is_cancelled());
            world.barrier()?;
            assert_eq!(world.iprobe(other, 2)?, None);
            Ok(())
        });
    }
}

#[test]
fn a_buffer_belongs_to_its_owner_again_as_soon_as_its_send_is_complete() {
    const MESSAGES: usize = 150;
    const LEN: usize = 3000;
    world(2, |world| {
        let other = 1 - world.rank();
        let mut mine = vec![0_u32; MESSAGES * LEN];
        let mut theirs = vec![0_u32; MESSAGES * LEN];
        for round in 0..20 {
            for (part, number) in mine.chunks_mut(LEN).zip(round..) {
                part.fill(number);
            }
            theirs.fill(u32::MAX);
            // More slices than a rank can show to others at the same time, and a single send among them.
            let receives = theirs.chunks_mut(LEN).map(|part| world.irecv_into(part, other, 0));
            let mut requests = receives.collect::<river_mpi::Result<Vec<_>>>()?;
            for (part, number) in mine.chunks(LEN).zip(0..) {
                if number == MESSAGES / 2 && world.rank() == 0 {
                    world.send(part, other, 0)?;
                } else {
                    requests.push(world.isend_from(part, other, 0)?);
                }
            }
            wait_all(&mut requests)?;
            drop(requests);
            mine.fill(u32::MAX);
            for (part, number) in theirs.chunks(LEN).zip(round..) {
                assert!(part.iter().all(|&x| x == number));
            }
        }
        Ok(())
    });
}

#[test]
fn two_that_send_first_do_not_lock_up() {
    world(2, |world| {
        let other = 1 - world.rank();
        let mut data = vec![world.rank() as u64; 200_000];
        let sent = world.isend(&data, other, 0)?;
        world.recv_into(&mut data, other, 0)?;
        sent.wait()?;
        assert!(data.iter().all(|&x| x == other as u64));
        world.sendrecv_replace(&mut data, other, 0, other, ANY_TAG)?;
        assert!(data.iter().all(|&x| x == world.rank() as u64));
        Ok(())
    });
}

#[test]
fn an_error_does_not_lose_what_was_completed_before_it() {
    for waits in [true, false] {
        world(2, |world| {
            world.set_error_handler(ErrorHandler::Return);
            if world.rank() == 0 {
                let (mut a, mut b, mut c) = ([0_u8; 4], [0_u8; 2], [0_u8; 4]);
                let mut requests = vec![
                    world.irecv_into(&mut a, 1, 0)?,
                    world.irecv_into(&mut b, 1, 1)?,
                    world.irecv_into(&mut c, 1, 2)?,
                ];
                world.recv::<u8>(1, 3)?;
                let mut ask = || -> river_mpi::Result<Vec<usize>> {
                    let done = if waits { wait_some(&mut requests)? } else { test_some(&mut requests)? };
                    Ok(done.into_iter().map(|(index, _)| index).collect())
                };
                assert_eq!(ask(), Ok(vec![0]));
                assert!(matches!(ask(), Err(MpiError::Truncated { .. })));
                assert_eq!(ask(), Ok(vec![2]));
                assert_eq!(ask(), Ok(vec![]));
            } else {
                for tag in 0..4 {
                    world.send(&[1_u8; 4], 0, tag)?;
                }
            }
            Ok(())
        });
    }
}
