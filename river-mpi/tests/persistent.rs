//! Persistent operations: started repeatedly, alone and as requests.

use river_mpi::testing::world;
use river_mpi::{
    Datatype, ErrorClass, ErrorHandler, PROC_NULL, Persistent, Request, start_all, test_any, test_some,
    wait_all, wait_any, wait_some,
};

#[test]
fn persistent_operations_are_started_again_and_again() {
    for size in [3, 100_000] {
        world(2, |world| {
            let other = 1 - world.rank();
            let mut send = world.send_init(vec![0_u32; size], other, 0)?;
            let mut sync = world.ssend_init(vec![7_u32; size], other, 1)?;
            let mut recv = world.recv_init(vec![0_u32; size], other, 0)?;
            let mut recv_sync = world.recv_init(vec![0_u32; size], other, 1)?;
            // It was not started, so there is nothing to wait for.
            assert_eq!(recv.wait()?.bytes(), 0);
            for round in 0..5 {
                send.buffer_mut()?.fill(round);
                start_all([&mut recv, &mut recv_sync, &mut send, &mut sync])?;
                assert_eq!(recv.wait()?.count::<u32>(), Some(size));
                recv_sync.wait()?;
                send.wait()?;
                sync.wait()?;
                assert!(recv.buffer()?.iter().all(|&x| x == round));
                assert!(recv_sync.buffer()?.iter().all(|&x| x == 7));
            }
            world.set_error_handler(ErrorHandler::Return);
            recv.start()?;
            assert_eq!(recv.start().unwrap_err().class(), ErrorClass::Request);
            assert_eq!(recv.buffer().unwrap_err().class(), ErrorClass::Request);
            send.start()?;
            recv.wait()?;
            send.wait()?;
            Ok(())
        });
    }
}

/// Persistent operations can be completed together, by the functions for requests.
#[test]
fn persistent_operations_are_requests() {
    world(2, |world| {
        let other = 1 - world.rank();
        for length in [10, 100_000] {
            let mut halos =
                [world.recv_init(vec![0; length], other, 0)?, world.recv_init(vec![0; length], other, 1)?];
            let mut edges =
                [world.send_init(vec![0; length], other, 0)?, world.ssend_init(vec![0; length], other, 1)?];
            for step in 1..4 {
                for edge in &mut edges {
                    edge.buffer_mut()?.fill(step);
                }
                start_all(halos.iter_mut().chain(&mut edges))?;
                let mut requests: Vec<_> =
                    halos.iter_mut().chain(&mut edges).map(|each| each.request()).collect();
                let statuses = wait_all(&mut requests)?;
                drop(requests);
                assert_eq!((statuses[0].tag(), statuses[1].tag()), (Some(0), Some(1)));
                assert!(halos.iter().all(|halo| halo.buffer().is_ok_and(|got| got[length - 1] == step)));
            }
            // A receive that is not matched is cancelled, and can be started again.
            halos[0].start()?;
            halos[0].cancel()?;
            assert!(halos[0].wait()?.is_cancelled());
            world.barrier()?;
            halos[0].start()?;
            edges[0].start()?;
            edges[0].wait()?;
            assert_eq!(halos[0].wait()?.count::<i32>(), Some(length));
            // It was not started.
            assert_eq!(halos[0].request().test()?.map(|status| status.bytes()), Some(0));
            world.barrier()?;
        }
        Ok(())
    });
}

/// The four functions that complete some of several requests report each request once, even if it was complete from the
/// start.
#[test]
fn what_is_done_when_it_is_started_is_reported_once() {
    world(2, |world| {
        let other = 1 - world.rank();
        let mut short: Vec<Persistent<'_, u8>> =
            vec![world.send_init(vec![1], other, 0)?, world.send_init(vec![2], PROC_NULL, 0)?];
        let some = |requests: &mut [Request<'_>]| match wait_any(requests)? {
            Some(done) => Ok(vec![done]),
            None => Ok(vec![]),
        };
        let any = |requests: &mut [Request<'_>]| Ok(test_any(requests)?.into_iter().collect());
        type Ask<'a> = &'a dyn Fn(&mut [Request<'_>]) -> river_mpi::Result<Vec<(usize, river_mpi::Status)>>;
        let ways: [Ask<'_>; 4] =
            [&some, &any, &|requests| wait_some(requests), &|requests| test_some(requests)];
        for ask in ways {
            start_all(&mut short)?;
            let mut requests: Vec<_> = short.iter_mut().map(Persistent::request).collect();
            let mut reported = [0; 2];
            loop {
                let done = ask(&mut requests)?;
                if done.is_empty() {
                    break;
                }
                done.iter().for_each(|&(index, _)| reported[index] += 1);
            }
            assert_eq!(reported, [1, 1]);
            assert_eq!(world.recv::<u8>(other, 0)?.0, [1]);
            // The same holds for other requests.
            let mut nothing = [0_u8];
            let mut started =
                [world.isend(&[1_u8], PROC_NULL, 0)?, world.irecv_into(&mut nothing, PROC_NULL, 0)?];
            let mut left = started.len();
            while left > 0 {
                let done = ask(&mut started)?;
                assert!(!done.is_empty(), "{left} are left, and none is reported");
                left -= done.len();
            }
        }
        Ok(())
    });
}

/// A request that is dropped returns its operation.
#[test]
fn what_is_asked_for_by_requests_that_are_dropped_goes_on() {
    for length in [3, 100_000] {
        world(2, |world| {
            let other = 1 - world.rank();
            let mut halos =
                [world.recv_init(vec![0_u8; length], other, 0)?, world.recv_init(vec![0; length], other, 1)?];
            let mut edges =
                [world.send_init(vec![0_u8; length], other, 0)?, world.send_init(vec![0; length], other, 1)?];
            for step in 1..4 {
                edges.iter_mut().try_for_each(|edge| edge.buffer_mut().map(|buffer| buffer.fill(step)))?;
                start_all(&mut halos)?;
                assert!(halos[0].request().test()?.is_none(), "nothing was sent yet");
                world.barrier()?;
                start_all(&mut edges)?;
                let mut left = 4;
                while left > 0 {
                    let every = halos.iter_mut().chain(&mut edges);
                    left -= wait_some(&mut every.map(Persistent::request).collect::<Vec<_>>())?.len();
                }
                for halo in &halos {
                    assert!(halo.buffer()?.iter().all(|&byte| byte == step));
                }
            }
            halos[1].start()?;
            edges[1].start()?;
            while halos[1].request().test()?.is_none() {}
            while edges[1].request().test()?.is_none() {}
            Ok(())
        });
    }
}

#[test]
fn buffered_and_ready_sends_are_started_again() {
    for length in [3, 100_000] {
        world(2, |world| {
            let other = 1 - world.rank();
            let mut buffered = world.bsend_init(vec![0_u8; length], other, 0)?;
            let mut ready = world.rsend_init(vec![0_u8; length], other, 1)?;
            let mut halos =
                [world.recv_init(vec![0_u8; length], other, 0)?, world.recv_init(vec![0; length], other, 1)?];
            world.set_error_handler(ErrorHandler::Return);
            assert_eq!(buffered.start().unwrap_err().class(), ErrorClass::Buffer, "there is no buffer");
            world.buffer_attach(length)?;
            for step in 1..4 {
                buffered.buffer_mut()?.fill(step);
                ready.buffer_mut()?.fill(step + 10);
                // It does not wait for the receive, which is not posted yet.
                buffered.start()?;
                buffered.wait()?;
                start_all(&mut halos)?;
                world.barrier()?;
                ready.start()?;
                ready.wait()?;
                for (halo, expected) in halos.iter_mut().zip([step, step + 10]) {
                    assert_eq!(halo.wait()?.bytes(), length);
                    assert!(halo.buffer()?.iter().all(|&byte| byte == expected));
                }
                assert_eq!(world.buffer_detach()?, length);
                world.buffer_attach(length)?;
            }
            Ok(())
        });
    }
}

/// The buffers of persistent operations contain packed columns.
#[test]
fn columns_are_exchanged_again_and_again() {
    const ROWS: usize = 50;
    world(3, |world| {
        let (me, p) = (world.rank(), world.size());
        let (left, right) = ((me + p - 1) % p, (me + 1) % p);
        // Two columns of this rank, between columns of its neighbours.
        let column = Datatype::of::<f64>().vector(ROWS, 1, 4).commit();
        let packed = || vec![0_u8; column.pack_size(1)];
        let mut halos = [world.recv_init(packed(), left, 0)?, world.recv_init(packed(), right, 1)?];
        let mut edges = [world.send_init(packed(), right, 0)?, world.send_init(packed(), left, 1)?];
        let mut block = vec![0.0; ROWS * 4];
        let value = |rank: usize, step: usize, row: usize| (rank * 1000 + step * 100 + row) as f64;
        for step in 0..3 {
            for row in 0..ROWS {
                block[row * 4 + 1] = value(me, step, row);
                block[row * 4 + 2] = -value(me, step, row);
            }
            for (edge, at) in edges.iter_mut().zip([2, 1]) {
                let buffer = edge.buffer_mut()?;
                buffer.clear();
                column.pack_onto(&block[at..], 1, buffer)?;
            }
            start_all(halos.iter_mut().chain(&mut edges))?;
            wait_all(&mut halos.iter_mut().chain(&mut edges).map(Persistent::request).collect::<Vec<_>>())?;
            for (halo, at) in halos.iter().zip([0, 3]) {
                column.unpack(halo.buffer()?, &mut block[at..], 1)?;
            }
            for row in 0..ROWS {
                assert_eq!(block[row * 4], -value(left, step, row));
                assert_eq!(block[row * 4 + 3], value(right, step, row));
            }
        }
        Ok(())
    });
}

/// A short message is sent when it is started, and can be withdrawn until it is received.
#[test]
fn a_short_send_is_cancelled() {
    world(2, |world| {
        if world.rank() == 0 {
            let mut send = world.send_init(vec![7_u8], 1, 0)?;
            send.start()?;
            send.cancel()?;
            assert!(send.wait()?.is_cancelled());
            send.start()?;
            assert!(!send.wait()?.is_cancelled());
            world.barrier()?;
        } else {
            world.barrier()?;
            assert_eq!(world.recv::<u8>(0, 0)?.0, [7]);
            assert!(world.iprobe(0, 0)?.is_none());
        }
        Ok(())
    });
}
