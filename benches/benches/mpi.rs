//! Point-to-point communication of MPI ranks, as the OSU micro-benchmarks measure it: latency, bandwidth, bidirectional
//! bandwidth and message rate of two ranks, and the message rate of two pairs at once; compared with the core's link
//! alone, in the same run, and with MPICH and Open MPI if they are installed (`apt-get install mpich libmpich-dev`,
//! `apt-get install openmpi-bin libopenmpi-dev`).
//!
//! ```text
//! cargo bench -p river-benches --bench mpi
//! cargo bench -p river-benches --bench mpi -- --rounds 3 --link shm --size 8 --size 65536
//! ```
//!
//! * Local: ranks of one process; the others use shared memory
//! * Shm: processes of one machine
//! * Tcp: the same with `RIVER_LINKS=tcp`; the others have shared memory switched off
//!
//! The link alone: the same exchanges by `Vr::send_bytes` and `Vr::receive`, of memory that is handed over and not
//! read. MPI copies from the sender's slice and into the receiver's.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use river::core::{Channel, Selector, VrId};
use river::mpi::{self, Communicator, Request, wait_all};
use river_benches::exchange::Result;
use river_benches::mpi::{ALL, Mpi};
use river_benches::process;
use river_benches::table::{Spread, Table, left_out, load, machine};
use serde::{Deserialize, Serialize};

const RAW: Channel = Channel::named("river-benches mpi raw");
const SIZES: [usize; 8] = [0, 8, 1 << 10, 8 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20];
/// The approximate volume of a measurement, and the most messages and windows.
const VOLUME: usize = 64 << 20;
const PINGS: usize = 4000;
const WINDOWS: usize = 300;
/// The maximum size of a window.
const ROOM: usize = 4 << 20;

/// Compare River's MPI with its links and with MPI in C.
#[derive(Parser)]
struct Args {
    /// How many times everything is measured
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Only this link (may be repeated)
    #[arg(long)]
    link: Vec<Link>,
    /// Only messages of this many bytes (may be repeated)
    #[arg(long, value_parser = size)]
    size: Vec<usize>,
    /// Leave MPICH and Open MPI out
    #[arg(long)]
    no_peers: bool,
    /// Passed by `cargo bench`; ignored
    #[arg(long, hide = true)]
    bench: bool,
}

fn size(text: &str) -> std::result::Result<usize, String> {
    let size = text.parse().map_err(|_| "not a number of bytes".to_owned())?;
    if SIZES.contains(&size) { Ok(size) } else { Err(format!("measured are {SIZES:?}")) }
}

#[derive(Clone, Copy, PartialEq, Debug, ValueEnum)]
enum Link {
    Local,
    Shm,
    Tcp,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
enum Measure {
    Latency,
    Bandwidth,
    Bidirectional,
    Rate,
    Pairs,
}

impl Measure {
    const ALL: [Self; 5] = [Self::Latency, Self::Bandwidth, Self::Bidirectional, Self::Rate, Self::Pairs];

    fn title(self) -> &'static str {
        let titles = [
            "latency, one way",
            "bandwidth",
            "bidirectional bandwidth",
            "message rate",
            "message rate of two pairs together",
        ];
        titles[self as usize]
    }

    fn unit(self) -> &'static str {
        ["us", "GB/s", "GB/s", "million/s", "million/s"][self as usize]
    }

    /// The name that the programs in C use.
    fn name(self) -> &'static str {
        ["latency", "bandwidth", "bidirectional", "rate", "pairs"][self as usize]
    }
}

/// A column of the table: the numbers of one implementation.
type Numbers = BTreeMap<(Measure, usize), Vec<f64>>;

fn main() -> ExitCode {
    process::main(run_case, tables)
}

fn tables(args: &Args) -> Result {
    println!("{}; {} rounds; median (min..max)", machine(), args.rounds);
    let before = load();
    let sizes = if args.size.is_empty() { SIZES.to_vec() } else { args.size.clone() };
    let links = [Link::Local, Link::Shm, Link::Tcp];
    let links = links.into_iter().filter(|link| args.link.is_empty() || args.link.contains(link));
    let mut peers: BTreeMap<bool, Vec<(&str, Numbers)>> = BTreeMap::new();
    for link in links {
        let over_tcp = link == Link::Tcp;
        if !args.no_peers && !peers.contains_key(&over_tcp) {
            peers.insert(over_tcp, all_peers(args.rounds, &sizes, over_tcp));
        }
        let text: Vec<String> = sizes.iter().map(ToString::to_string).collect();
        let (rounds, text) = (args.rounds.to_string(), text.join(","));
        let environment = ("RIVER_LINKS", OsStr::new(if over_tcp { "tcp" } else { "auto" }));
        let case = format!("{link:?}");
        let given = [Path::new(&rounds), Path::new(&text)];
        let (river, raw): (Vec<_>, Vec<_>) = process::run_with(&case, &given, &[environment])?;
        let mut columns =
            vec![("River", river.into_iter().collect()), ("link alone", raw.into_iter().collect())];
        columns.extend(peers.get(&over_tcp).into_iter().flatten().cloned());
        for measure in Measure::ALL {
            table_of(link, measure, &columns).print()?;
        }
    }
    println!("load average {before:.2} before, {:.2} after", load());
    Ok(())
}

/// The numbers of MPICH and Open MPI, if they are installed.
fn all_peers(rounds: u16, sizes: &[usize], over_tcp: bool) -> Vec<(&'static str, Numbers)> {
    let mut peers = Vec::new();
    for mpi in &ALL {
        match peer(mpi, "p2p", 2, rounds, sizes, over_tcp) {
            Ok(mut numbers) => {
                let sizes: Vec<usize> = pair_sizes(sizes).collect();
                match peer(mpi, "pairs", 4, rounds, &sizes, over_tcp) {
                    Ok(mut pairs) => numbers.append(&mut pairs),
                    Err(error) => left_out(&format!("{} in two pairs", mpi.name), error),
                }
                peers.push((mpi.name, numbers));
            }
            Err(error) => left_out(mpi.name, error),
        }
    }
    peers
}

/// Rates are only of interest for short messages.
fn pair_sizes(sizes: &[usize]) -> impl Iterator<Item = usize> {
    sizes.iter().copied().filter(|size| (1..=8 << 10).contains(size))
}

/// Ratios are relative to the second and later columns: above 1 means that River's value is larger.
fn table_of(link: Link, measure: Measure, columns: &[(&str, Numbers)]) -> Table {
    let mut table = Table::new(format!("{link:?}: {}", measure.title()), "size");
    for (index, (name, _)) in columns.iter().enumerate() {
        table = table.column(*name, measure.unit(), 2);
        if index > 0 {
            table = table.column("ratio", "", 2);
        }
    }
    let measured = |size: &usize| columns[0].1.contains_key(&(measure, *size));
    for size in SIZES.into_iter().filter(|size| measured(size) && (measure == Measure::Latency || *size > 0))
    {
        let spread = |numbers: &Numbers| numbers.get(&(measure, size)).cloned().map(Spread::of);
        let river = spread(&columns[0].1);
        let others = columns[1..].iter().flat_map(|(_, numbers)| {
            let other = spread(numbers);
            [other, river.zip(other).map(|(river, other)| (river.median / other.median).into())]
        });
        table.sized(size, std::iter::once(river).chain(others));
    }
    table
}

/// Compiles and runs the exchanges in C.
fn peer(
    mpi: &Mpi,
    name: &str,
    ranks: usize,
    rounds: u16,
    sizes: &[usize],
    over_tcp: bool,
) -> Result<Numbers> {
    let directory = tempfile::tempdir()?;
    let program = directory.path().join(name);
    mpi.compile(&format!("{name}.c"), &program)?;
    let args: Vec<String> =
        std::iter::once(rounds.to_string()).chain(sizes.iter().map(ToString::to_string)).collect();
    let said = match over_tcp {
        true => mpi.run_over_tcp(ranks, &program, &args)?,
        false => mpi.run(ranks, &program, &args)?,
    };
    let mut numbers = Numbers::new();
    for line in said.lines() {
        let [name, size, number] = line.split(' ').collect::<Vec<_>>()[..] else { continue };
        if let Some(measure) = Measure::ALL.into_iter().find(|measure| measure.name() == name) {
            numbers.entry((measure, size.parse()?)).or_default().push(number.parse()?);
        }
    }
    Ok(numbers)
}

/// The measured jobs: of two ranks, and of four; in one process, or in one process each.
fn run_case(case: &str) -> Result {
    let local = case == "Local";
    let measured = river::try_run(|vr| {
        let vms = if local { vec![vr.start_local(1)?.swap_remove(0); 4] } else { vr.start_local(4)? };
        let (mut river, raw) = mpi::run_on(vr, &vms[..2], rank)?.swap_remove(0);
        river.extend(mpi::run_on(vr, &vms, pairs)?.swap_remove(0));
        Ok((river, raw))
    });
    Ok(process::report(&measured.map_err(|error| error.to_string())?)?)
}

/// The rounds and the sizes that this process was started with.
fn plan() -> (usize, Vec<usize>) {
    let mut arguments = std::env::args().skip(1);
    let rounds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1);
    let sizes = arguments.next().unwrap_or_default();
    (rounds, sizes.split(',').filter_map(|text| text.parse().ok()).collect())
}

/// The lower half of the ranks sends windows to the upper half.
fn pairs(world: &Communicator) -> river::Result<Flat> {
    const WINDOW: usize = 64;
    const TIMES: usize = 100;
    let (rounds, sizes) = plan();
    let mut numbers = Numbers::new();
    let half = world.size() / 2;
    let (sends, other) = (world.rank() < half, (world.rank() + half) % world.size());
    for _ in 0..rounds {
        for size in pair_sizes(&sizes) {
            let mut memory = vec![0_u8; WINDOW * size];
            let mut window = || -> river::Result {
                let mut requests = Vec::with_capacity(WINDOW);
                for buffer in memory.chunks_mut(size) {
                    requests.push(if sends {
                        world.isend_from(buffer, other, 0)?
                    } else {
                        world.irecv_into(buffer, other, 0)?
                    });
                }
                wait_all(&mut requests)?;
                if sends {
                    world.recv_into(&mut [0_u8; 4], other, 1)?;
                } else {
                    world.send(&[0_u8; 4], other, 1)?;
                }
                Ok(())
            };
            for _ in 0..TIMES / 10 {
                window()?;
            }
            world.barrier()?;
            let start = Instant::now();
            for _ in 0..TIMES {
                window()?;
            }
            world.barrier()?;
            let rate = (half * WINDOW * TIMES) as f64 / start.elapsed().as_secs_f64() / 1e6;
            numbers.entry((Measure::Pairs, size)).or_default().push(rate);
        }
    }
    Ok(numbers.into_iter().collect())
}

/// The numbers of one measure at one size.
type Flat = Vec<((Measure, usize), Vec<f64>)>;

/// Runs on both ranks; the numbers of rank 0 count.
fn rank(world: &Communicator) -> river::Result<(Flat, Flat)> {
    let (rounds, sizes) = plan();
    let (mut river, mut raw) = (Numbers::new(), Numbers::new());
    let peer = world.vr_of(1 - world.rank())?;
    let mut buffers = Buffers { out: vec![1; 2 * ROOM], window: 0, size: 0, input: vec![2; 2 * ROOM] };
    for _ in 0..rounds {
        for &size in &sizes {
            let window = (ROOM / size.max(1)).clamp(1, 64);
            (buffers.window, buffers.size) = (window, size);
            let note = |numbers: &mut Numbers, measure, number| {
                numbers.entry((measure, size)).or_default().push(number);
            };
            let gigabytes = |time: f64| (size * window) as f64 / time / 1e9;
            note(&mut river, Measure::Latency, buffers.latency(world)? * 1e6);
            note(&mut raw, Measure::Latency, raw_latency(world, peer, size)? * 1e6);
            let one_way = buffers.windows(world, false)?;
            note(&mut river, Measure::Bandwidth, gigabytes(one_way));
            note(&mut river, Measure::Rate, window as f64 / one_way / 1e6);
            note(&mut river, Measure::Bidirectional, 2.0 * gigabytes(buffers.windows(world, true)?));
            let one_way = raw_windows(world, peer, size, window, false)?;
            note(&mut raw, Measure::Bandwidth, gigabytes(one_way));
            note(&mut raw, Measure::Rate, window as f64 / one_way / 1e6);
            note(
                &mut raw,
                Measure::Bidirectional,
                2.0 * gigabytes(raw_windows(world, peer, size, window, true)?),
            );
        }
    }
    Ok((river.into_iter().collect(), raw.into_iter().collect()))
}

/// How many times to repeat a measurement.
fn times(size: usize, window: usize) -> usize {
    (VOLUME / size.max(1) / window).clamp(4, if window == 1 { PINGS } else { WINDOWS })
}

/// Runs `body` repeatedly, after some runs that do not count; returns the seconds of one run.
fn timed(times: usize, mut body: impl FnMut() -> river::Result) -> river::Result<f64> {
    for _ in 0..times / 10 + 1 {
        body()?;
    }
    let start = Instant::now();
    for _ in 0..times {
        body()?;
    }
    Ok(Duration::as_secs_f64(&start.elapsed()) / times as f64)
}

struct Buffers {
    out: Vec<u8>,
    input: Vec<u8>,
    size: usize,
    window: usize,
}

impl Buffers {
    fn latency(&mut self, world: &Communicator) -> river::Result<f64> {
        let (me, other) = (world.rank(), 1 - world.rank());
        let (out, input) = (&self.out[..self.size], &mut self.input[..self.size]);
        let both = timed(times(self.size, 1), || {
            if me == 0 {
                world.send(out, other, 0)?;
            }
            world.recv_into(input, other, 0)?;
            if me == 1 {
                world.send(out, other, 0)?;
            }
            Ok(())
        })?;
        Ok(both / 2.0)
    }

    /// Seconds for a window of messages, one way or both ways, and an answer.
    fn windows(&mut self, world: &Communicator, both: bool) -> river::Result<f64> {
        let (me, other) = (world.rank(), 1 - world.rank());
        let Self { out, input, size, window } = self;
        timed(times(*size, *window), || {
            let mut requests: Vec<Request> = Vec::with_capacity(2 * *window);
            if me == 1 || both {
                let mut rest = &mut input[..];
                for _ in 0..*window {
                    let (buffer, others) = rest.split_at_mut(*size);
                    requests.push(world.irecv_into(buffer, other, 0)?);
                    rest = others;
                }
            }
            if me == 0 || both {
                for _ in 0..*window {
                    requests.push(world.isend_from(&out[..*size], other, 0)?);
                }
            }
            wait_all(&mut requests)?;
            drop(requests);
            if me == 1 {
                world.send(&[0_u8], other, 1)?;
            } else {
                world.recv_into(&mut [0_u8], other, 1)?;
            }
            Ok(())
        })
    }
}

fn raw_latency(world: &Communicator, peer: VrId, size: usize) -> river::Result<f64> {
    let (vr, me) = (world.vr(), world.rank());
    let data = Bytes::from(vec![1; size]);
    let both = timed(times(size, 1), || {
        if me == 0 {
            vr.send_bytes(peer, RAW, 1, data.clone())?;
        }
        vr.receive(Selector::on(RAW).lane(1))?;
        if me == 1 {
            vr.send_bytes(peer, RAW, 1, data.clone())?;
        }
        Ok(())
    })?;
    Ok(both / 2.0)
}

fn raw_windows(
    world: &Communicator,
    peer: VrId,
    size: usize,
    window: usize,
    both: bool,
) -> river::Result<f64> {
    let (vr, me) = (world.vr(), world.rank());
    let data = Bytes::from(vec![1; size]);
    timed(times(size, window), || {
        if me == 0 || both {
            for _ in 0..window {
                vr.send_bytes(peer, RAW, 1, data.clone())?;
            }
        }
        if me == 1 || both {
            for _ in 0..window {
                vr.receive(Selector::on(RAW).lane(1))?;
            }
        }
        if me == 1 {
            vr.send_bytes(peer, RAW, 2, Bytes::from_static(&[0]))?;
        } else {
            vr.receive(Selector::on(RAW).lane(2))?;
        }
        Ok(())
    })
}
