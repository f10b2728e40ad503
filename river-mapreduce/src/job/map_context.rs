//! What a map function sees beside its record.

use std::path::Path;
use std::sync::Arc;

use crate::counters::Counters;
use crate::datum::{Datum, Key, Ref};
use crate::input::Position;
use crate::job::{Combiner, ValueOrder};
use crate::partition::{Partition, Partitioner};
use crate::sort::{CombineTable, Run, RunError, RunSpace, SortBuffer};

/// What a map function emits to, and asks where its record comes from.
pub struct MapContext<'a, K: Key, V: Datum> {
    collector: Collector<'a, K, V>,
    partition: Partition<'a, K>,
    reducers: usize,
    space: Arc<RunSpace>,
    position: Position,
    key: Vec<u8>,
    value: Vec<u8>,
    mapped: Mapped,
    failed: Option<RunError>,
}

enum Collector<'a, K: Key, V: Datum> {
    Sort(SortBuffer<K, V>),
    Combine(CombineTable<'a, K, V>),
}

/// What collects the output of a map task.
pub(crate) struct MapSettings<'a, K: Key, V: Datum> {
    pub(crate) reducers: usize,
    /// Bytes of memory for what is not sorted yet.
    pub(crate) memory: usize,
    pub(crate) by_job: Partitioner<'a, K>,
    pub(crate) bounds: &'a [Vec<u8>],
    pub(crate) combiner: Option<Combiner<'a, V>>,
    pub(crate) value_order: Option<ValueOrder>,
    pub(crate) space: Arc<RunSpace>,
}

/// The output of a map task.
#[derive(Debug, Default)]
pub(crate) struct Mapped {
    /// Sorted; if there are several, the records of an earlier one were emitted earlier.
    pub(crate) runs: Vec<Run>,
    /// Records that were emitted.
    pub(crate) emitted: u64,
    pub(crate) counters: Counters,
}

impl<'a, K: Key, V: Datum> MapContext<'a, K, V> {
    pub(crate) fn new(settings: MapSettings<'a, K, V>) -> Self {
        let MapSettings { reducers, memory, by_job, bounds, combiner, value_order, space } = settings;
        let collector = match combiner {
            Some(combine) => Collector::Combine(CombineTable::new(memory, combine)),
            None => Collector::Sort(SortBuffer::new(reducers, memory, value_order)),
        };
        Self {
            collector,
            partition: Partition { by_job, bounds },
            reducers,
            space,
            position: Position::default(),
            key: Vec::new(),
            value: Vec::new(),
            mapped: Mapped::default(),
            failed: None,
        }
    }

    /// Emits a record. It is copied to where it is sorted.
    #[inline]
    pub fn emit(&mut self, key: Ref<'_, K>, value: Ref<'_, V>) {
        self.mapped.emitted += 1;
        let bytes = K::bytes(&key, &mut self.key);
        match &mut self.collector {
            Collector::Combine(table) => {
                if table.add(bytes, value) {
                    self.drain();
                }
            }
            Collector::Sort(buffer) => {
                let reducer = self.partition.of_view(&key, bytes, self.reducers);
                let value = V::bytes(&value, &mut self.value);
                if !buffer.push(reducer, bytes, value) {
                    match buffer.drain(&self.space) {
                        Ok(run) => self.mapped.runs.push(run),
                        Err(error) => self.failed = Some(error),
                    }
                    buffer.push(reducer, bytes, value);
                }
            }
        }
    }

    /// Adds to the job's counter of that name.
    pub fn count(&mut self, name: &str, count: u64) {
        self.mapped.counters.add(name, count);
    }

    /// The file that the record comes from; `None` for input that is in no file.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.position.file.as_deref()
    }

    /// Where in its file the record begins, in bytes of what was decompressed; the number of the item for input that is
    /// in no file.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.position.offset
    }

    pub(crate) fn set_position(&mut self, position: &Position) {
        if !position.same_file(&self.position) {
            self.position.file.clone_from(&position.file);
        }
        self.position.offset = position.offset;
    }

    pub(crate) fn position(&self) -> &Position {
        &self.position
    }

    /// Why no more can be emitted, if it cannot.
    pub(crate) fn failed(&mut self) -> Option<RunError> {
        self.failed.take()
    }

    pub(crate) fn emitted(&self) -> u64 {
        self.mapped.emitted
    }

    /// All that was emitted.
    pub(crate) fn finish(mut self) -> Result<Mapped, RunError> {
        self.drain();
        match self.failed {
            Some(error) => Err(error),
            None => Ok(self.mapped),
        }
    }

    #[cold]
    fn drain(&mut self) {
        let run = match &mut self.collector {
            Collector::Sort(buffer) if buffer.is_empty() => return,
            Collector::Combine(table) if table.is_empty() => return,
            Collector::Sort(buffer) => buffer.drain(&self.space),
            Collector::Combine(table) => table.drain(&self.space, self.reducers, &self.partition),
        };
        match run {
            Ok(run) => self.mapped.runs.push(run),
            Err(error) => self.failed = Some(error),
        }
    }
}

impl<K: Key, V: Datum> std::fmt::Debug for MapContext<'_, K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MapContext").field("position", &self.position).finish_non_exhaustive()
    }
}
