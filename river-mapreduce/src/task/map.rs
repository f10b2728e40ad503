//! Map tasks.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use river_core::catch_panic;
use serde::{Deserialize, Serialize};

use crate::datum::{Datum, Ref};
use crate::failure::Failure;
use crate::input::{Framing, Limit, Position, ReadError, Split, read_split};
use crate::job::{Collector, MapContext, MapReduce, MapSettings, Mapped};
use crate::partition::Bounds;
use crate::sort::{CombineTable, RunSpace};

/// Called from time to time while a task runs; an error ends the task.
pub(crate) type Check<'a> = &'a mut dyn FnMut(&MapTotals) -> Result<(), Failure>;

/// The number of bytes and records between two calls of [`Check`].
const CHECK_BYTES: u64 = 256 << 10;
const CHECK_RECORDS: u64 = 4096;

/// The input and settings of a map task.
pub(crate) struct MapTask<'a> {
    pub(crate) split: &'a Split,
    pub(crate) framing: Framing,
    /// Ends the task when it has read this much.
    pub(crate) at_most: Option<Limit>,
    pub(crate) reducers: usize,
    pub(crate) bounds: Option<&'a [Vec<u8>]>,
    /// Bytes of memory for unsorted records.
    pub(crate) memory: usize,
    pub(crate) space: &'a Arc<RunSpace>,
    /// How many records may be skipped because user code panics on them, or because they are malformed.
    pub(crate) skippable: u64,
}

/// The statistics of a map task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MapTotals {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) emitted: u64,
    /// Records that were skipped.
    pub(crate) spoiled: Vec<Spoiled>,
}

/// A record that was skipped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spoiled {
    pub(crate) place: String,
    pub(crate) why: String,
}

/// The memory in which records are collected, which a worker keeps from one map task of a job to the next.
pub(crate) type Scratch = Option<Box<dyn Any>>;

/// Skipped records, by their numbers within the split.
type Skipped = BTreeMap<u64, Spoiled>;

/// Runs a map task. If user code panics while it is not called for a record, the task has failed.
pub(crate) fn map<M: MapReduce>(
    job: &M,
    task: &MapTask<'_>,
    scratch: &mut Scratch,
    check: Check<'_>,
) -> Result<(Mapped, MapTotals), Failure> {
    catch_panic(|| attempts(job, task, scratch, check)).unwrap_or_else(|panic| Err(Failure::Panicked(panic)))
}

/// A record on which user code panics may already have emitted something, so the task begins anew without it; a record
/// that cannot be decoded has not. Where one record makes it panic, others may, so all of them are found before the task
/// begins anew for the second time.
fn attempts<M: MapReduce>(
    job: &M,
    task: &MapTask<'_>,
    scratch: &mut Scratch,
    check: Check<'_>,
) -> Result<(Mapped, MapTotals), Failure> {
    let by_job = |key: &Ref<'_, M::Key>, reducers: usize| job.partition(key, reducers);
    let bounds = Bounds::of::<M::Key>(task.bounds);
    // The combiner is fetched here, where the compiler can see what it is.
    let combiner = job.combiner();
    let settle = |table: &mut CombineTable<M::Key, M::Value>| {
        job.combiner().or(combiner).is_some_and(|combine| table.settle(combine))
    };
    let settings = MapSettings {
        reducers: task.reducers,
        memory: task.memory,
        by_job: &by_job,
        bounds: &bounds,
        combiner,
        settle: &settle,
        value_order: job.value_order(),
        space: task.space,
    };
    let kept = scratch.take().and_then(|kept| kept.downcast::<Collector<M::Key, M::Value>>().ok());
    let mut collector = kept.unwrap_or_else(|| Box::new(Collector::new(&settings)));
    let (mut skipped, mut expects_panics) = (Skipped::new(), false);
    loop {
        match attempt(job, task, &settings, &mut collector, &mut skipped, expects_panics, check) {
            Ok((mapped, mut totals)) => {
                totals.spoiled = skipped.into_values().collect();
                *scratch = Some(collector);
                return Ok((mapped, totals));
            }
            // What a sample encounters is no error: the job itself will report it.
            Err(Ended::Failed(Failure::Record { .. })) if task.at_most.is_some() => {
                return Ok((Mapped::default(), MapTotals::default()));
            }
            Err(Ended::Failed(failure)) => return Err(failure),
            Err(Ended::Spoiled) => {
                collector.clear();
                expects_panics = true;
            }
        }
    }
}

/// Skips a record, if that is allowed.
fn skip(
    task: &MapTask<'_>,
    skipped: &mut Skipped,
    number: u64,
    position: &Position,
    why: String,
) -> Result<(), Failure> {
    let place = position.to_string();
    if skipped.len() as u64 >= task.skippable {
        return Err(Failure::Record { place, why });
    }
    tracing::warn!("the record at {place} is skipped: {why}");
    skipped.insert(number, Spoiled { place, why });
    Ok(())
}

fn panicked(panic: &str) -> String {
    format!("the map function panicked: {panic}")
}

enum Ended {
    Failed(Failure),
    /// More records will be skipped from now on.
    Spoiled,
}

/// Why no more records are read.
enum Stopped {
    Failed(Failure),
    /// The limit of the sample was reached.
    Enough,
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Stopped::Failed(failure)
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Ended::Failed(failure)
    }
}

/// Ends at the first panic of user code; if panics are expected, goes on to find all records that cause them.
fn attempt<M: MapReduce>(
    job: &M,
    task: &MapTask<'_>,
    settings: &MapSettings<'_, M::Key, M::Value>,
    collector: &mut Collector<M::Key, M::Value>,
    skipped: &mut Skipped,
    expects_panics: bool,
    check: Check<'_>,
) -> Result<(Mapped, MapTotals), Ended> {
    let (mut totals, mut spoiled) = (MapTotals::default(), false);
    let mut next_check = (CHECK_BYTES, CHECK_RECORDS);
    // Declared here to outlive a panic, and tell where it was.
    let (mut number, mut current) = (0, Position::default());
    let mut bytes = 0;
    let read = catch_panic(|| {
        read_split(task.split, task.framing, |position, record| {
            number += 1;
            bytes += record.len() as u64;
            let is_last = task.at_most.is_some_and(|limit| limit.is_reached(number, bytes));
            if !skipped.is_empty() && skipped.contains_key(&number) {
                return if is_last { Err(Stopped::Enough) } else { Ok(()) };
            }
            current.move_to(position);
            match M::Input::decode(record) {
                Ok(view) => {
                    totals.records += 1;
                    totals.bytes += record.len() as u64;
                    let mut map = |view| {
                        let mut context = MapContext::new(collector, settings, record, position);
                        job.map(view, &mut context);
                        context.settle();
                    };
                    if !expects_panics {
                        map(view);
                    } else if let Err(panic) = catch_panic(|| map(view)) {
                        skip(task, skipped, number, position, panicked(&panic))?;
                        spoiled = true;
                        collector.clear();
                    }
                }
                Err(error) => skip(task, skipped, number, position, error.to_string())?,
            }
            if let Some(error) = collector.failed() {
                return Err(Failure::from(error).into());
            }
            if is_last {
                return Err(Stopped::Enough);
            }
            if totals.bytes >= next_check.0 || number >= next_check.1 {
                next_check = (totals.bytes + CHECK_BYTES, number + CHECK_RECORDS);
                totals.emitted = collector.emitted();
                check(&totals)?;
            }
            Ok(())
        })
    });
    match read {
        Err(panic) => {
            skip(task, skipped, number, &current, panicked(&panic))?;
            return Err(Ended::Spoiled);
        }
        Ok(Err(ReadError::Stopped(Stopped::Failed(failure)))) => return Err(failure.into()),
        Ok(Err(ReadError::File { path, error })) => {
            return Err(Failure::Input { path, error: error.to_string() }.into());
        }
        Ok(Ok(()) | Err(ReadError::Stopped(Stopped::Enough))) if spoiled => return Err(Ended::Spoiled),
        Ok(Ok(()) | Err(ReadError::Stopped(Stopped::Enough))) => {}
    }
    totals.emitted = collector.emitted();
    let mapped = collector.finish(settings).map_err(Failure::from)?;
    Ok((mapped, totals))
}
