//! A counter that does not forget: killed in the middle and restored, it reaches the same count as without
//! interruption.
//!
//! ```text
//! cargo run --release --example counter -- --state state --every 10 --pause 20
//! kill -9 it, and then
//! river restore state
//! ```

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use rand_core::Rng;
use river::prelude::*;
use serde::{Deserialize, Serialize};

/// Count on several virtual machines, with checkpoints from which the count continues whatever dies.
#[derive(Parser)]
struct Args {
    /// How many VMs to start in this program if none is found
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u16).range(1..))]
    vms: u16,
    /// How many rounds to count
    #[arg(long, value_name = "N", default_value_t = 100)]
    rounds: u64,
    /// Where to keep checkpoints
    #[arg(long, value_name = "DIRECTORY")]
    state: Option<PathBuf>,
    /// Take a checkpoint every this many rounds
    #[arg(long, value_name = "ROUNDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
    /// Milliseconds to pause in each round, so that there is time to kill it
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pause: u64,
}

/// Adds up random numbers: one more for each request.
#[derive(Serialize, Deserialize)]
struct Counter {
    count: u64,
    sum: u64,
}

impl VirtualResource for Counter {
    fn main(&mut self, vr: &Vr) -> river::Result {
        loop {
            // From here on only the fields matter, so nothing before need be recorded.
            vr.safepoint(self)?;
            let m = vr.recv(pat! { tag: ANY })?;
            match &*m.get::<String>("tag")? {
                "count" => {
                    self.count += 1;
                    self.sum = self.sum.wrapping_add(vr.rng().next_u64());
                    vr.send(m.src(), msg! { count: self.count })?;
                }
                _ => return Ok(vr.send(m.src(), msg! { sum: self.sum })?),
            }
        }
    }
}

/// The progress of the initiator.
#[derive(Serialize, Deserialize)]
struct Progress {
    counters: Vec<VrId>,
    round: u64,
}

fn program(vr: &Vr, args: &Args) -> river::Result {
    let mut progress = match vr.resumed::<Progress>()? {
        Some(progress) => {
            println!("going on after round {}", progress.round);
            progress
        }
        None => {
            let found = vr.discover(Query { idle_only: true, ..Query::default() })?;
            let vms =
                if found.is_empty() { vr.start_local(args.vms.into())? } else { vr.allocate(found, ..)? };
            let counters = vr.deploy(&vms, |_| Counter { count: 0, sum: 0 })?;
            Progress { counters: counters.ids().to_vec(), round: 0 }
        }
    };
    while progress.round < args.rounds {
        for &counter in &progress.counters {
            vr.send(counter, msg! { tag: "count" })?;
        }
        for &counter in &progress.counters {
            vr.recv(pat! { src: counter, count: progress.round + 1 })?;
        }
        progress.round += 1;
        vr.safepoint(&progress)?;
        if let Some(state) = args.state.as_ref().filter(|_| progress.round.is_multiple_of(args.every)) {
            vr.checkpoint(state)?;
        }
        std::thread::sleep(Duration::from_millis(args.pause));
    }
    let mut total = 0_u64;
    for &counter in &progress.counters {
        vr.send(counter, msg! { tag: "end" })?;
        total = total.wrapping_add(vr.recv(pat! { src: counter, sum: ANY })?.get("sum")?);
    }
    println!("{} counters, {} rounds, total {}", progress.counters.len(), progress.round, total % 1_000_000);
    Ok(())
}

fn main() -> river::ExitCode {
    river::become_host_if_asked();
    let args = Args::parse();
    river::run_recoverable(|vr| program(vr, &args))
}
