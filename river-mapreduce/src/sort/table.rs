//! Records that are combined by key as they are emitted: a hash table whose values are folded in place, and whose
//! content becomes a sorted run when it is full or there are no more records.
//!
//! Open addressing with linear probing, by the upper bits of the hash. A short key, as most are, lies in its slot: four of
//! them share a line of the cache. Values lie in the order in which their keys came, so that those of frequent keys, which come
//! early, lie together. Longer keys lie in an arena; nothing is allocated for a key. The table keeps its memory when it is
//! emptied.

use std::marker::PhantomData;
use std::sync::Arc;

use super::Combiner;
use super::entries::{self, Entry};
use super::run::{Run, RunError, RunSpace, RunWriter};
use crate::datum::{Datum, Key};
use crate::inline_key::{InlineKey, SHORT, long_hash};
use crate::partition::Partition;
use crate::record::Layout;

/// A key and the number of its value; all zeros are none. It is bytes, so that a short key can be borrowed from it.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(16))]
struct Slot([u8; 16]);

impl Slot {
    fn new(key: InlineKey, number: u32) -> Self {
        let tail = u64::from(key.tail) | u64::from(number) << 32;
        Self((u128::from(key.head) | u128::from(tail) << 64).to_le_bytes())
    }

    #[inline]
    fn key(&self) -> InlineKey {
        let both = u128::from_le_bytes(self.0);
        InlineKey { head: both as u64, tail: (both >> 64) as u32 }
    }

    #[inline]
    fn number(&self) -> usize {
        (u128::from_le_bytes(self.0) >> 96) as usize
    }

    #[inline]
    fn key_bytes<'a>(&'a self, long: &'a [u8]) -> &'a [u8] {
        match self.key().start() {
            Some(start) => long_key(long, start).1,
            None => {
                let (bytes, rest) = self.0.split_at(SHORT);
                &bytes[..usize::from(rest[0]).saturating_sub(1).min(SHORT)]
            }
        }
    }

    fn hash(&self, long: &[u8]) -> u64 {
        match self.key().start() {
            Some(start) => long_key(long, start).0,
            None => self.key().hash(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct CombineTable<K, V> {
    /// A power of two of them.
    slots: Vec<Slot>,
    /// How far a hash is shifted to give the number of a slot.
    shift: u32,
    values: Vec<V>,
    /// Long keys, each after its hash and its length.
    long: Vec<u8>,
    /// Bytes that values have outside of their own size.
    heap: usize,
    limit: usize,
    /// For sorting: references to the slots, by reducer.
    partitions: Vec<Vec<Entry>>,
    kind: PhantomData<fn() -> K>,
}

const FIRST_SLOTS: usize = 1 << 10;
const SLOT: usize = size_of::<Slot>();

/// How many slots so many keys need: a fifth stays free. For 200,000 keys, which ordinary texts have, 2^18 are enough.
fn slots_for(keys: usize) -> usize {
    (keys * 5 / 4 + 1).next_power_of_two().max(FIRST_SLOTS)
}

impl<K: Key, V: Datum> CombineTable<K, V> {
    /// A table for so many reducers that is full when it has so many bytes.
    pub(crate) fn new(reducers: usize, limit: usize) -> Self {
        Self {
            slots: vec![Slot::default(); FIRST_SLOTS],
            shift: u64::BITS - FIRST_SLOTS.ilog2(),
            values: Vec::new(),
            long: Vec::new(),
            heap: 0,
            limit: limit.min(u32::MAX as usize),
            partitions: vec![Vec::new(); reducers],
            kind: PhantomData,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
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
        if let Some(slot) = self.slots.get(home)
            && slot.key() == inline
            && let Some(sum) = self.values.get_mut(slot.number())
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
        let at = self.find(hash, |slot, _| slot.key() == key);
        if self.slots[at].key().is_some() {
            return self.fold(at, value, combine);
        }
        self.insert(at, key, value)
    }

    #[inline(never)]
    fn add_long(&mut self, key: &[u8], value: V::Ref<'_>, combine: Combiner<'_, V>) -> bool {
        let hash = long_hash(key);
        let same = |slot: &Slot, long: &[u8]| slot.key().may_be_long(hash) && slot.key_bytes(long) == key;
        let at = self.find(hash, same);
        if self.slots[at].key().is_some() {
            return self.fold(at, value, combine);
        }
        // The limit is below what 32 bits can say, and what is beyond it is drained at once.
        let start = self.long.len() as u32;
        self.long.extend_from_slice(&hash.to_le_bytes());
        self.long.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.long.extend_from_slice(key);
        self.insert(at, InlineKey::long(hash, start), value)
    }

    /// The slot of a key with that hash, or the free one where it belongs. There always is a free one.
    fn find(&self, hash: u64, is: impl Fn(&Slot, &[u8]) -> bool) -> usize {
        let mut at = (hash >> self.shift) as usize;
        loop {
            let slot = &self.slots[at];
            if !slot.key().is_some() || is(slot, &self.long) {
                return at;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    fn fold(&mut self, at: usize, value: V::Ref<'_>, combine: Combiner<'_, V>) -> bool {
        if let Some(sum) = self.values.get_mut(self.slots[at].number()) {
            let before = sum.heap_bytes();
            combine(sum, value);
            self.heap = (self.heap + sum.heap_bytes()).saturating_sub(before);
        }
        self.heap > self.limit
    }

    fn insert(&mut self, at: usize, key: InlineKey, value: V::Ref<'_>) -> bool {
        let value = V::own(value);
        self.heap += value.heap_bytes();
        self.slots[at] = Slot::new(key, self.values.len() as u32);
        let (before, needed) = (slots_for(self.values.len()), slots_for(self.values.len() + 1));
        self.values.push(value);
        // While it grows there are the old slots and the new ones. How large the table is from earlier on does not count: a
        // map task that is run again, elsewhere, has to drain it at the same records.
        let growing = if needed > before { before } else { 0 };
        if self.memory(needed + growing) > self.limit {
            return true;
        }
        let spare = self.values.capacity().saturating_sub(2 * self.values.len());
        let kept = self.slots.len() + spare * size_of::<V>() / SLOT;
        if needed > self.slots.len() {
            self.resize(needed);
        } else if self.memory(kept) > self.limit {
            self.values.shrink_to_fit();
            self.resize(needed);
        }
        false
    }

    fn resize(&mut self, count: usize) {
        self.shift = u64::BITS - count.ilog2();
        for slot in std::mem::replace(&mut self.slots, vec![Slot::default(); count]) {
            if slot.key().is_some() {
                let at = self.find(slot.hash(&self.long), |_, _| false);
                self.slots[at] = slot;
            }
        }
    }

    /// Bytes that it has with so many slots, and with the references that sorting will need. Vectors may be twice as large
    /// as is needed.
    fn memory(&self, slots: usize) -> usize {
        slots * SLOT
            + self.values.len() * 2 * (size_of::<V>() + size_of::<Entry>())
            + self.long.len() * 2
            + self.heap
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
        for (start, slot) in (0..).zip(slots).filter(|(_, slot)| slot.key().is_some()) {
            let key = slot.key_bytes(long);
            keys += key.len();
            let entry = Entry { prefix: K::prefix(key), start, len: 0 };
            self.partitions[partition.of(key, slot.hash(long), reducers)].push(entry);
        }
        let count = self.values.len();
        let values = match V::WIDTH {
            Some(width) => width * count,
            None => self.heap + count * size_of::<V>(),
        };
        let mut scratch = Vec::new();
        let mut writer = RunWriter::new(space, keys + values + count * 4)?;
        let slot = |entry: &Entry| &slots[entry.start as usize];
        for entries in &mut self.partitions {
            entries::sort(entries, |a, b| K::compare(slot(a).key_bytes(long), slot(b).key_bytes(long)));
            for slot in entries.iter().map(slot) {
                let value = self.values[slot.number()].view();
                let value = V::bytes(&value, &mut scratch);
                writer.record(|out| layout.put(slot.key_bytes(long), value, out))?;
            }
            writer.end_part();
        }
        self.clear();
        writer.finish()
    }

    /// Empties it.
    pub(crate) fn clear(&mut self) {
        self.slots.fill(Slot::default());
        self.values.clear();
        // Keys may go elsewhere the next time, so these do not stay.
        self.partitions.fill(Vec::new());
        self.long.clear();
        self.heap = 0;
    }
}

/// The hash and the bytes of a long key.
fn long_key(long: &[u8], start: u32) -> (u64, &[u8]) {
    let rest = &long[start as usize..];
    let Some((hash, rest)) = rest.split_first_chunk() else { return (0, &[]) };
    let Some((length, rest)) = rest.split_first_chunk() else { return (0, &[]) };
    (u64::from_le_bytes(*hash), &rest[..u32::from_le_bytes(*length) as usize])
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

    #[test]
    fn where_a_run_ends_does_not_depend_on_what_the_table_held_before() {
        let space = RunSpace::new(usize::MAX, std::env::temp_dir());
        let partition = Partition::<Vec<u8>> { by_job: &|_, _| None, bounds: &[] };
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
}
