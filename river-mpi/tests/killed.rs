//! A sender that is killed while the receiver reads its memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use river_core::{Result, VrError, try_run};
use river_mpi::{Communicator, ErrorClass, ErrorHandler, Launch};

/// The longest message that is read from the sender's memory, which takes about half a millisecond.
const LENGTH: usize = 4 << 20;

/// Stands for a kill before the receive begins.
const BEFORE: u64 = u64::MAX;

/// Rank 1 sends; rank 0 receives, and has rank 1 killed `MICROS` microseconds after it has begun to.
fn killed_after<const MICROS: u64>(world: &Communicator<'_>) -> Result<bool> {
    world.set_error_handler(ErrorHandler::Return);
    if world.rank() == 1 {
        world.send(&[std::process::id()], 0, 0)?;
        world.send(&vec![7_u8; LENGTH], 0, 0)?;
        // Still alive if the message is read before the kill.
        return Err(VrError::msg(format!("{:?}", world.recv::<u8>(0, 0).map(drop))));
    }
    let mut process = [0];
    world.recv_into(&mut process, 1, 0)?;
    let mut buffer = vec![1_u8; LENGTH];
    let begun = Arc::new(AtomicBool::new(false));
    let killer = {
        let (begun, process) = (begun.clone(), Pid::from_raw(process[0]));
        thread::spawn(move || {
            while !begun.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            let start = Instant::now();
            while MICROS != BEFORE && start.elapsed() < Duration::from_micros(MICROS) {
                std::hint::spin_loop();
            }
            kill(process, Signal::SIGKILL)
        })
    };
    // The message is offered now: nothing keeps this rank from reading it.
    world.probe(1, 0)?;
    if MICROS == BEFORE {
        begun.store(true, Ordering::SeqCst);
        while kill(Pid::from_raw(process[0]), None).is_ok() {
            thread::yield_now();
        }
    }
    begun.store(true, Ordering::SeqCst);
    let received = world.recv_into(&mut buffer, 1, 0);
    let whole = match &received {
        Ok(status) => {
            assert!(status.bytes() == LENGTH && buffer == vec![7; LENGTH], "the message is torn");
            true
        }
        Err(error) => {
            assert_eq!(error.class(), ErrorClass::ProcFailed, "{error}");
            false
        }
    };
    assert!(matches!(killer.join(), Ok(Ok(()))));
    let error = world.recv::<u8>(1, 0).map(drop).unwrap_err();
    assert_eq!(error.class(), ErrorClass::ProcFailed, "{error}");
    assert!(MICROS != BEFORE || !whole, "nobody was there any more to read from");
    Ok(whole)
}

fn run<const MICROS: u64>() {
    let ends = try_run(|vr| {
        let vms = vr.start_local(2)?;
        Ok(Launch::new(2).survive_failures().run_each(vr, &vms, killed_after::<MICROS>)?)
    });
    let ends = ends.unwrap();
    let dead = ends[1].as_ref().unwrap_err().to_string();
    assert!(dead.contains("SIGKILL"), "{dead}");
    println!("killed after {MICROS} us: the message came: {:?}", ends[0].as_ref().unwrap());
}

/// Whenever the kill happens, the receiver gets the whole message or an error that names the rank, and does not hang.
#[test]
fn a_sender_that_is_killed_while_its_data_is_read_leaves_no_torn_message() {
    run::<BEFORE>();
    run::<0>();
    run::<50>();
    run::<100>();
    run::<200>();
    run::<300>();
    run::<400>();
    run::<800>();
    run::<5_000>();
}
