//! A counter that cannot be stopped: its process is killed repeatedly in the middle of the count, and its user does not
//! notice. It does not go back to a checkpoint either: its mirror on another machine knows everything that it knew.
//!
//! ```text
//! cargo run --release --example mirrored_counter -- --kills 3
//! ```

use std::time::{Duration, Instant};

use clap::Parser;
use river::VrError;
use river::prelude::*;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// Count with a VR that has a mirror, and kill its process from time to time.
#[derive(Parser)]
struct Args {
    /// How many times to kill the counter's process
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u16).range(1..50))]
    kills: u16,
    /// How many times to count between two kills
    #[arg(long, value_name = "N", default_value_t = 500)]
    rounds: u64,
}

/// Counts, and tells in which process it did.
#[derive(Serialize, Deserialize)]
struct Counter {
    count: u64,
}

impl VirtualResource for Counter {
    fn main(&mut self, vr: &Vr) -> river::Result {
        loop {
            // Earlier messages are no longer needed, so its mirror has little to replay.
            vr.safepoint(self)?;
            let m = vr.recv(pat! { tag: "count" })?;
            self.count += 1;
            // The answer is sent only when the mirror has the question.
            let process = vr.effect(std::process::id)?;
            vr.send(m.src(), msg! { count: self.count, process: process })?;
        }
    }
}

/// Counts once; returns the process that answered.
fn count(vr: &Vr, counter: VrId, expected: u64) -> river::Result<u32> {
    vr.send(counter, msg! { tag: "count" })?;
    let m = vr.recv(pat! { src: counter, count: ANY })?;
    let count: u64 = m.get("count")?;
    if count != expected {
        return Err(VrError::msg(format!("the counter says {count} instead of {expected}")));
    }
    Ok(m.get("process")?)
}

fn program(vr: &Vr, args: &Args) -> river::Result {
    // All started by this process, since they will die: each has a process of its own for the VRs on it.
    let vms = vr.start_local(usize::from(args.kills) + 2)?;
    let counter = vr.deploy(&vms[..1], |_| Counter { count: 0 })?[0];
    let (mut expected, mut process) = (0, 0);
    let mut longest = Duration::ZERO;
    for kill in 0..=usize::from(args.kills) {
        // It gets a new mirror by itself, but would be gone if its process died before that.
        vr.mirror(counter, &vms[kill + 1])?;
        for _ in 0..args.rounds {
            expected += 1;
            process = count(vr, counter, expected)?;
        }
        if kill < usize::from(args.kills) {
            // The question is in transit when the process dies.
            let start = Instant::now();
            let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
            vr.effect(|| pid.map(|pid| kill_process(pid, Signal::KILL).is_ok()))?;
            expected += 1;
            let next = count(vr, counter, expected)?;
            longest = longest.max(start.elapsed());
            println!("process {process} was killed; {next} says {expected}");
        }
    }
    println!("{} kills, and the counter counted to {expected}", args.kills);
    println!("at most {:.1} ms until it answered from its new place", longest.as_secs_f64() * 1e3);
    Ok(())
}

fn main() -> river::ExitCode {
    river::become_host_if_asked();
    let args = Args::parse();
    river::run_recoverable(|vr| program(vr, &args))
}
