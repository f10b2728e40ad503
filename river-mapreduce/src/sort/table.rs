//! Combines records by key as they are emitted: a hash table whose values are folded in place, and whose content
//! becomes a sorted run when it is full or there are no more records.
//!
//! Open addressing with linear probing, by the upper bits of the hash. A short key, as most are, is in its slot, and so
//! is its value, if that is a small number: four slots share a cache line, so most records touch one line. Other values
//! are stored in the order in which their keys came, so that those of frequent keys, which come early, are close
//! together. Longer keys are in an arena; nothing is allocated per key.
//!
//! The next map task of a job mostly emits the same keys as the last one. So when the table is emptied it keeps its
//! keys, without values, and their order: finding a key is cheaper than inserting it, and only new keys have to be
//! sorted. This does not affect the output: when the table is full depends only on the records since it was emptied,
//! and keys without values are dropped when they are in the way.

mod slot;
mod waiting;

use std::marker::PhantomData;
use std::sync::Arc;

use prefetch_index::prefetch_index;

use self::slot::Slot;
use self::waiting::{TOGETHER, Waiting};
use super::Combiner;
use super::entries::{self, Entry};
use super::run::{Run, RunError, RunSpace, RunWriter};
use crate::datum::{Datum, Key};
use crate::inline_key::{InlineKey, long_hash};
use crate::partition::Partition;
use crate::record::Layout;

#[derive(Debug)]
pub(crate) struct CombineTable<K, V> {
    /// Their number is a power of two.
    slots: Vec<Slot>,
    /// How far to shift a hash to get the number of a slot.
    shift: u32,
    /// The number of keys with values.
    keys: usize,
    /// The number of keys with and without values.
    known: usize,
    /// The bytes of keys with values, including their entries in `long`.
    key_bytes: usize,
    live_long: usize,
    /// The values that are not in slots.
    values: Vec<V>,
    /// Long keys, each preceded by its hash and its length.
    long: Vec<u8>,
    /// The heap bytes of the values; an upper estimate unless they have been measured since the last one was combined.
    heap: usize,
    is_measured: bool,
    /// For encoding a value, to find out how long it is.
    scratch: Vec<u8>,
    limit: usize,
    /// References to slots by reducer, sorted: those of all keys except the ones in `fresh`, or none.
    partitions: Vec<Vec<Entry>>,
    is_sorted: bool,
    /// The slots of keys that still have to be merged into the sorted order.
    fresh: Vec<u32>,
    waiting: Waiting,
    kind: PhantomData<fn() -> K>,
}

const FIRST_SLOTS: usize = 1 << 10;
/// Slots are prefetched this many slots before they are read.
const AHEAD: usize = 16;
const SLOT: usize = size_of::<Slot>();
/// What a key takes besides its slot: references to it, in vectors that may have twice the capacity they need.
const KEY: usize = 2 * (size_of::<Entry>() + size_of::<u32>());
/// A value is assumed to add at most this much, and twice its encoding, to the one that it is combined with.
const GROWTH: usize = 16;
/// The length of what precedes a long key.
const LONG_HEAD: usize = size_of::<u64>() + size_of::<u32>();

/// The number of slots needed for this many keys. At most five eighths are used: a key outside its home slot costs more
/// than a table larger than the second-level cache, whose slots are prefetched.
#[inline]
fn slots_for(keys: usize) -> usize {
    (keys * 8 / 5 + 1).next_power_of_two().max(FIRST_SLOTS)
}

impl<K: Key, V: Datum> CombineTable<K, V> {
    /// Makes a table for this many reducers that is full when it uses `limit` bytes.
    pub(crate) fn new(reducers: usize, limit: usize) -> Self {
        Self {
            slots: vec![Slot::default(); FIRST_SLOTS],
            shift: u64::BITS - FIRST_SLOTS.ilog2(),
            keys: 0,
            known: 0,
            key_bytes: 0,
            live_long: 0,
            values: Vec::new(),
            long: Vec::new(),
            heap: 0,
            is_measured: true,
            scratch: Vec::new(),
            limit: limit.min(u32::MAX as usize),
            partitions: vec![Vec::new(); reducers],
            is_sorted: false,
            fresh: Vec::new(),
            waiting: Waiting::default(),
            kind: PhantomData,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys == 0
    }

    /// Combines a value into that of its key; `around` are bytes that may contain the key. Returns `true` if the table
    /// is full and must be drained before anything is added.
    pub(crate) fn add(
        &mut self,
        key: &[u8],
        around: &[u8],
        value: V::Ref<'_>,
        combine: Combiner<'_, V>,
    ) -> bool {
        match InlineKey::of(key, around) {
            Some(key) => self.add_elsewhere(key, key.hash(), value, combine),
            None => self.add_long(key, value, combine),
        }
    }

    /// Queues a small value with its key. Returns `true` if there is no room for another, so that the waiting values
    /// must be [combined](Self::settle).
    #[inline]
    pub(crate) fn wait(&mut self, key: InlineKey, small: u32) -> bool {
        self.waiting.push(key, small)
    }

    /// The number of waiting values.
    #[inline]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.all().len()
    }

    /// Combines the waiting values. Returns `true` if the table is full and must be drained before this is called
    /// again. Inlined where `combine` is known, it makes no calls for most values.
    #[inline]
    pub(crate) fn settle(&mut self, combine: Combiner<'_, V>) -> bool {
        let mut homes = [0; TOGETHER];
        for (home, new) in homes.iter_mut().zip(self.waiting.all()) {
            *home = (new.key().hash() >> self.shift) as usize;
            prefetch_index(&self.slots, *home);
        }
        for home in homes {
            let Some(new) = self.waiting.pop() else { break };
            if self.add_waiting(new, home, combine) {
                return true;
            }
        }
        false
    }

    /// Like [`add`](Self::add), for a value that has waited; its key is probably at `home`.
    #[inline]
    fn add_waiting(&mut self, new: Slot, home: usize, combine: Combiner<'_, V>) -> bool {
        let Some(value) = new.small().and_then(V::from_small) else { return false };
        if let Some(slot) = self.slots.get_mut(home)
            && let Some(mut sum) = slot.small_of(&new).and_then(V::from_small)
        {
            combine(&mut sum, value.view());
            if let Some(small) = sum.to_small() {
                slot.set_small(small);
                return false;
            }
            return self.outgrow(home, sum);
        }
        let key = new.key();
        self.add_elsewhere(key, key.hash(), value.view(), combine)
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
        if self.slots[at].is_live() {
            return self.fold(at, value, combine);
        }
        self.key_bytes += key.short_len();
        self.insert(at, key, value)
    }

    #[inline(never)]
    fn add_long(&mut self, key: &[u8], value: V::Ref<'_>, combine: Combiner<'_, V>) -> bool {
        let hash = long_hash(key);
        let same = |slot: &Slot, long: &[u8]| slot.key().may_be_long(hash) && slot.key_bytes(long) == key;
        let at = self.find(hash, same);
        let slot = self.slots[at];
        if slot.is_live() {
            return self.fold(at, value, combine);
        }
        self.key_bytes += key.len();
        self.live_long += LONG_HEAD + key.len();
        let known = if slot.is_known() { slot.key() } else { append_long(&mut self.long, hash, key) };
        self.insert(at, known, value)
    }

    /// The slot of a key with that hash, or the free one where it belongs. There always is a free one.
    fn find(&self, hash: u64, is: impl Fn(&Slot, &[u8]) -> bool) -> usize {
        let mut at = (hash >> self.shift) as usize;
        loop {
            let slot = &self.slots[at];
            if !slot.is_known() || is(slot, &self.long) {
                return at;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    fn fold(&mut self, at: usize, value: V::Ref<'_>, combine: Combiner<'_, V>) -> bool {
        let slot = self.slots[at];
        if let Some(mut sum) = slot.small().and_then(V::from_small) {
            combine(&mut sum, value);
            let Some(small) = sum.to_small() else { return self.outgrow(at, sum) };
            self.slots[at].set_small(small);
        } else if let Some(sum) = self.values.get_mut(slot.number()) {
            if V::MEASURING_IS_SLOW {
                self.heap += GROWTH + 2 * V::bytes(&value, &mut self.scratch).len();
                self.is_measured = false;
                combine(sum, value);
            } else {
                let before = sum.heap_bytes();
                combine(sum, value);
                self.heap = (self.heap + sum.heap_bytes()).saturating_sub(before);
            }
        }
        self.heap > 0 && self.is_full(slots_for(self.keys))
    }

    /// Whether the table uses more memory than it may, with this many slots. Values that seem to be too large are
    /// measured. As that can take as long as encoding them, the table is also full if there is less than a quarter of
    /// the limit left then: otherwise it would soon have to be done again.
    fn is_full(&mut self, slots: usize) -> bool {
        if self.needed_memory(slots) <= self.limit {
            return false;
        }
        if self.is_measured {
            return true;
        }
        self.measure();
        self.needed_memory(slots) > self.limit - self.limit / 4
    }

    fn measure(&mut self) {
        self.heap = self.values.iter().map(V::heap_bytes).sum();
        self.is_measured = true;
    }

    /// Moves a value out of its slot, which is too small for it.
    #[cold]
    fn outgrow(&mut self, at: usize, value: V) -> bool {
        self.heap += value.heap_bytes();
        self.slots[at] = Slot::new(self.slots[at].key(), self.values.len() as u32);
        self.values.push(value);
        self.is_full(slots_for(self.keys))
    }

    fn insert(&mut self, at: usize, key: InlineKey, value: V::Ref<'_>) -> bool {
        let value = V::own(value);
        let is_new = !self.slots[at].is_known();
        self.slots[at] = match value.to_small() {
            Some(small) => Slot::with_small(key, small),
            None => {
                self.heap += value.heap_bytes();
                self.values.push(value);
                Slot::new(key, self.values.len() as u32 - 1)
            }
        };
        let (before, needed) = (slots_for(self.keys), slots_for(self.keys + 1));
        self.keys += 1;
        if is_new {
            self.known += 1;
            if self.is_sorted {
                self.fresh.push(at as u32);
            }
        }
        // While it grows, both the old slots and the new ones exist. Memory left over from earlier use does not count:
        // a map task that is run again elsewhere must drain the table at the same records.
        let growing = if needed > before { before } else { 0 };
        if self.is_full(needed + growing) {
            return true;
        }
        if is_new {
            self.make_room(needed);
        }
        false
    }

    /// Keeps some slots free and the memory below the limit; `needed` is the number of slots for keys with values.
    fn make_room(&mut self, needed: usize) {
        let slots = slots_for(self.known);
        if slots > self.slots.len() {
            if self.memory(slots + self.slots.len()) <= self.limit {
                self.resize(slots);
            } else {
                self.forget(needed);
            }
            return;
        }
        let spare = self.values.capacity().saturating_sub(2 * self.values.len());
        if self.memory(self.slots.len() + spare * size_of::<V>() / SLOT) > self.limit {
            self.values.shrink_to_fit();
            self.forget(needed);
        }
    }

    /// Rebuilds the table with this many slots.
    fn resize(&mut self, count: usize) {
        self.unsort();
        let shift = std::mem::replace(&mut self.shift, u64::BITS - count.ilog2());
        let slots = std::mem::replace(&mut self.slots, vec![Slot::default(); count]);
        // Keys in their home slots are inserted first, to keep them there: they came early, as frequent ones do.
        for at_home in [true, false] {
            for (at, slot) in slots.iter().enumerate().filter(|(_, slot)| slot.is_known()) {
                let hash = slot.hash(&self.long);
                if at_home == ((hash >> shift) as usize == at) {
                    let at = self.find(hash, |_, _| false);
                    self.slots[at] = *slot;
                }
            }
        }
    }

    /// Drops the keys without values; the others need this many slots.
    fn forget(&mut self, needed: usize) {
        self.unsort();
        self.known = self.keys;
        let long = std::mem::take(&mut self.long);
        let slots = std::mem::take(&mut self.slots);
        // Including the old slots, which are freed right after.
        let kept = slots.len().max(needed);
        let count = if self.needed_memory(2 * kept) <= self.limit { kept } else { needed };
        self.slots = vec![Slot::default(); count];
        self.shift = u64::BITS - count.ilog2();
        for slot in slots.into_iter().filter(Slot::is_live) {
            let hash = slot.hash(&long);
            let slot = match slot.key().start() {
                Some(_) => slot.with_key(append_long(&mut self.long, hash, slot.key_bytes(&long))),
                None => slot,
            };
            let at = self.find(hash, |_, _| false);
            self.slots[at] = slot;
        }
    }

    /// Forgets the sorted order of the keys.
    fn unsort(&mut self) {
        self.is_sorted = false;
        self.fresh = Vec::new();
        self.partitions.fill(Vec::new());
    }

    /// The number of bytes that a new table with this many slots would use, including the references that sorting will
    /// need. Vectors may have twice the capacity they need.
    fn needed_memory(&self, slots: usize) -> usize {
        slots * SLOT
            + self.keys * KEY
            + self.values.len() * 2 * size_of::<V>()
            + self.live_long * 2
            + self.heap
    }

    /// The number of bytes that it uses with this many slots.
    fn memory(&self, slots: usize) -> usize {
        let stale = (self.known - self.keys) * KEY + self.long.len().saturating_sub(self.live_long) * 2;
        self.needed_memory(slots) + stale
    }

    /// Sorts the records into a run, and empties the table.
    pub(crate) fn drain(
        &mut self,
        space: &Arc<RunSpace>,
        partition: &Partition<'_, K>,
    ) -> Result<Run, RunError> {
        let layout = Layout::of::<K, V>();
        self.sort(partition);
        if !self.is_measured {
            self.measure();
        }
        let values = match V::WIDTH {
            Some(width) => width * self.keys,
            None => self.heap + self.keys * size_of::<V>(),
        };
        let mut scratch = Vec::new();
        let mut writer = RunWriter::new(space, self.key_bytes + values + self.keys * 4)?;
        for entries in &self.partitions {
            for (entry, next) in entries.iter().zip((AHEAD..).map(|next| entries.get(next))) {
                // In the order of keys, slots are scattered.
                if let Some(next) = next {
                    prefetch_index(&self.slots, next.start as usize);
                }
                let slot = &mut self.slots[entry.start as usize];
                if !slot.is_live() {
                    continue;
                }
                let small = slot.small().and_then(V::from_small);
                let value = small.as_ref().unwrap_or_else(|| &self.values[slot.number()]).view();
                let value = V::bytes(&value, &mut scratch);
                writer.record(|out| layout.put(slot.key_bytes(&self.long), value, out))?;
                slot.retire();
            }
            writer.end_part();
        }
        if self.keys * 4 < self.known * 3 || slots_for(self.known) > self.slots.len() {
            // Most keys differ from the previous ones, or there are too many.
            self.empty();
        }
        (self.keys, self.key_bytes, self.live_long, self.heap) = (0, 0, 0, 0);
        self.values.clear();
        writer.finish()
    }

    /// Sorts the references to all keys.
    fn sort(&mut self, partition: &Partition<'_, K>) {
        let reducers = self.partitions.len();
        let (slots, long) = (&self.slots, &self.long);
        let mut take_in = |start: u32| {
            let slot = &slots[start as usize];
            let key = slot.key_bytes(long);
            let entry = Entry { prefix: K::prefix(key), start, len: 0 };
            self.partitions[partition.of(key, slot.hash(long), reducers)].push(entry);
        };
        let key = |entry: &Entry| slots[entry.start as usize].key_bytes(long);
        let compare = |a: &Entry, b: &Entry| K::compare(key(a), key(b));
        if self.is_sorted {
            if !self.fresh.is_empty() {
                self.fresh.iter().copied().for_each(take_in);
                self.partitions.iter_mut().for_each(|entries| entries::sort_again(entries, compare));
            }
        } else {
            (0..).zip(slots).filter(|(_, slot)| slot.is_known()).for_each(|(start, _)| take_in(start));
            self.partitions.iter_mut().for_each(|entries| entries::sort(entries, compare));
        }
        self.fresh.clear();
        self.is_sorted = true;
    }

    /// Empties the table, and forgets its keys and the waiting values.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
        self.empty();
    }

    fn empty(&mut self) {
        self.unsort();
        self.slots.fill(Slot::default());
        (self.keys, self.known, self.key_bytes, self.live_long, self.heap) = (0, 0, 0, 0, 0);
        self.is_measured = true;
        self.values.clear();
        self.long.clear();
    }
}

/// Appends a long key, preceded by its hash and its length. Positions fit into 32 bits, as the limit of the table is
/// below that.
fn append_long(long: &mut Vec<u8>, hash: u64, key: &[u8]) -> InlineKey {
    let start = long.len() as u32;
    long.extend_from_slice(&hash.to_le_bytes());
    long.extend_from_slice(&(key.len() as u32).to_le_bytes());
    long.extend_from_slice(key);
    InlineKey::long(hash, start)
}

#[cfg(test)]
mod tests;
