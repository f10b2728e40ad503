//! `cg --checkpoint-every`, killed at any time and restored: the same zeta, to the last bit.

use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rand_core::Rng;

use crate::scene::Scene;

/// A rank in each of three processes, on VMs that nothing else finds.
fn cg(scene: &Scene, restore: bool) -> Command {
    let state = scene.path("state");
    let mut command = scene
        .example("cg", ["--class", "S", "--ranks", "3", "--processes", "--json", "--checkpoint-every", "2"]);
    command.arg(&state).stdout(Stdio::piped());
    if restore {
        // As `river restore` does.
        let mut which = OsString::from(format!("{}:", std::process::id()));
        which.push(state);
        command.env("RIVER_RESTORE", which);
    }
    command
}

/// The output, without the time that it took.
fn result(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["verified"], true);
    let fields = result.as_object_mut().unwrap();
    assert!(fields.keys().eq(["class", "mops", "ranks", "seconds", "verified", "zeta"]), "{fields:?}");
    fields.remove("seconds");
    fields.remove("mops");
    result.to_string()
}

fn has_checkpoint(scene: &Scene) -> bool {
    let names = std::fs::read_dir(scene.path("state")).into_iter().flatten();
    names.filter_map(Result::ok).any(|entry| entry.file_name().to_string_lossy().ends_with(".river"))
}

#[test]
fn killed_at_random_moments_it_ends_with_the_same_bits() {
    let undisturbed = Scene::new();
    let start = Instant::now();
    let expected = result(cg(&undisturbed, false));
    let time = start.elapsed();
    let seed = u64::from(std::process::id());
    let mut random = rand_pcg::Pcg64Mcg::new(u128::from(seed) | 1);
    let scene = Scene::new();
    for _ in 0..4 {
        let mut child = cg(&scene, has_checkpoint(&scene)).spawn().unwrap();
        // Any time will do, even after the end.
        std::thread::sleep(Duration::from_micros(random.next_u64() % time.as_micros() as u64));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(result(cg(&scene, has_checkpoint(&scene))), expected, "seed {seed}");
}

#[test]
fn a_command_line_that_makes_no_sense_is_told_apart_from_a_wrong_result() {
    let scene = Scene::new();
    for steps in ["0", "many"] {
        let output = scene.example("cg", ["--checkpoint-every", steps, "state"]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(
            stderr.contains(&format!("--checkpoint-every {steps}: STEPS is a number above zero")),
            "{stderr}"
        );
    }
}

#[test]
fn who_reads_the_steps_may_stop_early() {
    let scene = Scene::new();
    for options in [&["--serial"][..], &["--serial", "--json"]] {
        scene.example_into_closed_pipe("cg", options);
    }
}
