//! `river stop`.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::lab::{Lab, eventually, text, wait_for_line};

const SOON: Duration = Duration::from_secs(60);

/// Waits until `river vm` has ended, as it must; returns what it printed after its VMs were ready.
fn ended(mut daemon: Child) -> String {
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
    let mut stdout = String::new();
    daemon.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    stdout
}

#[test]
fn vms_are_stopped_by_name_and_by_id_and_river_vm_ends_with_the_last() {
    let mut lab = Lab::new();
    lab.start_vms(4);
    let id = lab.vms()[1]["id"].as_str().unwrap().to_owned();
    let (stopped, _) = lab.ends(&["stop", "lab-0", &id[..13]], 0);
    assert_eq!(stopped, "stopped VM lab-0\nstopped VM lab-1\n");
    eventually(SOON, "two go on", || lab.names() == ["lab-2", "lab-3"]);
    assert!(lab.daemons[0].try_wait().unwrap().is_none());
    // Named twice, stopped once.
    let id = lab.vms()[0]["id"].as_str().unwrap().to_ascii_uppercase();
    assert_eq!(lab.ends(&["stop", "lab-2", &id], 0).0, "stopped VM lab-2\n");
    lab.ends(&["stop", "lab-3"], 0);
    let said = ended(lab.daemons.remove(0));
    assert!(said.contains("VM lab-3 was stopped") && !said.contains("rror"), "{said}");
}

#[test]
fn all_are_stopped() {
    let mut lab = Lab::new();
    let (_, none) = lab.ends(&["stop", "--all"], 0);
    assert!(none.contains("nothing to stop"), "{none}");
    lab.start_vms(2);
    lab.start_vms(1);
    assert_eq!(lab.ends(&["stop", "--all"], 0).0.lines().count(), 3);
    for daemon in lab.daemons.drain(..) {
        ended(daemon);
    }
    assert!(lab.vms().is_empty());
}

#[test]
fn what_is_not_there_is_told_with_what_is() {
    let mut lab = Lab::new();
    let (_, nobody) = lab.ends(&["stop", "lab-0"], 1);
    assert!(nobody.contains("no VM was found at all"), "{nobody}");
    lab.start_vms(2);
    let (_, stderr) = lab.ends(&["stop", "lab-0", "lab-7"], 1);
    assert!(
        stderr.contains("there is no VM lab-7, so nothing was done; there are: lab-0, lab-1"),
        "{stderr}"
    );
    // Too short for an id, even if an id begins with it.
    let id = lab.vms()[0]["id"].as_str().unwrap().to_owned();
    lab.ends(&["stop", &id[..3]], 1);
    // Another process, whose VMs have the same names.
    lab.start_vms(2);
    let (_, stderr) = lab.ends(&["stop", "lab-0"], 1);
    assert!(stderr.contains("could be any of 2 VMs") && stderr.contains(&id), "{stderr}");
    assert_eq!(lab.idle(), 4);
    for nonsense in [&["stop"][..], &["stop", ""], &["stop", "--all", "lab-0"]] {
        lab.ends(nonsense, 2);
    }
}

#[test]
fn a_program_learns_that_its_vm_was_stopped_and_idle_spares_it() {
    let mut lab = Lab::new();
    lab.start_vms(5);
    let mut program = lab.program("sleep").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_line(&mut program, "all are asleep");
    let (stopped, left) = lab.ends(&["stop", "--idle"], 0);
    assert_eq!((stopped.lines().count(), left.lines().count()), (1, 4), "{stopped}{left}");
    assert!(left.contains("was not stopped: command-"), "{left}");
    let used = lab.names();
    assert_eq!(used.len(), 4);
    let (stopped, _) = lab.ends(&["stop", &used[0]], 0);
    assert!(stopped.contains("which command-"), "{stopped}");
    let output = program.wait_with_output().unwrap();
    assert!(!output.status.success());
    let why = format!("died with its host on VM {}: the VM was stopped by its owner", used[0]);
    assert!(text(&output).contains(&why), "{}", text(&output));
    eventually(SOON, "VMs free and hosts gone", || lab.idle() == 3 && lab.hosts() == 0);
}

#[test]
fn a_program_learns_that_a_signal_has_stopped_its_vms() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut lab = Lab::new();
        lab.start_vms(4);
        let mut program = lab.program("sleep").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_for_line(&mut program, "all are asleep");
        let mut daemon = lab.daemons.remove(0);
        kill_process(Pid::from_child(&daemon), signal).unwrap();
        let ended = daemon.wait().unwrap();
        assert_eq!(ended.signal(), Some(signal.as_raw()), "{ended}");
        let output = program.wait_with_output().unwrap();
        assert!(!output.status.success());
        let text = text(&output);
        assert!(text.contains(": the VM was stopped by its owner") && !text.contains("SIGKILL"), "{text}");
        eventually(SOON, "hosts gone", || lab.hosts() == 0);
    }
}
