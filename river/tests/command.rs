//! The `river` command as a user meets it: VM processes that never saw the program, and programs that die.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use river::core::{Query, VirtualResource, Vr, find};
use river::prelude::{Sfm, msg, pat};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

/// Says to the test executable, started anew, that it is to be a program's initiator.
const INITIATOR: &str = "RIVER_TEST_INITIATOR";

/// VMs from a copy of the `river` command, in an empty directory, with a cache, a key and a port of their own.
struct Lab {
    directory: TempDir,
    port: u16,
    daemons: Vec<Child>,
}

impl Lab {
    fn new() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let port = 41_000 + (std::process::id() % 1000) as u16 * 20 + NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = tempfile::tempdir().unwrap();
        fs::copy(env!("CARGO_BIN_EXE_river"), directory.path().join("river")).unwrap();
        fs::create_dir(directory.path().join("empty")).unwrap();
        Self { directory, port, daemons: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn environment<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("RIVER_PORT", self.port.to_string())
            .env("RIVER_KEY_FILE", self.path("key"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env_remove("RIVER_CACHE")
    }

    fn river(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.path("river"));
        self.environment(&mut command).args(args).current_dir(self.path("empty"));
        command
    }

    /// Starts `river vm -n COUNT` and returns when all wait for programs.
    fn start_vms(&mut self, count: usize) {
        let mut command = self.river(&["vm", "-n", &count.to_string(), "--name", "lab"]);
        let mut daemon = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(daemon.stdout.take().unwrap()).lines();
        let waiting = lines.map_while(Result::ok).take(count).filter(|line| line.contains("waits")).count();
        assert_eq!(waiting, count);
        self.daemons.push(daemon);
    }

    /// Starts this executable as the initiator of a program of the given kind.
    fn program(&self, kind: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        self.environment(&mut command).env(INITIATOR, kind).args(["--exact", "initiator", "--nocapture"]);
        command
    }

    fn vms(&self) -> Vec<serde_json::Value> {
        let output = self.river(&["ls", "--json"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn idle(&self) -> usize {
        self.vms().iter().filter(|vm| vm["state"] == "idle").count()
    }

    /// The hosts of this lab: processes whose executable lies in its cache.
    fn hosts(&self) -> usize {
        processes_under(&self.path("cache"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

fn processes_under(directory: &Path) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter(|entry| fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe.starts_with(directory)))
        .count()
}

/// Looks again and again until it is so; fails if it is not within the limit.
fn eventually(limit: Duration, what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::yield_now();
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[derive(Serialize, Deserialize)]
enum Worker {
    Answer,
    Sleep,
}

impl VirtualResource for Worker {
    fn main(&mut self, vr: &Vr) -> river::Result {
        vr.send(vr.parent().unwrap(), msg! { vm: vr.vm(), process: std::process::id() })?;
        if let Worker::Sleep = self {
            vr.recv(pat! { never: true })?;
        }
        Ok(())
    }
}

/// Not a test of its own: what `Lab::program` runs.
#[test]
fn initiator() {
    let Ok(kind) = std::env::var(INITIATOR) else { return };
    river::log_to_stderr(1);
    river::try_run(|vr| {
        let vms = vr.allocate(vr.discover(Query { count: Some(4), ..Query::default() })?, 4)?;
        let workers = vr.deploy(&vms, |_| if kind == "sleep" { Worker::Sleep } else { Worker::Answer })?;
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
    eventually(Duration::from_secs(5), "VMs free and hosts gone", || lab.idle() == 4 && lab.hosts() == 0);
}

#[test]
fn a_killed_initiator_frees_its_vms_and_ends_its_hosts() {
    let mut lab = Lab::new();
    lab.start_vms(4);
    let mut program = lab.program("sleep").stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(program.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("all are asleep")));
    assert_eq!((lab.idle(), lab.hosts()), (0, 4));
    let states = lab.vms();
    assert!(states.iter().all(|vm| vm["program"].as_str().unwrap().contains("command-")), "{states:?}");
    program.kill().unwrap();
    program.wait().unwrap();
    eventually(Duration::from_secs(5), "VMs free and hosts gone", || lab.idle() == 4 && lab.hosts() == 0);
    let again = text(&lab.program("answer").output().unwrap());
    assert!(again.contains("answered by lab-3"), "{again}");
}

#[test]
fn a_stopped_initiator_loses_its_lease() {
    let mut lab = Lab::new();
    lab.start_vms(4);
    let mut program = lab.program("sleep").stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(program.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("all are asleep")));
    let pid = rustix::process::Pid::from_child(&program);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    eventually(Duration::from_secs(10), "VMs free and hosts gone", || lab.idle() == 4 && lab.hosts() == 0);
    program.kill().unwrap();
    program.wait().unwrap();
}

#[test]
fn a_killed_vm_takes_its_hosts_along_and_the_program_learns_why() {
    let mut lab = Lab::new();
    lab.start_vms(4);
    let mut program = lab.program("sleep").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    assert!(lines.by_ref().map_while(Result::ok).any(|line| line.contains("all are asleep")));
    for daemon in &mut lab.daemons {
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }
    eventually(Duration::from_secs(5), "hosts gone", || lab.hosts() == 0);
    let output = program.wait_with_output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("lab-") && text.contains("is out of reach on VM lab-"), "{text}");
}

#[test]
fn bad_command_lines_are_told_in_a_sentence() {
    let lab = Lab::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let udp = std::net::UdpSocket::bind(("127.255.255.255", 0)).unwrap();
    let udp_port = udp.local_addr().unwrap().port().to_string();
    let cases: [(&[&str], i32, &str); 5] = [
        (&["vm", "-n", "0"], 2, "number would be zero"),
        (&["vm", "-n", "2", "--listen", "9999"], 1, "drop -n or --listen"),
        (&["vm", "--listen", &port], 1, "cannot listen on 127.0.0.1"),
        (&["vm", "--port", &udp_port], 1, "is taken by another program"),
        (&["frobnicate"], 2, "unrecognized subcommand"),
    ];
    for (args, code, expected) in cases {
        let output = lab.river(args).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        assert!(text(&output).contains(expected), "{args:?}: {}", text(&output));
    }
    let homeless = lab
        .river(&["vm"])
        .env_remove("RIVER_KEY_FILE")
        .env_remove("HOME")
        .env_remove("XDG_CONFIG_HOME")
        .output();
    let homeless = homeless.unwrap();
    assert_eq!(homeless.status.code(), Some(1));
    assert!(text(&homeless).contains("RIVER_KEY_FILE"), "{}", text(&homeless));
    let bad_port = lab.river(&["ls"]).env("RIVER_PORT", "70000").output().unwrap();
    assert!(text(&bad_port).contains("RIVER_PORT is \"70000\""), "{}", text(&bad_port));
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
    // The library says the same as the command.
    let _ = find(&Query::default()).unwrap();
}

#[test]
fn a_stopped_vm_is_given_up_and_is_free_when_it_wakes() {
    let mut lab = Lab::new();
    lab.start_vms(4);
    let mut program = lab.program("sleep").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    assert!(lines.by_ref().map_while(Result::ok).any(|line| line.contains("all are asleep")));
    let daemon = rustix::process::Pid::from_child(&lab.daemons[0]);
    rustix::process::kill_process(daemon, rustix::process::Signal::STOP).unwrap();
    let output = program.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("has not been heard of for 3s"), "{text}");
    assert!(text.contains("it has not been heard of for 8s"), "{text}");
    rustix::process::kill_process(daemon, rustix::process::Signal::CONT).unwrap();
    eventually(Duration::from_secs(5), "VMs free and hosts gone", || lab.idle() == 4 && lab.hosts() == 0);
}
