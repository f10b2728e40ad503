//! `river top`: in an emulated terminal, and for scripts.

use std::io::{BufRead, BufReader, Read, Write};
use std::num::NonZero;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portable_pty::{CommandBuilder, PtySize, native_pty_system};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::lab::{Lab, ends, eventually, wait_for_line};

/// Only to keep the test from hanging.
const LIMIT: Duration = Duration::from_secs(60);

/// A terminal in which a command runs.
struct Terminal {
    screen: Arc<Mutex<vt100::Parser>>,
    keys: Box<dyn Write + Send>,
    child: Box<dyn portable_pty::Child + Send + Sync>,
}

impl Terminal {
    fn run(lab: &Lab, args: &[&str]) -> Self {
        Self::run_command(&lab.path("empty"), &lab.river(args))
    }

    fn run_command(directory: &Path, river: &Command) -> Self {
        let (rows, cols) = (NonZero::new(30).unwrap(), NonZero::new(160).unwrap());
        let size = PtySize { rows: rows.get(), cols: cols.get(), pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(river.get_program());
        command.args(river.get_args());
        command.cwd(directory);
        command.env("TERM", "xterm-256color");
        for (name, value) in river.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            }
        }
        let child = pair.slave.spawn_command(command).unwrap();
        let mut output = pair.master.try_clone_reader().unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(rows, cols, 0)));
        let parser = screen.clone();
        let keys = pair.master.take_writer().unwrap();
        std::thread::spawn(move || {
            // Lives as long as the terminal.
            let _master = pair.master;
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut bytes) {
                parser.lock().unwrap().process(&bytes[..length]);
            }
        });
        Self { screen, keys, child }
    }

    fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    /// Waits until the screen shows all of `all`, and nothing of `none`.
    fn shows(&self, all: &[&str], none: &[&str]) {
        let so = |text: &str| {
            all.iter().all(|word| text.contains(word)) && !none.iter().any(|word| text.contains(word))
        };
        let start = std::time::Instant::now();
        while !so(&self.text()) {
            assert!(start.elapsed() < LIMIT, "not {all:?} without {none:?}:\n{}", self.text());
            std::thread::yield_now();
        }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// Checks that the command ends, and leaves the terminal as it was.
    fn ends(mut self) {
        eventually(LIMIT, "the end of the command", || self.child.try_wait().unwrap().is_some());
        assert!(self.child.wait().unwrap().success());
        let restored = || {
            let parser = self.screen.lock().unwrap();
            !parser.screen().alternate_screen() && !parser.screen().hide_cursor()
        };
        eventually(LIMIT, "the terminal as it was", restored);
    }
}

/// A program with four waiting VRs, each on its own VM.
fn sleepers(lab: &mut Lab) -> Child {
    lab.start_vms(4);
    let mut program = lab.program("sleep").stdout(Stdio::piped()).spawn().unwrap();
    wait_for_line(&mut program, "all are asleep");
    program
}

fn end(mut program: Child) {
    program.kill().unwrap();
    program.wait().unwrap();
}

#[test]
fn vms_programs_vrs_and_links_are_seen_and_keys_do_what_the_help_says() {
    let mut lab = Lab::new();
    let program = sleepers(&mut lab);
    let mut top = Terminal::run(&lab, &["top", "--interval", "0.2"]);
    top.shows(&["lab-0", "lab-3", "leased", "command-", "q quit"], &[]);
    // From a VM to its VRs, and to its program.
    top.press("\r");
    top.shows(&["of VM lab-0", "Worker", "WAITING"], &["initiator"]);
    top.press("2");
    top.shows(&["of VM lab-0", "SUSPECT", "command-"], &["no program", "nothing"]);
    // A filter that fits nothing is no reason to start VMs.
    top.press("1/xyz");
    top.shows(&["filter: xyz_", "nothing matches the filter"], &["river vm"]);
    top.press("\x1b");
    top.shows(&["of VM lab-0", "q quit"], &["filter:"]);
    top.press("\x1b");
    top.shows(&["lab-3", "q quit"], &["of VM"]);
    // Programs; from the program to its VRs.
    top.press("2");
    top.shows(&["MSG/S", "command-", "SUSPECT"], &["ADDRESS"]);
    top.press("\r");
    top.shows(&["of program command-", "Worker", "initiator", "WAITING"], &[]);
    // Only lines that contain a word.
    top.press("/lab-2");
    top.shows(&["filter: lab-2_", "lab-2", "Worker"], &["lab-1", "initiator"]);
    top.press("\r");
    top.shows(&["filter: lab-2"], &["lab-2_"]);
    // From the VR to the links of its VM: it has sent something to its parent.
    top.press("\r");
    top.shows(&["of VM lab-2", "KIND", "shm"], &["WAITING"]);
    // Sorted by another column, in reverse.
    top.press("\x1b");
    top.shows(&["KIND", "lab-0"], &["of VM"]);
    top.press("3");
    top.shows(&["VR▾", "lab-0", "lab-3"], &["of VM"]);
    top.press("\x1b[C\x1b[C");
    top.shows(&["VM▾"], &["VR▾"]);
    top.press("r");
    top.shows(&["VM▴"], &["VM▾"]);
    let in_order = || {
        let text = top.text();
        text.contains("lab-0") && text.find("lab-3") < text.find("lab-0")
    };
    eventually(LIMIT, "the other way round", in_order);
    // A dead program is no longer shown.
    end(program);
    top.press("2");
    top.shows(&["no program uses a VM"], &[]);
    top.press("q");
    top.ends();
}

#[test]
fn a_stopped_host_is_suspected_and_a_signal_restores_the_terminal() {
    let mut lab = Lab::new();
    let program = sleepers(&mut lab);
    let host = lab.processes().into_iter().find(|pid| lab.is_host(*pid)).unwrap();
    kill_process(host, Signal::STOP).unwrap();
    let mut top = Terminal::run(&lab, &["top", "--interval", "0.2"]);
    top.press("2");
    top.shows(&["command-"], &["no program"]);
    let suspected = || {
        let (told, _) = lab.ends(&["top", "--once", "--json"], 0);
        let told: Value = serde_json::from_str(&told).unwrap();
        let processes = told["programs"][0]["processes"].as_array().cloned().unwrap_or_default();
        let silent = |process: &Value| process["suspected"] == true && process["answered"] == false;
        // On a busy machine, it may be dead before anybody looks.
        processes.iter().any(silent) || processes.len() == 4
    };
    eventually(LIMIT, "one process suspected", suspected);
    let pid = i32::try_from(top.child.process_id().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    top.ends();
    end(program);
}

#[test]
fn whatever_signal_ends_it_the_terminal_is_restored() {
    let lab = Lab::new();
    for signal in [Signal::INT, Signal::QUIT, Signal::HUP] {
        let top = Terminal::run(&lab, &["top"]);
        top.shows(&["no VM was found"], &[]);
        let pid = i32::try_from(top.child.process_id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
        top.ends();
    }
}

/// The initiator of kind `terminal`: `river top` in a terminal that is gone with this process.
pub(crate) fn in_a_terminal() {
    let mut river = Command::new(std::env::var_os("RIVER_TEST_COMMAND").unwrap());
    let top = Terminal::run_command(Path::new("/"), river.arg("top"));
    top.shows(&["no VM was found"], &[]);
    println!("process {}", top.child.process_id().unwrap());
    std::io::read_to_string(std::io::stdin()).unwrap();
}

#[test]
fn it_ends_with_its_terminal() {
    let lab = Lab::new();
    let mut terminal = lab.program("terminal");
    terminal.env("RIVER_TEST_COMMAND", lab.path("river")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut terminal = terminal.spawn().unwrap();
    let lines = BufReader::new(terminal.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut processes = lines.filter_map(|line| line.strip_prefix("process ")?.parse::<i32>().ok());
    let top = processes.next().unwrap();
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    // Whether it is waited for is the business of its new parent.
    let lives = || {
        let stat = std::fs::read_to_string(format!("/proc/{top}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
    };
    eventually(LIMIT, "the end of the command", || !lives());
}

#[test]
fn warnings_are_not_written_over_the_screen() {
    let lab = Lab::new();
    lab.ends(&["key", "new"], 0);
    let mut river = lab.river(&["top"]);
    river.env("RIVER_HOSTS", "a..b");
    let (_, warned) = ends(lab.river(&["ls"]).env("RIVER_HOSTS", "a..b"), 0);
    assert!(warned.contains("RIVER_HOSTS names an unknown machine"), "{warned}");
    let mut top = Terminal::run_command(&lab.path("empty"), &river);
    top.shows(&["no VM was found"], &["unknown machine"]);
    top.press("q");
    top.ends();
}

#[test]
fn scripts_get_all_as_json() {
    let mut lab = Lab::new();
    let (told, _) = lab.ends(&["top", "--once", "--json"], 0);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told, serde_json::json!({"vms": [], "programs": [], "errors": []}));
    let program = sleepers(&mut lab);
    let (text, _) = lab.ends(&["top", "--once", "--json"], 0);
    let told: Value = serde_json::from_str(&text).unwrap();
    let vms = told["vms"].as_array().unwrap();
    assert_eq!(vms.len(), 4, "{text}");
    assert!(vms.iter().all(|vm| vm["lease"]["host"]["memory"].as_u64().unwrap() > 0), "{text}");
    let processes = told["programs"][0]["processes"].as_array().unwrap();
    assert_eq!((told["programs"].as_array().unwrap().len(), processes.len()), (1, 5), "{text}");
    assert_eq!(processes[0]["vrs"][0]["name"], "initiator", "{text}");
    // Each worker has reported its name, and the initiator has received that.
    assert_eq!(processes[0]["vrs"][0]["arrived"], 4, "{text}");
    assert_eq!(processes[0]["vrs"][0]["queued"], 0, "{text}");
    for process in &processes[1..] {
        assert!(process["vrs"][0]["name"].as_str().unwrap().ends_with("Worker"), "{text}");
        assert_eq!(process["links"][0]["to"], processes[0]["host"], "{text}");
        assert_eq!(process["links"][0]["messages"], 1, "{text}");
    }
    assert_eq!(told["errors"], serde_json::json!([]));
    let (text, _) = lab.ends(&["top", "--once"], 0);
    for word in ["VMs\n", "Programs\n", "VRs\n", "Links\n", "lab-3", "Worker", "shm"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    end(program);
    let (_, error) = lab.ends(&["top"], 1);
    assert!(error.contains("the output is not a terminal: use --once"), "{error}");
}

#[test]
fn ranks_are_called_by_their_numbers() {
    let mut lab = Lab::new();
    lab.start_vms(2);
    let mut program = lab.program("ranks-asleep").stdout(Stdio::piped()).spawn().unwrap();
    wait_for_line(&mut program, "is asleep");
    let (text, _) = lab.ends(&["top", "--once"], 0);
    assert!(text.contains("  rank 0  ") && text.contains("  rank 1  "), "{text}");
    end(program);
}
