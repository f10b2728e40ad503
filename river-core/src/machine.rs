//! Names of this machine and this process, for people.

use std::path::Path;

/// Returns the machine's name without its domain.
pub(crate) fn machine_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    name.split('.').next().filter(|name| !name.is_empty()).unwrap_or("localhost").to_owned()
}

/// Describes this process: the executable's file name, the process id, and the machine.
pub(crate) fn process_name() -> String {
    let executable = std::env::args_os().next().unwrap_or_default();
    let executable = Path::new(&executable).file_name().unwrap_or_default().to_string_lossy();
    format!("{executable} (process {} on {})", std::process::id(), machine_name())
}
