//! Programs that are recorded, and whose VRs are run again alone.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use river::core::{Query, Recording, Vr};
use river::prelude::{Sfm, msg, pat};

use super::lab::{INITIATOR, INITIATOR_ARGS, Lab, eventually, text, wait_for_line};
use super::state::{Counting, PAUSE, SUM};

/// The id prefix of a VR of that type in the table of a recording.
fn vr_of(table: &str, kind: &str) -> String {
    let line = table.lines().find(|line| line.contains(kind)).unwrap_or_else(|| panic!("no {kind}: {table}"));
    line.split(' ').next().unwrap().to_owned()
}

fn rows(csv: &str) -> Vec<&str> {
    csv.lines().skip(1).map(|line| line.rsplit(',').next().unwrap()).collect()
}

#[test]
fn each_vr_of_a_recorded_program_is_run_again_alone() {
    let mut lab = Lab::new();
    lab.start_vms(2);
    let tape = lab.path("tape");
    let tape = tape.to_str().unwrap();
    let mut command = lab.river(&["record", "-o", tape]);
    command.arg(std::env::current_exe().unwrap()).args(INITIATOR_ARGS).env(INITIATOR, "count-long");
    // The variable is part of what makes the test executable this program.
    let printed = text(&command.env("RIVER_PASS", INITIATOR).output().unwrap());
    assert!(printed.contains(SUM), "{printed}");
    // Only the recording is needed.
    for daemon in &mut lab.daemons {
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }
    let (table, _) = lab.ends(&["states", tape], 0);
    assert!(
        table.contains("initiator") && table.contains("lab-1") && table.contains("has finished"),
        "{table}"
    );
    let counter = vr_of(&table, "Counting");

    let (printed, told) = lab.ends(&["replay", tape, "--vr", "initiator"], 0);
    assert!(printed.contains("is counting") && printed.contains(SUM), "{printed}");
    assert!(told.contains("the VR has finished, as in the recording"), "{told}");
    let debugger = "sh -c 'echo in a debugger; exec \"$@\"' sh";
    let (printed, _) = lab.ends(&["replay", tape, "--vr", "initiator", "--debugger", debugger], 0);
    assert!(printed.starts_with("in a debugger") && printed.contains(SUM), "{printed}");
    // It was stopped with the program, while it waited for more.
    for from in ["0", "200"] {
        let (_, told) = lab.ends(&["replay", tape, "--vr", &counter, "--from", from], 0);
        assert!(told.contains("here the record ends, at a "), "{told}");
    }
    let (_, told) = lab.ends(&["replay", tape, "--vr", &counter, "--from", "250", "--trace"], 0);
    assert!(told.contains("the arrival of 1 envelopes") && told.contains("a send of"), "{told}");

    let (series, _) = lab.ends(&["states", tape, "--vr", &counter], 0);
    assert!(series.lines().any(|line| line.trim_start().starts_with("300 ")), "{series}");
    let numbers: Vec<String> = (0..=300).map(|count| count.to_string()).collect();
    let (csv, _) = lab.ends(&["states", tape, "--vr", &counter, "--watch", "send.count"], 0);
    assert!(csv.starts_with("time,vr,line,send.count\n"), "{csv}");
    assert_eq!(rows(&csv), numbers[1..]);
    let (csv, _) = lab.ends(&["states", tape, "--vr", &counter, "--watch", "state.count"], 0);
    // It is unknown whether it came to its last safepoint before it was stopped.
    let states = rows(&csv);
    assert!(states.len() >= 300 && numbers[..states.len()] == states, "{csv}");
    let (csv, _) = lab.ends(&["states", tape, "--vr", "initiator", "--watch", "recv.count"], 0);
    assert_eq!(rows(&csv).len(), 600);
    let (_, error) = lab.ends(&["states", tape, "--watch", "count"], 1);
    assert!(error.contains("it must be recv.ATTRIBUTE"), "{error}");

    let (_, error) = lab.ends(&["replay", tape, "--vr", "zzz"], 125);
    assert!(error.contains("no VR zzz was recorded"), "{error}");
    let nothing = lab.path("nothing");
    let (_, told) = lab.ends(&["record", "-n", "1", "-o", nothing.to_str().unwrap(), "true"], 0);
    assert!(told.contains("nothing was recorded: true is not a River program"), "{told}");
}

/// Everything recorded until shortly before the death is there, and can be replayed.
#[test]
fn a_recording_that_was_cut_short_is_replayed_to_its_end() {
    let mut lab = Lab::new();
    lab.start_vms(2);
    let tape = lab.path("tape");
    // In the form that `river record` uses.
    let which = format!("{}:{}", std::process::id(), tape.display());
    let mut command = lab.program("count-long");
    command.env("RIVER_RECORD", &which).env("RIVER_PASS", INITIATOR).env(PAUSE, "50");
    let mut program = command.stdout(Stdio::piped()).spawn().unwrap();
    wait_for_line(&mut program, "is counting");
    // At least two chunks of the initiator.
    let recorded = || {
        let recording = Recording::open(&tape);
        recording.map_or(0, |r| r.vrs().iter().filter(|vr| vr.parent.is_none()).map(|vr| vr.lines).sum())
    };
    let limit = Duration::from_secs(60);
    eventually(limit, "something is recorded", || recorded() > 0);
    let first: usize = recorded();
    eventually(limit, "more is recorded", || recorded() > first);
    program.kill().unwrap();
    program.wait().unwrap();
    let tape = tape.to_str().unwrap();
    let (printed, told) = lab.ends(&["replay", tape, "--vr", "initiator"], 0);
    // A slow test may have been too late.
    assert!(told.contains("here the record ends, at ") || printed.contains(SUM), "{told}");
    // Altered bytes are detected.
    let recording = Recording::open(tape).unwrap();
    let initiator = recording.vrs()[0].clone();
    let path = Path::new(tape).join(format!("vr-{}.tape", initiator.id));
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(Recording::open(tape).unwrap().vrs()[0].lines < initiator.lines);
    // A VR whose first chunk never reached the disk is no reason to refuse the others.
    let torn = "vr-00000000-0000-0000-0000-00000000abcd.tape";
    std::fs::write(Path::new(tape).join(torn), []).unwrap();
    let (table, told) = lab.ends(&["states", tape], 0);
    assert!(table.contains("initiator") && told.contains(torn) && told.contains("incomplete"), "{told}");
    lab.ends(&["replay", tape, "--vr", "initiator"], 0);
    let (_, told) = lab.ends(&["replay", tape, "--vr", "00000000-"], 125);
    assert!(told.contains(torn), "{told}");
    // A second recording does not overwrite the first.
    let mut command = lab.program("count-long");
    let output = command.env("RIVER_RECORD", &which).output().unwrap();
    assert!(!output.status.success() && text(&output).contains("there is already a recording"), "{output:?}");
}

/// The initiator of kind `by-the-clock`: sends the time, which it reads in a way that is not recorded.
pub(crate) fn by_the_clock(vr: &Vr) -> river::Result {
    let vms = vr.allocate(vr.discover(Query { count: Some(1), ..Query::default() })?, 1)?;
    let counter = vr.deploy(&vms, |_| Counting { count: 0 })?[0];
    for _ in 0..3 {
        let time = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
        vr.send(counter, msg! { time: time })?;
        vr.recv(pat! { src: counter })?;
    }
    Ok(())
}

#[test]
fn a_program_that_is_not_deterministic_is_told_where_it_differs() {
    let mut lab = Lab::new();
    lab.start_vms(1);
    let tape = lab.path("tape");
    let tape = tape.to_str().unwrap();
    let mut command = lab.river(&["record", "-o", tape]);
    command.arg(std::env::current_exe().unwrap()).args(INITIATOR_ARGS).env(INITIATOR, "by-the-clock");
    let output = command.env("RIVER_PASS", INITIATOR).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let (_, told) = lab.ends(&["replay", tape, "--vr", "initiator"], 1);
    // What was expected, what came, and what to do.
    assert!(told.contains("a send of") && told.contains("with other bytes"), "{told}");
    assert!(told.contains("not deterministic") && told.contains("vr.now()"), "{told}");
    // The VR that it was sent to repeats what it did.
    let (table, _) = lab.ends(&["states", tape], 0);
    let (_, told) = lab.ends(&["replay", tape, "--vr", &vr_of(&table, "Counting")], 0);
    assert!(told.contains("here the record ends, at a "), "{told}");
}
