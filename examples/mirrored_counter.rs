//! A counter that nobody can stop: its process is killed again and again in the middle of the count, and whoever counts on it
//! does not notice. It does not go back to a checkpoint either: its twin on another machine knows all that it knew.
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

/// Count with a VR that has a twin, and kill the process that it is in now and then.
#[derive(Parser)]
struct Args {
    /// How often to kill the counter's process
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u16).range(1..50))]
    kills: u16,
    /// How often to count between two kills
    #[arg(long, value_name = "N", default_value_t = 500)]
    rounds: u64,
}

/// Counts, and says in which process it did.
#[derive(Serialize, Deserialize)]
struct Counter {
    count: u64,
}

impl VirtualResource for Counter {
    fn main(&mut self, vr: &Vr) -> river::Result {
        loop {
            // What it was told before is not needed any more: so its twin has little to run through.
            vr.safepoint(self)?;
            let m = vr.recv(pat! { tag: "count" })?;
            self.count += 1;
            // The answer leaves only when the twin knows of the question.
            let process = vr.effect(std::process::id)?;
            vr.send(m.src(), msg! { count: self.count, process: process })?;
        }
    }
}

/// Counts once: the process that answered.
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
    // All in this process, as they are to die: each has a process of its own for the VRs on it.
    let vms = vr.start_local(usize::from(args.kills) + 2)?;
    let counter = vr.deploy(&vms[..1], |_| Counter { count: 0 })?[0];
    let (mut expected, mut process) = (0, 0);
    let mut longest = Duration::ZERO;
    for kill in 0..=usize::from(args.kills) {
        // It has one again by itself, but if its process dies before that it is gone.
        vr.mirror(counter, &vms[kill + 1])?;
        for _ in 0..args.rounds {
            expected += 1;
            process = count(vr, counter, expected)?;
        }
        if kill < usize::from(args.kills) {
            // The question is on its way when the process dies.
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
