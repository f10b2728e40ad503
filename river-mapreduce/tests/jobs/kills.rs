//! VMs that are killed from outside, at points that their tasks announce.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};

use river_core::testing::for_each_topology;
use river_mapreduce::{Cluster, Input, Job, MapContext, MapReduce, Outcome, ReduceContext, Values};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde::{Deserialize, Serialize};

use super::with_cluster;

/// When a task stops and announces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum When {
    Map,
    /// At the first key of a reduce task, which has not read its segments to the end.
    Shuffle,
    /// In the middle of a reduce task.
    Reduce,
}

/// The process to kill then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    /// The process of the task.
    Host,
    /// The process of the VM that started that.
    Vm,
    /// The process of another VM, which has finished map tasks.
    Other,
}

/// Groups numbers by their remainder.
#[derive(Clone, Serialize, Deserialize)]
struct Announcing {
    when: When,
    scratch: PathBuf,
}

const NUMBERS: u64 = 60_000;
const KEYS: u64 = 500;

impl Announcing {
    fn announced(&self) -> PathBuf {
        self.scratch.join("announced")
    }

    /// The first call announces itself, and waits to be killed, or for a byte that tells it to go on.
    fn announce(&self) {
        if File::create_new(self.announced()).is_ok()
            && let Ok(mut stream) = UnixStream::connect(self.scratch.join("socket"))
            && writeln!(stream, "{} {}", std::process::id(), parent_id()).is_ok()
        {
            let _ = stream.read(&mut [0]);
        }
    }
}

impl MapReduce for Announcing {
    type Input = u64;
    type Key = u64;
    type Value = u64;
    type OutKey = u64;
    type OutValue = u64;

    fn map(&self, n: u64, out: &mut MapContext<'_, u64, u64>) {
        if n.is_multiple_of(1000) {
            let _ = File::create(self.scratch.join(format!("host-{}", std::process::id())));
        }
        if n == NUMBERS / 2 && self.when == When::Map {
            self.announce();
        }
        out.emit(n % KEYS, n);
    }

    fn reduce(&self, key: u64, values: &mut Values<'_, u64>, out: &mut ReduceContext<'_, u64, u64>) {
        match self.when {
            When::Shuffle => self.announce(),
            When::Reduce if key > KEYS / 2 => self.announce(),
            _ => {}
        }
        // The result depends on the order of the values.
        out.emit(key, values.fold(0, |hash, n| hash.wrapping_mul(31).wrapping_add(n)));
    }
}

/// The processes that have run map tasks.
fn hosts(scratch: &Path) -> Vec<i32> {
    let names = fs::read_dir(scratch).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.strip_prefix("host-")?.parse().ok()).collect()
}

/// How many files a process has open in the directory for temporary files: all of them must be unlinked.
fn unnamed_files(process: i32) -> usize {
    let directory = fs::canonicalize(std::env::temp_dir()).unwrap();
    let links = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let files = links.filter_map(|link| fs::read_link(link.ok()?.path()).ok());
    // The names that the system or `tempfile` gives them; a process may also have inherited other files there.
    let temporary = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        path.parent() == Some(&directory) && (name.starts_with('#') || name.starts_with(".tmp"))
    };
    let spilled: Vec<PathBuf> = files.filter(temporary).collect();
    for path in &spilled {
        assert!(path.to_string_lossy().ends_with(" (deleted)"), "{}", path.display());
    }
    spilled.len()
}

/// Kills a process and waits until it is gone.
fn kill(process: i32, also_gone: i32) {
    let [process, also_gone] = [process, also_gone].map(|id| Pid::from_raw(id).unwrap());
    let ends = [process, also_gone].map(|id| pidfd_open(id, PidfdFlags::empty()).unwrap());
    kill_process(process, Signal::KILL).unwrap();
    for end in &ends {
        let minute = Timespec { tv_sec: 60, tv_nsec: 0 };
        let ended = poll(&mut [PollFd::new(end, PollFlags::IN)], Some(&minute)).unwrap();
        assert_eq!(ended, 1, "a process is left");
    }
}

fn check(when: When, victim: Victim, memory: u64, run: impl FnOnce(&Job<Announcing>) -> Outcome<u64, u64>) {
    let scratch = tempfile::tempdir().unwrap();
    let code = Announcing { when, scratch: scratch.path().to_owned() };
    let announced = code.announced();
    File::create(&announced).unwrap();
    let job = Job::new(code, Input::generate(NUMBERS)).reducers(6).memory(memory);
    let expected = job.run_serial().unwrap().collect().unwrap();
    assert_eq!(expected.len() as u64, KEYS);
    // From now on the next task to get there announces itself.
    fs::remove_file(&announced).unwrap();
    hosts(scratch.path())
        .iter()
        .for_each(|id| fs::remove_file(scratch.path().join(format!("host-{id}"))).unwrap());

    let listener = UnixListener::bind(scratch.path().join("socket")).unwrap();
    let at = scratch.path().to_owned();
    let killer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        let ids: Vec<i32> = line.split_whitespace().map(|id| id.parse().unwrap()).collect();
        let (host, vm) = (ids[0], ids[1]);
        if when == When::Shuffle {
            assert!(hosts(&at).into_iter().map(unnamed_files).sum::<usize>() > 0, "nothing is spilled");
        }
        match victim {
            Victim::Host => kill(host, host),
            Victim::Vm => kill(vm, host),
            Victim::Other => {
                let other = hosts(&at).into_iter().find(|id| *id != host).unwrap();
                kill(other, other);
                stream.write_all(&[1]).unwrap();
            }
        }
        // Kept open until now: a process that reads its end would go on.
        drop(stream);
    });
    let outcome = run(&job);
    assert!(announced.exists(), "{when:?} never came");
    killer.join().unwrap();
    assert_eq!(outcome.report().lost.len(), 1, "{when:?} {victim:?}: {}", outcome.report());
    assert!(outcome.collect().unwrap() == expected, "{when:?} {victim:?}");
}

const TIGHT: u64 = 3 * 60_000;
const AMPLE: u64 = 300 << 20;

/// Runs on three VMs of this process, each with a host of its own.
fn on_three(job: &Job<Announcing>) -> Outcome<u64, u64> {
    with_cluster(3, |cluster| Ok(job.run(cluster)?))
}

#[test]
fn a_host_that_is_killed_in_a_map_task_is_done_without() {
    check(When::Map, Victim::Host, AMPLE, on_three);
}

#[test]
fn a_host_that_is_killed_while_others_read_its_runs_is_done_without_and_leaves_no_files() {
    check(When::Shuffle, Victim::Other, TIGHT, on_three);
}

#[test]
fn a_host_that_is_killed_in_a_reduce_task_is_done_without() {
    check(When::Reduce, Victim::Host, TIGHT, on_three);
}

#[test]
fn a_vm_that_is_killed_in_any_task_is_done_without() {
    for_each_topology(|topology, make_vms| {
        // In other topologies the VMs are in this very process.
        if !topology.starts_with("VM processes") {
            return;
        }
        for (when, memory) in [(When::Map, TIGHT), (When::Reduce, AMPLE)] {
            check(when, Victim::Vm, memory, |job| {
                let program = |vr: &river_core::Vr| Ok(job.run(&Cluster::on(vr, &make_vms(vr, 3)?)?)?);
                river_core::try_run(program).unwrap()
            });
        }
    });
}
