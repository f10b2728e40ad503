//! Farms whose VMs come and go.

use std::collections::HashSet;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::lab::{Lab, eventually, wait_for_line};
use river::prelude::trickle;

const SOON: Duration = Duration::from_secs(60);

/// Runs the initiator if the program is a farm; otherwise returns `false`.
pub(crate) fn run(kind: &str) -> bool {
    let ended = river::try_run(|vr| {
        let slow = |x: u64| {
            std::thread::sleep(Duration::from_millis(2));
            (x, std::process::id())
        };
        match kind {
            // Ends when it has seen the work of the given number of processes.
            "grow" => {
                let vms = trickle::connect(vr, 1..)?;
                vms.grow(None)?;
                let mut seen = HashSet::new();
                for result in vms.forkgen(slow, 0.., 1) {
                    if seen.insert(result?.1) {
                        println!("seen {}", seen.len());
                    }
                    if seen.len() == 3 {
                        break;
                    }
                }
            }
            // Ends when its work is done, and the input says whether all of it must be.
            "farm" => {
                let vms = trickle::connect(vr, ..)?;
                let mut sum = 0_u64;
                for (n, result) in vms.forkgen(slow, 0..2000, 1).enumerate() {
                    sum += result?.0;
                    if n == 20 {
                        println!("at work");
                    }
                }
                assert_eq!(sum, (0..2000).sum::<u64>());
                println!("all is done");
            }
            _ => {}
        }
        Ok(matches!(kind, "farm" | "grow"))
    });
    ended.unwrap()
}

#[test]
fn a_vm_that_is_drained_ends_without_a_loss() {
    let mut lab = Lab::new();
    lab.start_vms(3);
    let (_, nobody) = lab.ends(&["vm", "--drain", "lab-7"], 1);
    assert!(nobody.contains("no VM lab-7"), "{nobody}");
    let mut program = lab.program("farm").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_line(&mut program, "at work");
    let (told, _) = lab.ends(&["vm", "--drain", "lab-0", "lab-1"], 0);
    assert!(told.contains("VM lab-0 ends when command-") && told.contains("has released it"), "{told}");
    eventually(SOON, "two are gone", || lab.names() == ["lab-2"]);
    let output = program.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("[trickle: VM lab-0 was given back]"), "{stderr}");
    eventually(SOON, "the last is idle", || lab.idle() == 1);
    assert_eq!(lab.ends(&["vm", "--drain", "lab-2"], 0).0, "VM lab-2 ends now\n");
    assert_eq!(lab.daemons[0].wait().unwrap().code(), Some(0));
}

#[test]
fn vms_that_are_started_later_join_the_farm() {
    let mut lab = Lab::new();
    lab.start_vms(1);
    let mut program = lab.program("grow").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_line(&mut program, "seen 1");
    lab.start_vms(2);
    let output = program.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.matches("joins]").count() == 2, "{stderr}");
    eventually(SOON, "all are free", || lab.idle() == 3 && lab.hosts() == 0);
}

#[test]
fn an_interrupted_farm_leaves_nothing_behind() {
    let mut lab = Lab::new();
    lab.start_vms(2);
    let mut program = lab.program("farm").stdout(Stdio::piped()).spawn().unwrap();
    wait_for_line(&mut program, "at work");
    // The signal of Ctrl-C.
    kill_process(Pid::from_child(&program), Signal::INT).unwrap();
    program.wait().unwrap();
    eventually(SOON, "VMs free and hosts gone", || lab.idle() == 2 && lab.hosts() == 0);
}
