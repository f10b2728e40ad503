//! User code that panics outside of map and reduce: the job fails with the reason; VMs and cluster go on.

use std::cmp::Ordering;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use river_mapreduce::{
    Cluster, Combiner, Datum, DecodeError, Input, Job, Key, MapContext, MapReduce, Output, ReduceContext,
    ValueOrder, Values, job,
};
use serde::{Deserialize, Serialize};

use super::{WordCount, with_cluster};

/// Counts words; one of the optional functions of a job panics on an empty word.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Careless {
    combines: bool,
}

fn first(word: &[u8]) -> u8 {
    *word.first().expect("a word")
}

impl MapReduce for Careless {
    type Input = String;
    type Key = String;
    type Value = String;
    type OutKey = String;
    type OutValue = u64;

    fn map(&self, line: &str, out: &mut MapContext<'_, String, String>) {
        line.split(' ').for_each(|word| out.emit(if self.combines { word } else { "key" }, word));
    }

    fn combiner(&self) -> Option<Combiner<'_, String>> {
        self.combines.then_some(&|all: &mut String, word| all.push_str(word))
    }

    fn partition(&self, word: &&str, _: usize) -> Option<usize> {
        Some(first(word.as_bytes()).into())
    }

    fn value_order(&self) -> Option<ValueOrder> {
        (!self.combines).then_some(|a, b| first(a).cmp(&first(b)))
    }

    fn reduce(&self, word: &str, all: &mut Values<'_, String>, out: &mut ReduceContext<'_, String, u64>) {
        out.emit(word, all.count() as u64);
    }
}

fn fails_and_the_next_job_does_not(cluster: &Cluster<'_>, careless: &Job<Careless>, task: &str) {
    for error in [careless.run(cluster).unwrap_err(), careless.run_serial().unwrap_err()] {
        let error = error.to_string();
        assert!(error.contains("panicked") && error.contains("a word"), "{error}");
    }
    let error = careless.run(cluster).unwrap_err().to_string();
    assert!(error.contains(task), "{error}");
    let good = Job::new(WordCount { combines: true }, Input::items(["a".to_owned()]));
    assert_eq!(good.run(cluster).unwrap().collect().unwrap(), [("a".to_owned(), 1)]);
}

#[test]
fn a_partition_that_panics_is_the_end_of_its_job_only() {
    with_cluster(2, |cluster| {
        let lines = ["a b", "a  b"].map(String::from);
        fails_and_the_next_job_does_not(
            cluster,
            &Job::new(Careless { combines: true }, Input::items(lines)),
            "map task",
        );
        Ok(())
    });
}

#[test]
fn an_order_of_values_that_panics_is_the_end_of_its_job_only() {
    with_cluster(2, |cluster| {
        // A map task has one value, and nothing to compare.
        let lines = ["", "a"].map(String::from);
        let careless = Job::new(Careless { combines: false }, Input::items(lines)).split_size(1);
        fails_and_the_next_job_does_not(cluster, &careless, "reduce task");
        Ok(())
    });
}

/// A key whose comparison panics on anything but encodings.
#[derive(Clone, Copy)]
struct Id([u8; 4]);

impl Datum for Id {
    type Ref<'a> = Id;
    const WIDTH: Option<usize> = Some(4);

    fn encode(id: &Id, out: &mut Vec<u8>) {
        out.extend_from_slice(&id.0);
    }

    fn decode(bytes: &[u8]) -> Result<Id, DecodeError> {
        bytes.try_into().map(Id).map_err(|_| DecodeError::new("an id", bytes))
    }

    fn own(id: Id) -> Self {
        id
    }

    fn view(&self) -> Id {
        *self
    }

    fn write_text(id: &Id, out: &mut Vec<u8>) -> std::io::Result<()> {
        write!(out, "{:?}", id.0)
    }
}

impl Key for Id {
    fn prefix(bytes: &[u8]) -> u64 {
        u64::from(u32::from_be_bytes(bytes[..4].try_into().unwrap()))
    }

    fn compare(a: &[u8], b: &[u8]) -> Ordering {
        a[..4].cmp(&b[..4])
    }
}

#[test]
fn a_sample_without_a_key_asks_no_key_about_what_is_none() {
    let rare = job(
        |n: u64, out: &mut MapContext<'_, Id, ()>| {
            // Beyond the part that a sample reads.
            if n % 100_000 == 99_999 {
                out.emit(Id((n as u32).to_be_bytes()), ());
            }
        },
        |id: Id, _: &mut Values<'_, ()>, out: &mut ReduceContext<'_, Id, ()>| out.emit(id, ()),
    );
    let job = |records| Job::new(rare, Input::generate(records)).split_size(100_000).sorted();
    with_cluster(2, |cluster| {
        for (records, keys) in [(10, 0), (300_000, 3)] {
            assert_eq!(job(records).run(cluster)?.collect()?.len(), keys);
            let serial = job(records).run_serial()?.collect()?;
            assert!(serial.len() == keys && serial.is_sorted_by_key(|(id, ())| id.0));
        }
        Ok(())
    });
}

/// Cannot be decoded on a VM.
#[derive(Clone, Serialize, Deserialize)]
struct Fragile {
    #[serde(deserialize_with = "break_it")]
    part: u8,
}

fn break_it<'de, D: serde::Deserializer<'de>>(_: D) -> Result<u8, D::Error> {
    panic!("broken on the way")
}

impl MapReduce for Fragile {
    type Input = u64;
    type Key = u64;
    type Value = ();
    type OutKey = u64;
    type OutValue = ();

    fn map(&self, n: u64, out: &mut MapContext<'_, u64, ()>) {
        out.emit(n, ());
    }

    fn reduce(&self, n: u64, _: &mut Values<'_, ()>, out: &mut ReduceContext<'_, u64, ()>) {
        out.emit(n, ());
    }
}

#[test]
fn a_job_that_panics_when_it_is_made_again_is_its_own_end_only() {
    with_cluster(2, |cluster| {
        let error = Job::new(Fragile { part: 0 }, Input::generate(10)).run(cluster).unwrap_err().to_string();
        assert!(error.contains("broken on the way"), "{error}");
        let good = Job::new(WordCount { combines: true }, Input::items(["a".to_owned()]));
        assert_eq!(good.run(cluster)?.collect()?, [("a".to_owned(), 1)]);
        Ok(())
    });
}

#[test]
fn a_sample_ends_at_the_first_panic_that_the_job_would_end_at() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("lines");
    std::fs::write(&path, "no number\n".repeat(3000)).unwrap();
    let sum = job(
        |line: &str, out: &mut MapContext<'_, u64, ()>| {
            CALLS.fetch_add(1, Relaxed);
            out.emit(line.parse().expect("a number"), ());
        },
        |n: u64, _: &mut Values<'_, ()>, out: &mut ReduceContext<'_, u64, ()>| out.emit(n, ()),
    );
    for skippable in [0, 3] {
        CALLS.store(0, Relaxed);
        let out = scratch.path().join("out");
        let sum = Job::new(sum, Input::<String>::lines([&path])).sorted().skip_bad_records(skippable);
        let error = sum.output(Output::text(&out)).run_serial().unwrap_err().to_string();
        assert!(error.contains("panicked") && error.contains("a number"), "{error}");
        assert_eq!(CALLS.load(Relaxed), 2 * (skippable + 1));
    }
}

#[test]
fn a_map_task_begins_anew_twice_at_most_however_many_records_make_it_panic() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let sum = job(
        |line: &str, out: &mut MapContext<'_, (), u64>| {
            CALLS.fetch_add(1, Relaxed);
            out.emit((), 1);
            out.count("lines", 1);
            assert!(!line.ends_with('3'), "a three");
        },
        |(): (), ones: &mut Values<'_, u64>, out: &mut ReduceContext<'_, (), u64>| out.emit((), ones.sum()),
    );
    let lines = || Input::items((0..3000).map(|n: u32| n.to_string()));
    let run = |skip| {
        CALLS.store(0, Relaxed);
        let sum = Job::new(sum, lines()).reducers(1).split_size(1 << 20).skip_bad_records(skip).run_serial();
        sum.map(|outcome| {
            (outcome.collect().unwrap(), outcome.counters().get("lines"), outcome.report().skipped.len())
        })
    };
    assert_eq!(run(300).unwrap(), (vec![((), 2700)], 2700, 300));
    assert!(CALLS.load(Relaxed) < 3 * 3000, "{CALLS:?}");
    let error = run(299).unwrap_err().to_string();
    assert!(error.contains("item 2993: the map function panicked: ") && error.contains("a three"), "{error}");
}
