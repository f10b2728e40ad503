//! Whichever process ends first, and however it ends: nothing is left behind.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::lab::{Lab, eventually, processes_with_key_in, wait_for_line};

/// A lease of a stopped program ends after four seconds, a stopped VM is given up after eight.
const LIMIT: Duration = Duration::from_secs(60);

/// A process, and the signal that it gets.
type Step = (Who, Signal);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Who {
    Program,
    Vms,
    /// One of the four hosts.
    Host,
}

const ORDERS: [[Who; 3]; 6] = {
    use Who::{Host, Program, Vms};
    [
        [Program, Vms, Host],
        [Program, Host, Vms],
        [Vms, Program, Host],
        [Vms, Host, Program],
        [Host, Program, Vms],
        [Host, Vms, Program],
    ]
};

/// A running program with everything that belongs to it, in its own directory.
struct Scene {
    lab: Lab,
    program: Child,
    host: Option<Pid>,
}

impl Scene {
    fn new() -> Self {
        let mut lab = Lab::new();
        lab.start_vms(4);
        let mut program = lab.program("sleep").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        wait_for_line(&mut program, "all are asleep");
        let host = lab.processes().into_iter().find(|pid| lab.is_host(*pid));
        assert!(host.is_some(), "no host was found");
        Self { lab, program, host }
    }

    fn send(&self, (who, signal): Step) {
        let pid = match who {
            Who::Program => Some(Pid::from_child(&self.program)),
            Who::Vms => Some(Pid::from_child(&self.lab.daemons[0])),
            // Its process id may have been reused by now.
            Who::Host => self.host.filter(|pid| self.lab.is_host(*pid)),
        };
        // Children of this process keep their ids; one that has ended is not an error.
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits until no process and no file of all this is left.
    fn vanishes(mut self, steps: &[Step]) {
        let directory = self.lab.path("");
        let start = Instant::now();
        loop {
            for child in [&mut self.program].into_iter().chain(&mut self.lab.daemons) {
                let _ = child.try_wait();
            }
            let (processes, files) = (processes_with_key_in(&directory), left_in(&directory));
            if processes.is_empty() && files.is_empty() {
                return;
            }
            assert!(start.elapsed() < LIMIT, "after {steps:?} there are still {processes:?} and {files:?}");
            std::thread::yield_now();
        }
    }
}

/// Useless files: temporary ones, and incomplete images.
fn left_in(lab: &Path) -> Vec<String> {
    let mut left = Vec::new();
    let mut directories = vec![lab.join("tmp"), lab.join("cache")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_image = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                directories.push(entry.path());
            } else if !is_image {
                left.push(name);
            }
        }
    }
    left
}

fn in_order(signal: Signal) {
    for order in ORDERS {
        let steps = order.map(|who| (who, signal));
        let scene = Scene::new();
        steps.into_iter().for_each(|step| scene.send(step));
        scene.vanishes(&steps);
    }
}

#[test]
fn killed_in_any_order_nothing_is_left() {
    in_order(Signal::KILL);
}

#[test]
fn told_to_end_in_any_order_nothing_is_left() {
    in_order(Signal::TERM);
}

#[test]
fn the_end_of_one_is_enough_for_what_depends_on_it() {
    // A program's hosts do not outlive it, but its VMs do.
    for signal in [Signal::INT, Signal::KILL] {
        let scene = Scene::new();
        scene.send((Who::Program, signal));
        let lab = &scene.lab;
        eventually(LIMIT, "the hosts are gone and the VMs are free", || lab.hosts() == 0 && lab.idle() == 4);
        let last = [(Who::Vms, Signal::INT)];
        scene.send(last[0]);
        scene.vanishes(&last);
    }
}

#[test]
fn what_was_stopped_first_vanishes_too() {
    for steps in [
        vec![(Who::Host, Signal::STOP), (Who::Vms, Signal::KILL), (Who::Program, Signal::KILL)],
        vec![(Who::Program, Signal::STOP), (Who::Vms, Signal::KILL), (Who::Program, Signal::KILL)],
        vec![(Who::Vms, Signal::STOP), (Who::Program, Signal::KILL), (Who::Vms, Signal::KILL)],
    ] {
        let scene = Scene::new();
        steps.iter().for_each(|step| scene.send(*step));
        scene.vanishes(&steps);
    }
}
