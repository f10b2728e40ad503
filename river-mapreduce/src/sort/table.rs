//! Records that are combined by key as they are emitted: a hash table whose values are folded in place, and whose
//! content becomes a sorted run when it is full or there are no more records.
//!
//! Open addressing with linear probing, by the upper bits of the hash. A short key, as most are, lies in its slot beside its
//! value, so that nearly every record looks at one line of the cache; longer ones lie in an arena. Nothing is allocated for a
//! key. The table stays as large as it was when it is emptied.

use std::marker::PhantomData;
use std::sync::Arc;

use super::Combiner;
use super::entries::{self, Entry};
use super::run::{Run, RunError, RunSpace, RunWriter};
use crate::datum::{Datum, Key};
use crate::inline_key::{InlineKey, long_hash};
use crate::partition::Partition;
use crate::record::Layout;

/// A key and what its values were combined to, or nothing.
#[derive(Debug)]
// Two of them fill a line of the cache if the value is a number, and none lies on two lines.
#[repr(align(32))]
struct Slot<V> {
    key: InlineKey,
    value: Option<V>,
}

#[derive(Debug)]
pub(crate) struct CombineTable<K, V> {
    /// A power of two of them.
    slots: Vec<Slot<V>>,
    /// How far a hash is shifted to give the number of a slot.
    shift: u32,
    used: usize,
    /// Long keys, each after its length in four bytes.
    long: Vec<u8>,
    /// Bytes that values have outside of their slots.
    heap: usize,
    limit: usize,
    /// For sorting: references to the slots, by reducer.
    partitions: Vec<Vec<Entry>>,
    kind: PhantomData<fn() -> K>,
}

const FIRST_SLOTS: usize = 1 << 10;

fn free_slots<V>(count: usize) -> Vec<Slot<V>> {
    let mut slots = Vec::new();
    slots.resize_with(count, || Slot { key: InlineKey::default(), value: None });
    slots
}

impl<K: Key, V: Datum> CombineTable<K, V> {
    /// A table for so many reducers that is full when it has so many bytes.
    pub(crate) fn new(reducers: usize, limit: usize) -> Self {
        Self {
            slots: free_slots(FIRST_SLOTS),
            shift: u64::BITS - FIRST_SLOTS.ilog2(),
            used: 0,
            long: Vec::new(),
            heap: 0,
            limit: limit.min(u32::MAX as usize),
            partitions: vec![Vec::new(); reducers],
            kind: PhantomData,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Combines a value into its key's; `around` are bytes that the key may be a part of. True: the table is full, and is
    /// to be drained before anything is added.
    #[inline]
    pub(crate) fn add(
        &mut self,
        key: &[u8],
        around: &[u8],
        value: V::Ref<'_>,
        combine: Combiner<'_, V>,
    ) -> bool {
        let Some(inline) = InlineKey::of(key, around) else { return self.add_long(key, value, combine) };
        let hash = inline.hash();
        // Nearly always the key is in its first slot.
        let home = (hash >> self.shift) as usize;
        if let Some(slot) = self.slots.get_mut(home)
            && slot.key == inline
            && let Some(sum) = &mut slot.value
        {
            let before = sum.heap_bytes();
            combine(sum, value);
            self.heap = (self.heap + sum.heap_bytes()).saturating_sub(before);
            return self.heap > self.limit;
        }
        self.add_elsewhere(inline, hash, value, combine)
    }

    #[inline(never)]
    fn add_elsewhere(
        &mut self,
        key: InlineKey,
        hash: u64,
        value: V::Ref<'_>,
        combine: Combiner<'_, V>,
    ) -> bool {
        let at = self.find(hash, |slot, _| slot.key == key);
        if self.slots[at].key.is_some() {
            return self.fold(at, value, combine);
        }
        self.insert(at, key, value)
    }

    #[inline(never)]
    fn add_long(&mut self, key: &[u8], value: V::Ref<'_>, combine: Combiner<'_, V>) -> bool {
        let hash = long_hash(key);
        let same = |slot: &Slot<V>, long: &[u8]| {
            slot.key.start().is_some_and(|start| slot.key.hash() == hash && long_key(long, start) == key)
        };
        let at = self.find(hash, same);
        if self.slots[at].key.is_some() {
            return self.fold(at, value, combine);
        }
        // The limit is below what 32 bits can say, and what is beyond it is drained at once.
        let start = self.long.len() as u32;
        self.long.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.long.extend_from_slice(key);
        self.insert(at, InlineKey::long(hash, start), value)
    }

    /// The slot of a key with that hash, or the free one where it belongs. There always is a free one.
    fn find(&self, hash: u64, is: impl Fn(&Slot<V>, &[u8]) -> bool) -> usize {
        let mut at = (hash >> self.shift) as usize;
        loop {
            let slot = &self.slots[at];
            if !slot.key.is_some() || is(slot, &self.long) {
                return at;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    fn fold(&mut self, at: usize, value: V::Ref<'_>, combine: Combiner<'_, V>) -> bool {
        if let Some(sum) = &mut self.slots[at].value {
            let before = sum.heap_bytes();
            combine(sum, value);
            self.heap = (self.heap + sum.heap_bytes()).saturating_sub(before);
        }
        self.heap > self.limit
    }

    fn insert(&mut self, at: usize, key: InlineKey, value: V::Ref<'_>) -> bool {
        let value = V::own(value);
        self.heap += value.heap_bytes();
        self.slots[at] = Slot { key, value: Some(value) };
        self.used += 1;
        // Four fifths: for 200,000 keys, which ordinary texts have, 2^18 slots are enough.
        let crowded = self.used * 5 >= self.slots.len() * 4;
        (crowded && !self.grow()) || self.memory(self.slots.len()) > self.limit
    }

    /// Doubles the table, unless that needs more memory than it may have.
    fn grow(&mut self) -> bool {
        if self.memory(self.slots.len() * 3) > self.limit {
            return false;
        }
        let twice = free_slots(self.slots.len() * 2);
        self.shift -= 1;
        for slot in std::mem::replace(&mut self.slots, twice) {
            if slot.key.is_some() {
                let at = self.find(slot.key.hash(), |_, _| false);
                self.slots[at] = slot;
            }
        }
        true
    }

    /// Bytes that it has with so many slots, and with the references that sorting will need.
    fn memory(&self, slots: usize) -> usize {
        slots * size_of::<Slot<V>>() + self.used * 2 * size_of::<Entry>() + self.long.len() * 2 + self.heap
    }

    /// Sorts what is there into a run, after which the table is empty.
    pub(crate) fn drain(
        &mut self,
        space: &Arc<RunSpace>,
        partition: &Partition<'_, K>,
    ) -> Result<Run, RunError> {
        let layout = Layout::of::<K, V>();
        let reducers = self.partitions.len();
        let mut keys = 0;
        let (slots, long) = (&self.slots, &self.long);
        for (start, slot) in (0..).zip(slots).filter(|(_, slot)| slot.key.is_some()) {
            let key = slot_key(slot, long);
            keys += key.len();
            let entry = Entry { prefix: K::prefix(key), start, len: 0 };
            self.partitions[partition.of(key, slot.key.hash(), reducers)].push(entry);
        }
        let values = match V::WIDTH {
            Some(width) => width * self.used,
            None => self.heap + self.used * size_of::<V>(),
        };
        let mut scratch = Vec::new();
        let mut writer = RunWriter::new(space, keys + values + self.used * 4)?;
        let slot = |entry: &Entry| &slots[entry.start as usize];
        for entries in &mut self.partitions {
            entries::sort(entries, |a, b| K::compare(slot_key(slot(a), long), slot_key(slot(b), long)));
            for slot in entries.iter().map(slot) {
                if let Some(value) = &slot.value {
                    let value = value.view();
                    let value = V::bytes(&value, &mut scratch);
                    writer.record(|out| layout.put(slot_key(slot, long), value, out))?;
                }
            }
            writer.end_part();
        }
        self.clear();
        writer.finish()
    }

    /// Empties it.
    pub(crate) fn clear(&mut self) {
        for slot in &mut self.slots {
            *slot = Slot { key: InlineKey::default(), value: None };
        }
        self.partitions.iter_mut().for_each(Vec::clear);
        self.long.clear();
        (self.used, self.heap) = (0, 0);
    }
}

#[inline]
fn slot_key<'a, V>(slot: &'a Slot<V>, long: &'a [u8]) -> &'a [u8] {
    match slot.key.start() {
        Some(start) => long_key(long, start),
        None => slot.key.bytes(),
    }
}

fn long_key(long: &[u8], start: u32) -> &[u8] {
    let rest = &long[start as usize..];
    match rest.split_first_chunk() {
        Some((length, rest)) => &rest[..u32::from_le_bytes(*length) as usize],
        None => &[],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

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
        let partition = Partition::<Vec<u8>> { by_job: &|_, _| None, bounds: &[] };
        let mut table = CombineTable::<Vec<u8>, u64>::new(3, limit);
        let (mut expected, mut sums) = (Sums::new(), Sums::new());
        for (n, &(from, len)) in (1..).zip(words) {
            let from = from % (text.len() + 1);
            let word = &text[from..][..len.min(text.len() - from)];
            *expected.entry(word.to_vec()).or_default() += n;
            if table.add(word, text, n, &|sum, n| *sum += n) {
                add_run(&table.drain(&space, &partition).unwrap(), &mut sums);
                assert!(table.is_empty());
            }
        }
        add_run(&table.drain(&space, &partition).unwrap(), &mut sums);
        assert_eq!(sums, expected);
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
}
