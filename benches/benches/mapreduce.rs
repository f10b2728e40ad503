//! MapReduce on one machine: word count and sort on River's VMs, compared with the best that we can write within one
//! process, and with Spark and Dask if a Python has them. Spark needs Java 17.
//!
//! ```text
//! cargo bench -p river-benches --bench mapreduce                                # 1 GB of text, 10 million records
//!
//! python3 -m venv /tmp/peers && /tmp/peers/bin/pip install -r benches/peers/requirements.txt
//! cargo bench -p river-benches --bench mapreduce -- --megabytes 200 --rounds 1 --peers --python /tmp/peers/bin/python3
//! ```
//!
//! Inputs are in the page cache, outputs of sorts go to files. The VMs are up and have the program's image and their
//! workers before the clock starts; Spark has its session. Cases take turns, each in a process of its own. Memory is
//! the sum of the peaks of all processes.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use clap::Parser;
use rayon::prelude::*;
use river::core::{Vm, VmConfig};
use river::mapreduce::{Cluster, Input, Job, Output, Report};
use river_benches::corpus;
use river_benches::process::{self, peak_memory_of_tree};
use river_benches::table::{Spread, Table, left_out, load, machine};
use river_examples::mr::{RECORD, Sort, WordCount, check, generate};
use river_examples::{baseline, files};
use serde::{Deserialize, Serialize};

/// As in `wfreq`.
const PIECE: u64 = 8 << 20;
const PARTS: usize = 16;

/// Compare MapReduce on VMs with programs within one process, Spark and Dask.
#[derive(Parser)]
struct Args {
    /// How many times each case is run
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Size of the text, and of the records to sort
    #[arg(long, default_value = "1000", value_parser = clap::value_parser!(u32).range(1..))]
    megabytes: u32,
    /// Also run Spark and Dask, once, as they are slow: eight minutes for 1 GB
    #[arg(long)]
    peers: bool,
    /// The Python that has Spark and Dask
    #[arg(long, default_value = "python3")]
    python: String,
    /// Only make the inputs
    #[arg(long)]
    prepare: bool,
    /// Only the cases whose name contains this, and the first one, with which they are compared
    #[arg(long)]
    only: Option<String>,
    /// Passed by `cargo bench`; ignored
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Measured {
    seconds: f64,
    peak: u64,
    /// The number of distinct words, or whether the output is right; 0: unknown.
    result: u64,
    spilled: u64,
}

/// A program to run, and its name.
#[derive(Clone, Copy)]
enum Case {
    Here(&'static str),
    Python { name: &'static str, module: &'static str, script: &'static str },
}

const SPARK: &str = include_str!("../peers/spark.py");
const DASK: &str = include_str!("../peers/dask_jobs.py");

const CASES: [Case; 6] = [
    Case::Here("rayon, 2 threads"),
    Case::Here("River, 2 VMs"),
    Case::Here("River, 2 VMs, half"),
    Case::Here("River, 2 VMs, tenth"),
    Case::Python { name: "Spark, local[2]", module: "pyspark", script: SPARK },
    Case::Python { name: "Dask, 2 processes", module: "dask.dataframe, distributed", script: DASK },
];

impl Case {
    fn name(self) -> &'static str {
        match self {
            Case::Here(name) | Case::Python { name, .. } => name,
        }
    }
}

/// The files for inputs and outputs.
struct Place {
    text: PathBuf,
    records: PathBuf,
    output: PathBuf,
}

impl Place {
    fn make(megabytes: u32) -> io::Result<Self> {
        let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (text, records) =
            (base.join(format!("text-{megabytes}")), base.join(format!("records-{megabytes}")));
        let bytes = megabytes as usize * 1_000_000;
        corpus::make(&text, 64, bytes / 64)?;
        let count = (bytes / RECORD) as u64;
        if fs::metadata(&records).map_or(0, |metadata| metadata.len()) != count * RECORD as u64 {
            generate(&records, count)?;
        }
        Ok(Self { text, records, output: base.join("sorted") })
    }
}

fn main() -> ExitCode {
    process::main(run_case, compare)
}

fn compare(args: &Args) -> river::Result {
    let place = Place::make(args.megabytes)?;
    if args.prepare {
        return Ok(());
    }
    println!("{}, load {:.1}", machine(), load());
    let expected = check(&place.records)?;
    let wanted = |index: usize, case: Case| {
        index == 0 || args.only.as_ref().is_none_or(|only| case.name().contains(only.as_str()))
    };
    for job in ["wordcount", "sort"] {
        let cases: Vec<Case> = (0..)
            .zip(CASES)
            .filter(|&(index, case)| wanted(index, case) && can_run(case, args))
            .map(|(_, case)| case)
            // Word count needs little memory.
            .filter(|case| job == "sort" || !case.name().ends_with("half") && !case.name().ends_with("tenth"))
            .collect();
        let mut measured: Vec<Vec<Measured>> = vec![Vec::new(); cases.len()];
        for round in 0..args.rounds {
            for (case, measured) in cases.iter().zip(&mut measured) {
                if matches!(case, Case::Python { .. }) && round + 1 < args.rounds {
                    continue;
                }
                let _ = fs::remove_dir_all(&place.output);
                let result = match run(*case, job, &place, args) {
                    Err(error) if matches!(case, Case::Python { .. }) => {
                        left_out(case.name(), error);
                        continue;
                    }
                    result => result?,
                };
                if job == "sort" && round == 0 && matches!(case, Case::Here(_)) {
                    let sorted = check(&place.output)?;
                    if !sorted.sorted
                        || (sorted.records, sorted.checksum) != (expected.records, expected.checksum)
                    {
                        return Err(river::VrError::msg(format!("{}: not the sorted records", case.name())));
                    }
                }
                measured.push(result);
            }
        }
        let _ = fs::remove_dir_all(&place.output);
        let words = measured.iter().flatten().map(|m| m.result).collect::<std::collections::HashSet<_>>();
        if job == "wordcount" && words.len() != 1 {
            return Err(river::VrError::msg(format!("the cases do not agree on the words: {words:?}")));
        }
        table_of(job, args, &cases, &measured).print()?;
    }
    Ok(())
}

fn table_of(job: &str, args: &Args, cases: &[Case], measured: &[Vec<Measured>]) -> Table {
    let peers = if args.peers && args.rounds > 1 { ", Spark and Dask once" } else { "" };
    let mut table = Table::new(job, "")
        .note(format!("{} MB; {} rounds{peers}", args.megabytes, args.rounds))
        .column("time", "s", 3)
        .column("throughput", "MB/s", 0)
        .column("ratio to rayon", "", 2)
        .column("peak", "MiB", 1)
        .column("spilled", "MiB", 1);
    let spread = |runs: &[Measured]| Spread::of(runs.iter().map(|run| run.seconds).collect());
    let first = measured.first().map(|runs| spread(runs).median).unwrap_or_default();
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    for (case, runs) in cases.iter().zip(measured) {
        if runs.is_empty() {
            table.row(case.name(), [None; 5]);
            continue;
        }
        let spread = spread(runs);
        let peak = runs.iter().map(|run| run.peak).max().unwrap_or_default();
        let spilled = runs.iter().map(|run| run.spilled).max().unwrap_or_default();
        let throughput = f64::from(args.megabytes) / spread.median;
        let others = [throughput, spread.median / first, mebibytes(peak), mebibytes(spilled)];
        table.row(case.name(), std::iter::once(spread).chain(others.map(Spread::from)).map(Some));
    }
    table
}

fn can_run(case: Case, args: &Args) -> bool {
    let Case::Python { name, module, .. } = case else { return true };
    if !args.peers {
        return false;
    }
    let import = Command::new(&args.python).args(["-c", &format!("import {module}")]).output();
    let there = import.is_ok_and(|output| output.status.success());
    if !there {
        left_out(name, format_args!("{} has no {module}", args.python));
    }
    there
}

fn run(case: Case, job: &str, place: &Place, args: &Args) -> river::Result<Measured> {
    let input = if job == "sort" { &place.records } else { &place.text };
    match case {
        Case::Here(name) => Ok(process::run(&format!("{job}/{name}"), &[input, &place.output])?),
        Case::Python { script, .. } => {
            // Dask starts processes that import the script, so it must be a file. Whatever they spill or leave behind
            // is removed with it.
            let scratch = place.output.with_extension("scratch");
            let _ = fs::remove_dir_all(&scratch);
            fs::create_dir(&scratch)?;
            let file = scratch.join("job.py");
            fs::write(&file, script)?;
            let mut command = Command::new(&args.python);
            command.arg(&file).arg(job).arg(input).arg(&place.output);
            command.env("TMPDIR", &scratch).env("SPARK_LOCAL_DIRS", &scratch);
            let measured = measure_python(&mut command, &scratch.join("stderr"));
            if let Err(error) = fs::remove_dir_all(&scratch) {
                eprintln!("{}: {error}", scratch.display());
            }
            measured
        }
    }
}

/// Runs a script that prints its measurements and waits. Everything else that it prints goes to `stderr`.
fn measure_python(command: &mut Command, stderr: &Path) -> river::Result<Measured> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(stderr)?);
    let mut child = command.spawn()?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        let mut lines = BufReader::new(stdout);
        while !line.starts_with("measured ") {
            line.clear();
            if lines.read_line(&mut line)? == 0 {
                break;
            }
        }
    }
    let peak = peak_memory_of_tree(child.id());
    drop(child.stdin.take());
    let _ = child.wait()?;
    let mut words = line.split_whitespace().skip(1);
    let (seconds, result) =
        (words.next().and_then(|word| word.parse().ok()), words.next().and_then(|word| word.parse().ok()));
    match (seconds, result) {
        (Some(seconds), Some(result)) => Ok(Measured { seconds, peak, result, spilled: 0 }),
        _ => {
            let said = fs::read_to_string(stderr).unwrap_or_default();
            let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
            Err(river::VrError::msg(format!("its script has failed: {last}")))
        }
    }
}

fn run_case(case: &str) -> river::Result {
    let mut paths = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(input), Some(output)) = (paths.next(), paths.next()) else {
        return Err(river::VrError::msg("no input or output"));
    };
    let measured = match case {
        "wordcount/rayon, 2 threads" => {
            let found = files::find(&[input.into()], PIECE);
            let start = Instant::now();
            let counted = baseline::rayon(&found.pieces, 2)?;
            here(start, counted.counts.distinct() as u64)
        }
        "wordcount/River, 2 VMs" => on_vms(|cluster| {
            let outcome = Job::new(WordCount, Input::blocks([&input])).run(cluster)?;
            Ok((outcome.collect()?.len() as u64, outcome.report().clone()))
        })?,
        "sort/rayon, 2 threads" => {
            fs::create_dir(&output)?;
            let start = Instant::now();
            sort_here(&input, &output)?;
            here(start, 0)
        }
        _ => {
            let size = fs::metadata(&input)?.len();
            let memory = match case {
                "sort/River, 2 VMs, half" => Some(size / 2),
                "sort/River, 2 VMs, tenth" => Some(size / 10),
                _ => None,
            };
            on_vms(|cluster| {
                let job =
                    Job::new(Sort, Input::fixed([&input], RECORD)).sorted().output(Output::raw(&output));
                let job = match memory {
                    Some(memory) => job.memory(memory),
                    None => job,
                };
                Ok((0, job.reducers(PARTS).run(cluster)?.report().clone()))
            })?
        }
    };
    Ok(process::report(&measured)?)
}

fn here(start: Instant, result: u64) -> Measured {
    let seconds = start.elapsed().as_secs_f64();
    Measured { seconds, peak: peak_memory_of_tree(std::process::id()), result, spilled: 0 }
}

fn on_vms(job: impl Fn(&Cluster<'_>) -> river::Result<(u64, Report)>) -> river::Result<Measured> {
    let machines = Vm::start_many(&VmConfig::default().hidden(), 2)?;
    river::try_run(|vr| {
        let leased = vr.allocate(machines.iter().map(Vm::info).collect(), 2)?;
        let cluster = Cluster::on(vr, &leased)?;
        let start = Instant::now();
        let (result, report) = job(&cluster)?;
        let measured = Measured { spilled: report.spilled_bytes, ..here(start, result) };
        if std::env::var_os("RIVER_BENCH_REPORT").is_some() {
            eprint!("{report}");
        }
        Ok(measured)
    })
}

/// Sorts records on two threads: references with the first bytes of the keys, then parts written concurrently.
fn sort_here(input: &Path, output: &Path) -> river::Result {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
    let mut bytes = Vec::new();
    File::open(input)?.read_to_end(&mut bytes)?;
    let records = bytes.as_chunks::<RECORD>().0;
    pool.install(|| -> io::Result<()> {
        let mut order: Vec<(u64, u32)> = records
            .par_iter()
            .zip(0u32..records.len() as u32)
            .map(|(record, index)| {
                (record.first_chunk().map_or(0, |eight| u64::from_be_bytes(*eight)), index)
            })
            .collect();
        order.par_sort_unstable_by(|a, b| {
            let rest = |index: u32| &records[index as usize][8..10];
            a.0.cmp(&b.0).then_with(|| rest(a.1).cmp(rest(b.1))).then(a.1.cmp(&b.1))
        });
        let size = order.len().div_ceil(PARTS).max(1);
        order.par_chunks(size).enumerate().try_for_each(|(part, order)| {
            let mut file = File::create(output.join(format!("part-{part:05}")))?;
            thread_local!(static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
            BUFFER.with_borrow_mut(|buffer| {
                for some in order.chunks(2500) {
                    buffer.clear();
                    some.iter().for_each(|(_, index)| buffer.extend_from_slice(&records[*index as usize]));
                    file.write_all(buffer)?;
                }
                Ok(())
            })
        })
    })?;
    Ok(())
}
