//! Many messages between the same ranks: after a few of them, short messages pass through shared memory, while others do not.

use std::hash::{BuildHasher, RandomState};
use std::thread;
use std::time::Duration;

use river_core::testing::for_each_topology;
use river_core::{Channel, Result, Selector, VrError, try_run};
use river_mpi::{ANY_SOURCE, ANY_TAG, Communicator, ErrorClass, ErrorHandler, Launch, run_on, wait_all};

/// Lengths in words: one cache line, several, and lengths for each of the paths of longer messages.
const WORDS: [usize; 9] = [1, 2, 0, 12, 100, 1, 300, 1200, 10_000];
const ROUNDS: u64 = 40;

fn words(round: u64, kind: usize) -> Vec<u64> {
    (0..WORDS[kind] as u64).map(|at| round << 32 | at).collect()
}

/// Rank 0 sends messages of all kinds to all others, which receive them in all possible ways.
fn in_order(world: &Communicator<'_>) -> Result {
    for round in 0..ROUNDS {
        if world.rank() == 0 {
            let all: Vec<Vec<u64>> = (0..WORDS.len()).map(|kind| words(round, kind)).collect();
            for to in 1..world.size() {
                let mut requests = Vec::new();
                for (kind, data) in all.iter().enumerate() {
                    match (round + kind as u64) % 4 {
                        0 => requests.push(world.isend(data, to, 0)?),
                        1 => requests.push(world.isend_from(data, to, 0)?),
                        2 => requests.push(world.issend(data, to, 0)?),
                        _ => requests.push(world.isend_vec(data.clone(), to, 0)?),
                    }
                }
                wait_all(&mut requests)?;
            }
            // Receives the answers in the order of their arrival.
            for _ in 1..world.size() {
                let (answer, status) = world.recv::<u64>(ANY_SOURCE, ANY_TAG)?;
                assert_eq!((answer, status.tag()), (vec![round], Some(9)));
            }
            continue;
        }
        if round % 8 == 7 {
            // Longer than the others spin before they park: this rank sets the pace.
            thread::sleep(Duration::from_millis(2));
        }
        let mut buffers: Vec<Vec<u64>> = WORDS.map(|len| vec![u64::MAX; len]).into();
        match round % 3 {
            0 => {
                let posted = buffers.iter_mut().map(|buffer| world.irecv_into(buffer, 0, 0));
                wait_all(&mut posted.collect::<river_mpi::Result<Vec<_>>>()?)?;
            }
            1 => {
                for buffer in &mut buffers {
                    let status = world.probe(ANY_SOURCE, ANY_TAG)?;
                    assert_eq!(status.bytes(), size_of_val(&buffer[..]));
                    world.recv_into(buffer, ANY_SOURCE, ANY_TAG)?;
                }
            }
            _ => {
                for buffer in &mut buffers {
                    *buffer = world.recv(0, 0)?.0;
                }
            }
        }
        for (kind, buffer) in buffers.iter().enumerate() {
            assert_eq!(*buffer, words(round, kind), "message {kind} of round {round}");
        }
        world.send(&[round], 0, 9)?;
    }
    Ok(())
}

#[test]
fn they_stay_in_order_however_they_go() {
    for_each_topology(|name, make_vms| {
        let ran = try_run(|vr| Ok(run_on(vr, &make_vms(vr, 3)?, in_order)?));
        assert_eq!(ran.expect(name), [(); 3]);
    });
}

/// Lengths of messages that both ranks may copy, in bytes.
const LONG: [usize; 6] = [32 << 10, (32 << 10) + 1, 100_003, 256 << 10, (1 << 20) - 1, 3 << 20];

fn pattern(round: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + round) as u8).collect()
}

/// Both ranks send long messages, one after the other and at the same time, and wait for them in all possible ways.
fn long_both_ways(world: &Communicator<'_>) -> Result {
    let other = 1 - world.rank();
    back_and_forth(world)?;
    for round in 0..48_usize {
        let ours = pattern(round + 7 * world.rank(), LONG[round % LONG.len()]);
        let theirs = pattern(round + 7 * other, ours.len());
        let mut got = vec![0; ours.len()];
        match (round / LONG.len() % 4, world.rank()) {
            (0, 0) | (1, 1) => {
                world.send(&ours, other, 0)?;
                world.recv_into(&mut got, other, 0)?;
            }
            (0 | 1, _) => {
                world.recv_into(&mut got, other, 0)?;
                world.send(&ours, other, 0)?;
            }
            (2, _) => _ = world.sendrecv(&ours, other, 0, &mut got, other, 0)?,
            _ => {
                let (first, second) = got.split_at_mut(theirs.len() / 2);
                wait_all(&mut [
                    world.irecv_into(first, other, 0)?,
                    world.isend_from(&ours[..theirs.len() / 2], other, 0)?,
                    world.isend_from(&ours[theirs.len() / 2..], other, 0)?,
                    world.irecv_into(second, other, 0)?,
                ])?;
            }
        }
        assert!(got == theirs, "round {round}");
    }
    Ok(())
}

#[test]
fn long_messages_are_whole_whoever_copies_them() {
    for_each_topology(|name, make_vms| {
        let ran = try_run(|vr| Ok(run_on(vr, &make_vms(vr, 2)?, long_both_ways)?));
        assert_eq!(ran.expect(name), [(); 2]);
    });
}

/// The victim dies at a random moment while rank 0 sends long messages to rank 1.
fn dies_meanwhile(world: &Communicator<'_>, victim: usize) -> Result {
    world.set_error_handler(ErrorHandler::Return);
    back_and_forth(world)?;
    if world.rank() == victim {
        thread::spawn(|| {
            let micros = RandomState::new().hash_one(0) % 10_000;
            thread::sleep(Duration::from_micros(micros));
            std::process::abort();
        });
    }
    let (sent, mut got) = (pattern(0, 1 << 20), vec![0; 1 << 20]);
    let error = loop {
        let done = match world.rank() {
            0 => world.send(&sent, 1, 0),
            _ => world.recv_into(&mut got, 0, 0).map(|_| ()),
        };
        if let Err(error) = done {
            break error;
        }
        assert!(world.rank() == 0 || got == sent);
    };
    assert_eq!(error.class(), ErrorClass::ProcFailed, "{error}");
    Ok(())
}

#[test]
fn who_copies_with_a_rank_that_dies_hears_of_it() {
    for turn in 0..10 {
        let ends = try_run(|vr| {
            let vms = vr.start_local(2)?;
            let launch = Launch::new(2).survive_failures();
            Ok(if turn % 2 == 0 {
                launch.run_each(vr, &vms, |world| dies_meanwhile(world, 0))?
            } else {
                launch.run_each(vr, &vms, |world| dies_meanwhile(world, 1))?
            })
        });
        let ends = ends.unwrap();
        assert!(ends[turn % 2].is_err() && ends[1 - turn % 2].is_ok(), "{ends:?}");
    }
}

/// Enough messages for each rank to receive from every other one through shared memory.
fn back_and_forth(world: &Communicator<'_>) -> river_mpi::Result {
    for turn in 0..30_u64 {
        for other in (0..world.size()).filter(|&other| other != world.rank()) {
            let mut answer = [0];
            world.sendrecv(&[turn], other, 7, &mut answer, other, 7)?;
            assert_eq!(answer, [turn]);
        }
    }
    Ok(())
}

/// More messages than the shared memory of two ranks can hold.
const MANY: u64 = 5000;

fn far_ahead(world: &Communicator<'_>) -> Result {
    let to_whom = |range: std::ops::Range<u64>| {
        for number in range {
            if world.rank() == 0 {
                (1..world.size()).try_for_each(|to| world.send(&[number; 3], to, 0))?;
            } else {
                let mut data = [0; 3];
                world.recv_into(&mut data, 0, 0)?;
                assert_eq!(data, [number; 3]);
            }
        }
        Ok::<_, VrError>(())
    };
    back_and_forth(world)?;
    if world.rank() == 0 {
        to_whom(0..MANY)?;
        (1..world.size()).try_for_each(|to| world.send(&[0_u8; 0], to, 1))?;
    } else {
        world.recv::<u8>(0, 1)?;
        to_whom(0..MANY)?;
    }
    to_whom(MANY..MANY + 50)
}

#[test]
fn a_sender_that_is_far_ahead_loses_nothing() {
    for_each_topology(|name, make_vms| {
        let ran = try_run(|vr| Ok(run_on(vr, &make_vms(vr, 3)?, far_ahead)?));
        assert_eq!(ran.expect(name), [(); 3]);
    });
}

/// Rank 1 dies after its last message.
fn last_words(world: &Communicator<'_>) -> Result<u64> {
    world.set_error_handler(ErrorHandler::Return);
    back_and_forth(world)?;
    if world.rank() == 1 {
        world.send(&[0_u64], 0, 1)?;
        for number in 0..200_u64 {
            world.send(&[number], 0, 0)?;
        }
        std::process::abort();
    }
    // All messages have arrived by the time the death is noticed.
    let error = world.recv::<u64>(1, 2).unwrap_err();
    assert_eq!(error.class(), ErrorClass::ProcFailed, "{error}");
    world.recv::<u64>(1, 1)?;
    let mut number = 0;
    loop {
        match world.recv::<u64>(1, 0) {
            Ok((data, _)) => assert_eq!(data, [number]),
            Err(error) => {
                assert_eq!(error.class(), ErrorClass::ProcFailed, "{error}");
                return Ok(number);
            }
        }
        number += 1;
    }
}

#[test]
fn what_a_rank_has_sent_before_it_died_is_received() {
    let ends = try_run(|vr| {
        let vms = vr.start_local(2)?;
        Ok(Launch::new(2).survive_failures().run_each(vr, &vms, last_words)?)
    });
    let ends = ends.unwrap();
    assert!(ends[1].is_err());
    assert_eq!(ends[0], Ok(200));
}

/// Rank 1 dies, and rank 0 only sends to it. Returns how many sends succeed before one fails.
fn unheard(world: &Communicator<'_>) -> Result<usize> {
    world.set_error_handler(ErrorHandler::Return);
    back_and_forth(world)?;
    if world.rank() == 1 {
        std::process::abort();
    }
    // The program receives the notice of the death, but the library has not polled since.
    let own = Selector::on(Channel::named("test.own")).from(world.vr_of(1)?);
    assert!(world.vr().receive(own).is_err());
    for sent in 0..1000 {
        if let Err(error) = world.send(&[7_u64], 1, 0) {
            assert_eq!(error.class(), ErrorClass::ProcFailed, "{error}");
            return Ok(sent);
        }
    }
    Ok(1000)
}

#[test]
fn who_only_sends_hears_that_nobody_is_there() {
    let ends = try_run(|vr| {
        let vms = vr.start_local(2)?;
        Ok(Launch::new(2).survive_failures().run_each(vr, &vms, unheard)?)
    });
    let sent = ends.unwrap().swap_remove(0).unwrap();
    assert!(sent <= 64, "{sent} were sent to nobody");
}

/// Rank 1 keeps sending messages that rank 0 does not receive, until rank 0, which waits for rank 2, tells it to stop.
fn heard(world: &Communicator<'_>) -> Result {
    back_and_forth(world)?;
    match world.rank() {
        0 => {
            // Too long for the shared memory.
            world.recv::<u64>(2, 1)?;
            world.send(&[0_u8], 1, 2)?;
            while world.recv::<u64>(1, 0)?.0 != [u64::MAX] {}
        }
        1 => {
            let mut stop = [0_u8];
            let mut stop = world.irecv_into(&mut stop, 0, 2)?;
            world.send(&[0_u8], 2, 3)?;
            while stop.test()?.is_none() {
                world.send(&[1_u64], 0, 0)?;
            }
            world.send(&[u64::MAX], 0, 0)?;
        }
        _ => {
            world.recv::<u8>(1, 3)?;
            world.send(&vec![0_u64; 700], 0, 1)?;
        }
    }
    Ok(())
}

#[test]
fn who_sends_on_and_on_does_not_keep_others_from_being_heard() {
    for_each_topology(|name, make_vms| {
        let ran = try_run(|vr| Ok(run_on(vr, &make_vms(vr, 3)?, heard)?));
        assert_eq!(ran.expect(name), [(); 3]);
    });
}
