//! Tests the table against sums that are computed one by one.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;

use proptest::prelude::*;

use super::*;
use crate::datum::{DecodeError, Serde};
use crate::partition::Bounds;

type Sums = BTreeMap<Vec<u8>, u64>;

fn add_run(run: &Run, sums: &mut Sums) {
    let layout = Layout::of::<Vec<u8>, u64>();
    for part in 0..run.parts().len() {
        let bytes = run.read(part, 0, usize::MAX).unwrap();
        let (mut at, mut last) = (0, None);
        while let Some(span) = layout.parse(&bytes[at..]).filter(|span| span.len() > 0) {
            let record = &bytes[at..][..span.len()];
            let key = record[span.key()].to_vec();
            assert!(last.as_ref() < Some(&key), "sorted, and each key once");
            *sums.entry(key.clone()).or_default() += u64::decode(&record[span.value()]).unwrap();
            last = Some(key);
            at += span.len();
        }
    }
}

fn check(text: &[u8], words: &[(usize, usize)], limit: usize) {
    let space = RunSpace::new(usize::MAX, std::env::temp_dir());
    let partition = Partition::<Vec<u8>> { by_job: &|_, _| None, bounds: &Bounds::default() };
    let mut table = CombineTable::<Vec<u8>, u64>::new(3, limit);
    let settle = |table: &mut CombineTable<Vec<u8>, u64>, sums: &mut Sums| {
        while table.settle(&|sum, n| *sum += n) {
            add_run(&table.drain(&space, &partition).unwrap(), sums);
            assert!(table.is_empty());
        }
    };
    // Some keys of a round are known from the previous one.
    for round in 0..4 {
        let (mut expected, mut sums) = (Sums::new(), Sums::new());
        for (n, &(from, len)) in (1..).zip(words) {
            let from = (from + round % 2) % (text.len() + 1);
            let word = &text[from..][..len.min(text.len() - from)];
            // Some outgrow 32 bits, and some never fit.
            let n: u64 = n << 28;
            *expected.entry(word.to_vec()).or_default() += n;
            match InlineKey::of(word, text).zip(n.to_small()) {
                Some((key, small)) => {
                    if table.wait(key, small) {
                        settle(&mut table, &mut sums);
                    }
                }
                None => {
                    settle(&mut table, &mut sums);
                    if table.add(word, text, n, &|sum, n| *sum += n) {
                        add_run(&table.drain(&space, &partition).unwrap(), &mut sums);
                        assert!(table.is_empty());
                    }
                }
            }
        }
        settle(&mut table, &mut sums);
        add_run(&table.drain(&space, &partition).unwrap(), &mut sums);
        assert_eq!(sums, expected);
    }
}

proptest! {
    #[test]
    fn every_key_has_its_sum(
        text in "[ab]{0,50}", words in prop::collection::vec((0usize..60, 0usize..30), 0..300),
        limit in prop::sample::select(&[1, 40_000, 1_000_000][..]),
    ) {
        check(text.as_bytes(), &words, limit);
    }
}

#[test]
fn many_keys_make_the_table_grow() {
    let text: String = (0..30_000).map(|i| format!("{i:05}, a number")).collect();
    let words: Vec<(usize, usize)> = (0..60_000).map(|i| (i % 30_000 * 15, 4 + i % 15)).collect();
    for limit in [100_000, usize::MAX] {
        check(text.as_bytes(), &words, limit);
    }
}

#[test]
fn where_a_run_ends_does_not_depend_on_what_the_table_held_before() {
    let space = RunSpace::new(usize::MAX, std::env::temp_dir());
    let partition = Partition::<Vec<u8>> { by_job: &|_, _| None, bounds: &Bounds::default() };
    let ends = |table: &mut CombineTable<Vec<u8>, u64>, width: usize| {
        let mut ends = Vec::new();
        for n in 0..20_000 {
            if table.add(format!("{n:0width$}").as_bytes(), &[], 1, &|sum, n| *sum += n) {
                table.drain(&space, &partition).unwrap();
                ends.push(n);
            }
        }
        table.drain(&space, &partition).unwrap();
        ends
    };
    let mut used = CombineTable::new(3, 300_000);
    for width in [8, 300, 8, 20, 300] {
        let fresh = ends(&mut CombineTable::new(3, 300_000), width);
        assert!(fresh.len() > 1);
        assert_eq!(ends(&mut used, width), fresh);
    }
}

/// Counts the bytes that are measured.
#[derive(Debug)]
struct Measured<T>(T);

thread_local! {
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

impl<T: Datum> Datum for Measured<T> {
    type Ref<'a> = T::Ref<'a>;

    const MEASURING_IS_SLOW: bool = T::MEASURING_IS_SLOW;

    fn encode(value: &T::Ref<'_>, out: &mut Vec<u8>) {
        T::encode(value, out);
    }

    fn decode(bytes: &[u8]) -> Result<T::Ref<'_>, DecodeError> {
        T::decode(bytes)
    }

    fn own(value: T::Ref<'_>) -> Self {
        Self(T::own(value))
    }

    fn view(&self) -> T::Ref<'_> {
        self.0.view()
    }

    fn write_text(value: &T::Ref<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        T::write_text(value, out)
    }

    fn heap_bytes(&self) -> usize {
        let bytes = self.0.heap_bytes();
        BYTES.set(BYTES.get() + bytes);
        bytes
    }
}

const LISTS: usize = 2000;
const LENGTH: usize = 10;

/// Adds lists to a hundred keys. Returns after how many of them the table was full. It must never take more than its limit.
fn add_lists<V: Datum>(
    table: &mut CombineTable<String, Measured<V>>,
    list: impl Fn() -> V,
    combine: Combiner<'_, Measured<V>>,
) -> Vec<usize> {
    let space = RunSpace::new(usize::MAX, std::env::temp_dir());
    let partition = Partition::<String> { by_job: &|_, _| None, bounds: &Bounds::default() };
    let mut full = Vec::new();
    for n in 0..LISTS {
        if table.add(format!("key {}", n % 100).as_bytes(), &[], list().view(), combine) {
            table.drain(&space, &partition).unwrap();
            full.push(n);
        }
        let heap: usize = table.values.iter().map(|list| list.0.heap_bytes()).sum();
        assert!(heap <= table.heap && table.needed_memory(slots_for(table.keys)) <= table.limit);
    }
    table.drain(&space, &partition).unwrap();
    full
}

#[test]
fn sums_that_grow_fill_the_table_and_are_not_measured_again_and_again() {
    let append: Combiner<'_, Measured<Serde<Vec<u8>>>> = &|sum, more| sum.0.0.extend_from_slice(&more.0);
    let append_str: Combiner<'_, Measured<String>> = &|sum, more| sum.0.push_str(more);
    for limit in [usize::MAX, 30_000] {
        let mut used = CombineTable::new(3, limit);
        let mut full = || add_lists(&mut used, || Serde(vec![1; LENGTH]), append);
        let first = full();
        assert_eq!(first.is_empty(), limit == usize::MAX);
        assert_eq!(full(), first);
        let measured = BYTES.take();
        assert!(measured < 2 * 5 * LISTS * LENGTH, "{measured}");

        let mut used = CombineTable::new(3, limit);
        let mut full = || add_lists::<String>(&mut used, || "x".repeat(LENGTH), append_str);
        let first = full();
        assert_eq!(first.is_empty(), limit == usize::MAX);
        assert_eq!(full(), first);
        BYTES.take();
    }
}

#[test]
fn sums_that_do_not_grow_do_not_fill_the_table() {
    let mut table = CombineTable::new(3, 50_000);
    assert!(add_lists(&mut table, || Serde(vec![1; LENGTH]), &|_, _| ()).is_empty());
}
