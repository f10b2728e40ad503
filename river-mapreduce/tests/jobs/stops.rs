//! VMs that really stop: their process is stopped in a map task, and goes on much later.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use river_mapreduce::{Input, Job, MapContext, MapReduce, ReduceContext, Values};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::with_cluster;

const NUMBERS: u64 = 60_000;
const KEYS: u64 = 500;

/// Groups numbers by their remainder; one of them announces its process, and waits.
#[derive(Clone, Serialize, Deserialize)]
struct Waiting {
    at: u64,
    scratch: PathBuf,
}

impl Waiting {
    fn announced(&self) -> PathBuf {
        self.scratch.join("announced")
    }

    fn job(&self) -> Job<Self> {
        Job::new(self.clone(), Input::generate(NUMBERS)).reducers(6)
    }
}

impl MapReduce for Waiting {
    type Input = u64;
    type Key = u64;
    type Value = u64;
    type OutKey = u64;
    type OutValue = u64;

    fn map(&self, n: u64, out: &mut MapContext<'_, u64, u64>) {
        if n == self.at
            && File::create_new(self.announced()).is_ok()
            && let Ok(mut stream) = UnixStream::connect(self.scratch.join("socket"))
            && writeln!(stream, "{}", std::process::id()).is_ok()
        {
            let _ = stream.read(&mut [0]);
        }
        out.emit(n % KEYS, n);
    }

    fn reduce(&self, key: u64, values: &mut Values<'_, u64>, out: &mut ReduceContext<'_, u64, u64>) {
        // The result depends on the order of the values.
        out.emit(key, values.fold(0, |hash, n| hash.wrapping_mul(31).wrapping_add(n)));
    }
}

/// A process that is stopped, until this is dropped.
struct Stopped {
    process: Pid,
    _waits_for: UnixStream,
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may be gone.
        let _ = kill_process(self.process, Signal::CONT);
    }
}

/// Stops the process that announces itself.
fn stopper(scratch: &Path) -> JoinHandle<Stopped> {
    let listener = UnixListener::bind(scratch.join("socket")).unwrap();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        let process = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
        kill_process(process, Signal::STOP).unwrap();
        Stopped { process, _waits_for: stream }
    })
}

/// The result of the job without any waiting.
fn expected(code: &Waiting) -> Vec<(u64, u64)> {
    File::create(code.announced()).unwrap();
    let expected = code.job().run_serial().unwrap().collect().unwrap();
    assert_eq!(expected.len() as u64, KEYS);
    std::fs::remove_file(code.announced()).unwrap();
    expected
}

#[test]
fn a_task_whose_vm_stands_still_is_done_by_another_and_the_vm_is_of_use_again_later() {
    let scratch = tempfile::tempdir().unwrap();
    // The very first number: its VM has done nothing else that is needed.
    let code = Waiting { at: 0, scratch: scratch.path().to_owned() };
    let expected = expected(&code);
    let stopper = stopper(scratch.path());
    with_cluster(3, |cluster| {
        let outcome = code.job().run(cluster)?;
        let stopped = stopper.join().unwrap();
        assert!(outcome.report().reissued > 0, "{}", outcome.report());
        assert!(outcome.collect()? == expected);
        drop(stopped);
        // The rest of its task, and its reports, must have no effect.
        let again = code.job().run(cluster)?;
        assert!(again.collect()? == expected);
        Ok(())
    });
}

#[test]
fn a_vm_that_stands_still_with_output_that_is_needed_is_done_without() {
    let scratch = tempfile::tempdir().unwrap();
    let code = Waiting { at: NUMBERS / 2, scratch: scratch.path().to_owned() };
    let expected = expected(&code);
    let stopper = stopper(scratch.path());
    with_cluster(3, |cluster| {
        let outcome = code.job().run(cluster)?;
        drop(stopper.join().unwrap());
        assert_eq!(outcome.report().lost.len(), 1, "{}", outcome.report());
        assert!(outcome.collect()? == expected);
        assert!(code.job().run(cluster)?.collect()? == expected);
        Ok(())
    });
}
