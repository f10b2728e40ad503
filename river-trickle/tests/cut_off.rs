//! A farm over two machines, made of network namespaces, one of which is cut off in the middle. Nothing is ever sent
//! outside them.

use std::cell::Cell;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use river_core::{Result, Vm, VmConfig, Vr};

/// Tells this executable, when it is started again, what it is.
const PART: &str = "RIVER_CUT_OFF_PART";
/// Only guards against hanging.
const LIMIT: Duration = Duration::from_secs(60);
const ITEMS: u64 = 1000;

/// Two machines, joined by a cable.
struct Machines {
    names: [String; 2],
    directory: tempfile::TempDir,
}

fn run(command: &str) -> bool {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output();
    output.is_ok_and(|output| output.status.success())
}

impl Machines {
    /// Returns `None`, after saying so, where that cannot be done.
    fn new(test: &str) -> Option<Self> {
        let names = [1, 2].map(|i| format!("rvcut{}{test}{i}", std::process::id()));
        let machines = Self { names, directory: tempfile::tempdir().unwrap() };
        let possible = machines.build();
        if !possible {
            eprintln!("skipped: needs root and iproute2");
        }
        possible.then_some(machines)
    }

    fn build(&self) -> bool {
        let key = self.directory.path().join("key");
        std::fs::write(&key, "5e".repeat(32)).unwrap();
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
        let [near, far] = &self.names;
        let cable = format!("ip -n {near} link add eth0 type veth peer name eth0 netns {far}");
        let cabled =
            run(&format!("ip netns add {near}")) && run(&format!("ip netns add {far}")) && run(&cable);
        cabled
            && self.names.iter().zip(1..).all(|(machine, i)| {
                run(&format!("ip -n {machine} address add 10.78.0.{i}/24 broadcast + dev eth0"))
                    && run(&format!("ip -n {machine} link set eth0 up"))
                    && run(&format!("ip -n {machine} link set lo up"))
            })
    }

    fn start(&self, machine: usize, part: &str) -> Process {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.names[machine]])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "helper_process", "--nocapture"])
            .env(PART, part)
            .env("RIVER_NETWORK", "1")
            .env("RIVER_PORT", "21477")
            .env("RIVER_KEY_FILE", self.directory.path().join("key"))
            .env("RIVER_CACHE", self.directory.path().join(part))
            .env_remove("RIVER_HOSTS")
            .env_remove("RIVER_VMS");
        Process::start(&mut command)
    }

    fn cut(&self) {
        assert!(run(&format!("ip -n {} link set eth0 down", self.names[0])));
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for machine in &self.names {
            run(&format!("ip netns del {machine}"));
        }
    }
}

/// A running process, whose output lines can be waited for. Killed when dropped.
struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            stdout.lines().map_while(std::result::Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines }
    }

    /// Returns what follows `word` on the next line that contains `[word]`.
    fn expect(&self, word: &str) -> String {
        let word = format!("[{word}]");
        loop {
            let line = self.lines.recv_timeout(LIMIT);
            let line = line.unwrap_or_else(|error| panic!("{word} was expected, {error}"));
            if let Some((_, rest)) = line.split_once(&word) {
                return rest.trim().to_owned();
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn slowly(x: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(1));
    x * x
}

/// Says when it is time to cut the cable, and in the end what came out and how many VMs were lost.
fn program(vr: &Vr, part: &str) -> Result {
    let vms = river_trickle::connect(vr, 2)?;
    let (told, lost) = (Cell::new(false), Cell::new(0));
    let watch = |progress: river_trickle::Progress| {
        if progress.done_items > 100 && !told.replace(true) {
            println!("\n[halfway]");
        }
        lost.set(progress.lost);
    };
    let sum = if part == "fold" {
        let step = |sum: &mut u64, xs: Vec<u64>| *sum += xs.into_iter().map(slowly).sum::<u64>();
        vms.forkfold(step, |sum, more| *sum += more, 0..ITEMS, 5).on_progress(watch).run()?
    } else {
        // Otherwise the farm would end before it is known that the VM is lost.
        let farm = vms.forkgen(slowly, 0..ITEMS, 5).speculate(false).on_progress(watch);
        farm.in_order()?.iter().sum()
    };
    println!("\n[over] {sum}, lost {}", lost.get());
    Ok(())
}

fn cut_off_in_the_middle_of(part: &str) {
    let Some(machines) = Machines::new(part) else { return };
    let vms = [machines.start(0, "near"), machines.start(1, "far")];
    vms.iter().for_each(|vm| drop(vm.expect("up")));
    let program = machines.start(0, part);
    program.expect("halfway");
    machines.cut();
    let sum: u64 = (0..ITEMS).map(|x| x * x).sum();
    assert_eq!(program.expect("over"), format!("{sum}, lost 1"));
}

#[test]
fn what_a_vm_had_that_is_cut_off_is_done_by_the_others() {
    cut_off_in_the_middle_of("work");
}

#[test]
fn what_a_vm_had_folded_that_is_cut_off_is_folded_by_the_others() {
    cut_off_in_the_middle_of("fold");
}

/// Not a test: what `Machines::start` runs.
#[test]
fn helper_process() {
    let Ok(part) = std::env::var(PART) else { return };
    if part == "near" || part == "far" {
        let vm = Vm::start(VmConfig::default().name(part).network(Ipv4Addr::UNSPECIFIED)).unwrap();
        println!("\n[up]");
        vm.wait();
    } else if let Err(error) = river_core::try_run(|vr| program(vr, &part)) {
        println!("\n[failed] {error}");
    }
}
