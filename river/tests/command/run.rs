//! `river run`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::lab::{Lab, ends, eventually, text, wait_for_line};

const SOON: Duration = Duration::from_secs(60);

/// A program that prints what it was told about VMs.
const TELL: [&str; 3] = ["sh", "-c", "echo VMs ${RIVER_VMS-unset} port $RIVER_PORT"];

fn run<'a>(options: &[&'a str], program: &[&'a str]) -> Vec<&'a str> {
    [&["run"], options, program].concat()
}

#[test]
fn a_program_uses_running_vms_but_no_more_than_asked_for() {
    let mut lab = Lab::new();
    lab.start_vms(4);
    let (told, stderr) = lab.ends(&run(&["-n", "3"], &TELL), 0);
    assert_eq!((told, stderr.as_str()), (format!("VMs 3 port {}\n", lab.port), ""));
    let (told, _) = lab.ends(&run(&[], &TELL), 0);
    assert_eq!(told, format!("VMs unset port {}\n", lab.port));
    let output = text(&lab.run_program(&["-n", "3"], "count").output().unwrap());
    assert!(output.contains("sees 3 VMs") && output.matches("answered by lab-").count() == 3, "{output}");
    let output = text(&lab.run_program(&[], "count").output().unwrap());
    assert!(output.contains("sees 4 VMs"), "{output}");
}

/// Whoever answers first.
#[test]
fn a_program_that_may_use_two_vms_finds_those_that_are_idle() {
    let mut lab = Lab::new();
    lab.start_vms_in("env", &[], "first");
    let first = Pid::from_child(&lab.daemons[0]);
    // So that the other program does not find it.
    kill_process(first, Signal::STOP).unwrap();
    for name in ["used-0", "used-1", "used-2"] {
        lab.start_vms_in("env", &[], name);
    }
    eventually(SOON, "three VMs", || lab.names().len() == 3);
    let mut other = lab.program("on-the-last").stdout(Stdio::piped()).spawn().unwrap();
    wait_for_line(&mut other, "is there");
    kill_process(first, Signal::CONT).unwrap();
    lab.start_vms_in("env", &[], "last");
    eventually(SOON, "two idle VMs", || lab.idle() == 2);
    let output = text(&lab.run_program(&["-n", "2"], "count").output().unwrap());
    assert!(output.contains("answered by first") && output.contains("answered by last"), "{output}");
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn a_program_gets_vms_of_its_own_if_there_are_too_few() {
    let mut lab = Lab::new();
    lab.start_vms(2);
    let (told, stderr) = lab.ends(&run(&["-n", "3"], &TELL), 0);
    assert!(told.starts_with("VMs 3 port ") && !told.contains(&lab.port.to_string()), "{told}");
    assert!(stderr.contains("2 idle VMs were found, not 3; started 3 VMs"), "{stderr}");
    let output = lab.run_program(&["-n", "3"], "count").output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let output = text(&output);
    assert!(output.contains("sees 3 VMs") && output.matches("answered by run-").count() == 3, "{output}");
    assert_eq!((lab.names().len(), lab.hosts()), (2, 0), "what was started has ended");
}

#[test]
fn without_a_number_and_without_vms_there_is_one_per_core() {
    let lab = Lab::new();
    let cores = std::thread::available_parallelism().unwrap();
    let (told, stderr) = lab.ends(&run(&[], &TELL), 0);
    assert!(told.starts_with(&format!("VMs {cores} port ")), "{told}");
    assert!(stderr.contains("no idle VM was found; started"), "{stderr}");
}

#[test]
fn options_after_the_program_are_its_own() {
    let mut lab = Lab::new();
    lab.start_vms(1);
    let (told, _) = lab.ends(&run(&["-n", "1"], &["echo", "-n", "4", "-v", "--help", "--", "-n"]), 0);
    assert_eq!(told, "4 -v --help -- -n");
    let (told, _) = lab.ends(&run(&["-n", "1", "--"], &["echo", "--", "x"]), 0);
    assert_eq!(told, "-- x\n");
}

#[test]
fn the_exit_code_is_that_of_the_program_or_of_a_shell() {
    let mut lab = Lab::new();
    lab.start_vms(1);
    let plain = lab.path("plain").display().to_string();
    fs::write(&plain, "no program").unwrap();
    fs::set_permissions(&plain, PermissionsExt::from_mode(0o644)).unwrap();
    let orphan = lab.path("orphan").display().to_string();
    // Written by another process: a file that a fork of this one may still hold open for writing cannot be executed.
    let write = "echo '#!/no/such/interpreter' > \"$0\" && chmod 755 \"$0\"";
    ends(Command::new("sh").args(["-c", write, &orphan]), 0);
    let cases: [(&[&str], i32, &str); 8] = [
        (&["true"], 0, ""),
        (&["sh", "-c", "exit 42"], 42, ""),
        (&["sh", "-c", "kill -KILL $$"], 137, ""),
        (&["no-such-program"], 127, "not in any directory of PATH; write ./no-such-program"),
        (&["./no-such-program"], 127, "there is no such file"),
        (&[&orphan], 127, "interpreter is missing"),
        (&[&plain], 126, "chmod +x"),
        (&["/"], 126, "it is a directory"),
    ];
    for (program, code, expected) in cases {
        let (_, stderr) = lab.ends(&run(&["-n", "1"], program), code);
        assert!(stderr.contains(expected) && stderr.is_empty() == expected.is_empty(), "{stderr}");
    }
    lab.ends(&["run"], 2);
    lab.ends(&["run", "-n", "0", "true"], 2);
    let (_, stderr) = ends(lab.river(&["run", "true"]).env("RIVER_PORT", "0"), 125);
    assert!(stderr.contains("RIVER_PORT"), "{stderr}");
}

/// Starts `river run` of this shell script by this command, in its own process group, as a terminal would; returns when the
/// script has printed "ready".
fn start(command: &mut Command) -> (Child, Pid) {
    let mut child = command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    wait_for_line(&mut child, "ready");
    let pid = Pid::from_child(&child);
    (child, pid)
}

#[test]
fn ctrl_c_reaches_the_program_which_decides() {
    let mut lab = Lab::new();
    lab.start_vms(1);
    let stubborn = "trap 'kill $!; exit 9' INT; sleep 1000 & echo ready; wait";
    for (script, code) in [(stubborn, 9), ("echo ready; exec sleep 1000", 130)] {
        let (mut child, pid) = start(&mut lab.river(&["run", "sh", "-c", script]));
        kill_process_group(pid, Signal::INT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code));
    }
}

#[test]
fn termination_is_passed_on() {
    let mut lab = Lab::new();
    lab.start_vms(1);
    let script = "echo ready; exec sleep 1000";
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
        let (mut child, pid) = start(&mut lab.river(&["run", "sh", "-c", script]));
        kill_process(pid, signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code));
    }
    // Signals that `nohup` ignores stay ignored.
    let mut nohup = lab.river(&["run", "sh", "-c", script]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(nohup.get_program()).args(nohup.get_args());
    for (name, value) in nohup.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    nohup = shell;
    let (mut child, pid) = start(&mut nohup);
    kill_process_group(pid, Signal::HUP).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

/// Reads the process id that a program prints, and waits until `river` has noticed the end of that process.
fn wait_for_the_end_of_the_program(river: &mut Child) {
    let mut line = String::new();
    BufReader::new(river.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let pid: i32 = line.trim().parse().unwrap();
    eventually(SOON, "the end of the program", || !Path::new(&format!("/proc/{pid}")).exists());
}

/// Sends a signal until it has ended the process, since it may take a while until the signal has its default meaning again.
fn ends_by(child: &mut Child, signal: Signal) {
    let pid = Pid::from_child(child);
    eventually(SOON, "the signal is heeded", || {
        kill_process(pid, signal).unwrap();
        child.try_wait().unwrap().is_some()
    });
    assert_eq!(child.wait().unwrap().signal(), Some(signal.as_raw()));
}

#[test]
fn signals_end_river_itself_when_the_program_has_ended() {
    let mut lab = Lab::new();
    lab.start_vms(1);
    let (state, page) = (lab.path("state").display().to_string(), lab.path("page").display().to_string());
    // What the command reads next has no writer, so it waits there forever.
    let last = "mkdir -p $RIVER_CHECKPOINT; mkfifo $RIVER_CHECKPOINT/checkpoint-000001.river 2>&-; echo $$; kill -KILL $$";
    let restarts = ["run", "--checkpoint", &state, "--restarts", "1", "sh", "-c", last];
    let trace = ["trace", "-o", &page, "-n", "1", "sh", "-c", "mkfifo $RIVER_TRACE; echo $$"];
    for args in [&restarts[..], &trace] {
        for signal in [Signal::INT, Signal::TERM] {
            let mut child = lab.river(args).stdout(Stdio::piped()).spawn().unwrap();
            wait_for_the_end_of_the_program(&mut child);
            ends_by(&mut child, signal);
        }
    }
}

#[test]
fn signals_are_the_business_of_a_restarted_program_too() {
    let mut lab = Lab::new();
    lab.start_vms(1);
    let state = lab.path("state").display().to_string();
    let script = "[ -e died ] || { touch died; kill -KILL $$; }; trap 'kill $!; exit 9' TERM; sleep 1000 & echo ready; wait";
    let (mut child, pid) =
        start(&mut lab.river(&["run", "--checkpoint", &state, "--restarts", "1", "sh", "-c", script]));
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

#[test]
fn a_killed_river_run_takes_its_vms_along() {
    let lab = Lab::new();
    let mut command = lab.run_program(&["-n", "4"], "sleep");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    wait_for_line(&mut child, "all are asleep");
    assert_eq!(lab.hosts(), 4);
    child.kill().unwrap();
    child.wait().unwrap();
    eventually(SOON, "hosts gone", || lab.hosts() == 0);
}
