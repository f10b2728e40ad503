//! Measuring whole programs: each case runs in a process of its own, so that its memory can be told.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Set for a process that is to run one case and to print what it measured.
const CASE: &str = "RIVER_BENCH_CASE";

/// The case that this process was started for, if it was.
#[must_use]
pub fn case() -> Option<String> {
    std::env::var(CASE).ok()
}

/// Prints what a case measured, for [`run`] in the process that started this one.
///
/// # Errors
/// If it cannot be written.
pub fn report(measured: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(io::stdout().lock(), measured)?;
    println!();
    Ok(())
}

/// Runs this executable anew for one case and returns what it reports. Blocks until it has ended.
///
/// # Errors
/// If it cannot be started, fails, or reports something else.
pub fn run<T: DeserializeOwned>(case: &str, args: &[&Path]) -> io::Result<T> {
    let executable = std::env::current_exe()?;
    let output = Command::new(executable).args(args).env(CASE, case).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("case {case} failed: {}", output.status)));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The largest amount of memory that this process has had, in bytes; 0 if the system does not say.
#[must_use]
pub fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|text| text.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kibibytes.unwrap_or_default() * 1024
}
