//! Reduce tasks.

use river_core::catch_panic;
use serde::{Deserialize, Serialize};

use crate::counters::Counters;
use crate::datum::Datum;
use crate::failure::Failure;
use crate::inline_key;
use crate::job::{MapReduce, ReduceContext, Values};
use crate::output::{OutputBuffer, OutputError};
use crate::sort::{Group, Merge, Source};

/// The statistics of a reduce task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReduceTotals {
    /// Records that came from the shuffle.
    pub(crate) records: u64,
    pub(crate) keys: u64,
    /// Records of the output, and their bytes.
    pub(crate) output_records: u64,
    pub(crate) output_bytes: u64,
    pub(crate) largest: Largest,
}

/// The key with the most records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Largest {
    /// As text, truncated to a readable length.
    pub(crate) key: String,
    pub(crate) records: u64,
}

/// Runs a reduce task. If user code panics while it is not called for a key, the task has failed.
pub(crate) fn reduce<M: MapReduce>(
    job: &M,
    source: &mut dyn Source<Error = Failure>,
    segments: usize,
    output: OutputBuffer<'_>,
) -> Result<(ReduceTotals, Counters), Failure> {
    caught(|| merge(job, source, segments, output))
}

/// Merges this many segments and calls the user's function for every key.
fn merge<M: MapReduce>(
    job: &M,
    source: &mut dyn Source<Error = Failure>,
    segments: usize,
    output: OutputBuffer<'_>,
) -> Result<(ReduceTotals, Counters), Failure> {
    let mut totals = ReduceTotals::default();
    let mut context = ReduceContext::<M::OutKey, M::OutValue>::new(output);
    let mut merge = Merge::<M::Key, M::Value, _>::new(source, segments, job.value_order())?;
    let mut key = Vec::new();
    let mut largest = Vec::new();
    let reduced = catch_panic(|| {
        while let Some((first, _)) = merge.first() {
            key.clear();
            key.extend_from_slice(first);
            let view = M::Key::decode(&key).map_err(|error| undecodable(&error.to_string()))?;
            let mut group =
                OneKey::<M> { merge: &mut merge, key: &key, records: 0, ended: false, error: None };
            let mut values = Values::new(&mut group);
            job.reduce(view, &mut values, &mut context);
            let undecoded = values.finish();
            if let Some(failure) = group.error {
                return Err(failure);
            }
            if let Some(error) = undecoded {
                return Err(undecodable(&error.to_string()));
            }
            totals.keys += 1;
            totals.records += group.records;
            if group.records > totals.largest.records {
                totals.largest.records = group.records;
                largest.clone_from(&key);
            }
            if let Some(error) = context.failed() {
                return Err(unwritten::<M::Key>(error, &key));
            }
        }
        Ok(())
    });
    match reduced {
        Err(panic) => {
            let why = format!("the reduce function panicked: {panic}");
            return Err(Failure::Key { key: readable::<M::Key>(&key), why });
        }
        Ok(result) => result?,
    }
    totals.largest.key = readable::<M::Key>(&largest);
    let (output, counters) = context.finish().map_err(|error| unwritten::<M::Key>(error, &key))?;
    (totals.output_records, totals.output_bytes) = (output.records(), output.written());
    Ok((totals, counters))
}

/// Merges this many segments and writes the encodings of their keys, each as often as it occurs.
pub(crate) fn keys<M: MapReduce>(
    source: &mut dyn Source<Error = Failure>,
    segments: usize,
    output: OutputBuffer<'_>,
) -> Result<ReduceTotals, Failure> {
    caught(|| merge_keys::<M>(source, segments, output))
}

fn caught<R>(body: impl FnOnce() -> Result<R, Failure>) -> Result<R, Failure> {
    catch_panic(body).unwrap_or_else(|panic| Err(Failure::Panicked(panic)))
}

fn merge_keys<M: MapReduce>(
    source: &mut dyn Source<Error = Failure>,
    segments: usize,
    mut output: OutputBuffer<'_>,
) -> Result<ReduceTotals, Failure> {
    let mut merge = Merge::<M::Key, M::Value, _>::new(source, segments, None)?;
    while let Some((key, _)) = merge.first() {
        output.put::<Vec<u8>, ()>(key, ());
        merge.pop()?;
    }
    output.flush();
    match output.error() {
        Some(error) => Err(unwritten::<M::Key>(error, &[])),
        None => Ok(ReduceTotals { records: output.records(), ..ReduceTotals::default() }),
    }
}

fn undecodable(error: &str) -> Failure {
    Failure::Internal(format!("a record of the shuffle cannot be read: {error}"))
}

/// The failure to write what was emitted for a key.
fn unwritten<K: Datum>(error: OutputError, key: &[u8]) -> Failure {
    match error {
        OutputError::NoText(why) => Failure::Key {
            key: readable::<K>(key),
            why: format!(
                "the output has no text form ({why}): write it as binary records, or emit another type"
            ),
        },
        OutputError::Sink(error) => Failure::Output(error),
    }
}

/// A key in readable form, or its encoding if it has none.
fn readable<K: Datum>(key: &[u8]) -> String {
    const LONGEST: usize = 60;
    let mut text = Vec::new();
    if !K::decode(key).is_ok_and(|view| K::write_text(&view, &mut text).is_ok()) {
        key.clone_into(&mut text);
    }
    let cut = text.len() > LONGEST;
    text.truncate(LONGEST);
    let mut text = String::from_utf8_lossy(&text).escape_debug().to_string();
    if cut {
        text.push_str("...");
    }
    text
}

/// The records of one key.
struct OneKey<'a, 's, M: MapReduce> {
    merge: &'a mut Merge<M::Key, M::Value, &'s mut dyn Source<Error = Failure>>,
    key: &'a [u8],
    records: u64,
    ended: bool,
    error: Option<Failure>,
}

/// Whether two encodings are equal; uses a length known at compile time, if there is one.
#[inline]
fn is_same<K: Datum>(a: &[u8], b: &[u8]) -> bool {
    match K::WIDTH {
        Some(width) if a.len() == width && b.len() == width => a[..width] == b[..width],
        _ => inline_key::is_same(a, b),
    }
}

impl<M: MapReduce> Group for OneKey<'_, '_, M> {
    fn next_value(&mut self) -> Option<&[u8]> {
        if self.ended {
            return None;
        }
        // The record that was returned last is dropped only now, as it was borrowed until now.
        if self.records > 0
            && let Err(failure) = self.merge.pop()
        {
            (self.ended, self.error) = (true, Some(failure));
            return None;
        }
        match self.merge.first() {
            Some((key, value)) if is_same::<M::Key>(key, self.key) => {
                self.records += 1;
                Some(value)
            }
            _ => {
                self.ended = true;
                None
            }
        }
    }
}
