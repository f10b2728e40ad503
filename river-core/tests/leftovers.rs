//! A program that has ended leaves nothing in its process. The only test of its executable, as it counts threads and files.

use std::time::{Duration, Instant};

use river_core::{Result, VirtualResource, Vm, VmConfig, VmInfo, Vr};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Nothing;

impl VirtualResource for Nothing {
    fn main(&mut self, _: &Vr) -> Result {
        Ok(())
    }
}

fn run(taken: &VmInfo) {
    river_core::try_run(|vr| {
        let vms = vr.start_local(2)?;
        vr.deploy(&vms, |_| Nothing)?;
        // Leasing VMs that others hold fails.
        vr.allocate(vec![taken.clone()], 1).unwrap_err();
        Ok(())
    })
    .unwrap();
}

fn count(what: &str) -> usize {
    std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count()
}

fn children() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists.map(|list| list.split_whitespace().count()).sum()
}

#[test]
fn threads_files_and_children_are_gone() {
    let taken = Vm::start(VmConfig::default().hidden()).unwrap();
    let count_leftovers = |vr: &Vr| {
        vr.allocate(vec![taken.info()], 1)?;
        leftovers(&taken.info());
        Ok(())
    };
    river_core::try_run(count_leftovers).unwrap();
}

fn leftovers(taken: &VmInfo) {
    run(taken); // What the first one starts for good (the network thread) is there now.
    let (mut threads, mut files) = (usize::MAX, usize::MAX);
    let before = (count("task"), count("fd"));
    for _ in 0..10 {
        run(taken);
    }
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        (threads, files) = (count("task"), count("fd"));
        // Threads that serve blocking work come and go; ten programs' worth of leaks would be dozens.
        if threads <= before.0 + 4 && files <= before.1 + 4 && children() == 0 {
            return;
        }
        std::thread::yield_now();
    }
    let names: Vec<String> = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
        .collect();
    panic!(
        "{names:?} threads {} -> {threads}, files {} -> {files}, {} children",
        before.0,
        before.1,
        children()
    );
}
