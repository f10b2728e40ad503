//! The cost of recoverability: recording, compared with the same exchange without it; checkpoints, and restarting from
//! one.
//!
//! ```text
//! cargo bench -p river-benches --bench state
//! ```
//!
//! * Recording: two VRs of one host exchange messages; the limit is the same two VRs, not recorded, in the same run.
//!   They make a safepoint every thousand messages.
//! * Checkpoints: of 1, 100 and 1000 VRs that wait for a message, on four VMs. The limit is a file of the same size,
//!   written, made durable and renamed. The pause is the time for which VRs were stopped; restoring is everything from
//!   the start of the program until its initiator goes on.
//! * The same in the memory of VMs, which keep everything twice.
//! * Migration: of a VR that answers, between two VMs, while another one asks it continuously. The downtime is the
//!   longest time between a question and its answer; the pause is the time for which all VRs were stopped. The limit is
//!   the time of the same question when nothing moves.
//! * The conjugate gradient kernel of the NAS benchmarks on two VMs: recorded and not recorded; checkpoints while it
//!   computes, without safepoints, so that they contain every message that each rank ever received, and with
//!   safepoints; and how long a restored rank takes until it goes on, after repeating its computation or only
//!   rebuilding its matrix.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use river::core::{Channel, Selector, VirtualResource, Vm, VmConfig, VmInfo, Vr, VrId};
use river::mpi::Communicator;
use river_benches::table::{Spread, Table, bytes, load, machine};
use river_examples::cg::{self, Class};
use serde::{Deserialize, Serialize};

const DATA: Channel = Channel::named("river-benches data");
const TIMES: Channel = Channel::named("river-benches times");
const SIZES: [usize; 4] = [8, 1 << 10, 64 << 10, 1 << 20];
const VRS: [usize; 3] = [1, 100, 1000];
const VMS: usize = 4;
/// Sizes of the state of a VR that is moved.
const STATES: [usize; 3] = [8, 64 << 10, 4 << 20];
/// Messages between two safepoints.
const SAFEPOINT: u32 = 1000;

/// Measure recording, checkpoints and restoring.
#[derive(Parser)]
struct Args {
    /// How many times everything is measured
    #[arg(long, default_value = "7", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Passed by `cargo bench`; ignored
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    river::become_host_if_asked();
    let args = Args::parse();
    println!("{}; {} rounds; median (min..max)", machine(), args.rounds);
    let rounds = args.rounds.into();
    let all = recording(rounds)
        .and_then(|()| checkpoints(rounds))
        .and_then(|()| in_memory(rounds))
        .and_then(|()| migrations(rounds))
        .and_then(|()| conjugate_gradients(rounds));
    match all {
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

/// One of two VRs that exchange messages.
#[derive(Serialize, Deserialize)]
struct End {
    size: usize,
    count: u32,
    done: u32,
    /// `None`: it answers.
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
    // It sends nothing: an error reports its end.
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
        // A restored program goes through all this again, from its record.
        let again = Cell::new(false);
        let mut body = |vr: &Vr| -> river::Result {
            let vms = vr.start_local(VMS)?;
            let spread: Vec<VmInfo> = vms.into_iter().cycle().take(count).collect();
            vr.deploy(&spread, |_| Idle)?;
            let mut now = Instant::now();
            // The first one includes the image.
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

/// Checkpoints in the memory of VMs, which is kept twice.
fn in_memory(rounds: usize) -> river::Result {
    let mut table = Table::new("checkpoints in the memory of four VMs", "").column("pause", "ms", 2).column(
        "checkpoint",
        "ms",
        2,
    );
    for count in VRS {
        // Not started by the program, as they would end with it.
        let vms = Vm::start_many(&VmConfig::default().name("bench").hidden(), VMS)?;
        let (mut pauses, mut whole, mut size) = (Vec::new(), Vec::new(), 0);
        river::try_run_recoverable(|vr| {
            let vms = vr.allocate(vms.iter().map(Vm::info).collect(), VMS)?;
            let spread: Vec<VmInfo> = vms.iter().cycle().take(count.max(VMS)).cloned().collect();
            vr.deploy(&spread, |_| Idle)?;
            for _ in 0..rounds {
                let start = Instant::now();
                let taken = vr.checkpoint_in_memory()?;
                whole.push(milliseconds(start.elapsed()));
                pauses.push(milliseconds(taken.pause));
                size = taken.bytes as usize;
            }
            Ok(())
        })?;
        let cells = [pauses, whole].map(|times| Some(Spread::of(times)));
        table.row(format!("{} VRs, {}", count.max(VMS), bytes(size)), cells);
    }
    Ok(table.print()?)
}

/// Answers, with a state of `bytes` bytes.
#[derive(Serialize, Deserialize)]
struct Answering {
    state: Vec<u8>,
}

impl VirtualResource for Answering {
    fn main(&mut self, vr: &Vr) -> river::Result {
        loop {
            vr.safepoint(self)?;
            let got = vr.receive(Selector::on(DATA))?;
            vr.send_bytes(got.src, DATA, 0, got.payload)?;
        }
    }
}

/// Asks continuously until it is told to stop; returns the time of its longest question, and a typical one.
#[derive(Serialize, Deserialize)]
struct Asking {
    whom: VrId,
}

impl VirtualResource for Asking {
    fn main(&mut self, vr: &Vr) -> river::Result {
        let parent = vr.parent().ok_or_else(|| river::VrError::msg("no parent"))?;
        let mut times = Vec::new();
        while vr.try_receive_where(Selector::on(TIMES).from(parent), |_| true)?.is_none() {
            let start = Instant::now();
            vr.send_bytes(self.whom, DATA, 0, vec![7; 8])?;
            vr.receive(Selector::on(DATA).from(self.whom))?;
            times.push(start.elapsed());
            if times.len() == 1 {
                vr.send_bytes(parent, TIMES, 0, Vec::new())?;
            }
        }
        times.sort_unstable();
        let told =
            [times[times.len() - 1], times[times.len() / 2]].map(|time| milliseconds(time).to_le_bytes());
        vr.send_bytes(parent, TIMES, 0, told.concat())?;
        Ok(())
    }
}

fn migrations(rounds: usize) -> river::Result {
    let mut table = Table::new("migration of a VR, by its state", "state")
        .column("downtime", "ms", 2)
        .column("pause", "ms", 2)
        .column("usual answer", "ms", 3);
    river::try_run_recoverable(|vr| {
        let vms = vr.start_local(2)?;
        for size in STATES {
            let whom = vr.deploy(&vms[..1], |_| Answering { state: vec![7; size] })?[0];
            let (mut down, mut pauses, mut usual) = (Vec::new(), Vec::new(), Vec::new());
            // The first time its new host is started.
            for round in 0..=rounds {
                let asking = vr.deploy(&vms[..1], |_| Asking { whom })?[0];
                vr.receive(Selector::on(TIMES).from(asking))?;
                let moved = vr.migrate(whom, &vms[(round + 1) % 2])?;
                vr.send_bytes(asking, TIMES, 0, Vec::new())?;
                let told = vr.receive(Selector::on(TIMES).from(asking))?.payload.to_bytes();
                if round > 0 {
                    down.push(f64::from_le_bytes(told[..8].try_into()?));
                    usual.push(f64::from_le_bytes(told[8..].try_into()?));
                    pauses.push(milliseconds(moved.pause));
                }
            }
            table.sized(size, [down, pauses, usual].map(|times| Some(Spread::of(times))));
        }
        Ok(())
    })?;
    Ok(table.print()?)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Writes `length` bytes to a new file, makes them durable and renames it.
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

/// The directory where the initiator keeps the checkpoints of CG; also used by the ranks.
const CG: &str = "target/river-benches-cg";
const CLASS: Class = Class::A;

/// A rank's report.
#[derive(Serialize, Deserialize)]
struct Rank {
    /// All steps.
    time: Duration,
    /// For each checkpoint: how long the program was stopped, its size, and how long it took.
    taken: Vec<(Duration, u64, Duration)>,
    /// When it went on after it was restored.
    resumed: Option<SystemTime>,
}

fn undisturbed(world: &Communicator) -> river::Result<Rank> {
    let time = cg::parallel(CLASS, world, |_| {})?.time;
    Ok(Rank { time, taken: Vec::new(), resumed: None })
}

/// Takes a checkpoint after every fifth step but the last.
#[derive(Default)]
struct Checkpoints {
    taken: Vec<(Duration, u64, Duration)>,
    resumed: Option<SystemTime>,
}

impl Checkpoints {
    fn after(&mut self, world: &Communicator, step: usize) {
        if world.rank() > 0 || !step.is_multiple_of(5) || step == CLASS.steps() {
            return;
        }
        let start = world.vr().uptime();
        match world.vr().checkpoint(CG) {
            Ok(checkpoint) if checkpoint.resumed => self.resumed = Some(SystemTime::now()),
            Ok(checkpoint) => {
                self.taken.push((checkpoint.pause, checkpoint.bytes, world.vr().uptime() - start));
            }
            Err(error) => eprintln!("no checkpoint: {error}"),
        }
    }

    fn rank(self, time: Duration) -> Rank {
        Rank { time, taken: self.taken, resumed: self.resumed }
    }
}

fn checkpointed(world: &Communicator) -> river::Result<Rank> {
    let mut checkpoints = Checkpoints::default();
    let outcome = cg::parallel(CLASS, world, |step| checkpoints.after(world, step))?;
    Ok(checkpoints.rank(outcome.time))
}

fn with_safepoints(world: &Communicator) -> river::Result<Rank> {
    let mut checkpoints = Checkpoints::default();
    let outcome = cg::with_safepoints(CLASS, world, 5, |step| checkpoints.after(world, step))?;
    Ok(checkpoints.rank(outcome.time))
}

/// One rank on each of two VMs: the cost of recording, and of checkpoints.
fn conjugate_gradients(rounds: usize) -> river::Result {
    let run = |vr: &Vr| -> river::Result<Vec<Rank>> {
        Ok(river::mpi::run_on(vr, &vr.start_local(2)?, undisturbed)?)
    };
    let first = |ranks: Vec<Rank>| ranks.into_iter().next().ok_or_else(|| river::VrError::msg("no rank"));
    let (mut plain, mut recorded) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        plain.push(milliseconds(first(river::try_run(run)?)?.time));
        recorded.push(milliseconds(first(river::try_run_recoverable(run)?)?.time));
    }
    let (plain, recorded) = (Spread::of(plain), Spread::of(recorded));
    let mut table = Table::new(format!("CG class {CLASS} on two VMs"), "")
        .column("recorded", "ms", 0)
        .column("not recorded", "ms", 0)
        .column("ratio", "", 2);
    let ratio = recorded.median / plain.median;
    table.row("all steps", [Some(recorded), Some(plain), Some(ratio.into())]);
    table.print()?;
    let mut table = Table::new(
        format!("CG class {CLASS} on two VMs, checkpointed after 10 of {} steps", CLASS.steps()),
        "",
    )
    .column("pause", "ms", 2)
    .column("checkpoint", "ms", 0)
    .column("restore", "ms", 0);
    for (kind, safe) in [("without safepoints", false), ("with safepoints", true)] {
        let run = |vr: &Vr| -> river::Result<Vec<Rank>> {
            let vms = vr.start_local(2)?;
            Ok(if safe {
                river::mpi::run_on(vr, &vms, with_safepoints)?
            } else {
                river::mpi::run_on(vr, &vms, checkpointed)?
            })
        };
        let (mut pauses, mut whole, mut restores, mut size) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for _ in 0..rounds {
            for (pause, bytes, time) in first(river::try_run_recoverable(run)?)?.taken {
                pauses.push(milliseconds(pause));
                whole.push(milliseconds(time));
                size = bytes as usize;
            }
            let start = SystemTime::now();
            let resumed = first(river::restore(CG, run)?)?.resumed;
            let resumed = resumed.ok_or_else(|| river::VrError::msg("it was not restored"))?;
            restores.push(milliseconds(resumed.duration_since(start).unwrap_or_default()));
        }
        fs::remove_dir_all(CG)?;
        let cells = [Spread::of(pauses), Spread::of(whole), Spread::of(restores)];
        table.row(format!("{kind}, {}", bytes(size)), cells.map(Some));
    }
    table.print()?;
    Ok(())
}
