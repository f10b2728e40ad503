//! What every test of the command has to itself: a directory, a key, a cache, a port.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use tempfile::TempDir;

/// Tells the test executable, when it is started again, to be a program's initiator.
pub(crate) const INITIATOR: &str = "RIVER_TEST_INITIATOR";

/// The arguments with which the test executable becomes an initiator.
pub(crate) const INITIATOR_ARGS: [&str; 3] = ["--exact", "initiator", "--nocapture"];

/// More than the number of tests in this executable.
const PORTS: u16 = 100;

/// The `river` command and its VMs, in an empty directory, with their own cache, key and port.
pub(crate) struct Lab {
    directory: TempDir,
    pub(crate) port: u16,
    pub(crate) daemons: Vec<Child>,
}

/// Makes processes that this one starts heed the signals that tests send. If the tests are run in the background of a
/// script, or by `nohup`, some signals are ignored, which children inherit; a signal that has a handler here is back to its
/// default there.
fn heed_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
        let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
        for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
            if ignored & 1 << (signal - 1) != 0 {
                signal_hook::flag::register(signal, Arc::default()).unwrap();
            }
        }
    });
}

impl Lab {
    pub(crate) fn new() -> Self {
        heed_signals();
        static NEXT: AtomicU16 = AtomicU16::new(0);
        // Below the ephemeral ports of the system.
        let first = 10_000 + (std::process::id() % 216) as u16 * PORTS;
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS;
        let directory = tempfile::tempdir().unwrap();
        // Not a copy: while it is written, another test may fork, and a file that any process holds open for writing cannot
        // be executed.
        symlink(env!("CARGO_BIN_EXE_river"), directory.path().join("river")).unwrap();
        fs::create_dir(directory.path().join("empty")).unwrap();
        fs::create_dir(directory.path().join("tmp")).unwrap();
        Self { directory, port, daemons: Vec::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn environment<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        for variable in ["RIVER_CACHE", "RIVER_VMS", "RIVER_HOSTS", "RIVER_NETWORK", "RIVER_LOG"] {
            command.env_remove(variable);
        }
        command
            .env("RIVER_PORT", self.port.to_string())
            .env("RIVER_KEY_FILE", self.path("key"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("TMPDIR", self.path("tmp"))
    }

    pub(crate) fn river(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.path("river"));
        self.environment(&mut command).args(args).current_dir(self.path("empty"));
        command
    }

    /// Runs the command to its end, checks its exit code, and returns what it printed to stdout and stderr.
    pub(crate) fn ends(&self, args: &[&str], code: i32) -> (String, String) {
        ends(&mut self.river(args), code)
    }

    /// Starts `river vm -n COUNT` and returns when all wait for programs.
    pub(crate) fn start_vms(&mut self, count: usize) {
        self.start_vms_with(count, &[]);
    }

    /// Like [`start_vms`](Self::start_vms), with these options.
    pub(crate) fn start_vms_with(&mut self, count: usize, options: &[&str]) {
        let mut command = self.river(&["vm", "-n", &count.to_string(), "--name", "lab"]);
        command.args(options);
        self.start_daemon(command, count);
    }

    /// Starts one VM with this name through another command, which is given the VM's command line.
    pub(crate) fn start_vms_in(&mut self, outer: &str, options: &[&str], name: &str) {
        let mut command = Command::new(outer);
        self.environment(&mut command).args(options).arg(self.path("river")).args(["vm", "--name", name]);
        self.start_daemon(command, 1);
    }

    /// Starts `river vm -n COUNT`, and returns the file to which it logs.
    pub(crate) fn start_vms_that_log(&mut self, count: usize) -> PathBuf {
        let log = self.path("log");
        let mut command = self.river(&["vm", "-n", &count.to_string(), "--name", "lab"]);
        command.stderr(fs::File::create(&log).unwrap());
        self.start_daemon(command, count);
        log
    }

    fn start_daemon(&mut self, mut command: Command, count: usize) {
        let mut daemon = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(daemon.stdout.take().unwrap());
        for _ in 0..count {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            assert!(line.contains("waits"), "{line}");
        }
        // Stays open for as long as the daemon is in the lab, like a terminal.
        daemon.stdout = Some(stdout.into_inner());
        self.daemons.push(daemon);
    }

    /// Starts this executable as the initiator of a program of the given kind.
    pub(crate) fn program(&self, kind: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        self.environment(&mut command).env(INITIATOR, kind).args(INITIATOR_ARGS);
        command
    }

    /// `river run` with these options and this executable as the program.
    pub(crate) fn run_program(&self, options: &[&str], kind: &str) -> Command {
        let mut command = self.river(&["run"]);
        command.args(options).arg(std::env::current_exe().unwrap()).env(INITIATOR, kind).args(INITIATOR_ARGS);
        command
    }

    pub(crate) fn vms(&self) -> Vec<serde_json::Value> {
        self.vms_that(&[])
    }

    /// What `river ls --json` shows with these filters.
    pub(crate) fn vms_that(&self, filters: &[&str]) -> Vec<serde_json::Value> {
        let (stdout, _) = ends(self.river(&["ls", "--json"]).args(filters), 0);
        serde_json::from_str(&stdout).unwrap()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.vms().iter().map(|vm| vm["name"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn idle(&self) -> usize {
        self.vms().iter().filter(|vm| vm["state"] == "idle").count()
    }

    /// All processes that belong to this lab.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        processes_with_key_in(self.directory.path())
    }

    /// How many hosts there are.
    pub(crate) fn hosts(&self) -> usize {
        self.processes().into_iter().filter(|pid| self.is_host(*pid)).count()
    }

    /// Whether a process is a host of this lab: its executable lies in the cache.
    pub(crate) fn is_host(&self, pid: Pid) -> bool {
        let exe = fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero()));
        exe.is_ok_and(|exe| exe.starts_with(self.path("cache")))
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

/// The live processes whose environment has their key in this directory.
pub(crate) fn processes_with_key_in(directory: &Path) -> Vec<Pid> {
    let key = format!("RIVER_KEY_FILE={}", directory.join("key").display());
    let has_key =
        |environment: Vec<u8>| environment.split(|byte| *byte == 0).any(|line| line == key.as_bytes());
    let pids =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| fs::read(format!("/proc/{pid}/environ")).is_ok_and(has_key))
        .filter_map(Pid::from_raw)
        .collect()
}

/// Polls until the condition holds; fails if that takes longer than the limit.
pub(crate) fn eventually(limit: Duration, what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::yield_now();
    }
}

pub(crate) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs a command to its end, checks its exit code, and returns what it printed to stdout and stderr.
pub(crate) fn ends(command: &mut Command, code: i32) -> (String, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    check(&output, code, command);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// Like [`ends`], for a command that reads this text; returns what it printed.
pub(crate) fn reads_and_ends(command: &mut Command, input: &str, code: i32) -> String {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may stop reading before the end.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    check(&output, code, command);
    text(&output)
}

fn check(output: &Output, code: i32, command: &Command) {
    assert_eq!(output.status.code(), Some(code), "{command:?}: {}", text(output));
}

/// Reads the output of a process up to this word. The process goes on, and may go on printing.
pub(crate) fn wait_for_line(child: &mut Child, word: &str) {
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let found = stdout.by_ref().lines().map_while(Result::ok).any(|line| line.contains(word));
    assert!(found, "{word:?} was not printed");
    child.stdout = Some(stdout.into_inner());
}
