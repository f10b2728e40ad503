//! Programs that are killed, and continue from what is left.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rand_core::Rng;
use river_core::{Result, Selector, Stored, Vr, VrId};

use crate::{Adder, CHANNEL, result_of};

const LONG: u64 = 400;

/// Asks its counter repeatedly, with a checkpoint every few rounds. Runs far longer than any test waits.
fn long(vr: &Vr, directory: &Path) -> Result<u64> {
    let (mut round, counters): (u64, Vec<VrId>) = match vr.resumed()? {
        Some(progress) => progress,
        None => {
            let vms = vr.start_local(2)?;
            (0, vr.deploy(&vms, |_| Adder { sum: 0 })?.ids().to_vec())
        }
    };
    let mut last = 0;
    while round < LONG {
        vr.safepoint(&(round, &counters))?;
        if round.is_multiple_of(20) {
            vr.checkpoint(directory)?;
        }
        for counter in &counters {
            vr.send_bytes(*counter, CHANNEL, 1, round.to_le_bytes().to_vec())?;
        }
        for counter in &counters {
            let sum = vr.receive(Selector::on(CHANNEL).from(*counter))?;
            last = u64::from_le_bytes(sum.payload.head()[..].try_into()?);
        }
        round += 1;
    }
    Ok(last)
}

/// Not a test: the tests below run it in a process of its own, to kill it.
#[test]
fn helper_process() {
    let Ok(directory) = std::env::var("RIVER_TEST_STATE") else { return };
    let directory = PathBuf::from(directory);
    let body = |vr: &Vr| long(vr, &directory);
    let result = match std::env::var_os("RIVER_TEST_RESTORE") {
        Some(_) => river_core::restore(&directory, body),
        None => river_core::try_run_recoverable(body),
    };
    match result {
        Ok(sum) => println!("[result {sum:x}]"),
        Err(error) => println!("[error {error}]"),
    }
}

fn helper(directory: &Path, restore: bool) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "killed::helper_process", "--nocapture"])
        .env("RIVER_TEST_STATE", directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if restore {
        command.env("RIVER_TEST_RESTORE", "1");
    }
    command
}

#[test]
fn a_program_that_is_killed_at_any_moment_ends_with_the_same_result() {
    let undisturbed = tempfile::tempdir().unwrap();
    let expected = result_of(&helper(undisturbed.path(), false).output().unwrap().stdout);
    assert!(expected.starts_with("[result "), "{expected}");
    let mut random = rand_pcg::Pcg64Mcg::new(u128::from(std::process::id()) | 1);
    for round in 0..4 {
        let directory = tempfile::tempdir().unwrap();
        let mut restore = false;
        // Killed repeatedly, also while it is being restored.
        for _ in 0..3 {
            let mut child = helper(directory.path(), restore).spawn().unwrap();
            let checkpoints = || Stored::latest(directory.path()).map_or(0, |stored| stored.number);
            let wanted = checkpoints() + 1 + random.next_u64() % 4;
            while checkpoints() < wanted && child.try_wait().unwrap().is_none() {
                std::thread::yield_now();
            }
            child.kill().unwrap();
            child.wait().unwrap();
            restore = true;
        }
        let result = result_of(&helper(directory.path(), true).output().unwrap().stdout);
        assert_eq!(result, expected, "round {round}");
    }
}

#[test]
fn a_broken_checkpoint_is_refused_and_the_one_before_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let expected = result_of(&helper(directory.path(), false).output().unwrap().stdout);
    let files = || {
        let entries = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> =
            entries.filter(|path| path.extension().is_some_and(|end| end == "river")).collect();
        files.sort();
        files
    };
    let [older, newer] = &files()[..] else { panic!("two are kept: {:?}", files()) };
    let whole = std::fs::read(newer).unwrap();
    // One flipped bit anywhere, or the end missing.
    for broken in [
        [&whole[..whole.len() / 2], &[whole[whole.len() / 2] ^ 1], &whole[whole.len() / 2 + 1..]].concat(),
        whole[..whole.len() - 1].to_vec(),
        whole[..20].to_vec(),
        Vec::new(),
    ] {
        std::fs::write(newer, broken).unwrap();
        let stored = Stored::latest(directory.path()).unwrap();
        assert!(older.to_string_lossy().contains(&format!("{:06}", stored.number)));
        assert_eq!(stored.broken.len(), 1);
    }
    assert_eq!(result_of(&helper(directory.path(), true).output().unwrap().stdout), expected);
    for path in files() {
        std::fs::write(path, &whole[..whole.len() - 7]).unwrap();
    }
    let error = Stored::latest(directory.path()).unwrap_err().to_string();
    assert!(error.contains("incomplete or was altered"), "{error}");
    let nothing = tempfile::tempdir().unwrap();
    let error = Stored::latest(nothing.path()).unwrap_err().to_string();
    assert!(error.contains("there is no checkpoint"), "{error}");
}
