//! Collects records in an arena, and sorts them when it is full or there are no more.

use std::marker::PhantomData;
use std::sync::Arc;

use prefetch_index::prefetch_index;

use super::ValueOrder;
use super::entries::{self, Entry};
use super::run::{Run, RunError, RunSpace, RunWriter};
use crate::datum::{Datum, Key};
use crate::record::{Layout, Span};

/// The size at which a reference to a record is accounted: the vector that holds it may have twice the capacity it
/// needs.
const ENTRY: usize = 2 * size_of::<Entry>();
/// References give the position of a record in 32 bits.
const LARGEST: usize = u32::MAX as usize;
/// A record is prefetched this many records before it is copied.
const AHEAD: usize = 8;

/// Collects the records of all reducers. No memory is allocated per record: it is appended to the arena.
#[derive(Debug)]
pub(crate) struct SortBuffer<K, V> {
    arena: Vec<u8>,
    partitions: Vec<Vec<Entry>>,
    records: usize,
    limit: usize,
    value_order: Option<ValueOrder>,
    kind: PhantomData<fn() -> (K, V)>,
}

impl<K: Key, V: Datum> SortBuffer<K, V> {
    /// Makes a buffer for this many reducers that is full when it uses `limit` bytes.
    pub(crate) fn new(reducers: usize, limit: usize, value_order: Option<ValueOrder>) -> Self {
        Self {
            arena: Vec::new(),
            partitions: vec![Vec::new(); reducers],
            records: 0,
            limit: limit.min(LARGEST),
            value_order,
            kind: PhantomData,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Appends a record. Returns `false`, without effect, if the buffer has no room for it; an empty one always has.
    #[inline]
    pub(crate) fn push(&mut self, partition: usize, key: &[u8], value: &[u8]) -> bool {
        let more = key.len() + value.len() + 20;
        if self.arena.len() + more + self.records * ENTRY > self.limit && !self.is_empty() {
            return false;
        }
        if self.arena.len() + more > self.arena.capacity() {
            self.grow(more);
        }
        let start = self.arena.len();
        Layout::of::<K, V>().put(key, value, &mut self.arena);
        let len = (self.arena.len() - start) as u32;
        self.partitions[partition].push(Entry { prefix: K::prefix(key), start: start as u32, len });
        self.records += 1;
        if self.records.is_multiple_of(4096) {
            self.give_back();
        }
        true
    }

    /// Shrinks an arena left over from earlier use, if the memory is needed for references, of which there were fewer
    /// then.
    fn give_back(&mut self) {
        let room = self.limit.saturating_sub(self.records * ENTRY);
        if self.arena.capacity() > room {
            self.arena.shrink_to(room);
        }
    }

    /// Grows the arena, never far beyond the limit: a vector left to itself would double.
    #[cold]
    fn grow(&mut self, more: usize) {
        let room = self.limit.saturating_sub(self.arena.len() + self.records * ENTRY);
        self.arena.reserve_exact(self.arena.len().max(1 << 20).min(room).max(more));
    }

    /// Sorts the records into a run, and empties the buffer.
    pub(crate) fn drain(&mut self, space: &Arc<RunSpace>) -> Result<Run, RunError> {
        let mut writer = RunWriter::new(space, self.arena.len())?;
        let (arena, layout) = (&self.arena, Layout::of::<K, V>());
        let record = |entry: &Entry| {
            // A length fixed by the type is cheaper, if the type is right about it.
            let fixed = layout.fixed().map(Span::len).filter(|len| *len == entry.len as usize);
            let len = fixed.unwrap_or(entry.len as usize);
            &arena[entry.start as usize..][..len]
        };
        let decided_by_prefix = K::WIDTH.is_some_and(|width| width <= 8) && self.value_order.is_none();
        for partition in &mut self.partitions {
            entries::sort(partition, |a, b| {
                if decided_by_prefix && a.prefix == b.prefix {
                    return std::cmp::Ordering::Equal;
                }
                let (a, b) = (record(a), record(b));
                let (Some(x), Some(y)) = (layout.parse(a), layout.parse(b)) else { return a.cmp(b) };
                let order = K::compare(&a[x.key()], &b[y.key()]);
                match self.value_order {
                    Some(value_order) => order.then_with(|| value_order(&a[x.value()], &b[y.value()])),
                    None => order,
                }
            });
            for (entry, at) in partition.iter().zip(AHEAD..) {
                // Records are scattered: waiting for each cache miss would take longer than everything else.
                if let Some(next) = partition.get(at) {
                    prefetch_index(arena, next.start as usize);
                    prefetch_index(arena, next.start as usize + (next.len as usize).saturating_sub(1));
                }
                writer.record(|out| out.extend_from_slice(record(entry)))?;
            }
            writer.end_part();
        }
        self.clear();
        writer.finish()
    }

    /// Empties the buffer.
    pub(crate) fn clear(&mut self) {
        // The next keys may be distributed differently, so these vectors are not kept.
        self.partitions.fill(Vec::new());
        self.arena.clear();
        self.records = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn records<K: Key, V: Datum>(run: &Run, part: usize) -> Vec<(K, V)> {
        let (bytes, layout) = (run.read(part, 0, usize::MAX).unwrap(), Layout::of::<K, V>());
        let (mut at, mut records) = (0, Vec::new());
        while at < bytes.len() {
            let record = &bytes[at..];
            let span = layout.parse(record).unwrap();
            let key = K::own(K::decode(&record[span.key()]).unwrap());
            records.push((key, V::own(V::decode(&record[span.value()]).unwrap())));
            at += span.len();
        }
        records
    }

    proptest! {
        #[test]
        fn runs_are_sorted_and_keep_the_order_of_equal_keys(
            emitted in prop::collection::vec((0usize..3, "[ab]{0,12}", 0u32..5), 0..200), ordered: bool,
        ) {
            let space = RunSpace::new(usize::MAX, std::env::temp_dir());
            let order: Option<ValueOrder> = ordered.then_some(u32::compare);
            let mut buffer = SortBuffer::<String, u32>::new(3, usize::MAX, order);
            for (partition, key, value) in &emitted {
                prop_assert!(buffer.push(*partition, key.as_bytes(), &value.to_be_bytes()));
            }
            let run = buffer.drain(&space).unwrap();
            prop_assert!(buffer.is_empty());
            for partition in 0..3 {
                let mut expected: Vec<(String, u32)> = emitted
                    .iter()
                    .filter(|record| record.0 == partition)
                    .map(|record| (record.1.clone(), record.2))
                    .collect();
                if ordered { expected.sort() } else { expected.sort_by(|a, b| a.0.cmp(&b.0)) }
                prop_assert_eq!(records::<String, u32>(&run, partition), expected);
            }
        }
    }

    #[test]
    fn a_full_buffer_takes_no_more_but_an_empty_one_takes_anything() {
        let mut buffer = SortBuffer::<Vec<u8>, Vec<u8>>::new(1, 100, None);
        assert!(buffer.push(0, &[1; 1000], &[]));
        assert!(!buffer.push(0, &[1], &[]));
        let space = RunSpace::new(usize::MAX, std::env::temp_dir());
        assert_eq!(buffer.drain(&space).unwrap().parts()[0].records, 1);
        assert!(buffer.push(0, &[1], &[]));
    }
}
