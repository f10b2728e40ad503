//! Losses that are not heard of for long, and what the checkpoints hold that are taken meanwhile.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use river_core::{KeepIn, Launch, Result, Selector, Stored, VirtualResource, Vr};
use serde::{Deserialize, Serialize};

use crate::{CHANNEL, result_of};

/// Dies with its host when it is told to, if nobody has died before; else answers.
#[derive(Serialize, Deserialize)]
struct DiesOnce {
    alive: PathBuf,
}

impl VirtualResource for DiesOnce {
    fn main(&mut self, vr: &Vr) -> Result {
        let told = vr.receive(Selector::on(CHANNEL))?;
        if std::fs::remove_file(&self.alive).is_ok() {
            std::process::exit(3);
        }
        vr.send_bytes(told.src, CHANNEL, 0, vec![7])?;
        Ok(())
    }
}

fn last(directory: &Path) -> u64 {
    Stored::latest(directory).map_or(0, |stored| stored.number)
}

/// Computes while its child dies, until it is let go on or as many checkpoints were taken as are kept, and more.
fn computes(vr: &Vr, directory: &Path) -> Result<u64> {
    let [alive, go_on] = ["alive", "go-on"].map(|name| directory.join(name));
    let vms = vr.start_local(1)?;
    let child = vr.deploy(&vms, |_| DiesOnce { alive: alive.clone() })?[0];
    while last(directory) == 0 {
        std::thread::yield_now();
    }
    vr.send_bytes(child, CHANNEL, 0, Vec::new())?;
    while alive.exists() && !go_on.exists() {
        std::thread::yield_now();
    }
    let enough = last(directory) + 4;
    while !go_on.exists() && last(directory) < enough {
        std::thread::yield_now();
    }
    Ok(u64::from(vr.receive(Selector::on(CHANNEL).from(child))?.payload.head()[0]))
}

/// Not a test of its own: what the test below starts in a process of its own.
#[test]
fn helper_process() {
    let Ok(directory) = std::env::var("RIVER_TEST_MOURNED") else { return };
    let directory = PathBuf::from(directory);
    let body = |vr: &Vr| computes(vr, &directory);
    let result = match std::env::var_os("RIVER_TEST_RESTORE") {
        Some(_) => river_core::restore(&directory, body),
        None => {
            let to = KeepIn::Directory(directory.clone());
            Launch::new().checkpoint_every(Duration::from_millis(10), to).try_run(body)
        }
    };
    match result {
        Ok(answer) => println!("[result {answer}]"),
        Err(error) => println!("[error {error}]"),
    }
}

fn helper(directory: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "mourned::helper_process", "--nocapture"]).env("RIVER_TEST_MOURNED", directory);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

#[test]
fn a_loss_that_a_vr_has_not_heard_of_takes_no_place_of_a_checkpoint_that_is_of_use() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("alive"), "").unwrap();
    let mut child = helper(directory.path()).stderr(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines().map_while(std::io::Result::ok);
    let refused = told.find(|line| line.contains("has not heard yet"));
    std::fs::write(directory.path().join("go-on"), "").unwrap();
    told.for_each(drop);
    let failed = result_of(&child.wait_with_output().unwrap().stdout);
    assert!(failed.starts_with("[error ") && failed.contains("exit code 3"), "{failed}");
    let restored =
        helper(directory.path()).env("RIVER_TEST_RESTORE", "1").stderr(Stdio::null()).output().unwrap();
    assert_eq!(result_of(&restored.stdout), "[result 7]");
    assert!(refused.is_some_and(|line| line.starts_with("[river: no checkpoint was taken: ")));
}
