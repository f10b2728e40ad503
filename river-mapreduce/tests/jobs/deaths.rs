//! Real deaths of VMs in each phase of a job.

use std::fs::File;
use std::path::{Path, PathBuf};

use river_mapreduce::{Input, Job, JobError, MapContext, MapReduce, Output, ReduceContext, Values};
use serde::{Deserialize, Serialize};

use super::with_cluster;

/// When to end a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum When {
    /// In a map task.
    Map,
    /// At the first key of a reduce task, whose segments other tasks may or may not have read.
    FirstKey,
    /// In the middle of a reduce task.
    Reduce,
    Always,
}

/// Groups numbers by their remainder; a process ends before the job is done.
#[derive(Clone, Serialize, Deserialize)]
struct Deadly {
    when: When,
    marker: PathBuf,
}

const NUMBERS: u64 = 60_000;
const KEYS: u64 = 500;

impl Deadly {
    /// Ends the first process that calls this.
    fn die_once(&self) {
        if self.when == When::Always || File::create_new(&self.marker).is_ok() {
            // As sudden as possible from inside: no destructor runs.
            std::process::abort();
        }
    }
}

impl MapReduce for Deadly {
    type Input = u64;
    type Key = u64;
    type Value = u64;
    type OutKey = u64;
    type OutValue = u64;

    fn map(&self, n: u64, out: &mut MapContext<'_, u64, u64>) {
        if n == NUMBERS / 2 && matches!(self.when, When::Map | When::Always) {
            self.die_once();
        }
        out.emit(n % KEYS, n);
    }

    fn reduce(&self, key: u64, values: &mut Values<'_, u64>, out: &mut ReduceContext<'_, u64, u64>) {
        match self.when {
            When::FirstKey => self.die_once(),
            When::Reduce if key > KEYS / 2 => self.die_once(),
            _ => {}
        }
        // The result depends on the order of the values.
        out.emit(key, values.fold(0, |hash, n| hash.wrapping_mul(31).wrapping_add(n)));
    }
}

fn job(when: When, scratch: &Path) -> Job<Deadly> {
    let marker = scratch.join(format!("{when:?}"));
    Job::new(Deadly { when, marker }, Input::generate(NUMBERS)).reducers(6)
}

#[test]
fn the_output_is_the_same_whenever_a_vm_dies() {
    let scratch = tempfile::tempdir().unwrap();
    let undisturbed = job(When::Map, scratch.path());
    File::create(scratch.path().join("Map")).unwrap();
    let expected = undisturbed.run_serial().unwrap().collect().unwrap();
    assert_eq!(expected.len() as u64, KEYS);
    std::fs::remove_file(scratch.path().join("Map")).unwrap();
    for when in [When::Map, When::FirstKey, When::Reduce] {
        for memory in [None, Some(3 * 60_000)] {
            let mut job = job(when, scratch.path());
            if let Some(memory) = memory {
                job = job.memory(memory);
            }
            let outcome = with_cluster(3, |cluster| {
                let outcome = job.run(cluster)?;
                // The cluster goes on without it.
                assert_eq!(job.run(cluster)?.collect()?, outcome.collect()?);
                Ok(outcome)
            });
            assert_eq!(outcome.report().lost.len(), 1, "{when:?}");
            assert!(outcome.collect().unwrap() == expected, "{when:?}");
            std::fs::remove_file(scratch.path().join(format!("{when:?}"))).unwrap();
        }
    }
}

#[test]
fn a_file_output_is_whole_whatever_dies() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out");
    let outcome = with_cluster(3, |cluster| {
        Ok(job(When::Reduce, scratch.path()).output(Output::text(&out)).run(cluster)?)
    });
    assert_eq!(outcome.report().lost.len(), 1);
    let mut names: Vec<_> = std::fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["_SUCCESS", "part-00000", "part-00001", "part-00002", "part-00003", "part-00004", "part-00005"]
    );
    let lines: usize =
        names[1..].iter().map(|name| std::fs::read_to_string(out.join(name)).unwrap().lines().count()).sum();
    assert_eq!(lines as u64, KEYS);
}

#[test]
fn a_task_that_kills_is_given_up_with_the_reasons() {
    let scratch = tempfile::tempdir().unwrap();
    let error = with_cluster(4, |cluster| Ok(job(When::Always, scratch.path()).run(cluster).unwrap_err()));
    let JobError::Deadly { deaths, .. } = &error else { panic!("{error}") };
    assert_eq!(deaths.len(), 3);
    assert!(error.to_string().contains("SIGABRT"), "{error}");
    let error = with_cluster(2, |cluster| Ok(job(When::Always, scratch.path()).run(cluster).unwrap_err()));
    assert!(matches!(&error, JobError::NoVmLeft { deaths } if deaths.len() == 2), "{error}");
}
