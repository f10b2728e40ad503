//! Word frequency on one machine: River's VMs compared with the same count within one process.
//!
//! ```text
//! cargo bench -p river-benches --bench wfreq                     # 63,362 files, 285 MB, made under target/
//! cargo bench -p river-benches --bench wfreq -- --rounds 9 DIR   # files of your own
//! ```
//!
//! All cases first list the same files, which is not part of their time; then they open, read and count them. The VMs
//! are up, hold the program's image and have their hosts before the clock starts; connections, and sending the list of
//! files and the results, are included. Cases take turns, each in a process of its own.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use river::core::{Vm, VmConfig};
use river::prelude::*;
use river::rai::RaiServer;
use river_benches::corpus;
use river_benches::process::{self, peak_memory};
use river_benches::table::{Spread, Table, machine};
use river_examples::baseline::{self, Counted};
use river_examples::farm;
use river_examples::files::{self, Found};
use serde::{Deserialize, Serialize};

/// As in the example.
const SPLIT: u64 = 8 << 20;
/// As in the paper.
const CHUNK: usize = 100;
const CASES: [&str; 4] = ["sequential", "rayon, 2 threads", "River, 1 VM", "River, 2 VMs"];
/// The case with which the others are compared.
const IN_PROCESS: usize = 1;

/// Compare River's word count with the same count within one process.
#[derive(Parser)]
struct Args {
    /// How many times each case is run
    #[arg(long, default_value = "7", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// The number of files in the corpus that is made if no DIR is given
    #[arg(long, default_value = "63362")]
    files: usize,
    /// Count the files below DIR
    directory: Option<PathBuf>,
    /// Passed by `cargo bench`; ignored
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Serialize, Deserialize)]
struct Measured {
    seconds: f64,
    /// The peak memory of the largest process, in bytes.
    peak: u64,
    files: usize,
    bytes: u64,
    words: u64,
    distinct: usize,
}

fn main() -> ExitCode {
    process::main(run_case, compare)
}

fn compare(args: &Args) -> river::Result {
    let directory = match &args.directory {
        Some(directory) => directory.clone(),
        None => {
            let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wfreq-corpus");
            corpus::make(&directory, args.files, 4500)?;
            directory
        }
    };
    let mut measured: Vec<Vec<Measured>> = CASES.iter().map(|_| Vec::new()).collect();
    for round in 0..=args.rounds {
        for (case, measured) in CASES.iter().zip(&mut measured) {
            let result: Measured = process::run(case, &[&directory])?;
            // The first round brings the files into the page cache.
            if round > 0 {
                measured.push(result);
            }
        }
    }
    let first = &measured[0][0];
    let same = |m: &Measured| {
        (m.files, m.bytes, m.words, m.distinct) == (first.files, first.bytes, first.words, first.distinct)
    };
    if !measured.iter().flatten().all(same) {
        return Err(river::VrError::msg("the cases do not agree on the counts"));
    }
    let spreads: Vec<Spread> =
        measured.iter().map(|runs| Spread::of(runs.iter().map(|run| run.seconds).collect())).collect();
    println!("{}", machine());
    let note = format!(
        "{} files, {:.1} MB, {} words, {} distinct; {} rounds",
        first.files,
        first.bytes as f64 / 1e6,
        first.words,
        first.distinct,
        args.rounds
    );
    let mut table = Table::new("word frequency", "")
        .note(note)
        .column("time", "s", 3)
        .column("throughput", "MB/s", 0)
        .column("ratio to rayon", "", 2)
        .column("peak", "MiB", 1);
    for ((case, runs), spread) in CASES.iter().zip(&measured).zip(&spreads) {
        let peak = runs.iter().map(|run| run.peak).max().unwrap_or_default();
        let others = [
            first.bytes as f64 / 1e6 / spread.median,
            spread.median / spreads[IN_PROCESS].median,
            peak as f64 / f64::from(1 << 20),
        ];
        table.row(*case, std::iter::once(*spread).chain(others.map(Spread::from)).map(Some));
    }
    table.print()?;
    println!("ratio: to {}; peak: of the largest process", CASES[IN_PROCESS]);
    Ok(())
}

fn run_case(case: &str) -> river::Result {
    let directory = std::env::args_os().nth(1).ok_or_else(|| river::VrError::msg("no directory"))?;
    let found = files::find(&[directory], SPLIT);
    let files = found.files;
    let (counted, seconds, peak) = match CASES.iter().position(|name| *name == case) {
        Some(0) => in_process(|| Ok(baseline::sequential(&found.pieces)))?,
        Some(1) => in_process(|| Ok(baseline::rayon(&found.pieces, 2)?))?,
        Some(2) => on_vms(1, found)?,
        Some(3) => on_vms(2, found)?,
        _ => return Err(river::VrError::msg(format!("no case {case:?}"))),
    };
    process::report(&Measured {
        seconds,
        peak,
        files,
        bytes: counted.bytes,
        words: counted.counts.total(),
        distinct: counted.counts.distinct(),
    })?;
    Ok(())
}

fn in_process(count: impl FnOnce() -> river::Result<Counted>) -> river::Result<(Counted, f64, u64)> {
    let start = Instant::now();
    let counted = count()?;
    Ok((counted, start.elapsed().as_secs_f64(), peak_memory()))
}

fn on_vms(count: usize, found: Found) -> river::Result<(Counted, f64, u64)> {
    let machines = Vm::start_many(&VmConfig::default().hidden(), count)?;
    river::try_run(|vr| {
        let leased = vr.allocate(machines.iter().map(Vm::info).collect(), count)?;
        let servers = vr.deploy(&leased, |_| RaiServer::unrestricted())?;
        let names = leased.iter().map(|vm| vm.name.clone());
        let vms = trickle::Vms::attach(vr, names.zip(servers.iter()));
        let start = Instant::now();
        let counted = farm::count(&vms, found.pieces, CHUNK, |_| {})?;
        let seconds = start.elapsed().as_secs_f64();
        let mut peak = peak_memory();
        for vm in &*vms {
            peak = peak.max(vm.call(peak_memory, ())?);
        }
        Ok((counted, seconds, peak))
    })
}
