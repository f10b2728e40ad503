//! Checkpoints by command, programs that are killed, and their restarts.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Duration;

use river::core::{Stored, VirtualResource, Vr};
use river::prelude::{Sfm, msg, pat};
use serde::{Deserialize, Serialize};

use super::lab::{INITIATOR, INITIATOR_ARGS, Lab, eventually, text, wait_for_line};
use super::migrate::UNTIL;

/// Counts what it receives, and answers.
#[derive(Serialize, Deserialize)]
pub(crate) struct Counting {
    pub(crate) count: u64,
}

impl VirtualResource for Counting {
    fn main(&mut self, vr: &Vr) -> river::Result {
        loop {
            vr.safepoint(self)?;
            let m = vr.recv(pat! {})?;
            self.count += 1;
            if self.count == 150 && std::env::var_os(EXIT).is_some() {
                exit_once(vr)?;
            }
            vr.send(m.src(), msg! { count: self.count })?;
        }
    }
}

/// Names a directory of checkpoints; a counter that finds it ends its host.
const EXIT: &str = "RIVER_TEST_EXIT";

/// Ends the host when there are two checkpoints: the program restarted from them finds the marker gone, and survives.
fn exit_once(vr: &Vr) -> river::Result {
    let state = std::env::var(EXIT)?;
    let second = || Stored::latest(&state).is_ok_and(|latest| latest.number > 1);
    while !vr.effect(second)? {
        // It waits in a call in which a checkpoint can be taken.
        let nothing = vr.recv_timeout(pat! { nothing: true }, Duration::from_millis(10));
        assert!(nothing.is_err(), "nobody sends that");
    }
    if std::fs::remove_file(std::path::Path::new(&state).with_extension("marker")).is_ok() {
        std::process::exit(3);
    }
    Ok(())
}

/// The initiator of kind `count-long`: 300 rounds of a few milliseconds.
pub(crate) fn count_long(vr: &Vr) -> river::Result {
    let vms = vr.allocate(vr.discover(river::core::Query { count: Some(2), ..Default::default() })?, ..)?;
    let counters = vr.deploy(&vms, |_| Counting { count: 0 })?;
    let pause = std::env::var(PAUSE).ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let (mut sum, pause) = (0, Duration::from_millis(pause));
    for round in 0..300 {
        for counter in counters.iter() {
            vr.send(counter, msg! { round: round })?;
        }
        for counter in counters.iter() {
            sum += vr.recv(pat! { src: counter })?.get::<u64>("count")?;
        }
        if round == 20 {
            println!("is counting");
        }
        std::thread::sleep(pause);
    }
    println!("sum {sum}");
    Ok(())
}

/// The milliseconds between two rounds: the program must live for as long as the test needs it.
pub(crate) const PAUSE: &str = "COUNT_PAUSE";

/// The sum of 1 to 300, counted twice by two counters.
pub(crate) const SUM: &str = "sum 90300";

#[test]
fn a_program_is_checkpointed_from_outside_killed_and_goes_on() {
    let mut lab = Lab::new();
    lab.start_vms(2);
    let mut command = lab.program("count-long");
    // The variables passed to the VMs are set again when the program is restarted.
    command.env("RIVER_RECOVERABLE", "1").env("RIVER_PASS", INITIATOR).env(PAUSE, "50");
    let mut program = command.stdout(Stdio::piped()).spawn().unwrap();
    wait_for_line(&mut program, "is counting");
    let state = lab.path("state");
    let (pid, directory) = (program.id().to_string(), state.to_str().unwrap().to_owned());
    let (told, _) = lab.ends(&["checkpoint", &pid, &directory], 0);
    assert!(told.starts_with("checkpoint 1 of command-") && told.contains("was paused for"), "{told}");
    let (told, _) = lab.ends(&["checkpoint", &pid, &directory, "--keep", "1"], 0);
    assert!(told.starts_with("checkpoint 2 "), "{told}");
    let files =
        std::fs::read_dir(&state).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let kept: Vec<String> = files.filter(|name| name.starts_with("checkpoint-")).collect();
    assert_eq!(kept, ["checkpoint-000002.river"]);
    program.kill().unwrap();
    program.wait().unwrap();
    eventually(Duration::from_secs(60), "VMs free", || lab.idle() == 2 && lab.hosts() == 0);

    let (table, _) = lab.ends(&["states", &directory], 0);
    assert!(table.contains("initiator") && table.contains("lab-1") && table.contains("Counting"), "{table}");
    let output = lab.river(&["restore", &directory]).output().unwrap();
    let printed = text(&output);
    assert!(output.status.success() && printed.contains(SUM), "{printed}");
    assert!(printed.contains("from checkpoint 2]"), "{printed}");

    // One of its two VMs is left, which both counters share.
    lab.ends(&["stop", "lab-1"], 0);
    eventually(Duration::from_secs(60), "one VM", || lab.names() == ["lab-0"]);
    let printed = text(&lab.river(&["restore", &directory]).output().unwrap());
    assert!(printed.contains(SUM) && !printed.contains("no idle VM was found"), "{printed}");

    // All VMs that it ran on are gone: it goes on in its own process.
    for daemon in &mut lab.daemons {
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }
    let printed = text(&lab.river(&["restore", &directory]).output().unwrap());
    assert!(printed.contains(SUM) && printed.contains("no idle VM was found"), "{printed}");
}

#[test]
fn a_program_that_loses_a_host_goes_on_by_itself() {
    let mut lab = Lab::new();
    lab.start_vms(2);
    let state = lab.path("state");
    std::fs::write(state.with_extension("marker"), "").unwrap();
    let executable = std::env::current_exe().unwrap();
    let options = ["run", "--checkpoint", state.to_str().unwrap(), "--every", "0.1", "--restarts", "2"];
    let mut command = lab.river(&options);
    command.arg(executable).args(INITIATOR_ARGS).env(INITIATOR, "count-long");
    command.env("RIVER_PASS", EXIT).env(EXIT, &state);
    let output = command.output().unwrap();
    let printed = text(&output);
    assert!(output.status.success() && printed.contains(SUM), "{printed}");
    assert!(printed.contains("restart 1 of 2]"), "{printed}");
    assert!(Stored::latest(&state).unwrap().number > 1);
}

/// The VMs keep the checkpoints for each other: one is killed, and every part is still kept by another.
#[test]
fn a_program_outlives_a_vm_that_is_killed_without_a_disk() {
    let mut lab = Lab::new();
    for name in ["lab-0", "lab-1", "lab-2"] {
        lab.start_vms_in("env", &[], name);
    }
    let until = lab.path("until");
    let options = ["run", "--checkpoint", "memory", "--every", "0.1", "--restarts", "2"];
    let mut command = lab.river(&options);
    command.arg(std::env::current_exe().unwrap()).args(INITIATOR_ARGS).env(INITIATOR, "count-until");
    command.env(UNTIL, &until).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut run = command.spawn().unwrap();
    let mut told = BufReader::new(run.stderr.take().unwrap());
    wait_for(&mut told, "checkpointed");
    let used: Vec<String> = lab.vms().iter().filter(|vm| vm["state"] != "idle").map(name_of).collect();
    assert_eq!(used.len(), 2);
    let index: usize = used[0].strip_prefix("lab-").unwrap().parse().unwrap();
    lab.daemons[index].kill().unwrap();
    lab.daemons[index].wait().unwrap();
    wait_for(&mut told, "restart 1 of 2]");
    // It goes on taking checkpoints where it is now; the next time it is the initiator that dies.
    wait_for(&mut told, "checkpointed");
    let pid = lab.vms().iter().find_map(initiator_of).expect("it uses a VM");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    wait_for(&mut told, "restart 2 of 2]");
    std::fs::write(until, "").unwrap();
    let mut rest = String::new();
    told.read_to_string(&mut rest).unwrap();
    assert!(run.wait().unwrap().success(), "{rest}");
}

/// Reads what is told until a line has this word, and returns that.
fn wait_for(told: &mut impl BufRead, word: &str) -> String {
    let mut before = String::new();
    for line in told.by_ref().lines().map_while(Result::ok) {
        if line.contains(word) {
            return line;
        }
        before += &line;
    }
    panic!("{word:?} was not told, but {before}");
}

/// The VMs have it still: what is wrong here may pass.
#[test]
fn a_program_whose_checkpoint_cannot_be_fetched_now_goes_on_from_it_later() {
    let mut lab = Lab::new();
    lab.start_vms(2);
    let until = lab.path("until");
    let options = ["--checkpoint", "memory", "--every", "0.05", "--restarts", "1"];
    let mut command = lab.run_program(&options, "count-until");
    command.env(UNTIL, &until).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut run = command.spawn().unwrap();
    let mut told = BufReader::new(run.stderr.take().unwrap());
    wait_for(&mut told, "checkpointed");
    // Where it is to be put there is no directory.
    let entries = std::fs::read_dir(lab.path("tmp")).unwrap().map(|entry| entry.unwrap().path());
    let directories: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    let [directory] = &directories[..] else { panic!("{directories:?}") };
    std::fs::remove_dir(directory).unwrap();
    std::fs::write(directory, "").unwrap();
    let pid = lab.vms().iter().find_map(initiator_of).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let line = wait_for(&mut told, "[river: the program died");
    std::fs::remove_file(directory).unwrap();
    std::fs::write(until, "").unwrap();
    assert!(line.contains("its last checkpoint cannot be fetched"), "{line}");
    let line = wait_for(&mut told, "[river: the program died");
    assert!(line.contains("continuing from checkpoint"), "{line}");
    let mut rest = String::new();
    told.read_to_string(&mut rest).unwrap();
    assert!(run.wait().unwrap().success(), "{rest}");
}

/// The initiator of kind `dies-once`: is killed before it has been checkpointed, if a file says so.
pub(crate) fn dies_once(vr: &Vr) -> river::Result {
    let vms = vr.discover(river::core::Query { count: Some(2), ..Default::default() })?;
    // VMs that the previous run has lost are not free at once.
    let vms = vr.allocate_within(vms, 2, Duration::from_secs(60))?;
    let counters = vr.deploy(&vms, |_| Counting { count: 0 })?;
    if std::fs::remove_file(std::env::var(EXIT)?).is_ok() {
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?;
    }
    vr.send(counters[1], msg! { first: true })?;
    println!("counted {}", vr.recv(pat! { src: counters[1] })?.get::<u64>("count")?);
    Ok(())
}

#[test]
fn a_program_that_dies_before_its_first_checkpoint_begins_anew_and_not_where_another_one_was() {
    let mut lab = Lab::new();
    lab.start_vms(2);
    let state = lab.path("state");
    let options = ["--checkpoint", state.to_str().unwrap(), "--every", "0.05", "--restarts", "2"];
    let mut command = lab.run_program(&options, "count-long");
    let printed = text(&command.env("RIVER_PASS", INITIATOR).output().unwrap());
    assert!(printed.contains(SUM), "{printed}");
    let older = Stored::latest(&state).unwrap();
    let marker = lab.path("marker");
    std::fs::write(&marker, "").unwrap();
    let options = ["--checkpoint", state.to_str().unwrap(), "--every", "1000", "--restarts", "2"];
    let mut command = lab.run_program(&options, "dies-once");
    let output = command.env("RIVER_PASS", INITIATOR).env(EXIT, &marker).output().unwrap();
    let printed = text(&output);
    assert!(output.status.success() && printed.contains("counted 1"), "{printed}");
    assert!(
        printed.contains("no checkpoint of this run") && printed.contains("restart 1 of 2]"),
        "{printed}"
    );
    assert_eq!(Stored::latest(&state).unwrap().number, older.number);
}

/// If a checkpoint cannot be read now, it must not be treated as missing: others would replace it.
#[test]
fn a_program_whose_checkpoint_cannot_be_read_does_not_begin_anew() {
    let mut lab = Lab::new();
    lab.start_vms(2);
    let (state, until) = (lab.path("state"), lab.path("until"));
    let directory = state.to_str().unwrap();
    let options = ["--checkpoint", directory, "--restarts", "1"];
    let mut command = lab.run_program(&options, "count-until");
    command.env(UNTIL, &until).env("RIVER_PASS", INITIATOR).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut run = command.spawn().unwrap();
    wait_for_line(&mut run, "is counting");
    let pid = lab.vms().iter().find_map(initiator_of).unwrap();
    lab.ends(&["checkpoint", &pid.as_raw_nonzero().to_string(), directory], 0);
    std::fs::write(Stored::latest(&state).unwrap().file, "not readable").unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let output = run.wait_with_output().unwrap();
    let printed = text(&output);
    assert_eq!(output.status.code(), Some(128 + 9), "{printed}");
    assert!(
        printed.contains("its last checkpoint cannot be read") && !printed.contains("restart 1"),
        "{printed}"
    );
}

/// It restarts on the VMs that exist now: those that `river run` had started for it ended with that run.
#[test]
fn a_restored_program_finds_other_vms_and_is_checkpointed_and_restarted_as_before() {
    let mut lab = Lab::new();
    let (state, until) = (lab.path("state"), lab.path("until"));
    let directory = state.to_str().unwrap();
    // The newest checkpoint, as soon as there is one by a process other than this.
    let newest_but_of = |before| {
        let mut newest = None;
        eventually(Duration::from_secs(60), "a checkpoint", || {
            newest = Stored::latest(&state).ok().filter(|stored| pid_of(&stored.program) != before);
            newest.is_some()
        });
        newest.unwrap()
    };
    let killed = |command: &mut Command, before| {
        command.env(UNTIL, &until).env("RIVER_PASS", INITIATOR).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let stored = newest_but_of(before);
        let pid = pid_of(&stored.program).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        (child, stored)
    };
    let options = ["-n", "2", "--checkpoint", directory, "--every", "0.05"];
    let (mut run, stored) = killed(&mut lab.run_program(&options, "count-until"), None);
    assert_eq!(run.wait().unwrap().code(), Some(128 + 9));
    assert!(stored.environment.iter().all(|(name, _)| name != "RIVER_PORT"), "{:?}", stored.environment);

    lab.start_vms(2);
    eventually(Duration::from_secs(60), "VMs free", || lab.idle() == 2);
    let restore = ["restore", "--every", "0.05", "--restarts", "1", directory];
    let (mut run, stored) = killed(&mut lab.river(&restore), pid_of(&stored.program));
    assert!(stored.vms.iter().all(|name| name.starts_with("lab-")), "{:?}", stored.vms);
    // It is restarted once more.
    newest_but_of(pid_of(&stored.program));

    // No other program may take checkpoints there meanwhile.
    for args in [&["run", "--checkpoint", directory, "true"][..], &["restore", "--every", "1", directory]] {
        let (_, error) = lab.ends(args, 125);
        assert!(error.contains("another program takes its checkpoints into this directory"), "{error}");
    }
    std::fs::write(&until, "").unwrap();
    assert!(run.wait().unwrap().success());
    lab.ends(&["run", "--checkpoint", directory, "true"], 0);
}

/// The process of the program that has a VM; the program's name ends with it.
fn initiator_of(vm: &serde_json::Value) -> Option<rustix::process::Pid> {
    pid_of(vm["program"].as_str()?)
}

fn pid_of(program: &str) -> Option<rustix::process::Pid> {
    let (_, process) = program.split_once("process ")?;
    let digits: String = process.chars().take_while(char::is_ascii_digit).collect();
    rustix::process::Pid::from_raw(digits.parse().ok()?)
}

fn name_of(vm: &serde_json::Value) -> String {
    vm["name"].as_str().unwrap().to_owned()
}

#[test]
fn a_program_that_is_not_recorded_says_what_to_do() {
    let mut lab = Lab::new();
    lab.start_vms(2);
    let mut program = lab.program("count-long").stdout(Stdio::piped()).spawn().unwrap();
    wait_for_line(&mut program, "is counting");
    let pid = program.id().to_string();
    let (_, error) = lab.ends(&["checkpoint", &pid, "state"], 1);
    assert!(error.contains("is not recoverable") && error.contains("river run --recoverable"), "{error}");
    let (_, error) = lab.ends(&["checkpoint", "nobody", "state"], 1);
    assert!(error.contains("no program nobody uses a VM"), "{error}");
    // It went on.
    assert!(text(&program.wait_with_output().unwrap()).contains(SUM));
    let (_, error) = lab.ends(&["restore", "nothing-there"], 125);
    assert!(error.contains("nothing-there"), "{error}");
}
