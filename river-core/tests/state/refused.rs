//! Checkpoints that cannot be taken: the program continues, and the older ones are still there.

use std::process::Command;

use river_core::{Down, RecvError, Selector, StateError, Stored, Why};

use crate::{CHANNEL, Sleeper, result_of};

#[test]
fn a_vr_that_is_not_recoverable_is_named_and_the_program_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    river_core::try_run(|vr| {
        let vms = vr.start_local(1)?;
        let sleepers = vr.deploy_recoverable(&vms, |_| Sleeper)?;
        let error = vr.checkpoint(directory.path()).unwrap_err();
        let StateError::NotRecoverable { vr: named, more: 0, .. } = error else { panic!("{error}") };
        assert_eq!(named, vr.id());
        // No VR is left frozen.
        vr.send_bytes(sleepers[0], CHANNEL, 0, vec![])?;
        let end = vr.receive(Selector::on(CHANNEL).from(sleepers[0])).unwrap_err();
        assert!(matches!(end, RecvError::Down(Down { why: Why::Finished, .. })), "{end}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_checkpoint_that_cannot_be_written_is_an_error_and_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "not a directory").unwrap();
    let result = river_core::try_run_recoverable(|vr| {
        let error = vr.checkpoint(&file).unwrap_err().to_string();
        assert!(error.contains("file"), "{error}");
        vr.send_bytes(vr.id(), CHANNEL, 0, vec![5])?;
        Ok(vr.receive(Selector::on(CHANNEL))?.payload.head()[0])
    });
    assert_eq!(result.unwrap(), 5);
}

/// The largest file allowed there: enough for the image.
const LIMIT: usize = 64 << 20;

/// Not a test: the test below runs it in a process whose files are limited.
#[test]
fn helper_with_little_disk() {
    let Ok(directory) = std::env::var("RIVER_TEST_LIMITED") else { return };
    let result = river_core::try_run_recoverable(|vr| {
        vr.checkpoint(&directory)?;
        // More than a file may hold.
        vr.safepoint(&"x".repeat(LIMIT + (8 << 20)))?;
        let error = vr.checkpoint(&directory).unwrap_err().to_string();
        vr.safepoint("little")?;
        // The program continues, and once there is room again, checkpoints succeed again.
        let taken = vr.checkpoint(&directory)?;
        Ok(format!("{error}; then {}", taken.number))
    });
    println!("[result {}]", result.unwrap_or_else(|error| error.to_string()));
}

#[test]
fn a_disk_that_is_full_leaves_the_old_checkpoint_and_the_program() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    // A write beyond the limit returns an error, as on a full disk, if the signal is ignored.
    let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", LIMIT / 512);
    let output = Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "refused::helper_with_little_disk", "--nocapture"])
        .env("RIVER_TEST_LIMITED", &state)
        .output()
        .unwrap();
    let result = result_of(&output.stdout);
    assert!(result.contains("File too large"), "{result} {output:?}");
    assert!(result.contains("checkpoint-000002") && result.contains("then 2"), "{result}");
    // Nothing of the failed checkpoint is left.
    let mut names: Vec<_> =
        std::fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names.len(), 4, "{names:?}");
    assert_eq!(names[..3], [".lock", "checkpoint-000001.river", "checkpoint-000002.river"]);
    assert_eq!(Stored::latest(&state).unwrap().number, 2);
}
