//! Programs of each layer, checkpointed again and again at whatever moment it is, killed, and restored: what they say in
//! the end is what they would have said.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rand_core::Rng;
use river::core::Vr;
use river::rai::{Rai, RaiServer};

use super::programs::{collatz, program};

/// Not a test of its own: what the tests below start in a process of its own, to kill it.
#[test]
fn helper_process() {
    let (Ok(name), Ok(directory)) = (std::env::var("RIVER_TEST_LAYER"), std::env::var("RIVER_CHECKPOINT"))
    else {
        return;
    };
    let directory = PathBuf::from(directory);
    let body = |vr: &Vr| program(&name)(vr, &vr.start_local(2)?);
    let result = match std::env::var_os("RIVER_TEST_RESTORE") {
        Some(_) => river::restore(&directory, body),
        None => river::try_run_recoverable(body),
    };
    match result {
        Ok(result) => println!("[result {result}]"),
        Err(error) => println!("[error {error}]"),
    }
}

fn helper(name: &str, directory: &Path, restore: bool) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "killed::helper_process", "--nocapture"])
        .envs([("RIVER_TEST_LAYER", name), ("RIVER_CHECKPOINT_EVERY", "0.02")])
        .env("RIVER_CHECKPOINT", directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    if restore {
        command.env("RIVER_TEST_RESTORE", "1");
    }
    command
}

fn result_of(mut command: Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let start = text.find('[').unwrap_or_else(|| panic!("no result in {output:?}"));
    text[start..].lines().next().unwrap_or_default().to_owned()
}

/// The number of the newest checkpoint.
fn newest(directory: &Path) -> u64 {
    let names = std::fs::read_dir(directory).into_iter().flatten();
    let number = |name: &str| name.strip_prefix("checkpoint-")?.strip_suffix(".river")?.parse().ok();
    names.filter_map(|entry| number(entry.ok()?.file_name().to_str()?)).max().unwrap_or(0)
}

/// Kills the program three times at checkpoints that the seed says, also while it goes on from one.
fn survives(name: &str) {
    let undisturbed = tempfile::tempdir().unwrap();
    let expected = result_of(helper(name, undisturbed.path(), false));
    assert!(expected.starts_with("[result "), "{expected}");
    let seed = u64::from(std::process::id());
    let mut random = rand_pcg::Pcg64Mcg::new(u128::from(seed) | 1);
    let directory = tempfile::tempdir().unwrap();
    for kill in 0..3 {
        let mut child = helper(name, directory.path(), kill > 0).spawn().unwrap();
        let wanted = newest(directory.path()) + 1 + random.next_u64() % 8;
        while newest(directory.path()) < wanted && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(result_of(helper(name, directory.path(), true)), expected, "seed {seed}");
}

#[test]
fn a_farm_with_adaptive_chunks_survives() {
    survives("farm");
}

#[test]
fn handles_and_reference_counts_survive() {
    survives("objects");
}

#[test]
fn ranks_in_the_middle_of_a_collective_survive() {
    survives("ranks");
}

/// Helpers share memory with who has started them, so they cannot be part of a checkpoint: the error says who they are.
#[test]
fn a_server_with_helpers_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let error = river::try_run_recoverable(|vr| {
        let vms = vr.start_local(1)?;
        let server = vr.deploy(&vms, |_| RaiServer::unrestricted().concurrent(2))?[0];
        assert_eq!(Rai::connect(vr, server).call(collatz, (27,))?, 18);
        Ok(vr.checkpoint(directory.path()).unwrap_err().to_string())
    });
    let error = error.unwrap();
    assert!(error.contains("(rai helper)") && error.contains("has to end first"), "{error}");
}
