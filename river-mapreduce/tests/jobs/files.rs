//! Input and output files.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use river_mapreduce::{Input, Job, JobError, MapContext, Output, ReduceContext, Serde, Values, job};

use super::{WordCount, counted, lines, with_cluster};

fn parts(directory: &Path) -> Vec<u8> {
    assert!(directory.join("_SUCCESS").exists());
    let mut names: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names.iter().filter(|path| !path.ends_with("_SUCCESS")).flat_map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn text_files_are_counted_and_the_counts_written() {
    let scratch = tempfile::tempdir().unwrap();
    let input = scratch.path().join("in");
    fs::create_dir(&input).unwrap();
    let all = lines(30_000);
    for (i, some) in all.chunks(7000).enumerate() {
        fs::write(input.join(format!("{i}.txt")), some.join("\n")).unwrap();
    }
    let out = scratch.path().join("out");
    let outcome = with_cluster(2, |cluster| {
        let job = Job::new(WordCount { combines: true }, Input::lines([&input]))
            .split_size(30_000)
            .sorted()
            .reducers(3)
            .output(Output::text(&out));
        let outcome = job.run(cluster)?;
        assert!(matches!(outcome.collect(), Err(JobError::NotCollected(path)) if path == out));
        let again = job.run(cluster).unwrap_err().to_string();
        assert!(again.contains("not empty"), "{again}");
        Ok(outcome)
    });
    let report = outcome.report();
    assert!(report.maps > 10 && report.input_records == 30_000, "{report}");
    let expected: String = counted(&all).iter().map(|(word, n)| format!("{word}\t{n}\n")).collect();
    assert_eq!(String::from_utf8(parts(&out)).unwrap(), expected);
}

#[test]
fn what_one_job_writes_another_reads() {
    let scratch = tempfile::tempdir().unwrap();
    let between = scratch.path().join("counts");
    let most_frequent = job(
        |(word, n): (&str, u64), out: &mut MapContext<'_, std::cmp::Reverse<u64>, String>| {
            out.emit(std::cmp::Reverse(n), word);
        },
        |n: std::cmp::Reverse<u64>,
         words: &mut Values<'_, String>,
         out: &mut ReduceContext<'_, String, u64>| {
            while let Some(word) = words.next_view() {
                out.emit(word, n.0);
            }
        },
    );
    let top = with_cluster(2, |cluster| {
        let count = Job::new(WordCount { combines: true }, Input::items(lines(5000)));
        count.output(Output::records(&between)).run(cluster)?;
        Ok(Job::new(most_frequent, Input::<(String, u64)>::records([&between]))
            .sorted()
            .run(cluster)?
            .collect()?)
    });
    assert_eq!(top[0], ("the".to_owned(), 5000));
    let mut expected = counted(&lines(5000));
    expected.sort_by_key(|record| std::cmp::Reverse(record.1));
    assert_eq!(
        top.iter().map(|(_, n)| n).collect::<Vec<_>>(),
        expected.iter().map(|(_, n)| n).collect::<Vec<_>>()
    );
}

#[test]
fn records_of_one_length_are_read_by_many_tasks() {
    let scratch = tempfile::tempdir().unwrap();
    let between = scratch.path().join("squares");
    let squares = job(
        |n: u64, out: &mut MapContext<'_, u64, u64>| out.emit(n, n * n),
        |n: u64, squares: &mut Values<'_, u64>, out: &mut ReduceContext<'_, u64, u64>| {
            squares.for_each(|square| out.emit(n, square));
        },
    );
    Job::new(squares, Input::generate(5000))
        .reducers(1)
        .output(Output::records(&between))
        .run_serial()
        .unwrap();
    let same = job(
        |(n, square): (u64, u64), out: &mut MapContext<'_, u64, u64>| out.emit(n, square),
        |n: u64, squares: &mut Values<'_, u64>, out: &mut ReduceContext<'_, u64, u64>| {
            squares.for_each(|square| out.emit(n, square));
        },
    );
    let same = Job::new(same, Input::<(u64, u64)>::records([&between])).reducers(1).split_size(1000);
    let outcome = same.run_serial().unwrap();
    assert_eq!(outcome.collect().unwrap(), (0..5000).map(|n| (n, n * n)).collect::<Vec<_>>());
    assert!(outcome.report().maps > 50, "{}", outcome.report());
    // A file of records of another length.
    fs::write(between.join("part-00001"), [0; 17]).unwrap();
    let error = same.run_serial().unwrap_err().to_string();
    assert!(error.contains("part-00001") && error.contains("record length 16"), "{error}");
}

#[test]
fn fixed_records_are_sorted_without_a_byte_between_them() {
    let scratch = tempfile::tempdir().unwrap();
    let records: Vec<[u8; 8]> =
        (0..20_000u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes()).collect();
    fs::write(scratch.path().join("in"), records.concat()).unwrap();
    let sort = job(
        |record: &[u8], out: &mut MapContext<'_, [u8; 4], Vec<u8>>| {
            if let Some((key, value)) = record.split_first_chunk::<4>() {
                out.emit(key, value);
            }
        },
        |key: &[u8; 4], values: &mut Values<'_, Vec<u8>>, out: &mut ReduceContext<'_, [u8; 4], Vec<u8>>| {
            while let Some(value) = values.next_view() {
                out.emit(key, value);
            }
        },
    );
    let out = scratch.path().join("out");
    let input = Input::fixed([scratch.path().join("in")], 8);
    with_cluster(2, |cluster| {
        Job::new(sort, input).sorted().split_size(10_000).output(Output::raw(&out)).run(cluster)?;
        Ok(())
    });
    let mut expected = records;
    expected.sort();
    assert!(parts(&out) == expected.concat());
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let broken = scratch.path().join("broken.gz");
    fs::write(&broken, b"this is no gzip file").unwrap();
    let job = Job::new(WordCount { combines: true }, Input::lines([&broken]));
    let error = with_cluster(2, |cluster| Ok(job.run(cluster).unwrap_err())).to_string();
    assert!(
        error.contains("broken.gz") && error.contains("gzip") && error.contains("on VM local-"),
        "{error}"
    );
    let missing = Job::new(WordCount { combines: true }, Input::lines(["/no/such/file"])).run_serial();
    assert!(matches!(missing, Err(JobError::Input(_))));
}

#[test]
fn text_that_is_none_is_a_bad_record_with_its_place() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("latin1.txt");
    fs::write(&path, b"fine\ncaf\xe9\nfine\n").unwrap();
    let job = || Job::new(WordCount { combines: true }, Input::lines([&path]));
    let error = with_cluster(1, |cluster| Ok(job().run(cluster).unwrap_err())).to_string();
    assert!(error.contains("latin1.txt, byte 5") && error.contains("not valid UTF-8"), "{error}");
    let outcome = with_cluster(1, |cluster| Ok(job().skip_bad_records(1).run(cluster)?));
    assert_eq!(outcome.collect().unwrap(), [("fine".to_owned(), 2)]);
    assert!(outcome.report().to_string().contains("skipped records: 1"));
}

#[test]
fn no_more_records_are_skipped_in_all_tasks_together_than_may_be() {
    let scratch = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        fs::write(scratch.path().join(name), b"fine\ncaf\xe9\n").unwrap();
    }
    let job = |skip| {
        let job = Job::new(WordCount { combines: true }, Input::lines([scratch.path()]));
        // Each file is a split.
        job.split_size(10).skip_bad_records(skip)
    };
    with_cluster(2, |cluster| {
        let error = job(2).run(cluster).unwrap_err();
        let text = error.to_string();
        let JobError::TooManySkipped { skipped: 3, allowed: 2, first } = error else { panic!("{text}") };
        assert!(first.contains("a, byte 5: ") && first.contains("not valid UTF-8"), "{first}");
        let outcome = job(3).run(cluster)?;
        assert_eq!(outcome.report().maps, 3);
        assert_eq!(outcome.collect()?, [("fine".to_owned(), 3)]);
        Ok(())
    });
    let error = job(2).run_serial().unwrap_err().to_string();
    assert!(error.contains("c, byte 5") && error.contains("not valid UTF-8"), "{error}");
    assert_eq!(job(3).run_serial().unwrap().collect().unwrap(), [("fine".to_owned(), 3)]);
}

#[test]
fn a_record_that_makes_user_code_panic_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("numbers.txt");
    fs::write(&path, "1\n22\nthree\n4\n").unwrap();
    let sum = job(
        |line: &str, out: &mut MapContext<'_, (), u64>| out.emit((), line.parse().expect("a number")),
        |(): (), numbers: &mut Values<'_, u64>, out: &mut ReduceContext<'_, (), u64>| {
            out.emit((), numbers.sum());
        },
    );
    let job = || Job::new(sum, Input::<String>::lines([&path])).reducers(1);
    let error = with_cluster(2, |cluster| Ok(job().run(cluster).unwrap_err())).to_string();
    for part in ["numbers.txt, byte 5", "panicked", "a number", "skip_bad_records"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let outcome = with_cluster(2, |cluster| Ok(job().skip_bad_records(1).run(cluster)?));
    assert_eq!(outcome.collect().unwrap(), [((), 27)]);
    assert!(outcome.report().to_string().contains("numbers.txt, byte 5"), "{}", outcome.report());
}

#[test]
fn a_job_that_fails_leaves_nothing_of_its_output() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out");
    let careless = job(
        |(n, bad): (u64, bool), out: &mut MapContext<'_, u64, bool>| out.emit(n, bad),
        |n: u64, bad: &mut Values<'_, bool>, out: &mut ReduceContext<'_, u64, ()>| {
            assert!(!bad.any(|bad| bad), "a bad number");
            out.emit(n, ());
        },
    );
    // The bad one comes last: some parts are complete when it is found.
    let job = |bad: bool| {
        let numbers = (0..100).map(|n: u64| (n, bad && n == 99));
        Job::new(careless, Input::items(numbers)).sorted().reducers(4).output(Output::text(&out))
    };
    let left = || fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    let none: [&str; 0] = [];
    let error = job(true).run_serial().unwrap_err().to_string();
    assert!(error.contains("a bad number"), "{error}");
    assert_eq!(left(), none);
    with_cluster(1, |cluster| {
        let error = job(true).run(cluster).unwrap_err().to_string();
        assert!(error.contains("a bad number"), "{error}");
        assert_eq!(left(), none);
        job(false).run(cluster)?;
        Ok(())
    });
    assert_eq!(parts(&out).split(|byte| *byte == b'\n').count(), 101);
}

#[test]
fn an_output_without_a_text_form_is_an_error_and_no_output() {
    type Pairs = Serde<BTreeMap<(u32, u32), u64>>;
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out");
    let squares = job(
        |n: u64, out: &mut MapContext<'_, u64, u64>| out.emit(n, n * n),
        |n: u64, squares: &mut Values<'_, u64>, out: &mut ReduceContext<'_, u64, Pairs>| {
            out.emit(n, Serde(squares.map(|square| ((1, 2), square)).collect()));
        },
    );
    let job = |output: Output| Job::new(squares, Input::generate(10)).reducers(2).output(output);
    let check = |error: JobError| {
        let error = error.to_string();
        assert!(error.contains("reduce of key ") && error.contains("key must be a string"), "{error}");
        assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
    };
    check(job(Output::text(&out)).run_serial().unwrap_err());
    with_cluster(2, |cluster| {
        check(job(Output::text(&out)).run(cluster).unwrap_err());
        assert_eq!(job(Output::collect()).run(cluster)?.collect()?.len(), 10);
        Ok(())
    });
}

#[test]
fn delimiters_blocks_and_whole_files() {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("a"), "x;y;x").unwrap();
    fs::write(scratch.path().join("b"), "one\ntwo\n").unwrap();
    let records = |input: Input<String>| {
        let identity = job(
            |record: &str, out: &mut MapContext<'_, String, ()>| out.emit(record, ()),
            |key: &str, _: &mut Values<'_, ()>, out: &mut ReduceContext<'_, String, ()>| out.emit(key, ()),
        );
        let outcome = Job::new(identity, input).reducers(1).run_serial().unwrap();
        outcome.collect().unwrap().into_iter().map(|(record, ())| record).collect::<Vec<_>>()
    };
    let at = |name: &str| [scratch.path().join(name)];
    assert_eq!(records(Input::delimited(at("a"), b';')), ["x", "y"]);
    assert_eq!(records(Input::blocks(at("b"))), ["one\ntwo\n"]);
    assert_eq!(records(Input::whole_files([scratch.path()])), ["one\ntwo\n", "x;y;x"]);
}

#[test]
fn names_of_files_and_directories_need_not_be_utf8() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &[u8]| scratch.path().join(OsStr::from_bytes(name));
    let (input, out) = (at(b"in\xe9"), at(b"out\xe9"));
    fs::create_dir(&input).unwrap();
    fs::write(input.join(OsStr::from_bytes(b"caf\xe9.txt")), "a b a").unwrap();
    let job = || {
        Job::new(WordCount { combines: true }, Input::lines([&input]))
            .sorted()
            .output(Output::text(&out).overwrite())
    };
    with_cluster(2, |cluster| Ok(job().run(cluster)?));
    assert_eq!(parts(&out), b"a\t2\nb\t1\n");
    job().run_serial().unwrap();
    assert_eq!(parts(&out), b"a\t2\nb\t1\n");
}
