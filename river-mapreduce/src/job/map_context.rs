//! The context of a map function.

use std::path::Path;
use std::sync::Arc;

use crate::counters::Counters;
use crate::datum::{Datum, Key, Ref};
use crate::inline_key::{InlineKey, SHORT, hash};
use crate::input::Position;
use crate::job::{Combiner, ValueOrder};
use crate::partition::{Bounds, Partition, Partitioner};
use crate::sort::{CombineTable, Run, RunError, RunSpace, SortBuffer};

/// Receives what a map function emits, and tells where its record comes from.
pub struct MapContext<'a, K: Key, V: Datum> {
    collector: &'a mut Collector<K, V>,
    settings: &'a MapSettings<'a, K, V>,
    /// The record, which may contain the key.
    record: &'a [u8],
    position: &'a Position,
}

/// How to collect the output of a map task.
pub(crate) struct MapSettings<'a, K: Key, V: Datum> {
    pub(crate) reducers: usize,
    /// Bytes of memory for unsorted records.
    pub(crate) memory: usize,
    pub(crate) by_job: Partitioner<'a, K>,
    pub(crate) bounds: &'a Bounds<'a>,
    pub(crate) combiner: Option<Combiner<'a, V>>,
    /// [Combines](CombineTable::settle) the waiting values with that combiner.
    pub(crate) settle: Settle<'a, K, V>,
    pub(crate) value_order: Option<ValueOrder>,
    pub(crate) space: &'a Arc<RunSpace>,
}

pub(crate) type Settle<'a, K, V> = &'a dyn Fn(&mut CombineTable<K, V>) -> bool;

/// Collects the output of map tasks of one job, one task after the other. It reuses its memory.
pub(crate) struct Collector<K: Key, V: Datum> {
    kind: Kind<K, V>,
    key: Vec<u8>,
    value: Vec<u8>,
    mapped: Mapped,
    failed: Option<RunError>,
}

#[expect(clippy::large_enum_variant, reason = "a worker has one")]
enum Kind<K: Key, V: Datum> {
    Sort(SortBuffer<K, V>),
    Combine(CombineTable<K, V>),
}

/// The output of a map task.
#[derive(Debug, Default)]
pub(crate) struct Mapped {
    /// Sorted runs; the records of an earlier run were emitted earlier.
    pub(crate) runs: Vec<Run>,
    /// The number of records emitted.
    pub(crate) emitted: u64,
    pub(crate) counters: Counters,
}

impl<'a, K: Key, V: Datum> MapContext<'a, K, V> {
    pub(crate) fn new(
        collector: &'a mut Collector<K, V>,
        settings: &'a MapSettings<'a, K, V>,
        record: &'a [u8],
        position: &'a Position,
    ) -> Self {
        Self { collector, settings, record, position }
    }

    /// Emits a record. It is copied to the sort buffer, or combined with the earlier values of its key.
    #[inline]
    pub fn emit(&mut self, key: Ref<'_, K>, value: Ref<'_, V>) {
        let (collector, settings) = (&mut *self.collector, self.settings);
        let bytes = K::bytes(&key, &mut collector.key);
        match &mut collector.kind {
            Kind::Combine(table) => {
                // Types with small values are cheap to own. Values of other types never wait.
                if V::WIDTH.is_none() {
                    collector.mapped.emitted += 1;
                    if let Some(combine) = settings.combiner
                        && table.add(bytes, self.record, value, combine)
                    {
                        collector.drain(settings);
                    }
                    return;
                }
                let value = V::own(value);
                // A value that cannot be restored must not wait: it would be lost.
                let small = value.to_small().filter(|small| V::from_small(*small).is_some());
                match InlineKey::of(bytes, self.record).zip(small) {
                    Some((key, small)) => {
                        if table.wait(key, small) {
                            self.settle();
                        }
                    }
                    None => self.combine(&key, value.view()),
                }
            }
            Kind::Sort(buffer) => {
                collector.mapped.emitted += 1;
                let reducer = settings.partition().of_view(&key, bytes, || hash(bytes), settings.reducers);
                let value = V::bytes(&value, &mut collector.value);
                if !buffer.push(reducer, bytes, value) {
                    match buffer.drain(settings.space) {
                        Ok(run) => collector.mapped.runs.push(run),
                        Err(error) => {
                            collector.failed = Some(error);
                            buffer.clear();
                        }
                    }
                    buffer.push(reducer, bytes, value);
                }
            }
        }
    }

    /// Combines a record at once, after the waiting ones, which may have the same key if it is short.
    #[inline(never)]
    fn combine(&mut self, key: &Ref<'_, K>, value: Ref<'_, V>) {
        if K::bytes(key, &mut self.collector.key).len() <= SHORT {
            self.settle();
        }
        let (collector, settings) = (&mut *self.collector, self.settings);
        collector.mapped.emitted += 1;
        let bytes = K::bytes(key, &mut collector.key);
        if let (Kind::Combine(table), Some(combine)) = (&mut collector.kind, settings.combiner)
            && table.add(bytes, self.record, value, combine)
        {
            collector.drain(settings);
        }
    }

    /// Combines the waiting values.
    pub(crate) fn settle(&mut self) {
        self.collector.settle(self.settings);
    }

    /// Adds to the job's counter of that name.
    pub fn count(&mut self, name: &str, count: u64) {
        self.collector.mapped.counters.add(name, count);
    }

    /// The file that contains the record; `None` for input that is not from a file.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.position.file.as_deref()
    }

    /// The position of the record in its file, in bytes after decompression; for input that is not from a file, the
    /// number of the item.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.position.offset
    }
}

impl<K: Key, V: Datum> MapSettings<'_, K, V> {
    fn partition(&self) -> Partition<'_, K> {
        Partition { by_job: self.by_job, bounds: self.bounds }
    }
}

impl<K: Key, V: Datum> Collector<K, V> {
    pub(crate) fn new(settings: &MapSettings<'_, K, V>) -> Self {
        let kind = match settings.combiner {
            Some(_) => Kind::Combine(CombineTable::new(settings.reducers, settings.memory)),
            None => Kind::Sort(SortBuffer::new(settings.reducers, settings.memory, settings.value_order)),
        };
        Self { kind, key: Vec::new(), value: Vec::new(), mapped: Mapped::default(), failed: None }
    }

    /// Why nothing more can be emitted, if so.
    pub(crate) fn failed(&mut self) -> Option<RunError> {
        self.failed.take()
    }

    pub(crate) fn emitted(&self) -> u64 {
        self.mapped.emitted
    }

    /// Combines the waiting values.
    fn settle(&mut self, settings: &MapSettings<'_, K, V>) {
        if let Kind::Combine(table) = &self.kind {
            self.mapped.emitted += table.waiting() as u64;
        }
        while let Kind::Combine(table) = &mut self.kind
            && table.waiting() > 0
            && (settings.settle)(table)
        {
            self.drain(settings);
        }
    }

    /// Returns everything that was emitted since the last call.
    pub(crate) fn finish(&mut self, settings: &MapSettings<'_, K, V>) -> Result<Mapped, RunError> {
        self.drain(settings);
        let mapped = std::mem::take(&mut self.mapped);
        match self.failed.take() {
            Some(error) => Err(error),
            None => Ok(mapped),
        }
    }

    /// Discards everything that was emitted since the last [`finish`](Self::finish).
    pub(crate) fn clear(&mut self) {
        match &mut self.kind {
            Kind::Sort(buffer) => buffer.clear(),
            Kind::Combine(table) => table.clear(),
        }
        (self.mapped, self.failed) = (Mapped::default(), None);
    }

    #[cold]
    fn drain(&mut self, settings: &MapSettings<'_, K, V>) {
        let run = match &mut self.kind {
            Kind::Sort(buffer) if buffer.is_empty() => return,
            Kind::Combine(table) if table.is_empty() => return,
            Kind::Sort(buffer) => buffer.drain(settings.space),
            Kind::Combine(table) => table.drain(settings.space, &settings.partition()),
        };
        match run {
            Ok(run) => self.mapped.runs.push(run),
            Err(error) => {
                let emitted = self.mapped.emitted;
                self.clear();
                (self.mapped.emitted, self.failed) = (emitted, Some(error));
            }
        }
    }
}

impl<K: Key, V: Datum> std::fmt::Debug for MapContext<'_, K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MapContext").field("position", &self.position).finish_non_exhaustive()
    }
}
