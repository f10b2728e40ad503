//! The results of one run of a benchmark, as they are stored in a file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::criterion;
use super::host::Host;
use super::plan::Bench;
use crate::table::{LEFT_OUT, RECORD, Table, commit, load};

/// The results of a benchmark, and the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The benchmark.
    pub bench: String,
    /// The command line.
    pub command: String,
    /// The commit that was measured.
    pub commit: String,
    /// The day, as year, month, day.
    pub day: String,
    /// The duration of the run.
    pub seconds: f64,
    /// The machine's load average before and after.
    pub load: (f64, f64),
    /// The machine.
    pub host: Host,
    /// What it did not measure, such as a peer that is not installed, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// The tables that it printed.
    pub tables: Vec<Table>,
}

/// Runs a benchmark and returns its results. Its output is passed through.
///
/// # Errors
/// If it cannot be started, fails, or prints no table.
pub fn run(bench: &Bench, host: &Host) -> io::Result<Record> {
    let scratch = tempfile::tempdir()?;
    let (tables, criterion) = (scratch.path().join("tables"), scratch.path().join("criterion"));
    let mut arguments = vec!["bench", "-p", "river-benches", "--bench", &bench.name];
    if !bench.args.is_empty() {
        arguments.push("--");
        arguments.extend(bench.args.iter().map(String::as_str));
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let (before, start) = (load(), Instant::now());
    let status = Command::new(cargo)
        .args(&arguments)
        .env(RECORD, &tables)
        .env("CRITERION_HOME", &criterion)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()?;
    if !status.success() {
        return Err(io::Error::other(format!("{} failed: {status}", bench.name)));
    }
    let seconds = start.elapsed().as_secs_f64().round();
    let mut left_out: Vec<String> =
        text_of(&tables.with_extension(LEFT_OUT))?.lines().map(str::to_owned).collect();
    // Said again for every table.
    left_out.sort();
    left_out.dedup();
    let recorded = text_of(&tables)?;
    let mut tables: Vec<Table> = recorded.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    tables.extend(criterion::tables(&criterion)?);
    if tables.is_empty() {
        return Err(io::Error::other(format!("{} recorded no table", bench.name)));
    }
    Ok(Record {
        bench: bench.name.clone(),
        command: format!("cargo {}", arguments.join(" ")),
        commit: commit(),
        day: today(),
        seconds,
        load: (before, load()),
        host: host.clone(),
        left_out,
        tables,
    })
}

/// The text of a file; none, if there is no such file.
fn text_of(file: &Path) -> io::Result<String> {
    match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other,
    }
}

impl Record {
    /// Stores the record in this directory, replacing that of an earlier run.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        fs::write(file(directory, &self.bench), serde_json::to_string_pretty(self)? + "\n")
    }
}

/// Loads all records in this directory, by name; none, if there is no such directory.
///
/// # Errors
/// If a file cannot be read, or is not a record written by [`Record::save`].
pub fn load_all(directory: &Path) -> io::Result<Vec<Record>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    let read = |file: &PathBuf| {
        let wrong = |error| io::Error::other(format!("{}: {error}", file.display()));
        serde_json::from_str(&fs::read_to_string(file)?).map_err(wrong)
    };
    files.iter().map(read).collect()
}

fn file(directory: &Path, bench: &str) -> PathBuf {
    directory.join(bench).with_extension("json")
}

fn today() -> String {
    let output = Command::new("date").args(["-u", "+%Y-%m-%d"]).output();
    output
        .map_or_else(|_| "unknown".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
