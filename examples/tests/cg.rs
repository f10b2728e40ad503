//! `cg --checkpoint-every`, killed at any moment and gone on with: the same residuals and estimates, to the last bit.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rand_core::Rng;
use tempfile::TempDir;

/// A rank in each of three processes, on VMs that nobody else finds.
fn cg(scene: &Path, restore: bool) -> Command {
    let tests = std::env::current_exe().unwrap();
    let path: PathBuf = tests.parent().unwrap().parent().unwrap().join("examples/cg");
    assert!(path.exists(), "{} is missing: run `cargo build -p river-examples --examples`", path.display());
    let mut command = Command::new(path);
    let state = scene.join("state");
    command
        .args(["--class", "S", "--ranks", "3", "--processes", "--json", "--checkpoint-every", "2"])
        .arg(&state)
        .env("RIVER_PORT", (42_000 + std::process::id() % 1000 * 20).to_string())
        .env("RIVER_KEY_FILE", scene.join("key"))
        .env("RIVER_CACHE", scene.join("images"))
        .env_remove("RIVER_VMS")
        .stdout(Stdio::piped());
    if restore {
        // As `river restore` does it.
        let mut which = OsString::from(format!("{}:", std::process::id()));
        which.push(state);
        command.env("RIVER_RESTORE", which);
    }
    command
}

/// What it prints, without the time that it took.
fn result(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["verified"], true);
    let fields = result.as_object_mut().unwrap();
    fields.remove("seconds");
    fields.remove("mops");
    result.to_string()
}

fn has_checkpoint(scene: &Path) -> bool {
    let names = std::fs::read_dir(scene.join("state")).into_iter().flatten();
    names.filter_map(Result::ok).any(|entry| entry.file_name().to_string_lossy().ends_with(".river"))
}

#[test]
fn killed_at_random_moments_it_ends_with_the_same_bits() {
    let undisturbed = TempDir::new().unwrap();
    let start = Instant::now();
    let expected = result(cg(undisturbed.path(), false));
    let time = start.elapsed();
    let seed = u64::from(std::process::id());
    let mut random = rand_pcg::Pcg64Mcg::new(u128::from(seed) | 1);
    let scene = TempDir::new().unwrap();
    for _ in 0..4 {
        let mut child = cg(scene.path(), has_checkpoint(scene.path())).spawn().unwrap();
        // Any moment will do, after the end too.
        std::thread::sleep(Duration::from_micros(random.next_u64() % time.as_micros() as u64));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(result(cg(scene.path(), has_checkpoint(scene.path()))), expected, "seed {seed}");
}
