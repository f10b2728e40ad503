//! What hosts are told about the initiator's process.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// Environment variables that a host always gets from the initiator; it has all others from its VM.
const PASSED: [&str; 7] = [
    "RUST_BACKTRACE",
    "RUST_LIB_BACKTRACE",
    "RUST_LOG",
    "RIVER_LOG",
    "RIVER_PORT",
    "RIVER_HOSTS",
    "RIVER_LINKS",
];

/// The command line of this process.
pub(super) fn arguments() -> Vec<Vec<u8>> {
    std::env::args_os().map(OsString::into_vec).collect()
}

/// The environment variables to set: those that are always passed, and those that `RIVER_PASS` names
/// (`RIVER_PASS=DATA_DIR,LANG`).
pub(super) fn environment() -> Vec<(Vec<u8>, Vec<u8>)> {
    let more = std::env::var("RIVER_PASS").unwrap_or_default();
    let more = more.split(',').map(str::trim).filter(|name| !name.is_empty());
    let value = |name: &str| Some((name.as_bytes().to_vec(), std::env::var_os(name)?.into_vec()));
    PASSED.into_iter().chain(more).filter_map(value).collect()
}

/// The working directory, which a host changes to if it exists there.
pub(super) fn directory() -> Vec<u8> {
    std::env::current_dir().map(|path| path.into_os_string().into_vec()).unwrap_or_default()
}
