//! Records that are combined by key as they are emitted: a hash table whose values are folded in place, and whose
//! content becomes a sorted run when it is full or there are no more records.

use std::sync::Arc;

use super::Combiner;
use super::entries::{self, Entry};
use super::run::{Run, RunError, RunSpace, RunWriter};
use crate::datum::{Datum, Key, first_eight};
use crate::partition::{Partition, hash_with_head};
use crate::record::Layout;

/// A key and what its values were combined to.
struct Pair<V> {
    /// The first bytes of the key, so that short keys, which most are, need no look into the arena.
    head: u64,
    start: u32,
    len: u32,
    value: V,
}

/// A place in the table: some bits of the hash beside the number of the pair, plus one; 0 is free.
#[derive(Clone, Copy, Default)]
struct Slot {
    tag: u32,
    pair: u32,
}

pub(crate) struct CombineTable<'a, K, V: Datum> {
    slots: Vec<Slot>,
    pairs: Vec<Pair<V>>,
    keys: Vec<u8>,
    /// Bytes that values have outside of their pairs.
    heap: usize,
    limit: usize,
    combine: Combiner<'a, V>,
    kind: std::marker::PhantomData<fn() -> K>,
}

const FIRST_SLOTS: usize = 1 << 12;

impl<'a, K: Key, V: Datum> CombineTable<'a, K, V> {
    /// A table that is full when it has so many bytes.
    pub(crate) fn new(limit: usize, combine: Combiner<'a, V>) -> Self {
        Self {
            slots: vec![Slot::default(); FIRST_SLOTS],
            pairs: Vec::new(),
            keys: Vec::new(),
            heap: 0,
            limit: limit.min(u32::MAX as usize),
            combine,
            kind: std::marker::PhantomData,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Combines a value into its key's. True: the table is full, and is to be drained before long.
    #[inline]
    pub(crate) fn add(&mut self, key: &[u8], value: V::Ref<'_>) -> bool {
        let head = first_eight(key);
        let hash = hash_with_head(head, key.len(), || key);
        let tag = (hash >> 32) as u32;
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot.pair == 0 {
                return self.insert(at, tag, head, key, value);
            }
            if slot.tag == tag {
                let pair = &mut self.pairs[slot.pair as usize - 1];
                if pair.head == head
                    && pair.len as usize == key.len()
                    && (key.len() <= 8 || self.keys[pair.start as usize..][..key.len()] == *key)
                {
                    let before = pair.value.heap_bytes();
                    (self.combine)(&mut pair.value, value);
                    self.heap = (self.heap + pair.value.heap_bytes()).saturating_sub(before);
                    return self.heap > self.limit;
                }
            }
            at = (at + 1) & mask;
        }
    }

    #[inline(never)]
    fn insert(&mut self, at: usize, tag: u32, head: u64, key: &[u8], value: V::Ref<'_>) -> bool {
        let value = V::own(value);
        self.heap += value.heap_bytes();
        let start = self.keys.len() as u32;
        self.keys.extend_from_slice(key);
        self.pairs.push(Pair { head, start, len: key.len() as u32, value });
        self.slots[at] = Slot { tag, pair: self.pairs.len() as u32 };
        if self.pairs.len() * 3 > self.slots.len() * 2 {
            self.grow();
        }
        self.memory() > self.limit
    }

    fn grow(&mut self) {
        self.slots = vec![Slot::default(); self.slots.len() * 2];
        let mask = self.slots.len() - 1;
        for (number, pair) in (1..).zip(&self.pairs) {
            let len = pair.len as usize;
            let hash = hash_with_head(pair.head, len, || &self.keys[pair.start as usize..][..len]);
            let mut at = hash as usize & mask;
            while self.slots[at].pair != 0 {
                at = (at + 1) & mask;
            }
            self.slots[at] = Slot { tag: (hash >> 32) as u32, pair: number };
        }
    }

    /// With the references that sorting will need.
    fn memory(&self) -> usize {
        self.slots.len() * size_of::<Slot>()
            + self.pairs.len() * (size_of::<Pair<V>>() * 2 + size_of::<Entry>())
            + self.keys.len() * 2
            + self.heap
    }

    /// Sorts what is there into a run, after which the table is empty.
    pub(crate) fn drain(
        &mut self,
        space: &Arc<RunSpace>,
        reducers: usize,
        partition: &Partition<'_, K>,
    ) -> Result<Run, RunError> {
        let layout = Layout::of::<K, V>();
        let mut partitions: Vec<Vec<Entry>> = vec![Vec::new(); reducers];
        for (index, pair) in (0..).zip(&self.pairs) {
            let key = &self.keys[pair.start as usize..][..pair.len as usize];
            let entry = Entry { prefix: K::prefix(key), start: index, len: 0 };
            partitions[partition.of(key, reducers)].push(entry);
        }
        let (pairs, keys) = (&self.pairs, &self.keys);
        let key = |entry: &Entry| {
            let pair = &pairs[entry.start as usize];
            &keys[pair.start as usize..][..pair.len as usize]
        };
        let mut scratch = Vec::new();
        let values: usize = match V::WIDTH {
            Some(width) => width * pairs.len(),
            None => self.heap + pairs.len() * size_of::<V>(),
        };
        let mut writer = RunWriter::new(space, keys.len() + values + pairs.len() * 4)?;
        for mut entries in partitions {
            entries::sort(&mut entries, |a, b| K::compare(key(a), key(b)));
            for entry in &entries {
                let value = pairs[entry.start as usize].value.view();
                let value = V::bytes(&value, &mut scratch);
                writer.record(|out| layout.put(key(entry), value, out))?;
            }
            writer.end_part();
        }
        self.slots.fill(Slot::default());
        self.pairs.clear();
        self.keys.clear();
        self.heap = 0;
        writer.finish()
    }
}
