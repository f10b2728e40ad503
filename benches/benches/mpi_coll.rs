//! Every algorithm of every collective operation over sizes and ranks, as the OSU micro-benchmarks measure them: the
//! time of one operation, where one algorithm becomes faster than another, and the resulting table.
//!
//! ```text
//! cargo bench -p river-benches --bench mpi_coll
//! cargo bench -p river-benches --bench mpi_coll -- --ranks 4 --link shm --operation allreduce --rounds 5
//! cargo bench -p river-benches --bench mpi_coll -- --peers
//! ```
//!
//! * `local`: ranks are threads of one process, which hand memory to each other.
//! * `shm`: every rank has a process of its own, all on this machine.
//! * `tcp`: the same processes with `RIVER_LINKS=tcp`; the others have shared memory switched off.
//!
//! A number is the time of one operation in microseconds on the slowest rank, the median over the rounds, in which all
//! algorithms take turns. `table` is the default choice. With `--peers`, the table also has the same operations of
//! other MPI implementations, and how many times faster the default is than the fastest of them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use river::mpi::coll::{
    Allgather, Allgatherv, Allreduce, Alltoall, Alltoallv, Barrier, Bcast, Exscan, Gather, Gatherv,
    Operation, Reduce, ReduceScatter, Scan, Scatter, Scatterv, Tuning, consecutive,
};
use river::mpi::{Communicator, Launch, MAX, SUM};
use river_benches::mpi::{self, Mpi};
use river_benches::process;
use river_benches::table::{Spread, Table, bytes, left_out, load, machine};
use serde::{Deserialize, Serialize};

/// Bytes of a vector, or of a block.
const SIZES: [usize; 8] = [8, 64, 1 << 10, 8 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20];
/// The maximum size for operations with a block for each pair of ranks.
const LONGEST_BLOCK: usize = 1 << 20;
/// The approximate duration of one measurement.
const TARGET: Duration = Duration::from_millis(4);
/// The name for the algorithm that is used by default.
const TABLE: &str = "table";

/// Compare the algorithms of collective operations.
#[derive(Parser)]
struct Args {
    /// How many times everything is measured
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// With this many ranks (may be repeated)
    #[arg(long, default_values = ["2", "4", "8"])]
    ranks: Vec<usize>,
    /// Over this link (may be repeated)
    #[arg(long, default_values = ["local", "shm"])]
    link: Vec<Link>,
    /// Only this operation, `allreduce` for instance (may be repeated)
    #[arg(long)]
    operation: Vec<String>,
    /// Only this size in bytes (may be repeated)
    #[arg(long)]
    size: Vec<usize>,
    /// Also measure Open MPI and MPICH, if they are installed
    #[arg(long)]
    peers: bool,
    /// Passed by `cargo bench`; ignored
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Link {
    Local,
    Shm,
    Tcp,
}

/// The times for one size: for each algorithm, one number per round.
#[derive(Serialize, Deserialize)]
struct Line {
    operation: String,
    size: usize,
    times: Vec<(String, Vec<f64>)>,
}

/// The operations that can be measured, and their algorithms.
fn operations() -> Vec<(&'static str, Vec<&'static str>)> {
    fn of<O: Operation>() -> (&'static str, Vec<&'static str>) {
        (O::NAME, O::algorithms().iter().map(|algorithm| algorithm.name()).collect())
    }
    vec![
        of::<Barrier>(),
        of::<Bcast>(),
        of::<Gather>(),
        of::<Gatherv>(),
        of::<Scatter>(),
        of::<Scatterv>(),
        of::<Allgather>(),
        of::<Allgatherv>(),
        of::<Alltoall>(),
        of::<Alltoallv>(),
        of::<Reduce>(),
        of::<Allreduce>(),
        of::<ReduceScatter>(),
        of::<Scan>(),
        of::<Exscan>(),
    ]
}

fn main() -> ExitCode {
    process::main(run_case, tables)
}

fn tables(args: &Args) -> river::Result {
    println!("{}; {} rounds; median (min..max)", machine(), args.rounds);
    let own: Vec<String> = std::env::args().skip(1).collect();
    let own: Vec<&Path> = own.iter().map(Path::new).collect();
    let directory = tempfile::tempdir()?;
    let peers = if args.peers { Peer::compiled(directory.path()) } else { Vec::new() };
    let mut theirs: BTreeMap<(usize, bool), Theirs> = BTreeMap::new();
    for &link in &args.link {
        for &ranks in &args.ranks {
            let over_tcp = link == Link::Tcp;
            let environment = ("RIVER_LINKS", OsStr::new(if over_tcp { "tcp" } else { "auto" }));
            let before = load();
            let case = format!("{link:?} {ranks}").to_lowercase();
            let lines: Vec<Line> = process::run_with(&case, &own, &[environment])?;
            let theirs = match theirs.entry((ranks, over_tcp)) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(vacant) => {
                    let measured = peers.iter().filter_map(|peer| {
                        let name = peer.mpi.name;
                        let times = peer.measure((ranks, over_tcp), &lines, args);
                        let skip = |error: &io::Error| left_out(name, error);
                        Some((name, times.inspect_err(skip).ok()?))
                    });
                    vacant.insert(measured.collect())
                }
            };
            for same in lines.chunk_by(|a, b| a.operation == b.operation) {
                print_table(link, ranks, same, theirs)?;
            }
            println!("\nload average {before:.2} before, {:.2} after", load());
        }
    }
    Ok(())
}

/// Microseconds by operation and size, of each peer.
type Theirs = Vec<(&'static str, BTreeMap<(String, usize), Vec<f64>>)>;

/// The program `peers/coll.c`, built with another implementation.
struct Peer {
    mpi: &'static Mpi,
    program: PathBuf,
}

impl Peer {
    fn compiled(directory: &Path) -> Vec<Self> {
        let compile = |mpi: &'static Mpi| {
            let program = directory.join(mpi.c);
            match mpi.compile("coll.c", &program) {
                Ok(()) => Some(Self { mpi, program }),
                Err(error) => {
                    left_out(mpi.name, error);
                    None
                }
            }
        };
        mpi::ALL.iter().filter_map(compile).collect()
    }

    /// Measures the same operations and sizes.
    fn measure(
        &self,
        (ranks, over_tcp): (usize, bool),
        lines: &[Line],
        args: &Args,
    ) -> io::Result<BTreeMap<(String, usize), Vec<f64>>> {
        let mut operations: Vec<&str> = lines.iter().map(|line| line.operation.as_str()).collect();
        operations.dedup();
        let mut sizes: Vec<usize> = lines.iter().map(|line| line.size).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let mut all = vec![args.rounds.to_string(), operations.join(",")];
        all.extend(sizes.iter().map(ToString::to_string));
        let mut times = BTreeMap::<_, Vec<f64>>::new();
        let run = if over_tcp { Mpi::run_over_tcp } else { Mpi::run };
        for line in run(self.mpi, ranks, &self.program, &all)?.lines() {
            let [operation, size, time] = line.split(' ').collect::<Vec<_>>()[..] else { continue };
            if let (Ok(size), Ok(time)) = (size.parse(), time.parse()) {
                times.entry((operation.to_owned(), size)).or_default().push(time);
            }
        }
        Ok(times)
    }
}

fn print_table(link: Link, ranks: usize, lines: &[Line], theirs: &Theirs) -> river::Result {
    let Some(first) = lines.first() else { return Ok(()) };
    let mut table = Table::new(format!("{link:?}: {}, {ranks} ranks", first.operation), "size");
    for (name, _) in &first.times {
        table = table.column(name, "us", 2);
    }
    for (name, _) in theirs {
        table = table.column(*name, "us", 2);
    }
    if !theirs.is_empty() {
        table = table.column("times faster", "", 2);
    }
    let mut winners: Vec<(usize, String)> = Vec::new();
    for line in lines {
        let spreads: Vec<Spread> = line.times.iter().map(|(_, times)| Spread::of(times.clone())).collect();
        let key = (line.operation.clone(), line.size);
        let peers: Vec<Option<Spread>> =
            theirs.iter().map(|(_, times)| times.get(&key).cloned().map(Spread::of)).collect();
        let best_peer = peers.iter().flatten().map(|spread| spread.median).min_by(f64::total_cmp);
        let faster =
            best_peer.zip(spreads.first()).map(|(peer, table)| Spread::of(vec![peer / table.median]));
        let cells = spreads.iter().copied().map(Some).chain(peers);
        table.sized(line.size, cells.chain((!theirs.is_empty()).then_some(faster)));
        let medians: Vec<f64> = spreads.iter().map(|spread| spread.median).collect();
        let named = line.times.iter().zip(&medians).filter(|((name, _), _)| name != TABLE);
        let fastest = named.clone().min_by(|(_, a), (_, b)| a.total_cmp(b));
        let best = fastest.map_or(f64::INFINITY, |(_, &time)| time);
        // The fastest algorithm stays in the table until another one is clearly faster.
        let now = winners.last().map(|(_, name)| name.clone());
        let still = named.clone().any(|((name, _), &time)| Some(name) == now.as_ref() && time <= best * 1.1);
        match fastest {
            Some(((name, _), _)) if !still => winners.push((line.size, name.clone())),
            _ => {}
        }
    }
    let mut proposal = String::new();
    for (at, (_, name)) in winners.iter().enumerate() {
        let _ = match winners.get(at + 1) {
            Some((next, _)) => write!(proposal, "{name} below {}, ", bytes(*next)),
            None => write!(proposal, "{name}"),
        };
    }
    table.print()?;
    println!("proposed: {proposal}");
    Ok(())
}

/// Runs all ranks of one table.
fn run_case(case: &str) -> river::Result {
    let ranks = case.split_whitespace().nth(1).and_then(|ranks| ranks.parse::<usize>().ok()).unwrap_or(2);
    let per_vm = if case.starts_with("local") { ranks } else { 1 };
    let mut lines = Launch::new(ranks).per_vm(per_vm).try_run(measure)?;
    Ok(process::report(&lines.swap_remove(0))?)
}

/// The program of a rank: all measurements, in the same order on all ranks.
fn measure(world: &Communicator) -> river::Result<Vec<Line>> {
    let args = Args::parse();
    let mut lines = Vec::new();
    for (operation, algorithms) in operations() {
        if !args.operation.is_empty() && !args.operation.iter().any(|name| name == operation) {
            continue;
        }
        for size in SIZES {
            if !args.size.is_empty() && !args.size.contains(&size) || !makes_sense(operation, size) {
                continue;
            }
            let mut tuned = vec![(TABLE.to_owned(), world.clone())];
            for name in &algorithms {
                let tuning = Tuning::default().with_named(operation, name)?;
                tuned.push(((*name).to_owned(), world.with_tuning(tuning)));
            }
            // Algorithms that cannot do it report that, on all ranks alike.
            tuned.retain(|(_, comm)| !needs_power_of_two(comm) || world.size().is_power_of_two());
            let mut times = vec![Vec::new(); tuned.len()];
            let mut buffers = Buffers::new(world.size(), size);
            let mut repeats = vec![0; tuned.len()];
            for ((_, comm), repeats) in tuned.iter().zip(&mut repeats) {
                *repeats = warm_up(comm, operation, &mut buffers)?;
            }
            for _ in 0..args.rounds {
                for (((_, comm), times), &repeats) in tuned.iter().zip(&mut times).zip(&repeats) {
                    times.push(time(comm, operation, &mut buffers, repeats)?);
                }
            }
            let times = tuned.into_iter().map(|(name, _)| name).zip(times).collect();
            lines.push(Line { operation: operation.to_owned(), size, times });
        }
    }
    Ok(lines)
}

fn makes_sense(operation: &str, size: usize) -> bool {
    match operation {
        "barrier" => size == SIZES[0],
        "bcast" | "reduce" | "allreduce" | "scan" | "exscan" => true,
        _ => size <= LONGEST_BLOCK,
    }
}

fn needs_power_of_two(comm: &Communicator) -> bool {
    let said = comm.tuning().to_string();
    ["allgather=recursive_doubling", "allgatherv=recursive_doubling", "reduce_scatter=recursive_halving"]
        .contains(&said.as_str())
}

/// Determines how many times to repeat an operation, the same on all ranks. It also takes care of one-time costs, such
/// as touching memory for the first time.
fn warm_up(comm: &Communicator, operation: &str, buffers: &mut Buffers) -> river::Result<usize> {
    time(comm, operation, buffers, 3)?;
    let once = time(comm, operation, buffers, 3)?;
    Ok(((TARGET.as_secs_f64() * 1e6 / once) as usize).clamp(3, 5000))
}

/// Microseconds of one of `repeats` operations, on the slowest rank.
fn time(comm: &Communicator, operation: &str, buffers: &mut Buffers, repeats: usize) -> river::Result<f64> {
    // Another algorithm ran before, and left its state in caches and predictors.
    buffers.run(comm, operation)?;
    comm.barrier()?;
    let start = Instant::now();
    for _ in 0..repeats {
        buffers.run(comm, operation)?;
    }
    let mut longest = [start.elapsed().as_secs_f64() * 1e6 / repeats as f64];
    comm.allreduce_in_place(&mut longest, &MAX)?;
    Ok(longest[0])
}

/// The buffers of an operation.
struct Buffers {
    count: usize,
    ranks: usize,
    /// A block for each rank, all of the same length.
    blocks: Vec<Range<usize>>,
    send: Vec<f64>,
    recv: Vec<f64>,
}

impl Buffers {
    fn new(ranks: usize, size: usize) -> Self {
        let count = size / size_of::<f64>();
        let total = if size <= LONGEST_BLOCK { count * ranks } else { count };
        let blocks = consecutive(&vec![count; ranks]);
        Self { count, ranks, blocks, send: vec![1.0; total], recv: vec![0.0; total] }
    }

    fn run(&mut self, comm: &Communicator, operation: &str) -> river::mpi::Result {
        let (n, all) = (self.count, self.count * self.ranks);
        let is_root = comm.rank() == 0;
        let (send, recv, blocks) = (&self.send, &mut self.recv, &self.blocks);
        match operation {
            "barrier" => comm.barrier(),
            "bcast" => comm.bcast(&mut recv[..n], 0),
            "gather" if is_root => comm.gather(&send[..n], &mut recv[..all], 0),
            "gather" => comm.gather(&send[..n], &mut [], 0),
            "gatherv" if is_root => comm.gatherv(&send[..n], &mut recv[..all], blocks, 0),
            "gatherv" => comm.gatherv(&send[..n], &mut [], &[], 0),
            "scatter" if is_root => comm.scatter(&send[..all], &mut recv[..n], 0),
            "scatter" => comm.scatter(&[], &mut recv[..n], 0),
            "scatterv" if is_root => comm.scatterv(&send[..all], blocks, &mut recv[..n], 0),
            "scatterv" => comm.scatterv(&[], &[], &mut recv[..n], 0),
            "allgather" => comm.allgather(&send[..n], &mut recv[..all]),
            "allgatherv" => comm.allgatherv(&send[..n], &mut recv[..all], blocks),
            "alltoall" => comm.alltoall(&send[..all], &mut recv[..all]),
            "alltoallv" => comm.alltoallv(&send[..all], blocks, &mut recv[..all], blocks),
            "reduce" => comm.reduce(&send[..n], &mut recv[..n], &SUM, 0),
            "allreduce" => comm.allreduce(&send[..n], &mut recv[..n], &SUM),
            "reduce_scatter" => comm.reduce_scatter_block(&send[..all], &mut recv[..n], &SUM),
            "scan" => comm.scan(&send[..n], &mut recv[..n], &SUM),
            _ => comm.exscan(&send[..n], &mut recv[..n], &SUM),
        }
    }
}
