//! Tests the table against sums that are computed one by one.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
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
