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

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::Path;

use river::VrError;
use river::core::{FindError, Found, Query, find};

/// Searches, and says so if there are VMs that cannot be spoken to.
fn search(query: &Query) -> Result<Found, FindError> {
    let found = find(query)?;
    for (version, count) in &found.other_versions {
        eprintln!("{count} more VMs speak protocol version {version}, which this command does not");
    }
    Ok(found)
}

/// Prints to stdout. That the reader has read enough, as `head` does, is no error.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// How many VMs, of the command line.
fn count(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "it must be a number of VMs from 1".into())
}

/// That a directory of checkpoints or of a recording is there.
fn is_there(directory: &Path) -> river::Result {
    if directory.is_dir() {
        return Ok(());
    }
    let what = if directory.exists() { "it is not a directory" } else { "there is no such directory" };
    Err(VrError::msg(format!(
        "{}: {what}; `river run --checkpoint` and `river checkpoint` make checkpoints, `river record` makes a recording",
        directory.display()
    )))
}

fn plural(count: usize) -> String {
    if count == 1 { "1 VM".into() } else { format!("{count} VMs") }
}
