//! The subcommands, one file each.

pub(crate) mod checkpoint;
pub(crate) mod completions;
pub(crate) mod doctor;
mod duration;
pub(crate) mod key;
pub(crate) mod ls;
pub(crate) mod man;
pub(crate) mod migrate;
pub(crate) mod record;
pub(crate) mod replay;
mod restarts;
pub(crate) mod restore;
pub(crate) mod run;
mod signals;
mod size;
pub(crate) mod states;
pub(crate) mod stop;
pub(crate) mod top;
pub(crate) mod trace;
pub(crate) mod vm;
mod watch;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::{self, Path};
use std::process::ExitCode;

use river::VrError;
use river::core::{FindError, Found, PROTOCOL, Query, find};

/// The exit code if River itself failed, as for `env`, `nice` and `timeout`.
const FAILED: u8 = 125;

/// The exit code of a command that returns that of a program.
fn exit(result: river::Result<u8>) -> ExitCode {
    ExitCode::from(result.unwrap_or_else(|error| {
        tell(format_args!("error: {error}"));
        FAILED
    }))
}

/// Encodes a path for the environment of one program alone: processes that it starts inherit the variable, but have another
/// parent.
fn for_child(path: &Path) -> io::Result<OsString> {
    let mut value = OsString::from(format!("{}:", std::process::id()));
    value.push(path::absolute(path)?);
    Ok(value)
}

/// Searches, and reports VMs that speak another version of the protocol.
fn search(query: &Query) -> Result<Found, FindError> {
    let found = find(query)?;
    for others in other_versions(&found) {
        tell(others);
    }
    Ok(found)
}

/// Describes the VMs that speak another version of the protocol, and says what to do.
fn other_versions(found: &Found) -> impl Iterator<Item = String> {
    found
        .other_versions
        .iter()
        .map(|(version, count)| format!("{}: {SAME_VERSION}", another_version(*version, *count)))
}

/// What to do about VMs that speak another version of the protocol.
const SAME_VERSION: &str = "install the same version of River there, and restart them";

fn another_version(version: u16, count: usize) -> String {
    let speak = if count == 1 { "speaks" } else { "speak" };
    format!(
        "{} {speak} protocol version {version}, and this command speaks version {PROTOCOL}",
        plural(count)
    )
}

/// Prints a line to stderr, and ignores errors, since stderr may be closed.
pub(crate) fn tell(text: impl Display) {
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Prints to stdout. It is no error if the reader has stopped reading, as `head` does.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Parses the number of VMs on the command line.
fn count(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "it must be a number of VMs, at least 1".into())
}

/// Checks that a directory of checkpoints or of a recording exists.
fn is_there(directory: &Path) -> river::Result {
    if directory.is_dir() {
        return Ok(());
    }
    let what = if directory.exists() { "it is not a directory" } else { "there is no such directory" };
    Err(VrError::msg(format!(
        "{}: {what}; `river run --checkpoint` and `river checkpoint` write checkpoints, `river record` writes a recording",
        directory.display()
    )))
}

/// Shorter prefixes of an id are too easily typed by mistake.
const SHORTEST_PREFIX: usize = 4;

/// Whether `beginning` is a valid prefix of an id.
fn begins_with(id: impl Display, beginning: &str) -> bool {
    beginning.len() >= SHORTEST_PREFIX && id.to_string().starts_with(&beginning.to_ascii_lowercase())
}

fn plural(count: usize) -> String {
    if count == 1 { "1 VM".into() } else { format!("{count} VMs") }
}
