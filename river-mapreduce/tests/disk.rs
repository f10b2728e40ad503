//! A disk that is really full: a small file system, in a mount namespace that ends with the process.

use std::path::{Path, PathBuf};
use std::process::Command;

use river_core::Vr;
use river_mapreduce::{Cluster, Input, Job, MapContext, Output, ReduceContext, Values, job};

/// The size of the disk in bytes.
const DISK: u64 = 4 << 20;

#[test]
fn a_full_disk_is_an_error_that_says_so_and_what_was_written_goes() {
    let scratch = tempfile::tempdir().unwrap();
    let disk = scratch.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mount =
        format!("mount -t tmpfs -o size={DISK} tmpfs \"$TMPDIR\" 2>/dev/null || exit 77; exec \"$0\" \"$@\"");
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &mount])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "helper_process", "--nocapture"])
        .env("TMPDIR", &disk)
        .env("RIVER_TEST_DISK", &disk)
        .env("RIVER_CACHE", scratch.path().join("cache"))
        .output();
    let output = match output {
        Ok(output) if output.status.code() != Some(77) && !is_forbidden(&output.stderr) => output,
        _ => {
            eprintln!("skipped: needs root and unshare");
            return;
        }
    };
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("[all seen]"), "{text}");
}

fn is_forbidden(stderr: &[u8]) -> bool {
    String::from_utf8_lossy(stderr).starts_with("unshare: ")
}

fn check_error(error: &str, disk: &Path) {
    assert!(error.contains("No space left on device") && error.contains(&*disk.to_string_lossy()), "{error}");
}

fn program(vr: &Vr, disk: &Path) -> river_core::Result {
    let cluster = Cluster::on(vr, &vr.start_local(2)?)?;
    let text = job(
        |n: u64, out: &mut MapContext<'_, u64, String>| out.emit(n, &"x".repeat(1000)),
        |n: u64, texts: &mut Values<'_, String>, out: &mut ReduceContext<'_, u64, String>| {
            while let Some(text) = texts.next_view() {
                out.emit(n, text);
            }
        },
    );
    let job = |records: u64| Job::new(text, Input::generate(records)).reducers(2);
    let too_many = DISK / 1000 * 2;
    // Temporary files.
    let error = job(too_many).memory(200_000).run(&cluster).unwrap_err().to_string();
    check_error(&error, disk);
    assert!(error.contains("temporary file"), "{error}");
    check_error(&job(too_many).memory(100_000).run_serial().unwrap_err().to_string(), disk);
    // The output.
    let out = disk.join("out");
    let output = || Output::text(&out);
    check_error(&job(too_many).output(output()).run(&cluster).unwrap_err().to_string(), disk);
    // None of that occupies space any more, and the workers go on.
    let quarter = DISK / 1000 / 4;
    let outcome = job(quarter).memory(200_000).run(&cluster)?;
    assert!(outcome.report().spilled_bytes > DISK / 5, "{}", outcome.report());
    job(quarter).output(output()).run(&cluster)?;
    assert!(out.join("_SUCCESS").exists());
    println!("[all seen]");
    Ok(())
}

/// Not a real test: the process that runs on the small disk.
#[test]
fn helper_process() {
    if let Some(disk) = std::env::var_os("RIVER_TEST_DISK").map(PathBuf::from) {
        river_core::try_run(|vr| program(vr, &disk)).unwrap();
    }
}
