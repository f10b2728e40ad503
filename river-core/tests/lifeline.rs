//! A program that is killed leaves nothing behind, not even what its VRs have started.

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use river_core::{Channel, Result, Selector, VirtualResource, Vr};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

const CHANNEL: Channel = Channel::named("test");
/// Set in a process that must run a program.
const PROGRAM: &str = "RIVER_TEST_PROGRAM";
/// What the VR prints before the id of its process and that of the process that it has started.
const STARTED: &str = "started: ";
const LIMIT: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

#[derive(Serialize, Deserialize)]
struct Starter;

impl VirtualResource for Starter {
    fn main(&mut self, vr: &Vr) -> Result {
        let mut command = Command::new("sleep").arg("1000").spawn()?;
        println!("{STARTED}{} {}", getpid().as_raw_nonzero(), command.id());
        vr.receive(Selector::on(CHANNEL))?;
        command.kill()?;
        Ok(())
    }
}

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns a handle on a process, which tells when it has ended.
fn handle(pid: &str) -> OwnedFd {
    pidfd_open(Pid::from_raw(pid.parse().unwrap()).unwrap(), PidfdFlags::empty()).unwrap()
}

fn has_ended(process: &OwnedFd) -> bool {
    poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&LIMIT)).unwrap() == 1
}

#[test]
fn what_a_vr_has_started_ends_with_a_program_that_is_killed() {
    if std::env::var_os(PROGRAM).is_some() {
        let ended = river_core::try_run(|vr| {
            let vms = vr.start_local(1)?;
            let starter = vr.deploy(&vms, |_| Starter)?;
            vr.receive(Selector::on(CHANNEL).from(starter[0]))?;
            Ok(())
        });
        return ended.unwrap();
    }
    for stopped in [false, true] {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "what_a_vr_has_started_ends_with_a_program_that_is_killed", "--nocapture"])
            .env(PROGRAM, "1")
            .stdout(Stdio::piped())
            .spawn();
        let mut program = Program(child.unwrap());
        let mut stdout = BufReader::new(program.0.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains(STARTED) {
            line.clear();
            assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "the program has ended");
        }
        let (_, pids) = line.split_once(STARTED).unwrap();
        let (host, command) = pids.trim().split_once(' ').unwrap();
        let (host, command) = (handle(host), handle(command));
        if stopped {
            pidfd_send_signal(&host, Signal::STOP).unwrap();
        }
        program.0.kill().unwrap();
        let ended = (has_ended(&host), has_ended(&command));
        let _ = (pidfd_send_signal(&host, Signal::KILL), pidfd_send_signal(&command, Signal::KILL));
        assert_eq!(ended, (true, true), "host and command; the host was stopped: {stopped}");
    }
}
