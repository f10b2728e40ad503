//! The context of a reduce function.

use std::marker::PhantomData;

use crate::counters::Counters;
use crate::datum::{Datum, DecodeError, Ref};
use crate::output::{OutputBuffer, OutputError};
use crate::sort::Group;

/// The values of a key, one after the other. They are read on demand, so there may be more of them than fit into
/// memory.
///
/// As an iterator it yields owned values: `values.sum::<u64>()`. [`next_view`](Self::next_view) avoids making owned
/// values.
pub struct Values<'a, V> {
    group: &'a mut dyn Group,
    error: Option<DecodeError>,
    kind: PhantomData<fn() -> V>,
}

impl<'a, V: Datum> Values<'a, V> {
    pub(crate) fn new(group: &'a mut dyn Group) -> Self {
        Self { group, error: None, kind: PhantomData }
    }

    /// Returns a view of the next value in place: `&[u8]` for `Vec<u8>`.
    pub fn next_view(&mut self) -> Option<Ref<'_, V>> {
        match V::decode(self.group.next_value()?) {
            Ok(value) => Some(value),
            Err(error) => {
                self.error = Some(error);
                None
            }
        }
    }

    /// Drops the remaining values, and returns the error of decoding a value, if any.
    pub(crate) fn finish(self) -> Option<DecodeError> {
        while self.group.next_value().is_some() {}
        self.error
    }
}

impl<V: Datum> Iterator for Values<'_, V> {
    type Item = V;

    fn next(&mut self) -> Option<V> {
        self.next_view().map(V::own)
    }
}

impl<V> std::fmt::Debug for Values<'_, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Values").finish_non_exhaustive()
    }
}

/// Receives what a reduce function emits.
pub struct ReduceContext<'a, K, V> {
    output: OutputBuffer<'a>,
    counters: Counters,
    kind: PhantomData<fn() -> (K, V)>,
}

impl<'a, K: Datum, V: Datum> ReduceContext<'a, K, V> {
    pub(crate) fn new(output: OutputBuffer<'a>) -> Self {
        Self { output, counters: Counters::default(), kind: PhantomData }
    }

    /// Emits a record of the output.
    #[inline]
    pub fn emit(&mut self, key: Ref<'_, K>, value: Ref<'_, V>) {
        self.output.put::<K, V>(key, value);
    }

    /// Adds to the job's counter of that name.
    pub fn count(&mut self, name: &str, count: u64) {
        self.counters.add(name, count);
    }

    /// Why nothing more can be emitted, if so.
    pub(crate) fn failed(&mut self) -> Option<OutputError> {
        self.output.error()
    }

    /// Ends the part: flushes the buffer, and returns the counters.
    pub(crate) fn finish(mut self) -> Result<(OutputBuffer<'a>, Counters), OutputError> {
        self.output.flush();
        match self.output.error() {
            Some(error) => Err(error),
            None => Ok((self.output, self.counters)),
        }
    }
}

impl<K, V> std::fmt::Debug for ReduceContext<'_, K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReduceContext").finish_non_exhaustive()
    }
}
