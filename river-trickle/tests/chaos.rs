//! Ten thousand items over VM processes that are killed, stopped, drained and started at random.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use proptest::prelude::any;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use river_core::{Query, Vm, VmConfig, find};

/// Tells this executable, when it is started again, to be a VM.
const VM: &str = "RIVER_CHAOS_VM";
/// Tells this process that it has an environment of its own.
const ALONE: &str = "RIVER_CHAOS_ALONE";
const ITEMS: u64 = 10_000;
const VMS: usize = 6;

/// Not a real test: a VM that ends with its standard input.
#[test]
fn vm_process() {
    let Ok(name) = std::env::var(VM) else { return };
    let vm = Vm::start(VmConfig::default().name(name)).unwrap();
    println!("\nup");
    std::io::stdout().flush().unwrap();
    std::thread::spawn(move || {
        // Until it is drained.
        vm.wait();
        drop(vm);
        std::process::exit(0);
    });
    std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()).unwrap();
    std::process::exit(0);
}

struct Process(Child);

impl Process {
    fn start(number: usize) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["vm_process", "--exact", "--nocapture", "--test-threads=1"])
            .env(VM, format!("chaos-{number}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut process = Self(child);
        let stdout = BufReader::new(process.0.stdout.take().unwrap());
        assert!(stdout.lines().map_while(Result::ok).any(|line| line == "up"), "a VM did not start");
        process
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

/// The children of a process: the hosts of a VM.
fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}

/// Whether a process runs; one that has ended but has not been waited for does not.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, state)| !state.trim_start().starts_with(['Z', 'X']))
}

/// Waits until none of these processes runs.
fn wait_for_end(hosts: &HashSet<u32>) {
    let start = Instant::now();
    while let Some(host) = hosts.iter().find(|host| runs(**host)) {
        assert!(start.elapsed() < Duration::from_secs(30), "host {host} is left");
        std::thread::yield_now();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Random failures of the VMs, determined by a seed.
struct Chaos {
    dice: TestRunner,
    started: usize,
    processes: HashMap<String, Process>,
    /// VMs that are already drained or stopped.
    struck: HashSet<String>,
    happened: Vec<String>,
    /// All hosts that were seen.
    hosts: HashSet<u32>,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let dice = TestRunner::new_with_rng(Config::default(), rng);
        let mut chaos = Self {
            dice,
            started: 0,
            processes: HashMap::new(),
            struck: HashSet::new(),
            happened: Vec::new(),
            hosts: HashSet::new(),
        };
        (0..VMS).for_each(|_| chaos.start());
        chaos
    }

    fn start(&mut self) {
        let process = Process::start(self.started);
        self.processes.insert(format!("chaos-{}", self.started), process);
        self.started += 1;
    }

    fn roll(&mut self, sides: usize) -> usize {
        any::<usize>().new_tree(&mut self.dice).unwrap().current() % sides
    }

    fn note_hosts(&mut self) {
        self.hosts.extend(self.processes.values().flat_map(|process| children(process.0.id())));
    }

    /// Strikes one VM, and starts another in its place.
    fn strike(&mut self) {
        self.note_hosts();
        let mut names: Vec<String> =
            self.processes.keys().filter(|name| !self.struck.contains(*name)).cloned().collect();
        names.sort_unstable();
        let name = names.swap_remove(self.roll(names.len()));
        let what = ["killed", "stopped", "drained"][self.roll(3)];
        self.happened.push(format!("{name} {what}"));
        self.struck.insert(name.clone());
        match what {
            "killed" => drop(self.processes.remove(&name)),
            // Never continued: it is suspected, lost, and ended with the test.
            "stopped" => self.processes[&name].signal("-STOP"),
            _ => {
                let vms = find(&Query::default()).unwrap().vms;
                if let Some(vm) = vms.iter().find(|vm| vm.name == name) {
                    river_core::drain(vm).unwrap();
                }
            }
        }
        self.start();
    }
}

/// Runs the test in a process of its own, with a key, a cache and a port that nothing else uses.
fn run_alone() {
    let directory = std::env::temp_dir().join(format!("river-chaos-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let port = 10_000 + std::process::id() % 20_000;
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["every_item_has_one_right_result_whatever_happens_to_the_vms", "--exact", "--nocapture"])
        .env(ALONE, "1")
        .env("RIVER_PORT", port.to_string())
        .env("RIVER_KEY_FILE", directory.join("key"))
        .env("RIVER_CACHE", directory.join("images"))
        .status()
        .unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    assert!(status.success());
}

#[test]
fn every_item_has_one_right_result_whatever_happens_to_the_vms() {
    if std::env::var_os(ALONE).is_none() {
        return run_alone();
    }
    let seed = std::env::var("RIVER_CHAOS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(17);
    println!("RIVER_CHAOS_SEED={seed}");
    let mut chaos = Chaos::new(seed);
    let square = |x: u64| {
        std::thread::sleep(Duration::from_micros(300));
        (x, x * x)
    };
    let results = river_core::try_run(|vr| {
        let vms = river_trickle::connect(vr, 1..)?;
        vms.grow(None)?;
        let mut results = HashMap::new();
        for (n, result) in vms.forkgen(square, 0..ITEMS, 5).attempts(20).enumerate() {
            let (x, squared) = result?;
            assert!(results.insert(x, squared).is_none(), "two results for {x}: {:?}", chaos.happened);
            if n % 1500 == 1000 {
                chaos.strike();
            }
        }
        Ok(results)
    });
    let results = results.unwrap_or_else(|error| panic!("{error}; {:?}", chaos.happened));
    assert_eq!(results.len() as u64, ITEMS);
    assert!(results.iter().all(|(x, squared)| *squared == x * x));
    println!("{:?}", chaos.happened);
    // They end with the program, those of VMs that were killed, stopped or drained as well.
    assert!(chaos.hosts.len() >= VMS, "{} hosts were seen", chaos.hosts.len());
    wait_for_end(&chaos.hosts);
}
