//! Time to find and lease VMs, to deploy VRs and to ship a program, each compared with a lower bound.
//!
//! ```text
//! cargo bench -p river-benches --bench machines
//! ```
//!
//! The VMs run in a process of their own, with a key, a port and a cache that nothing else uses. The limits:
//!
//! * finding: the same number of bare UDP sockets that answer a datagram of the same size
//! * leasing: a TCP connection and one message each way
//! * deploying n VRs: n threads that are started and report
//! * a program's first VR: the same executable started as a child, until it has printed a line; if the image is
//!   shipped, preceded by sending as many bytes over a TCP connection into a file

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use river::core::{Channel, Query, Selector, VirtualResource, Vm, VmConfig, VmInfo, Vr};
use river_benches::process::{self, Service};
use river_benches::table::{Spread, Table, load, machine};
use serde::{Deserialize, Serialize};

const STOP: Channel = Channel::named("river-benches stop");
/// The number of VMs over which the VRs are distributed.
const VMS: usize = 4;
const VRS: [usize; 4] = [1, 8, 100, 1000];
/// The same size as River's.
const PROBE: usize = 1024;

/// Measure everything that precedes the first envelope.
#[derive(Parser)]
struct Args {
    /// How many times everything is measured
    #[arg(long, default_value = "9", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Passed by `cargo bench`; ignored
    #[arg(long, hide = true)]
    bench: bool,
}

/// A row of the table, in milliseconds.
#[derive(Serialize, Deserialize)]
struct Line {
    what: String,
    river: Vec<f64>,
    limit: Vec<f64>,
}

fn main() -> ExitCode {
    process::main(run_case, table)
}

fn table(args: &Args) -> river::Result {
    let scratch = tempfile::tempdir()?;
    let rounds = args.rounds.to_string();
    println!("{}; {} rounds; median (min..max)", machine(), args.rounds);
    let mut table = Table::new("before the first envelope", "")
        .column("River", "ms", 2)
        .column("limit", "ms", 2)
        .column("ratio", "", 1);
    for (port, case, vms) in [(0, "discover", 4), (1, "discover", 32), (2, "deploy", VMS), (3, "ship", 1)] {
        // Below the range from which the system assigns ports.
        let port = (20_000 + std::process::id() % 1000 * 10 + port).to_string();
        let directory = scratch.path().join(&port);
        let (key, cache) = (directory.join("key"), directory.join("cache"));
        let environment: [(&str, &OsStr); 3] = [
            ("RIVER_PORT", port.as_ref()),
            ("RIVER_KEY_FILE", key.as_ref()),
            ("RIVER_CACHE", cache.as_ref()),
        ];
        fs::create_dir_all(&cache)?;
        let _vms = Service::start(&format!("vms {vms}"), &environment)?;
        let lines: Vec<Line> =
            process::run_with(&format!("{case} {vms}"), &[Path::new(&rounds), &cache], &environment)?;
        for Line { what, river, limit } in lines {
            let (river, limit) = (Spread::of(river), Spread::of(limit));
            table.row(what, [Some(river), Some(limit), Some((river.median / limit.median).into())]);
        }
    }
    table.print()?;
    println!("load average {:.2}", load());
    Ok(())
}

fn run_case(case: &str) -> river::Result {
    let (case, vms) = case.split_once(' ').unwrap_or((case, "0"));
    let vms: usize = vms.parse()?;
    if case == "vms" {
        let _vms = Vm::start_many(&VmConfig::default(), vms)?;
        return Ok(process::serve()?);
    }
    if case == "exit" {
        println!("started");
        return Ok(());
    }
    let mut args = std::env::args().skip(1);
    let (rounds, cache) = (args.next().unwrap_or_default().parse()?, args.next().unwrap_or_default());
    let lines = match case {
        "discover" => discover(vms, rounds)?,
        "deploy" => deploy(vms, rounds)?,
        "ship" => ship(&PathBuf::from(cache), rounds)?,
        _ => return Err(river::VrError::msg(format!("no case {case:?}"))),
    };
    Ok(process::report(&lines)?)
}

/// Returns the duration in milliseconds, and the result.
fn timed<T>(body: impl FnOnce() -> river::Result<T>) -> river::Result<(f64, T)> {
    let start = Instant::now();
    let value = body()?;
    Ok((start.elapsed().as_secs_f64() * 1e3, value))
}

fn line(what: impl Into<String>) -> Line {
    Line { what: what.into(), river: Vec::new(), limit: Vec::new() }
}

fn find(vr: &Vr, count: Option<usize>, vms: usize) -> river::Result<Vec<VmInfo>> {
    let query = Query { count: count.map(|count| count as u32), ..Query::default() };
    let found = vr.discover(query)?;
    if found.len() == vms {
        return Ok(found);
    }
    Err(river::VrError::msg(format!("found {} of {vms} VMs", found.len())))
}

fn discover(vms: usize, rounds: usize) -> river::Result<Vec<Line>> {
    river::try_run(|vr| {
        let mut early = line(format!("find {vms} VMs, ending with the last answer"));
        let mut late = line(format!("find {vms} VMs, waiting for more"));
        for _ in 0..rounds {
            early.river.push(timed(|| find(vr, Some(vms), vms))?.0);
            late.river.push(timed(|| find(vr, None, vms))?.0);
            let bare = bare_answers(vms)?;
            early.limit.push(bare);
            late.limit.push(bare);
        }
        Ok(vec![early, late])
    })
}

/// Sends a datagram to each of `count` sockets, all served by another thread, and receives the answers.
fn bare_answers(count: usize) -> river::Result<f64> {
    let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
    let asker = bind()?;
    asker.set_read_timeout(Some(Duration::from_secs(5)))?;
    let sockets = (0..count).map(|_| bind()).collect::<io::Result<Vec<_>>>()?;
    let addresses = sockets.iter().map(UdpSocket::local_addr).collect::<io::Result<Vec<_>>>()?;
    let answer = thread::spawn(move || {
        sockets.iter().try_for_each(|socket| {
            let mut datagram = [0; PROBE];
            let (length, from) = socket.recv_from(&mut datagram)?;
            socket.send_to(&datagram[..length], from).map(drop)
        })
    });
    let (time, ()) = timed(|| {
        for address in &addresses {
            asker.send_to(&[0; PROBE], address)?;
        }
        for _ in &addresses {
            asker.recv(&mut [0; PROBE])?;
        }
        Ok(())
    })?;
    answer.join().map_err(|_| river::VrError::msg("the answering thread panicked"))??;
    Ok(time)
}

/// Waits until it is told to end.
#[derive(Serialize, Deserialize)]
struct Idle;

impl VirtualResource for Idle {
    fn main(&mut self, vr: &Vr) -> river::Result {
        vr.receive(Selector::on(STOP))?;
        Ok(())
    }
}

fn deploy(vms: usize, rounds: usize) -> river::Result<Vec<Line>> {
    let mut lease = line("lease 1 VM");
    let mut lines: Vec<(usize, Line)> =
        VRS.iter().map(|&n| (n, line(format!("deploy {n} VRs on {} warm VMs", n.min(vms))))).collect();
    for _ in 0..rounds {
        river::try_run(|vr| {
            let found = find(vr, Some(vms), vms)?;
            let (time, mut leased) = timed(|| Ok(vr.allocate(found[..1].to_vec(), 1)?))?;
            lease.river.push(time);
            lease.limit.push(bare_connection()?);
            leased.extend(vr.allocate(found[1..].to_vec(), vms - 1)?);
            // Starts the hosts and their connections to this process.
            cycle(vr, &leased, vms)?;
            for (count, line) in &mut lines {
                line.river.push(cycle(vr, &leased, *count)?);
                line.limit.push(bare_threads(*count)?);
            }
            Ok(())
        })?;
    }
    Ok(std::iter::once(lease).chain(lines.into_iter().map(|(_, line)| line)).collect())
}

/// Deploys VRs, which is measured, and ends them.
fn cycle(vr: &Vr, vms: &[VmInfo], count: usize) -> river::Result<f64> {
    let spread: Vec<VmInfo> = vms.iter().cycle().take(count).cloned().collect();
    let (time, group) = timed(|| Ok(vr.deploy(&spread, |_| Idle)?))?;
    for id in group.iter() {
        vr.send_bytes(id, STOP, 0, Vec::new())?;
    }
    for id in group.iter() {
        // It sends nothing: an error reports its end.
        if let Ok(envelope) = vr.receive(Selector::on(STOP).from(id)) {
            return Err(river::VrError::msg(format!("VR {} sent something", envelope.src)));
        }
    }
    Ok(time)
}

fn bare_connection() -> river::Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let answer = thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let mut message = [0; 64];
        stream.read_exact(&mut message)?;
        stream.write_all(&message)
    });
    let (time, ()) = timed(|| {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(&[0; 64])?;
        Ok(stream.read_exact(&mut [0; 64])?)
    })?;
    answer.join().map_err(|_| river::VrError::msg("the answering thread panicked"))??;
    Ok(time)
}

fn bare_threads(count: usize) -> river::Result<f64> {
    let (to, from) = crossbeam_channel::unbounded();
    let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
    let mut threads = Vec::new();
    let (time, ()) = timed(|| {
        for _ in 0..count {
            let (to, stopped) = (to.clone(), stopped.clone());
            threads.push(thread::Builder::new().spawn(move || {
                let _ = to.send(());
                let _ = stopped.recv();
            })?);
        }
        Ok((0..count).try_for_each(|_| from.recv())?)
    })?;
    drop(stop);
    for thread in threads {
        thread.join().map_err(|_| river::VrError::msg("a thread panicked"))?;
    }
    Ok(time)
}

fn ship(cache: &Path, rounds: usize) -> river::Result<Vec<Line>> {
    let [mut cold, mut warm] = [line(""), line("first VR, image in the VM's cache")];
    for _ in 0..rounds {
        for file in files(cache)? {
            fs::remove_file(file)?;
        }
        // Each time a new program, which needs a new host.
        cold.river.push(first_vr()?);
        warm.river.push(first_vr()?);
        let images = files(cache)?;
        let image = images.iter().max_by_key(|file| fs::metadata(file).map_or(0, |data| data.len()));
        let image = image.ok_or_else(|| river::VrError::msg("the VM's cache is empty"))?;
        let megabytes = fs::metadata(image)?.len() as f64 / 1e6;
        cold.what = format!("first VR, image shipped ({megabytes:.1} MB)");
        let copy = cache.with_extension("copy");
        cold.limit.push(timed(|| bare_ship(image, &copy).and_then(|()| bare_start(&copy)))?.0);
        warm.limit.push(timed(|| bare_start(&std::env::current_exe()?))?.0);
    }
    Ok(vec![cold, warm])
}

/// All files below a directory.
fn files(directory: &Path) -> river::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

fn first_vr() -> river::Result<f64> {
    river::try_run(|vr| {
        let leased = vr.allocate(find(vr, Some(1), 1)?, 1)?;
        cycle(vr, &leased, 1)
    })
}

/// Copies an executable to another file over a connection.
fn bare_ship(image: &Path, copy: &Path) -> river::Result {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (address, source) = (listener.local_addr()?, image.to_owned());
    let send = thread::spawn(move || TcpStream::connect(address)?.write_all(&fs::read(source)?));
    let mut bytes = Vec::new();
    listener.accept()?.0.read_to_end(&mut bytes)?;
    send.join().map_err(|_| river::VrError::msg("the sending thread panicked"))??;
    fs::write(copy, bytes)?;
    Ok(fs::set_permissions(copy, fs::Permissions::from_mode(0o700))?)
}

/// Starts this program's executable and waits for its first line.
fn bare_start(image: &Path) -> river::Result {
    let mut child = Command::new(image).env("RIVER_BENCH_CASE", "exit").stdout(Stdio::piped()).spawn()?;
    if let Some(stdout) = &mut child.stdout {
        stdout.read_exact(&mut [0; 7])?;
    }
    child.wait()?;
    Ok(())
}
