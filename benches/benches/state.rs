//! What it costs to be recoverable: recording, beside the same exchange without it; checkpoints, and going on from one.
//!
//! ```text
//! cargo bench -p river-benches --bench state
//! ```
//!
//! * Recording: two VRs of one host exchange messages; the limit is the same two VRs, not recorded, in the same run. They make
//!   a safepoint every thousand messages.
//! * Checkpoints: of 1, 100 and 1000 VRs that wait for a message, on four VMs. The limit is a file of the same size,
//!   written, made durable and renamed. The pause is the time for which VRs were stopped; restoring is everything from the
//!   start of the program until its initiator goes on.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use river::core::{Channel, Selector, VirtualResource, VmInfo, Vr, VrId};
use river_benches::table::{Spread, Table, bytes, load, machine};
use serde::{Deserialize, Serialize};

const DATA: Channel = Channel::named("river-benches data");
const TIMES: Channel = Channel::named("river-benches times");
const SIZES: [usize; 4] = [8, 1 << 10, 64 << 10, 1 << 20];
const VRS: [usize; 3] = [1, 100, 1000];
const VMS: usize = 4;
/// Messages between two safepoints.
const SAFEPOINT: u32 = 1000;

/// Measure recording, checkpoints and restoring.
#[derive(Parser)]
struct Args {
    /// How often everything is measured
    #[arg(long, default_value = "7", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Given by `cargo bench`; means nothing
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    river::become_host_if_asked();
    let args = Args::parse();
    println!("{}; {} rounds; median (min..max)", machine(), args.rounds);
    match recording(args.rounds.into()).and_then(|()| checkpoints(args.rounds.into())) {
        Ok(()) => {
            println!("load average {:.2}", load());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One of two that exchange messages.
#[derive(Serialize, Deserialize)]
struct End {
    size: usize,
    count: u32,
    done: u32,
    /// None: it answers.
    peer: Option<VrId>,
}

impl VirtualResource for End {
    fn main(&mut self, vr: &Vr) -> river::Result {
        let payload = bytes_of(self.size);
        let start = Instant::now();
        while self.done < self.count {
            if self.done.is_multiple_of(SAFEPOINT) {
                vr.safepoint(self)?;
            }
            if let Some(peer) = self.peer {
                vr.send_bytes(peer, DATA, 0, payload.clone())?;
                vr.receive(Selector::on(DATA).from(peer))?;
            } else {
                let got = vr.receive(Selector::on(DATA))?;
                vr.send_bytes(got.src, DATA, 0, got.payload)?;
            }
            self.done += 1;
        }
        if self.peer.is_some() {
            let one_way = start.elapsed().as_secs_f64() / f64::from(self.count) / 2.0;
            let parent = vr.parent().ok_or_else(|| river::VrError::msg("no parent"))?;
            vr.send_bytes(parent, TIMES, 0, one_way.to_le_bytes().to_vec())?;
        }
        Ok(())
    }
}

fn bytes_of(size: usize) -> ::bytes::Bytes {
    ::bytes::Bytes::from(vec![7; size])
}

fn recording(rounds: usize) -> river::Result {
    let mut table = Table::new("latency within a host, one way", "size")
        .column("recorded", "us", 3)
        .column("not recorded", "us", 3)
        .column("ratio", "", 2);
    river::try_run(|vr| {
        let vms = vr.start_local(1)?;
        for size in SIZES {
            let count = (200_000_000 / (size + 10_000)).min(20_000) as u32;
            let (mut recorded, mut plain) = (Vec::new(), Vec::new());
            for _ in 0..rounds {
                plain.push(exchange(vr, &vms[0], size, count, false)?);
                recorded.push(exchange(vr, &vms[0], size, count, true)?);
            }
            let (recorded, plain) = (Spread::of(recorded), Spread::of(plain));
            table.sized(size, [Some(recorded), Some(plain), Some((recorded.median / plain.median).into())]);
        }
        Ok(())
    })?;
    Ok(table.print()?)
}

/// The time that one message takes, in microseconds.
fn exchange(vr: &Vr, vm: &VmInfo, size: usize, count: u32, recorded: bool) -> river::Result<f64> {
    let deploy = |peer| {
        let end = |_| End { size, count, done: 0, peer };
        let vm = std::slice::from_ref(vm);
        if recorded { vr.deploy_recoverable(vm, end) } else { vr.deploy(vm, end) }
    };
    let echo = deploy(None)?[0];
    let end = deploy(Some(echo))?[0];
    let time = vr.receive(Selector::on(TIMES).from(end))?;
    // It sends nothing: this is its end.
    let _ = vr.receive(Selector::on(TIMES).from(echo));
    Ok(f64::from_le_bytes(time.payload.to_bytes()[..].try_into()?) * 1e6)
}

/// Waits until it is told to end.
#[derive(Serialize, Deserialize)]
struct Idle;

impl VirtualResource for Idle {
    fn main(&mut self, vr: &Vr) -> river::Result {
        vr.receive(Selector::on(DATA))?;
        Ok(())
    }
}

fn checkpoints(rounds: usize) -> river::Result {
    let scratch = tempfile::tempdir_in(".")?;
    let mut table = Table::new("checkpoints", "")
        .column("pause", "ms", 2)
        .column("checkpoint", "ms", 2)
        .column("bare file", "ms", 2)
        .column("restore", "ms", 2);
    for count in VRS {
        let directory = scratch.path().join(count.to_string());
        let (mut pauses, mut whole, mut bare, mut restores) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut size = 0;
        let start = Cell::new(Instant::now());
        // A restored program runs through all this again, from its record.
        let again = Cell::new(false);
        let mut body = |vr: &Vr| -> river::Result {
            let vms = vr.start_local(VMS)?;
            let spread: Vec<VmInfo> = vms.into_iter().cycle().take(count).collect();
            vr.deploy(&spread, |_| Idle)?;
            let mut now = Instant::now();
            // The first one keeps the image as well.
            while let taken = vr.checkpoint(&directory)?
                && !taken.resumed
            {
                if taken.number > 1 && !again.get() {
                    whole.push(milliseconds(now.elapsed()));
                    pauses.push(milliseconds(taken.pause));
                    bare.push(bare_file(&directory, taken.bytes)?);
                    size = taken.bytes as usize;
                }
                if taken.number > rounds as u64 {
                    return Ok(());
                }
                now = Instant::now();
            }
            restores.push(milliseconds(start.get().elapsed()));
            Ok(())
        };
        river::try_run_recoverable(&mut body)?;
        again.set(true);
        for _ in 0..rounds {
            start.set(Instant::now());
            river::restore(&directory, &mut body)?;
        }
        table.row(
            format!("{count} VRs, {}", bytes(size)),
            [pauses, whole, bare, restores].map(|times| Some(Spread::of(times))),
        );
    }
    Ok(table.print()?)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Writes as many bytes to a file of its own, makes them durable and renames it.
fn bare_file(directory: &Path, length: u64) -> river::Result<f64> {
    let (draft, path) = (directory.join("bare.tmp"), directory.join("bare"));
    let content = vec![7; length as usize];
    let start = Instant::now();
    let mut file = File::create(&draft)?;
    file.write_all(&content)?;
    file.sync_all()?;
    fs::rename(draft, path)?;
    Ok(milliseconds(start.elapsed()))
}
