//! Jobs as programs start them, on every topology: what they return, how they fail, and how they hang.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use river_core::testing::for_each_topology;
use river_core::{VrError, try_run};
use river_mpi::testing::{surviving_world, try_world};
use river_mpi::{
    ANY_SOURCE, ANY_TAG, Communicator, ErrorClass, ErrorHandler, Launch, MpiError, SUM, run_on, wait_all,
    wait_any,
};

/// A ring through all ranks, by eager and by rendezvous messages.
fn ring(world: &Communicator<'_>) -> river_core::Result<usize> {
    let (rank, p) = (world.rank(), world.size());
    for size in [1, 1000, 200_000] {
        let mut theirs = vec![0_u64; size];
        world.sendrecv(&vec![rank as u64; size], (rank + 1) % p, 0, &mut theirs, ANY_SOURCE, ANY_TAG)?;
        assert!(theirs.iter().all(|&x| x == ((rank + p - 1) % p) as u64));
    }
    let half = world.split(Some(rank % 2), 0)?.ok_or(MpiError::Stopped)?;
    Ok(10 * half.size() + rank)
}

#[test]
fn ranks_run_on_every_topology() {
    for_each_topology(|_, make_vms| {
        let results = try_run(|vr| {
            let vms = make_vms(vr, 3)?;
            let first = run_on(vr, &vms, ring)?;
            // One job after the other, in one program.
            let second = run_on(vr, &vms, |world| Ok(world.shares_machine_with(0)?))?;
            assert_eq!(second, [true; 3]);
            Ok(first)
        });
        assert_eq!(results.unwrap(), [20, 11, 22]);
    });
}

/// Messages of all sizes around the limits of a record of a ring, of a piece and of the eager protocol: expected and
/// unexpected, received in order and in another order, one by one and together.
fn every_way_in(world: &Communicator<'_>) -> river_core::Result {
    const SIZES: [usize; 14] =
        [0, 1, 16, 17, 1000, 16_384, 32_000, 32_808, 32_809, 40_000, 65_536, 100_000, 131_072, 1_000_003];
    let other = 1 - world.rank();
    let data = |from: usize, number: usize| -> Vec<u8> {
        (0..SIZES[number]).map(|i| (i * (number + 3) + from) as u8).collect()
    };
    let tag = |number: usize| i32::try_from(number).unwrap_or(0);
    for reversed in [false, true] {
        // Posted before the messages are sent, as the other rank sends them after its barrier.
        let mut memory: Vec<Vec<u8>> = SIZES.iter().map(|&size| vec![0; size]).collect();
        let mut requests = Vec::new();
        for (number, buffer) in memory.iter_mut().enumerate() {
            requests.push(world.irecv_into(buffer, other, tag(number))?);
        }
        world.barrier()?;
        let order: Vec<usize> =
            if reversed { (0..SIZES.len()).rev().collect() } else { (0..SIZES.len()).collect() };
        for &number in &order {
            requests.push(world.isend(&data(world.rank(), number), other, tag(number))?);
        }
        let statuses = wait_all(&mut requests)?;
        drop(requests);
        for number in 0..SIZES.len() {
            assert_eq!(statuses[number].bytes(), SIZES[number]);
            assert!(memory[number] == data(other, number), "message {number}");
        }
        // Unexpected messages; of the long ones, no more than the offer has arrived.
        let sent = order.iter().map(|&number| world.isend(&data(world.rank(), number), other, tag(number)));
        let mut sent = sent.collect::<Result<Vec<_>, _>>()?;
        world.barrier()?;
        for (number, buffer) in memory.iter_mut().enumerate() {
            buffer.fill(0);
            world.recv_into(buffer, other, tag(number))?;
            assert!(*buffer == data(other, number), "message {number}");
        }
        wait_all(&mut sent)?;
        // A blocking receive for each, while another receive is posted that it must not take from.
        for number in 0..SIZES.len() {
            let later = world.irecv::<u8>(other, 99)?;
            if world.rank() == 0 {
                world.send(&data(0, number), 1, tag(number))?;
            } else {
                let mut buffer = vec![0; SIZES[number] + 5];
                let status = world.recv_into(&mut buffer, ANY_SOURCE, tag(number))?;
                assert!(status.bytes() == SIZES[number] && buffer[..SIZES[number]] == data(0, number));
            }
            world.send(&[7_u8], other, 99)?;
            assert_eq!(later.wait()?.0, [7]);
        }
    }
    // Too long for their buffers: nothing is written, and the next message is not affected.
    world.set_error_handler(ErrorHandler::Return);
    for size in [8, 20_000, 300_000] {
        let (mut short, mut next) = (vec![1_u8; size - 1], [0_u8; 4]);
        let mut requests = [world.irecv_into(&mut short, other, 0)?, world.irecv_into(&mut next, other, 0)?];
        world.barrier()?;
        let sent = world.isend(&vec![2_u8; size], other, 0)?;
        world.send(&[3_u8; 4], other, 0)?;
        let error = wait_all(&mut requests).err();
        assert!(matches!(error, Some(MpiError::Truncated { .. })), "{error:?}");
        wait_all(&mut requests)?;
        sent.wait()?;
        drop(requests);
        assert!(short.iter().all(|&byte| byte == 1) && next == [3; 4]);
    }
    Ok(())
}

#[test]
fn messages_of_every_size_come_in_every_way() {
    for_each_topology(|_, make_vms| {
        try_run(|vr| Ok(run_on(vr, &make_vms(vr, 2)?, every_way_in)?)).unwrap();
    });
}

/// A slice that a request borrows is wanted while its owner is in another operation, waits for the request, polls it, or has
/// dropped it.
fn lent_slices(world: &Communicator<'_>) -> river_core::Result {
    let (me, other) = (world.rank(), 1 - world.rank());
    for len in [70_000, 1_000_003] {
        for way in 0..7 {
            let data = |from: usize| (0..len).map(|i| (i * 5 + way + from) as u8).collect::<Vec<_>>();
            let (mine, mut theirs) = (data(me), vec![0; len]);
            let mut sent = world.isend_from(&mine, other, 0)?;
            let is_whole = match way {
                0 => {
                    world.recv_into(&mut theirs, other, 0)?;
                    sent.wait()?;
                    true
                }
                1 => {
                    let received = world.irecv_into(&mut theirs, other, 0)?;
                    world.barrier()?;
                    received.wait()?;
                    sent.wait()?;
                    true
                }
                2 => {
                    let mut received = world.irecv_into(&mut theirs, other, 0)?;
                    while sent.test()?.is_none() | received.test()?.is_none() {}
                    true
                }
                3 => {
                    drop(sent);
                    world.recv_into(&mut theirs, other, 0)?;
                    true
                }
                4 => {
                    let mut both = [world.irecv_into(&mut theirs, other, 0)?, sent];
                    while wait_any(&mut both)?.is_some() {}
                    true
                }
                5 => {
                    let received = world.irecv_into(&mut theirs, other, 0)?;
                    drop(sent);
                    received.wait()?;
                    true
                }
                _ => {
                    // Whether this is too late depends on what the other rank is doing.
                    let mut received = world.irecv_into(&mut theirs, other, 0)?;
                    sent.cancel()?;
                    let is_cancelled = sent.wait()?.is_cancelled();
                    let mut is_theirs = [false];
                    world.sendrecv(&[is_cancelled], other, 1, &mut is_theirs, other, 1)?;
                    if is_theirs[0] {
                        received.cancel()?;
                    }
                    assert_eq!(received.wait()?.is_cancelled(), is_theirs[0]);
                    !is_theirs[0]
                }
            };
            assert!(theirs == if is_whole { data(other) } else { vec![0; len] }, "{len} bytes, way {way}");
        }
    }
    Ok(())
}

#[test]
fn what_is_lent_arrives_whatever_its_owner_does() {
    for_each_topology(|_, make_vms| {
        try_run(|vr| Ok(run_on(vr, &make_vms(vr, 2)?, lent_slices)?)).unwrap();
    });
}

/// Before a rank leaves its last operation for a long time, it has done what it could for others.
fn wanted_before_leaving(world: &Communicator<'_>, round: u64) -> river_core::Result {
    const LEN: usize = 300_000;
    if world.rank() == 0 {
        let directory = tempfile::tempdir()?;
        let [asked, received] =
            ["asked", "received"].map(|sign| directory.path().join(format!("{sign} {round}")));
        world.send_value(&[&asked, &received], 1, 0)?;
        let (mine, mut word) = (vec![7_u8; LEN], [0_u8]);
        let sent = world.isend_from(&mine, 1, 1)?;
        let answer = world.irecv_into(&mut word, 1, 2)?;
        let wait_for = |sign: &Path| {
            let begun = Instant::now();
            while !sign.exists() {
                assert!(
                    begun.elapsed() < Duration::from_secs(60),
                    "the other one has waited for what was lent to it"
                );
                std::thread::yield_now();
            }
        };
        wait_for(&asked);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_micros(30 * round) {
            std::hint::spin_loop();
        }
        // Usually both have arrived by now: the request for the data, and the message that is waited for.
        answer.wait()?;
        wait_for(&received);
        sent.wait()?;
    } else {
        let ([asked, sign], _): ([PathBuf; 2], _) = world.recv_value(0, 0)?;
        let mut theirs = vec![0_u8; LEN];
        world.probe(0, 1)?;
        let received = world.irecv_into(&mut theirs, 0, 1)?;
        // It arrives after the request for the data.
        world.send(&[1_u8], 0, 2)?;
        std::fs::write(asked, [])?;
        received.wait()?;
        assert!(theirs.iter().all(|&byte| byte == 7));
        std::fs::write(sign, [])?;
    }
    Ok(())
}

#[test]
fn what_is_wanted_is_sent_before_its_owner_leaves() {
    for_each_topology(|_, make_vms| {
        let rounds =
            |world: &Communicator<'_>| (0..50).try_for_each(|round| wanted_before_leaving(world, round));
        try_run(|vr| Ok(run_on(vr, &make_vms(vr, 2)?, rounds)?)).unwrap();
    });
}

/// Collective operations on vectors that another process reads in place or in parts, and in-place operations.
fn long_vectors(world: &Communicator<'_>) -> river_core::Result {
    let (rank, p) = (world.rank() as u64, world.size());
    for len in [2047, 2048, 4097, 32_768, 100_003] {
        let of = |rank: u64| (0..len as u64).map(move |i| i * 7 + rank);
        let mine: Vec<u64> = of(rank).collect();
        let mut all = vec![0; len * p];
        world.allgather(&mine, &mut all)?;
        assert!(all.iter().copied().eq((0..p as u64).flat_map(of)));
        world.alltoall_in_place(&mut all)?;
        assert!(all.chunks(len).all(|block| block == mine));
        let mut from_one = if rank == 1 { mine.clone() } else { vec![0; len] };
        world.bcast(&mut from_one, 1)?;
        assert!(from_one.iter().copied().eq(of(1)));
        let sum_up_to = |last: u64| of(0).map(move |x| x * (last + 1) + last * (last + 1) / 2);
        let mut sums = mine.clone();
        world.allreduce_in_place(&mut sums, &SUM)?;
        assert!(sums.iter().copied().eq(sum_up_to(p as u64 - 1)));
        let mut sums = mine.clone();
        world.scan_in_place(&mut sums, &SUM)?;
        assert!(sums.iter().copied().eq(sum_up_to(rank)));
    }
    Ok(())
}

#[test]
fn long_vectors_are_right_on_every_topology() {
    for_each_topology(|_, make_vms| {
        for ranks in [2, 3, 4] {
            try_run(|vr| Ok(run_on(vr, &make_vms(vr, ranks)?, long_vectors)?)).unwrap();
        }
    });
}

#[test]
fn abort_ends_the_job_with_its_text() {
    for_each_topology(|_, make_vms| {
        let job = |world: &Communicator<'_>| {
            if world.rank() == 2 {
                return Err(world.abort_with(7, "the input makes no sense").into());
            }
            world.recv::<u8>(2, 0)?;
            Ok(())
        };
        for launch in [Launch::new(3), Launch::new(3).survive_failures()] {
            let error = try_run(|vr| Ok(launch.run_each(vr, &make_vms(vr, 3)?, job).map(drop)));
            let error = error.unwrap().unwrap_err();
            assert_eq!(error.to_string(), "rank 2: the input makes no sense");
            assert!(matches!(error, MpiError::Aborted { rank: 2, code: 7, .. }), "{error:?}");
        }
    });
}

#[test]
fn the_error_of_a_rank_ends_the_job() {
    for_each_topology(|_, make_vms| {
        let error = try_run(|vr| {
            let vms = make_vms(vr, 3)?;
            run_on(vr, &vms, |world| {
                if world.rank() == 1 {
                    return Err(VrError::msg("no input"));
                }
                // The others wait for a message that will never come.
                world.recv::<u8>(1, 0)?;
                Ok(())
            })?;
            Ok(())
        });
        let text = error.unwrap_err().to_string();
        assert_eq!(text, "rank 1: no input");
    });
}

#[test]
fn a_panic_a_kill_and_an_early_end_are_told() {
    for_each_topology(|_, make_vms| {
        let error = try_run(|vr| {
            let vms = make_vms(vr, 2)?;
            run_on(vr, &vms, |world| {
                assert!(world.rank() == 0, "this is wrong");
                Ok(world.recv::<u8>(1, 0).map(drop)?)
            })?;
            Ok(())
        });
        let text = error.unwrap_err().to_string();
        assert!(text.starts_with("rank 1: panicked") && text.contains("this is wrong"), "{text}");
        let error = try_run(|vr| {
            // On a VM of its own, as its host dies with it.
            let vms = make_vms(vr, 2)?;
            run_on(vr, &vms, |world| {
                if world.rank() == 1 {
                    std::process::abort();
                }
                Ok(world.recv::<u8>(1, 0).map(drop)?)
            })?;
            Ok(())
        });
        let text = error.unwrap_err().to_string();
        assert!(text.starts_with("rank ") && text.contains("SIGABRT"), "{text}");
    });
    let error = try_world(2, |world| {
        if world.rank() == 0 {
            world.recv::<u8>(1, 0)?;
        }
        Ok(())
    });
    let text = error.unwrap_err().to_string();
    assert_eq!(
        text,
        "rank 0: waiting for a message from rank 1 with tag 0 (the world): rank 1 of the job has finished"
    );
}

#[test]
fn an_error_that_is_not_handled_ends_the_job_even_if_the_program_ignores_it() {
    let error = try_world(2, |world| {
        if world.rank() == 0 {
            let _ = world.send(&[1], 5, 0);
        }
        world.recv::<u8>(1 - world.rank(), 0)?;
        Ok(())
    });
    assert_eq!(
        error.unwrap_err().to_string(),
        "rank 0: there is no rank 5 in the world, which has ranks 0..2"
    );
}

#[test]
fn a_deadlock_is_found_and_explained() {
    for_each_topology(|_, make_vms| {
        let error = try_run(|vr| {
            let vms = make_vms(vr, 3)?;
            let end: Result<Vec<()>, _> = run_on(vr, &vms, |world| {
                let next = (world.rank() + 1) % 3;
                if world.rank() == 0 {
                    // Too long to be sent eagerly: the send waits for its receive.
                    world.send(&vec![0_u8; 1_000_000], next, 5)?;
                }
                world.recv::<u8>(next, 7)?;
                Ok(())
            });
            let error = end.unwrap_err();
            assert_eq!(error.class(), ErrorClass::Deadlock);
            Ok(error.to_string())
        });
        let text = error.unwrap();
        assert!(
            text.contains("rank 0 waits for rank 1 to receive what was sent with tag 5 (the world)"),
            "{text}"
        );
        assert!(text.contains("rank 2 waits for a message from rank 0 with tag 7 (the world)"), "{text}");
    });
}

#[test]
fn who_waits_long_for_a_slow_rank_is_in_no_deadlock() {
    let results = try_world(2, |world| {
        if world.rank() == 0 {
            // Longer than the patience of the ranks that wait; the time itself is what is tested.
            std::thread::sleep(Duration::from_millis(1500));
            world.send(&[1], 1, 0)?;
            world.recv::<i32>(1, 0)?;
        } else {
            world.recv::<i32>(0, 0)?;
            std::thread::sleep(Duration::from_millis(1500));
            world.send(&[2], 0, 0)?;
        }
        Ok(world.rank())
    });
    assert_eq!(results.unwrap(), [0, 1]);
}

/// The surviving ranks shrink the world and go on.
fn survive(world: &Communicator<'_>) -> river_core::Result<usize> {
    world.set_error_handler(ErrorHandler::Return);
    if world.rank() == 1 {
        return Err(VrError::msg("it fails"));
    }
    if world.rank() == 0 {
        // Only this rank detects the failure; the others wait for it.
        let error = world.recv::<u8>(1, 0).unwrap_err();
        assert_eq!(error.class(), ErrorClass::ProcFailed);
        world.revoke();
    } else {
        let error = world.recv::<u8>(0, 0).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Revoked);
    }
    assert!(world.is_revoked());
    let flags = world.agree(if world.rank() == 2 { 0b01 } else { 0b11 })?;
    assert_eq!(flags, 0b01);
    let left = world.shrink()?;
    let next = (left.rank() + 1) % left.size();
    left.send(&[left.rank()], next, 0)?;
    left.recv::<usize>(ANY_SOURCE, 0)?;
    Ok(left.dup()?.size())
}

#[test]
fn survivors_shrink_the_world_and_go_on() {
    let ends = surviving_world(4, survive).unwrap();
    assert_eq!(ends[1].as_ref().unwrap_err().to_string(), "rank 1: it fails");
    for rank in [0, 2, 3] {
        assert_eq!(ends[rank].as_ref().unwrap(), &3);
    }
    for_each_topology(|_, make_vms| {
        let ends = try_run(|vr| {
            let vms = make_vms(vr, 4)?;
            Ok(Launch::new(4).survive_failures().run_each(vr, &vms, survive)?)
        });
        let ends = ends.unwrap();
        assert!(ends[1].is_err());
        assert!([0, 2, 3].iter().all(|&rank: &usize| ends[rank] == Ok(3)));
    });
}
