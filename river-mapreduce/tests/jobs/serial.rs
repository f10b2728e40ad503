//! Jobs in one thread, compared with sequential programs: any records, splits, reducers and memory limits.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use proptest::prelude::*;
use river_mapreduce::{Input, Job, JobError, MapContext, Output, ReduceContext, Serde, Values, job};

use super::{Identity, WordCount, counted, lines, with_cluster};

/// So little memory that a spill happens every few records.
const TINY: u64 = 400;

proptest! {
    #[test]
    fn any_records_come_out_grouped_in_order(
        records in prop::collection::vec((prop::collection::vec(0u8..3, 0..12), prop::collection::vec(any::<u8>(), 0..40)), 0..300),
        split in 1u64..2000, reducers in 1usize..5, tiny: bool, ordered: bool, sorted: bool,
    ) {
        let mut job = Job::new(Identity { ordered }, Input::items(records.clone()))
            .split_size(split)
            .reducers(reducers);
        if tiny {
            job = job.memory(TINY);
        }
        if sorted {
            job = job.sorted();
        }
        let outcome = job.run_serial().unwrap();
        let output = outcome.collect().unwrap();
        let mut expected = records;
        if ordered { expected.sort() } else { expected.sort_by(|a, b| a.0.cmp(&b.0)) }
        if sorted || reducers == 1 {
            prop_assert_eq!(&output, &expected);
        } else {
            // Each key is in one piece, with its values in order.
            let mut regrouped = output.clone();
            regrouped.sort_by(|a, b| a.0.cmp(&b.0));
            prop_assert_eq!(&regrouped, &expected);
            let mut keys: Vec<_> = output.iter().map(|record| &record.0).collect();
            keys.dedup();
            let pieces = keys.len();
            keys.sort();
            keys.dedup();
            prop_assert_eq!(pieces, keys.len());
        }
        prop_assert_eq!(outcome.report().input_records, expected.len() as u64);
        prop_assert_eq!(outcome.report().output_records, expected.len() as u64);
    }

    #[test]
    fn combining_changes_nothing(words in prop::collection::vec("[ab ]{0,9}", 0..100), tiny: bool, combines: bool) {
        let mut job = Job::new(WordCount { combines }, Input::items(words.clone())).reducers(1).split_size(50);
        if tiny {
            job = job.memory(TINY);
        }
        let outcome = job.run_serial().unwrap();
        prop_assert_eq!(outcome.collect().unwrap(), counted(&words));
        prop_assert_eq!(outcome.counters().get("lines"), words.len() as u64);
    }

    #[test]
    fn values_are_combined_in_their_order(
        lines in prop::collection::vec(prop::collection::vec((0..4_usize, prop_oneof![0..9_u64, Just(1 << 40)]), 0..300), 0..6),
        tiny: bool,
    ) {
        /// Keys of all lengths that are stored in different ways.
        const KEYS: [&str; 4] = ["a", "bbbbbbbb", "a word of thirty-one characters", "a key that is longer than all that are short"];
        let last = job(
            |line: Serde<Vec<(usize, u64)>>, out: &mut MapContext<'_, String, u64>| {
                line.0.into_iter().for_each(|(key, value)| out.emit(KEYS[key], value));
            },
            |key: &str, values: &mut Values<'_, u64>, out: &mut ReduceContext<'_, String, u64>| {
                out.emit(key, values.last().unwrap_or_default());
            },
        )
        .combine(|last: &mut u64, next: u64| *last = next);
        let mut expected = BTreeMap::new();
        for &(key, value) in lines.iter().flatten() {
            expected.insert(KEYS[key].to_owned(), value);
        }
        let mut job = Job::new(last, Input::items(lines.into_iter().map(Serde))).reducers(1).split_size(500);
        if tiny {
            job = job.memory(TINY);
        }
        let output: BTreeMap<String, u64> = job.run_serial().unwrap().collect().unwrap().into_iter().collect();
        prop_assert_eq!(output, expected);
    }
}

#[test]
fn keys_may_be_tuples_numbers_and_turned_around() {
    let by_length = job(
        |word: &str, out: &mut MapContext<'_, (Reverse<u32>, String), ()>| {
            out.emit((Reverse(word.len() as u32), word), ());
        },
        |(length, word): (Reverse<u32>, &str),
         _: &mut Values<'_, ()>,
         out: &mut ReduceContext<'_, u32, String>| out.emit(length.0, word),
    );
    let words = ["pear", "fig", "banana", "plum", "fig"].map(String::from);
    let output =
        Job::new(by_length, Input::items(words)).reducers(1).run_serial().unwrap().collect().unwrap();
    let expected = [(6, "banana"), (4, "pear"), (4, "plum"), (3, "fig")];
    assert_eq!(output, expected.map(|(length, word)| (length, word.to_owned())));
}

#[test]
fn values_may_be_anything_that_serde_knows() {
    type Tally = BTreeMap<char, u64>;
    let letters = job(
        |word: &str, out: &mut MapContext<'_, u64, Serde<Tally>>| {
            let mut tally = Tally::new();
            word.chars().for_each(|c| *tally.entry(c).or_default() += 1);
            out.emit(word.len() as u64, Serde(tally));
        },
        |length: u64,
         tallies: &mut Values<'_, Serde<Tally>>,
         out: &mut ReduceContext<'_, u64, Serde<Tally>>| {
            let mut sum = Tally::new();
            for (c, n) in tallies.flat_map(|tally| tally.0) {
                *sum.entry(c).or_default() += n;
            }
            out.emit(length, Serde(sum));
        },
    )
    .combine(|sum: &mut Serde<Tally>, more: Serde<Tally>| {
        for (c, n) in more.0 {
            *sum.entry(c).or_default() += n;
        }
    });
    let words = ["aab", "abc", "x"].map(String::from);
    let output = Job::new(letters, Input::items(words)).reducers(1).run_serial().unwrap().collect().unwrap();
    assert_eq!(output[1], (3, Serde(BTreeMap::from([('a', 3), ('b', 2), ('c', 1)]))));
}

#[test]
fn generated_input_and_numbers_as_keys() {
    let remainders = job(
        |n: u64, out: &mut MapContext<'_, u64, u64>| out.emit(n % 10, n),
        |key: u64, values: &mut Values<'_, u64>, out: &mut ReduceContext<'_, u64, u64>| {
            let values: Vec<u64> = values.collect();
            assert!(values.is_sorted(), "values come in the order of the input");
            out.emit(key, values.into_iter().sum());
        },
    );
    let job = Job::new(remainders, Input::generate(1000)).sorted().memory(TINY);
    let output = job.run_serial().unwrap().collect().unwrap();
    let expected: Vec<(u64, u64)> = (0..10).map(|r| (r, (r..1000).step_by(10).sum())).collect();
    assert_eq!(output, expected);
}

#[test]
fn bad_records_are_named_and_skipped_as_far_as_allowed() {
    let picky = |n: u64, out: &mut MapContext<'_, u64, u64>| {
        out.emit(n, 1);
        assert!(n != 17 && n != 33, "{n} is not to my taste");
        out.emit(n, 1);
    };
    let count = |key: u64, ones: &mut Values<'_, u64>, out: &mut ReduceContext<'_, u64, u64>| {
        out.emit(key, ones.count() as u64);
    };
    let job = || Job::new(job(picky, count), Input::generate(50)).reducers(1);
    let error = job().run_serial().unwrap_err().to_string();
    assert!(error.contains("record at item 17") && error.contains("17 is not to my taste"), "{error}");
    let error = job().skip_bad_records(1).run_serial().unwrap_err().to_string();
    assert!(error.contains("record at item 33"), "{error}");
    let outcome = job().skip_bad_records(2).run_serial().unwrap();
    let skipped: Vec<&str> = outcome.report().skipped.iter().map(|(place, _)| place.as_str()).collect();
    assert_eq!(skipped, ["item 17", "item 33"]);
    let output = outcome.collect().unwrap();
    // Nothing that they had emitted before they panicked is left.
    assert_eq!(output.len(), 48);
    assert!(output.iter().all(|(_, ones)| *ones == 2));
}

#[test]
fn a_combiner_that_panics_names_the_record_whose_value_it_was_given() {
    let count = job(
        |n: u64, out: &mut MapContext<'_, String, u64>| {
            // Each record's last value is combined at the end of the record.
            for part in 0..3 {
                out.emit("key", 10 * n + part);
            }
        },
        |key: &str, values: &mut Values<'_, u64>, out: &mut ReduceContext<'_, String, u64>| {
            out.emit(key, values.sum());
        },
    )
    .combine(|sum: &mut u64, n: u64| {
        assert!(n != 72, "no");
        *sum += n;
    });
    let outcome = Job::new(count, Input::generate(20)).skip_bad_records(1).run_serial().unwrap();
    let skipped: Vec<&str> = outcome.report().skipped.iter().map(|(place, _)| place.as_str()).collect();
    assert_eq!(skipped, ["item 7"]);
    let expected: u64 = (0..20).filter(|n| *n != 7).flat_map(|n| (0..3).map(move |part| 10 * n + part)).sum();
    assert_eq!(outcome.collect().unwrap(), [("key".to_owned(), expected)]);
}

#[test]
fn a_reduce_that_panics_names_its_key() {
    let job = job(
        |line: &str, out: &mut MapContext<'_, String, ()>| out.emit(line, ()),
        |key: &str, _: &mut Values<'_, ()>, _: &mut ReduceContext<'_, String, ()>| {
            assert!(key != "w3", "no");
        },
    );
    let error = Job::new(job, Input::items(["w1", "w3"].map(String::from))).run_serial().unwrap_err();
    assert!(matches!(error, JobError::Failed { .. }));
    assert!(error.to_string().contains("reduce of key w3"), "{error}");
}

#[test]
fn a_job_without_input_has_no_output() {
    let job = Job::new(WordCount { combines: true }, Input::items([]));
    assert_eq!(job.run_serial().unwrap().collect().unwrap(), []);
    let job = Job::new(WordCount { combines: true }, Input::items(lines(3))).reducers(0);
    assert!(matches!(job.run_serial(), Err(JobError::Settings(_))));
}

/// A job that only calls `map` for each line.
macro_rules! counting {
    ($calls:ident) => {
        job(
            |line: &str, out: &mut MapContext<'_, String, ()>| {
                $calls.fetch_add(1, Relaxed);
                out.emit(line, ());
            },
            |line: &str, _: &mut Values<'_, ()>, out: &mut ReduceContext<'_, String, ()>| out.emit(line, ()),
        )
    };
}

#[test]
fn a_sample_is_small_whatever_it_is_taken_of() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    let lines: Vec<String> = (0..20_000).map(|i| format!("line {i:05}")).collect();
    let text = lines.join("\n");
    let mut gzip =
        flate2::write::GzEncoder::new(File::create(at("lines.gz")).unwrap(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    gzip.finish().unwrap();
    fs::write(at("lines.zst"), zstd::encode_all(text.as_bytes(), 1).unwrap()).unwrap();
    fs::write(at("lines"), &text).unwrap();
    fs::create_dir(at("files")).unwrap();
    for name in 'a'..'l' {
        fs::write(at("files").join(name.to_string()), name.to_string().repeat(300 << 10)).unwrap();
    }
    let inputs = [
        (Input::lines([at("lines.gz")]), 20_000),
        (Input::lines([at("lines.zst")]), 20_000),
        (Input::lines([at("lines")]), 20_000),
        (Input::items(lines.clone()), 20_000),
        (Input::whole_files([at("files")]), 11),
    ];
    for (input, records) in inputs {
        CALLS.store(0, Relaxed);
        let job = Job::new(counting!(CALLS), input.clone()).reducers(2).sorted().split_size(10 << 20);
        let output = job.run_serial().unwrap().collect().unwrap();
        assert_eq!(output.len(), records as usize);
        assert!(output.is_sorted());
        let sampled = CALLS.load(Relaxed) - records;
        assert!(sampled > 0 && sampled < records / 3, "{sampled} of {records} records of {input:?}");
    }
}

#[test]
fn records_that_cannot_be_decoded_cost_no_second_reading() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("lines");
    let lines =
        (0..3000).map(|i| if i % 3 == 1 { b"caf\xe9\n".to_vec() } else { format!("{i:04}\n").into_bytes() });
    fs::write(&path, lines.flatten().collect::<Vec<u8>>()).unwrap();
    let job =
        |skip| Job::new(counting!(CALLS), Input::<String>::lines([&path])).reducers(1).skip_bad_records(skip);
    let outcome = job(1000).run_serial().unwrap();
    assert_eq!(outcome.collect().unwrap().len(), 2000);
    assert_eq!((CALLS.load(Relaxed), outcome.report().input_records), (2000, 2000));
    let skipped = &outcome.report().skipped;
    assert_eq!(skipped.len(), 1000);
    assert!(skipped[1].0.ends_with("lines, byte 20"), "{}", skipped[1].0);
    let error = job(999).run_serial().unwrap_err().to_string();
    assert!(error.contains("not valid UTF-8"), "{error}");
}

#[test]
fn an_input_is_not_overwritten() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out");
    let write = |input: Input<String>| {
        let identity = job(
            |line: &str, out: &mut MapContext<'_, String, ()>| out.emit(line, ()),
            |line: &str, _: &mut Values<'_, ()>, out: &mut ReduceContext<'_, String, ()>| out.emit(line, ()),
        );
        Job::new(identity, input).reducers(1).output(Output::text(&out).overwrite()).run_serial()
    };
    write(Input::items(["once".to_owned()])).unwrap();
    let error = write(Input::lines([&out])).unwrap_err().to_string();
    assert!(error.contains("part-00000 lies in the output directory"), "{error}");
    assert_eq!(fs::read_to_string(out.join("part-00000")).unwrap(), "once\n");
    assert!(out.join("_SUCCESS").exists());
}

#[test]
fn records_without_a_byte_are_records() {
    let count = job(
        |_: u64, out: &mut MapContext<'_, (), ()>| out.emit((), ()),
        |(): (), values: &mut Values<'_, ()>, out: &mut ReduceContext<'_, (), u64>| {
            out.emit((), values.count() as u64);
        },
    );
    let same = job(
        |_: u64, out: &mut MapContext<'_, (), ()>| out.emit((), ()),
        |(): (), values: &mut Values<'_, ()>, out: &mut ReduceContext<'_, (), ()>| {
            values.for_each(|()| out.emit((), ()));
        },
    );
    let same = Job::new(same, Input::generate(1000)).reducers(2);
    assert_eq!(same.run_serial().unwrap().collect().unwrap().len(), 1000);
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out");
    same.output(Output::records(&out)).run_serial().unwrap();
    let counted = job(
        |_: ((), ()), out: &mut MapContext<'_, (), u64>| out.emit((), 1),
        |(): (), values: &mut Values<'_, u64>, out: &mut ReduceContext<'_, (), u64>| {
            out.emit((), values.sum());
        },
    );
    let counted = Job::new(counted, Input::<((), ())>::records([&out])).run_serial().unwrap();
    assert_eq!(counted.collect().unwrap(), [((), 1000)]);

    let job = Job::new(count, Input::generate(1000)).reducers(2);
    assert_eq!(job.run_serial().unwrap().collect().unwrap(), [((), 1000)]);
    with_cluster(2, |cluster| {
        assert_eq!(job.run(cluster)?.collect()?, [((), 1000)]);
        Ok(())
    });
}
