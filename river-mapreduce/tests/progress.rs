//! The progress bar, on a terminal and elsewhere.

use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, PtySize, native_pty_system};
use river_core::Vr;
use river_mapreduce::{Cluster, Input, Job, MapContext, MapReduce, ReduceContext, Values};
use serde::{Deserialize, Serialize};

/// Waits in its first map task and in its first reduce task, until the socket of that name in the directory is closed.
#[derive(Serialize, Deserialize)]
struct Waiting {
    scratch: PathBuf,
}

impl Waiting {
    fn wait(&self, name: &str) {
        if let Ok(mut stream) = UnixStream::connect(self.scratch.join(name)) {
            let _ = stream.read(&mut [0]);
        }
    }
}

impl MapReduce for Waiting {
    type Input = u64;
    type Key = u64;
    type Value = ();
    type OutKey = u64;
    type OutValue = ();

    fn map(&self, n: u64, out: &mut MapContext<'_, u64, ()>) {
        if n == 0 {
            self.wait("map");
        }
        out.emit(n, ());
    }

    fn reduce(&self, n: u64, _: &mut Values<'_, ()>, out: &mut ReduceContext<'_, u64, ()>) {
        if n == 0 {
            self.wait("reduce");
        }
        out.emit(n, ());
    }
}

fn program(vr: &Vr, scratch: &Path) -> river_core::Result {
    let cluster = Cluster::on(vr, &vr.start_local(2)?)?;
    let waiting = Waiting { scratch: scratch.to_owned() };
    let job = Job::new(waiting, Input::generate(1000)).reducers(3).split_size(250).speculate(false);
    assert_eq!(job.show_progress().run(&cluster)?.collect()?.len(), 1000);
    println!("[done]");
    Ok(())
}

/// A terminal in which a command runs.
struct Terminal {
    child: Box<dyn Child + Send + Sync>,
    output: Receiver<Vec<u8>>,
    text: String,
}

impl Terminal {
    fn run(command: &CommandBuilder) -> Self {
        let size = PtySize { rows: 30, cols: 120, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).unwrap();
        let child = pair.slave.spawn_command(command.clone()).unwrap();
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut reader = pair.master.try_clone_reader().unwrap();
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut bytes) {
                let _ = sender.send(bytes[..length].to_vec());
            }
        });
        Self { child, output, text: String::new() }
    }

    /// Waits until all of these words have been written, in this order, after those that the last call waited for.
    fn shows(&mut self, words: &[&str]) {
        let deadline = Instant::now() + Duration::from_secs(60);
        for word in words {
            let end = loop {
                if let Some(start) = self.text.find(word) {
                    break start + word.len();
                }
                match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                    Ok(bytes) => self.text.push_str(&String::from_utf8_lossy(&bytes)),
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                        panic!("{word:?} was expected, not {:?}", self.text)
                    }
                }
            };
            self.text.drain(..end);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const HELPER: [&str; 3] = ["--exact", "helper_process", "--nocapture"];

#[test]
fn a_terminal_shows_how_far_the_map_and_the_reduce_tasks_are() {
    let scratch = tempfile::tempdir().unwrap();
    let [map, reduce] = ["map", "reduce"].map(|name| UnixListener::bind(scratch.path().join(name)).unwrap());
    let mut command = CommandBuilder::new(std::env::current_exe().unwrap());
    command.args(HELPER);
    command.env("RIVER_TEST_SCRATCH", scratch.path());
    command.env("TERM", "xterm-256color");
    let mut terminal = Terminal::run(&command);
    // All are done but the one that waits.
    terminal.shows(&["map ", "3/4 tasks", "750 records, 2 VMs"]);
    drop(map);
    terminal.shows(&["shuffle, reduce ", "2/3 tasks", "2 VMs"]);
    drop(reduce);
    terminal.shows(&["[done]"]);
}

#[test]
fn elsewhere_nothing_is_shown() {
    let scratch = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(HELPER).env("RIVER_TEST_SCRATCH", scratch.path()).output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success() && text.contains("[done]") && !text.contains("tasks"), "{text}");
}

/// Not a real test: the process that runs a job.
#[test]
fn helper_process() {
    if let Some(scratch) = std::env::var_os("RIVER_TEST_SCRATCH").map(PathBuf::from) {
        river_core::try_run(|vr| program(vr, &scratch)).unwrap();
    }
}
