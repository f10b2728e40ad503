//! The `river` command as a user meets it: VM processes that have never seen the program, and programs that die.

mod browser;
mod cli;
mod doctor;
mod farm;
mod key;
mod lab;
mod migrate;
mod order;
mod replay;
mod run;
mod state;
mod stop;
mod top;
mod trace;

use std::process::Stdio;
use std::time::Duration;

use river::core::{Query, VirtualResource, Vr, find};
use river::prelude::{Sfm, msg, pat};
use serde::{Deserialize, Serialize};

use lab::{INITIATOR, Lab, eventually, text, wait_for_line};

/// What a VM logs that takes itself back from a program that is silent.
const LAPSED: &str = "the program stopped renewing its lease";

/// Answers with its VM, and does what this kind of program asks for.
#[derive(Serialize, Deserialize)]
struct Worker {
    kind: String,
}

impl VirtualResource for Worker {
    fn main(&mut self, vr: &Vr) -> river::Result {
        if self.kind == "limits" {
            println!("{}", std::fs::read_to_string("/proc/self/limits")?);
        }
        if self.kind == "where" {
            println!("runs in {}", std::env::current_dir()?.display());
        }
        vr.send(vr.parent().unwrap(), msg! { vm: vr.vm(), process: std::process::id() })?;
        if self.kind == "sleep" {
            vr.recv(pat! { never: true })?;
        }
        Ok(())
    }
}

/// Not a test itself: `Lab::program` runs it.
#[test]
fn initiator() {
    let Ok(kind) = std::env::var(INITIATOR) else { return };
    river::log_to_stderr(1);
    let program: Option<fn(&Vr) -> river::Result> = match kind.as_str() {
        "count-long" => Some(state::count_long),
        "on-the-last" => Some(migrate::on_the_last),
        "count-until" => Some(migrate::count_until),
        "fails" => Some(cli::fails),
        "dies-once" => Some(state::dies_once),
        "gives-back" => Some(gives_back),
        _ => None,
    };
    if let Some(program) = program {
        // The program's exit code counts, not that of the harness, which decides on its own.
        let code = river::run(program);
        if code != river::ExitCode::SUCCESS {
            std::process::exit(1);
        }
        return;
    }
    if kind == "by-the-clock" {
        river::try_run(replay::by_the_clock).unwrap();
        return;
    }
    if kind == "of-another-version" {
        let port = std::env::var("RIVER_PORT").unwrap().parse().unwrap();
        river::core::testing::vm_of_version(port, 999);
        println!("answers searches");
        std::io::read_to_string(std::io::stdin()).unwrap();
        return;
    }
    if kind == "terminal" {
        top::in_a_terminal();
        return;
    }
    if trace::run(&kind) || farm::run(&kind) {
        return;
    }
    river::try_run(|vr| {
        let count = match kind.as_str() {
            "limits" | "where" => Some(1),
            "count" => None,
            _ => Some(4),
        };
        let found = vr.discover(Query { count, ..Query::default() })?;
        println!("sees {} VMs", found.len());
        let wanted = count.map_or(found.len(), |count| count as usize);
        let vms = vr.allocate(found, wanted)?;
        let workers = vr.deploy(&vms, |_| Worker { kind: kind.clone() })?;
        for worker in workers.iter() {
            println!("answered by {}", vr.recv(pat! { src: worker })?.get::<String>("vm")?);
        }
        if kind == "sleep" {
            println!("all are asleep");
            vr.recv(pat! { never: true })?;
        }
        Ok(())
    })
    .unwrap();
}

/// The initiator of kind `gives-back`: gives the VMs of a cluster back at the end of its input.
fn gives_back(vr: &Vr) -> river::Result {
    let cluster = river::mapreduce::Cluster::connect(vr, 2)?;
    println!("has a cluster");
    std::io::read_to_string(std::io::stdin())?;
    cluster.release()?;
    println!("gave it back");
    Ok(())
}

#[test]
fn the_image_travels_once_and_the_program_leaves_nothing() {
    let mut lab = Lab::new();
    lab.start_vms(4);
    let first = text(&lab.program("answer").output().unwrap());
    for vm in 0..4 {
        assert!(first.contains(&format!("answered by lab-{vm}")), "{first}");
    }
    assert!(first.contains("shipped the program's image"), "{first}");
    let second = text(&lab.program("answer").output().unwrap());
    assert!(!second.contains("shipped the program's image"), "{second}");
    assert_eq!(second.matches("nothing shipped").count(), 4, "{second}");
    eventually(Duration::from_secs(60), "VMs free and hosts gone", || lab.idle() == 4 && lab.hosts() == 0);
}

#[test]
fn hosts_run_in_the_directory_of_their_program_not_of_their_vm() {
    let mut lab = Lab::new();
    lab.start_vms(1);
    let here = lab.path("here");
    std::fs::create_dir(&here).unwrap();
    let here = here.canonicalize().unwrap();
    let printed = text(&lab.program("where").current_dir(&here).output().unwrap());
    assert!(printed.contains(&format!("runs in {}\n", here.display())), "{printed}");
}

#[test]
fn a_killed_initiator_frees_its_vms_and_ends_its_hosts() {
    let mut lab = Lab::new();
    let log = lab.start_vms_that_log(4);
    let mut program = lab.program("sleep").stdout(Stdio::piped()).spawn().unwrap();
    wait_for_line(&mut program, "all are asleep");
    assert_eq!((lab.idle(), lab.hosts()), (0, 4));
    let states = lab.vms();
    assert!(states.iter().all(|vm| vm["program"].as_str().unwrap().contains("command-")), "{states:?}");
    program.kill().unwrap();
    program.wait().unwrap();
    eventually(Duration::from_secs(60), "VMs free and hosts gone", || lab.idle() == 4 && lab.hosts() == 0);
    // The VMs have noticed its end: they did not have to wait until their leases ran out.
    let log = std::fs::read_to_string(log).unwrap();
    assert!(!log.contains(LAPSED), "{log}");
    let again = text(&lab.program("answer").output().unwrap());
    assert!(again.contains("answered by lab-3"), "{again}");
}

#[test]
fn a_stopped_initiator_loses_its_lease_and_hears_so_when_it_wakes() {
    let mut lab = Lab::new();
    let log = lab.start_vms_that_log(4);
    let mut program = lab.program("sleep").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_line(&mut program, "all are asleep");
    let pid = rustix::process::Pid::from_child(&program);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    eventually(Duration::from_secs(60), "VMs free and hosts gone", || lab.idle() == 4 && lab.hosts() == 0);
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    let output = program.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("did not renew its lease for 4 s"), "{text}");
    let log = std::fs::read_to_string(log).unwrap();
    assert_eq!(log.matches(LAPSED).count(), 4, "{log}");
}

#[test]
fn a_killed_vm_takes_its_hosts_along_and_the_program_learns_why() {
    let mut lab = Lab::new();
    lab.start_vms(4);
    let mut program = lab.program("sleep").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_line(&mut program, "all are asleep");
    for daemon in &mut lab.daemons {
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }
    eventually(Duration::from_secs(60), "hosts gone", || lab.hosts() == 0);
    let output = program.wait_with_output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("lab-") && text.contains("is out of reach on VM lab-"), "{text}");
}

#[test]
fn thirty_two_vms_on_one_machine_are_all_found() {
    let mut lab = Lab::new();
    lab.start_vms(32);
    assert_eq!(lab.idle(), 32);
}

#[test]
fn nobody_is_found_where_nobody_is() {
    let lab = Lab::new();
    let output = lab.river(&["ls"]).output().unwrap();
    assert!(output.status.success());
    assert!(text(&output).contains("start one with `river vm`"), "{}", text(&output));
    // The library reports the same as the command.
    let _ = find(&Query::default()).unwrap();
}

#[test]
fn a_vm_of_another_version_is_told_with_what_to_do() {
    let lab = Lab::new();
    let mut other = lab.program("of-another-version");
    let mut other = other.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    wait_for_line(&mut other, "answers searches");
    for command in [&["ls"][..], &["stop", "--all"], &["top", "--once"]] {
        let said = text(&lab.river(command).output().unwrap());
        assert!(said.contains("1 VM speaks protocol version 999, and this command speaks version"), "{said}");
        assert!(said.contains("install the same version of River there, and restart them"), "{said}");
        assert!(!said.contains("start one"), "{said}");
    }
    drop(other.stdin.take());
    assert!(other.wait().unwrap().success());
}

#[test]
fn a_stopped_vm_is_given_up_and_is_free_when_it_wakes() {
    let mut lab = Lab::new();
    lab.start_vms(4);
    let mut program = lab.program("sleep").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_line(&mut program, "all are asleep");
    let daemon = rustix::process::Pid::from_child(&lab.daemons[0]);
    rustix::process::kill_process(daemon, rustix::process::Signal::STOP).unwrap();
    let output = program.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("has not been heard of for 3s"), "{text}");
    assert!(text.contains("it has not been heard of for 8s"), "{text}");
    rustix::process::kill_process(daemon, rustix::process::Signal::CONT).unwrap();
    eventually(Duration::from_secs(60), "VMs free and hosts gone", || lab.idle() == 4 && lab.hosts() == 0);
}

#[test]
fn a_stopped_vm_is_given_up_when_it_is_given_back() {
    let mut lab = Lab::new();
    lab.start_vms_in("env", &[], "stopped");
    lab.start_vms_in("env", &[], "other");
    let mut program = lab.program("gives-back").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    wait_for_line(&mut program, "has a cluster");
    let daemon = rustix::process::Pid::from_child(&lab.daemons[0]);
    rustix::process::kill_process(daemon, rustix::process::Signal::STOP).unwrap();
    drop(program.stdin.take());
    wait_for_line(&mut program, "gave it back");
    assert!(program.wait().unwrap().success());
    rustix::process::kill_process(daemon, rustix::process::Signal::CONT).unwrap();
    eventually(Duration::from_secs(60), "VMs free and hosts gone", || lab.idle() == 2 && lab.hosts() == 0);
}
