//! Peers in other languages, which are measured if they are installed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a peer measured: numbers by name.
pub type Numbers = BTreeMap<String, f64>;

/// The peers that `peers/farm.py` knows.
pub const PEERS: [&str; 7] = ["multiprocessing", "joblib", "ipyparallel", "dask", "ray", "pyro5", "rpyc"];

/// Has a peer measured by `peers/farm.py`. `None`, with a line on stderr, if it is not installed or fails.
#[must_use]
pub fn measure(python: &Path, peer: &str) -> Option<Numbers> {
    let script: PathBuf = [env!("CARGO_MANIFEST_DIR"), "peers", "farm.py"].iter().collect();
    let output = Command::new(python).arg(script).arg(peer).stderr(Stdio::piped()).output();
    let output = match output {
        Ok(output) if output.status.success() => output,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            eprintln!("{peer} is left out: {}", said.lines().last().unwrap_or("it says nothing"));
            return None;
        }
        Err(error) => {
            eprintln!("{peer} is left out: {}: {error}", python.display());
            return None;
        }
    };
    // Libraries may print what they like before.
    let printed = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(printed.lines().last()?).ok()
}
