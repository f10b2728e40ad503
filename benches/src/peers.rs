//! Peers that are not MPI implementations, which are measured if they are installed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::table::left_out;

/// The measurements of a peer: numbers by name.
pub type Numbers = BTreeMap<String, f64>;

/// The peers that `peers/farm.py` supports, and tarpc.
pub const PEERS: [&str; 8] =
    ["multiprocessing", "joblib", "ipyparallel", "dask", "ray", "pyro5", "rpyc", TARPC];

/// Built from `peers/tarpc`, a workspace of its own.
const TARPC: &str = "tarpc";

/// Measures a peer, by `peers/farm.py` and the given Python if it is a Python library. Returns `None`, after saying so by
/// [`left_out`], if it is not installed or fails.
#[must_use]
pub fn measure(python: &Path, peer: &str) -> Option<Numbers> {
    let path =
        |parts: &[&str]| -> PathBuf { [env!("CARGO_MANIFEST_DIR"), "peers"].iter().chain(parts).collect() };
    let mut command = if peer == TARPC {
        let mut command = Command::new("cargo");
        let manifest = path(&["tarpc", "Cargo.toml"]);
        command.args(["run", "--quiet", "--release", "--locked", "--manifest-path"]).arg(manifest);
        command
    } else {
        let mut command = Command::new(python);
        command.arg(path(&["farm.py"])).arg(peer);
        command
    };
    let output = match command.stderr(Stdio::piped()).output() {
        Ok(output) if output.status.success() => output,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            left_out(peer, said.lines().last().unwrap_or("it says nothing"));
            return None;
        }
        Err(error) => {
            left_out(peer, format_args!("{}: {error}", command.get_program().display()));
            return None;
        }
    };
    // Libraries may print other things before.
    let printed = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(printed.lines().last()?).ok()
}
