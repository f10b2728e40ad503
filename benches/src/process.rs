//! Measures whole programs: each case runs in a process of its own, so that its memory can be measured and its
//! environment can be set.

use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use clap::Parser;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Set for a process that must run one case and print its measurements.
const CASE: &str = "RIVER_BENCH_CASE";
/// Printed by a process when it is ready.
const READY: &str = "ready";

/// The case for which this process was started, if any.
#[must_use]
pub fn case() -> Option<String> {
    std::env::var(CASE).ok()
}

/// The `main` of a benchmark: runs the case for which this process was started, or else everything that the command
/// line asks for.
pub fn main<Args: Parser, E: Display>(
    one: impl FnOnce(&str) -> Result<(), E>,
    all: impl FnOnce(&Args) -> Result<(), E>,
) -> ExitCode {
    river::become_host_if_asked();
    let result = case().map_or_else(|| all(&Args::parse()), |case| one(&case));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the measurements of a case, for [`run`] in the process that started this one.
///
/// # Errors
/// If they cannot be written.
pub fn report(measured: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(io::stdout().lock(), measured)?;
    println!();
    Ok(())
}

/// Runs this executable for one case and returns its report. Blocks until it has ended.
///
/// # Errors
/// If it cannot be started, fails, or its report cannot be decoded.
pub fn run<T: DeserializeOwned>(case: &str, args: &[&Path]) -> io::Result<T> {
    run_with(case, args, &[])
}

/// Like [`run`], with these environment variables.
///
/// # Errors
/// As [`run`].
pub fn run_with<T: DeserializeOwned>(
    case: &str,
    args: &[&Path],
    environment: &[(&str, &OsStr)],
) -> io::Result<T> {
    let output = command(case, environment)?.args(args).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("case {case} failed: {}", output.status)));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// A process that serves the others of a benchmark until this handle is dropped.
#[derive(Debug)]
pub struct Service(Child);

impl Service {
    /// Runs this executable for a case that calls [`serve`], and returns when it is ready.
    ///
    /// # Errors
    /// If it cannot be started, or ends before it is ready.
    pub fn start(case: &str, environment: &[(&str, &OsStr)]) -> io::Result<Self> {
        let mut command = command(case, environment)?;
        let mut service = Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
        let stdout = service.0.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut lines = BufReader::new(stdout).lines();
        match lines.next().transpose()?.as_deref() {
            Some(READY) => Ok(service),
            other => Err(io::Error::other(format!("case {case} said {other:?} instead of {READY:?}"))),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // This closes its standard input, which ends it.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Called in a process that [`Service::start`] has started: reports that it is ready and returns when it must end.
///
/// # Errors
/// If the other process is gone.
pub fn serve() -> io::Result<()> {
    println!("{READY}");
    io::copy(&mut io::stdin().lock(), &mut io::sink()).map(drop)
}

fn command(case: &str, environment: &[(&str, &OsStr)]) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(CASE, case).envs(environment.iter().copied());
    Ok(command)
}

/// The sum of the peak memory of a process and all its descendants, in bytes: memory shared between them counts more
/// than once.
#[must_use]
pub fn peak_memory_of_tree(root: u32) -> u64 {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse::<u32>().ok());
        parents.extend(parent.map(|parent| (parent, pid)));
    }
    let (mut tree, mut next) = (vec![root], 0);
    while let Some(&pid) = tree.get(next) {
        tree.extend(parents.iter().filter(|(parent, _)| *parent == pid).map(|(_, child)| *child));
        next += 1;
    }
    tree.iter().map(|pid| peak_memory_in(&format!("/proc/{pid}/status"))).sum()
}

/// The peak memory of this process, in bytes; 0 if the system does not tell.
#[must_use]
pub fn peak_memory() -> u64 {
    peak_memory_in("/proc/self/status")
}

fn peak_memory_in(status: &str) -> u64 {
    let status = std::fs::read_to_string(status).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|text| text.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kibibytes.unwrap_or_default() * 1024
}
