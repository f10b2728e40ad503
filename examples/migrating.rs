//! Ping-pong with a player that moves: the player at the other end goes from machine to machine while the ball flies,
//! and no ball is lost, duplicated or overtaken.
//!
//! ```text
//! cargo run --release --example migrating -- --moves 20
//! ```
//!
//! `river migrate` and `river vm --drain` do the same from outside.

use std::time::{Duration, Instant};

use clap::Parser;
use river::prelude::*;
use serde::{Deserialize, Serialize};

/// Play ping-pong against a VR that repeatedly moves to another virtual machine.
#[derive(Parser)]
struct Args {
    /// How many VMs to start in this program if fewer than two are found
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u16).range(2..))]
    vms: u16,
    /// How many times the player moves
    #[arg(long, value_name = "N", default_value_t = 12)]
    moves: usize,
    /// How many balls to play between two moves
    #[arg(long, value_name = "N", default_value_t = 500)]
    balls: u64,
}

/// Returns every ball, and tells where it was played.
#[derive(Serialize, Deserialize)]
struct Player {
    balls: u64,
}

impl VirtualResource for Player {
    fn main(&mut self, vr: &Vr) -> river::Result {
        loop {
            // Earlier messages are no longer needed, so that little has to be moved.
            vr.safepoint(self)?;
            let m = vr.recv(pat! { ball: ANY })?;
            let ball: u64 = m.get("ball")?;
            if ball != self.balls {
                return Err(river::VrError::msg(format!("ball {ball} came, not {}", self.balls)));
            }
            self.balls += 1;
            vr.send(m.src(), msg! { ball: ball, vm: vr.vm() })?;
        }
    }
}

fn program(vr: &Vr, args: &Args) -> river::Result {
    let found = vr.discover(Query { idle_only: true, ..Query::default() })?;
    let vms = if found.len() < 2 { vr.start_local(args.vms.into())? } else { vr.allocate(found, 2..)? };
    let player = vr.deploy(&vms[..1], |_| Player { balls: 0 })?[0];
    let mut ball = 0;
    let mut longest = Duration::ZERO;
    for number in 1..=args.moves {
        // The next balls are in flight when the player leaves.
        for ahead in ball..ball + args.balls {
            vr.send(player, msg! { ball: ahead })?;
        }
        let to = &vms[number % vms.len()];
        let start = Instant::now();
        let moved = vr.migrate(player, to)?;
        let mut places: Vec<(String, u64)> = Vec::new();
        for expected in ball..ball + args.balls {
            let m = vr.recv(pat! { src: player, ball: expected })?;
            let vm: String = m.get("vm")?;
            match places.last_mut() {
                Some((place, count)) if *place == vm => *count += 1,
                _ => {
                    if vm == to.name {
                        longest = longest.max(start.elapsed());
                    }
                    places.push((vm, 1));
                }
            }
        }
        ball += args.balls;
        let places: Vec<String> = places.into_iter().map(|(vm, count)| format!("{count} on {vm}")).collect();
        println!("to {}: {} bytes; played: {}", to.name, moved.bytes, places.join(", "));
    }
    println!("{} moves, {ball} balls, none lost", args.moves);
    println!("at most {:.1} ms until the first ball came from the new place", longest.as_secs_f64() * 1e3);
    Ok(())
}

fn main() -> river::ExitCode {
    river::become_host_if_asked();
    let args = Args::parse();
    river::run_recoverable(|vr| program(vr, &args))
}
