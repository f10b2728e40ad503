//! Calls and farms over each link: tasks per second, one synchronous call, pipelined calls, large arguments and
//! results, and the time from the start of a program to its first result, compared with Python's libraries for the same
//! purpose, and tarpc.
//!
//! ```text
//! cargo bench -p river-benches --bench farm
//! python3 -m venv /tmp/peers && /tmp/peers/bin/pip install -r benches/peers/requirements.txt
//! cargo bench -p river-benches --bench farm -- --peers --python /tmp/peers/bin/python3
//! cargo bench -p river-benches --bench farm -- --memory   # of an initiator that farms out ten million items
//! ```
//!
//! Two VMs on this machine. A task adds one to a number. Each link is measured in a process of its own.

use std::ffi::OsStr;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use river::core::{Vm, VmConfig, VmInfo, Vr};
use river::rai::{Blob, RaiServer};
use river::trickle::{self, Chunk, Vms};
use river_benches::peers::{self, PEERS};
use river_benches::process::{self, peak_memory};
use river_benches::table::{Spread, Table, load, machine};
use serde::{Deserialize, Serialize};

const TASKS: u64 = 100_000;
const CALLS: u64 = 20_000;
/// The number of outstanding calls.
const WINDOW: usize = 1000;

/// Measure calls and farms.
#[derive(Parser)]
struct Args {
    /// How many times everything is measured
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Also measure Python's libraries, if they are installed, and tarpc, which is built for this
    #[arg(long)]
    peers: bool,
    /// The Python with these libraries, for instance in a virtual environment
    #[arg(long, default_value = "python3", value_name = "PATH")]
    python: PathBuf,
    /// Measure only how much memory the initiator needs for one million and for ten million items
    #[arg(long)]
    memory: bool,
    /// Passed by `cargo bench`; ignored
    #[arg(long, hide = true)]
    bench: bool,
}

/// The measurements: one number per round for each.
#[derive(Default, Serialize, Deserialize)]
struct Measured {
    tasks: Vec<f64>,
    auto: Vec<f64>,
    call: Vec<f64>,
    pipelined: Vec<f64>,
    mib1: Vec<f64>,
    mib64: Vec<f64>,
}

fn add_one(x: u64) -> u64 {
    x + 1
}

fn main() -> ExitCode {
    process::main(run_case, tables)
}

fn tables(args: &Args) -> river::Result {
    println!("{}; {} rounds; median (min..max)", machine(), args.rounds);
    if args.memory {
        let mut table = Table::new("forkgen: the initiator's memory", "items").column("peak", "MiB", 1);
        for items in ["1000000", "10000000"] {
            let peak: u64 = process::run("memory", &[Path::new(items)])?;
            table.row(items, [Some((peak as f64 / f64::from(1 << 20)).into())]);
        }
        return Ok(table.print()?);
    }
    let before = load();
    let rounds = args.rounds.to_string();
    let mut table = Table::new("calls and farms", "")
        .column("chunk 1", "tasks/s", 0)
        .column("ratio", "", 1)
        .column("chunk auto", "tasks/s", 0)
        .column("one call", "us", 1)
        .column("ratio", "", 1)
        .column("pipelined", "calls/s", 0)
        .column("1 MiB there and back", "ms", 2)
        .column("64 MiB there and back", "ms", 1);
    let mut ours = None;
    for (name, links) in [("River, Shm", "auto"), ("River, Tcp", "tcp")] {
        let environment = [("RIVER_LINKS", OsStr::new(links))];
        let measured: Measured = process::run_with("farm", &[Path::new(&rounds)], &environment)?;
        let medians = |spread: Option<Spread>| spread.map(|spread| spread.median);
        let measured = measured.by_name();
        let ours = *ours.get_or_insert_with(|| (medians(measured("tasks")), medians(measured("call"))));
        table.row(name, cells(measured, ours));
    }
    let ours = ours.unwrap_or_default();
    for peer in PEERS.into_iter().filter(|_| args.peers) {
        if let Some(numbers) = peers::measure(&args.python, peer) {
            table.row(peer, cells(|name| numbers.get(name).map(|&number| number.into()), ours));
        }
    }
    table.print()?;
    println!(
        "ratio: how many times slower than River through shared memory; -: not measured, or there is no such thing"
    );
    println!(
        "1 MiB, 64 MiB: there and back, as blobs; peers: best of three, chunk auto is their own choice of chunks"
    );
    let first: Vec<f64> = (0..args.rounds).map(|_| first_result()).collect::<river::Result<Vec<f64>>>()?;
    let mut table = Table::new("from the start of a program to its first result from two VMs that wait", "")
        .column("time", "ms", 1);
    table.row("River", [Some(Spread::of(first))]);
    table.print()?;
    println!("load average {before:.2} before, {:.2} after", load());
    Ok(())
}

impl Measured {
    /// Indexed by the names that peers use.
    fn by_name(self) -> impl Fn(&str) -> Option<Spread> + Copy {
        let Self { tasks, auto, call, pipelined, mib1, mib64 } = self;
        let [tasks, auto, call, pipelined, mib1, mib64] =
            [tasks, auto, call, pipelined, mib1, mib64].map(|numbers| Some(Spread::of(numbers)));
        move |name| match name {
            "tasks" => tasks,
            "chunked" => auto,
            "call" => call,
            "pipelined" => pipelined,
            "mib1" => mib1,
            "mib64" => mib64,
            _ => None,
        }
    }
}

/// A row; `ours` are the tasks per second and the microseconds of a call with which it is compared.
fn cells(measured: impl Fn(&str) -> Option<Spread>, ours: (Option<f64>, Option<f64>)) -> [Option<Spread>; 8] {
    let (tasks, call) = (measured("tasks"), measured("call"));
    let fewer = tasks.zip(ours.0).map(|(theirs, ours)| (ours / theirs.median).into());
    let longer = call.zip(ours.1).map(|(theirs, ours)| (theirs.median / ours).into());
    [
        tasks,
        fewer,
        measured("chunked"),
        call,
        longer,
        measured("pipelined"),
        measured("mib1"),
        measured("mib64"),
    ]
}

fn run_case(case: &str) -> river::Result {
    let number = || std::env::args().nth(1).and_then(|text| text.parse::<u64>().ok());
    match case {
        "farm" => {
            let rounds = number().unwrap_or(1);
            let measured = with_vms(|vms| measure(vms, rounds))?;
            process::report(&measured)?;
        }
        "memory" => {
            let items = number().unwrap_or(1);
            let peak = with_vms(|vms| {
                let mut sum = 0;
                for result in vms.forkgen(add_one, 0..items, Chunk::auto()) {
                    sum += result?;
                }
                assert_eq!(sum, (1..=items).sum::<u64>());
                Ok(peak_memory())
            })?;
            process::report(&peak)?;
        }
        // The whole program that `first_result` runs.
        "first" => river::try_run(|vr| {
            let addresses = std::env::var("RIVER_BENCH_VMS").unwrap_or_default();
            let vms: Vec<VmInfo> = serde_json::from_str(&addresses)?;
            let sum = on(vr, vms, |vms| {
                let forked = vms.fork(add_one, (1,))?;
                Ok(trickle::join(forked)?.into_iter().sum::<u64>())
            })?;
            process::report(&sum)?;
            Ok(())
        })?,
        _ => return Err(river::VrError::msg(format!("no case {case:?}"))),
    }
    Ok(())
}

/// Milliseconds from the start of a process to the results of two VMs that already have its image.
fn first_result() -> river::Result<f64> {
    let machines = Vm::start_many(&VmConfig::default().hidden(), 2)?;
    let infos: Vec<VmInfo> = machines.iter().map(Vm::info).collect();
    let infos = serde_json::to_string(&infos)?;
    let environment = [("RIVER_BENCH_VMS", OsStr::new(&infos))];
    let mut took = 0.0;
    // The first time includes sending the image.
    for _ in 0..2 {
        let start = Instant::now();
        let sum: u64 = process::run_with("first", &[], &environment)?;
        took = start.elapsed().as_secs_f64() * 1e3;
        assert_eq!(sum, 4);
    }
    Ok(took)
}

fn with_vms<R>(measure: impl FnOnce(&Vms<'_>) -> river::Result<R>) -> river::Result<R> {
    let machines = Vm::start_many(&VmConfig::default().hidden(), 2)?;
    river::try_run(|vr| on(vr, machines.iter().map(Vm::info).collect(), measure))
}

fn on<R>(
    vr: &Vr,
    machines: Vec<VmInfo>,
    measure: impl FnOnce(&Vms<'_>) -> river::Result<R>,
) -> river::Result<R> {
    let leased = vr.allocate(machines, 2)?;
    let servers = vr.deploy(&leased, |_| RaiServer::unrestricted())?;
    measure(&Vms::attach(vr, leased.iter().map(|vm| vm.name.clone()).zip(servers.iter())))
}

fn measure(vms: &Vms<'_>, rounds: u64) -> river::Result<Measured> {
    let mut measured = Measured::default();
    for _ in 0..rounds {
        measured.tasks.push(farm(vms, Chunk::Fixed(1))?);
        measured.auto.push(farm(vms, Chunk::auto())?);
        let (vm, start) = (&vms[0], Instant::now());
        for x in 0..CALLS {
            black_box(vm.call(add_one, (x,))?);
        }
        measured.call.push(start.elapsed().as_secs_f64() / CALLS as f64 * 1e6);
        measured.pipelined.push(pipelined(vms)?);
        measured.mib1.push(echo(vms, 1 << 20, 20)?);
        measured.mib64.push(echo(vms, 64 << 20, 3)?);
    }
    Ok(measured)
}

/// Tasks per second.
fn farm(vms: &Vms<'_>, chunk: Chunk) -> river::Result<f64> {
    let start = Instant::now();
    let results = vms.forkwork(add_one, 0..TASKS, chunk)?;
    let took = start.elapsed().as_secs_f64();
    assert_eq!(results.len() as u64, TASKS);
    Ok(TASKS as f64 / took)
}

/// Calls per second on one connection.
fn pipelined(vms: &Vms<'_>) -> river::Result<f64> {
    let rai = vms[0].rai();
    let start = Instant::now();
    let mut outstanding = std::collections::VecDeque::with_capacity(WINDOW);
    for x in 0..TASKS {
        if outstanding.len() == WINDOW
            && let Some(call) = outstanding.pop_front()
        {
            black_box(river::rai::Pending::wait(call)?);
        }
        outstanding.push_back(rai.call_async(add_one, (x,))?);
    }
    for call in outstanding {
        black_box(call.wait()?);
    }
    Ok(TASKS as f64 / start.elapsed().as_secs_f64())
}

/// Milliseconds to send this many bytes there and back.
fn echo(vms: &Vms<'_>, size: usize, times: u32) -> river::Result<f64> {
    let blob = Blob::from(vec![7; size]);
    let start = Instant::now();
    for _ in 0..times {
        let back = vms[0].call(|blob: Blob| blob, (blob.clone(),))?;
        assert_eq!(back.len(), size);
    }
    Ok(start.elapsed().as_secs_f64() / f64::from(times) * 1e3)
}
