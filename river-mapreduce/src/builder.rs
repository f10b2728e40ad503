//! Jobs ready to run: code, input, output and options.

use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::cluster::Cluster;
use crate::counters::Counters;
use crate::datum::{Datum, pair_width};
use crate::driver;
use crate::error::JobError;
use crate::failure::Failure;
use crate::input::{Input, Split, cut};
use crate::job::MapReduce;
use crate::memory::{self, Limits};
use crate::output::{Directory, Output, Place};
use crate::partition;
use crate::progress::Bar;
use crate::report::{Reducer, Report, human};
use crate::sample;
use crate::serial;
use crate::spec::{JobSpec, Settings};
use crate::task::{MapTotals, ReduceTotals};
use crate::travel::Travel;
use crate::varint;

/// The default number of reducers. It does not depend on the number of VMs, so neither does the output.
const REDUCERS: usize = 16;

/// A job that is ready to run: code, input, output and options. It can be run any number of times.
#[must_use = "nothing happens before `run`"]
#[derive(Debug)]
pub struct Job<M: MapReduce> {
    code: M,
    input: Input<M::Input>,
    output: Output,
    reducers: usize,
    memory: Option<u64>,
    split_size: Option<u64>,
    sorted: bool,
    skippable: u64,
    speculate: bool,
    compress: Option<bool>,
    progress: bool,
}

/// The result of a job: its records, if they were collected, and a report.
pub struct Outcome<K, V> {
    parts: Vec<Vec<Bytes>>,
    directory: Option<PathBuf>,
    report: Report,
    kind: PhantomData<fn() -> (K, V)>,
}

impl<M: MapReduce> Job<M> {
    /// Makes a job whose output is collected.
    pub fn new(code: M, input: Input<M::Input>) -> Self {
        Self {
            code,
            input,
            output: Output::collect(),
            reducers: REDUCERS,
            memory: None,
            split_size: None,
            sorted: false,
            skippable: 0,
            speculate: true,
            compress: None,
            progress: false,
        }
    }

    /// Sets where the records go. Default: [`Output::collect`].
    pub fn output(mut self, output: Output) -> Self {
        self.output = output;
        self
    }

    /// Sets the number of reduce tasks, and of files in the output directory. Default: 16. With one, the output is
    /// sorted as a whole; see also [`sorted`](Self::sorted).
    pub fn reducers(mut self, reducers: usize) -> Self {
        self.reducers = reducers;
        self
    }

    /// Limits the memory, in bytes, that all processes of the job except the caller's may use together. Data that does
    /// not fit is spilled to temporary files. Default: half the memory of the VMs' machines.
    ///
    /// The limit covers the data that the job moves; a single record or value that user code holds must fit besides.
    /// Each VM needs 24 MiB: 20 for its process, 4 for records. With less the job runs nevertheless, exceeds the limit,
    /// and warns in its report and through `tracing`.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// Sets the approximate size of a map task's split: in bytes for files and items, in numbers for generated input.
    /// Default: 128 MiB, less for small inputs, so that there are about 12 tasks.
    pub fn split_size(mut self, size: u64) -> Self {
        self.split_size = Some(size);
        self
    }

    /// Sorts the output as a whole: all keys of a reducer come before those of the next. The ranges of keys are chosen
    /// from a sample of the input, which the VMs take before the job begins.
    pub fn sorted(mut self) -> Self {
        self.sorted = true;
        self
    }

    /// Skips up to this many records on which the map function panics, or which are malformed. Default: none, so the
    /// first one ends the job. The report lists them.
    pub fn skip_bad_records(mut self, at_most: u64) -> Self {
        self.skippable = at_most;
        self
    }

    /// Whether a straggling task is also given to a second VM. Default: yes. Turn it off for reduce functions with side
    /// effects besides emitting.
    pub fn speculate(mut self, speculate: bool) -> Self {
        self.speculate = speculate;
        self
    }

    /// Whether data sent between VMs is compressed (LZ4) where that shrinks it. Default: between machines, where it is
    /// faster, but not within one, where it is not.
    pub fn compress(mut self, compress: bool) -> Self {
        self.compress = Some(compress);
        self
    }

    /// Shows a progress bar on stderr, if that is a terminal.
    pub fn show_progress(mut self) -> Self {
        self.progress = true;
        self
    }

    /// Runs the job on a cluster.
    ///
    /// Tolerates the death of VMs: their work is redone as far as it is needed.
    ///
    /// # Errors
    /// [`JobError`].
    ///
    /// # Blocking
    /// Until it is done. If the program limits its mailbox ([`Vr::limit_queue`](river_core::Vr::limit_queue)), messages there that wait
    /// for other receives must leave some room.
    pub fn run(&self, cluster: &Cluster<'_>) -> Result<Outcome<M::OutKey, M::OutValue>, JobError>
    where
        M: Travel,
    {
        let start = Instant::now();
        let too_little = self.too_little_memory(cluster.alive());
        if let Some(text) = &too_little {
            tracing::warn!("{text}");
        }
        let (mut settings, splits) = self.prepare(self.limits(Some(cluster)))?;
        let packed = self.code.pack().map_err(JobError::Settings)?;
        let mut lost = Vec::new();
        if self.is_cut_by_range() {
            let spec = JobSpec {
                code: packed.code,
                state: packed.state.clone(),
                settings: sample::settings(&settings),
            };
            let run = driver::Run {
                spec,
                splits: &sample::splits(&splits),
                directory: None,
                speculate: true,
                compress: self.compress,
                bar: Bar::new(false),
            };
            let done = driver::run(cluster, run)?;
            let mut keys: Vec<(Vec<u8>, ())> = Vec::new();
            for reduce in &done.reduces {
                read_records(&reduce.collected, &mut keys)?;
            }
            settings.bounds = self.bounds(keys.into_iter().map(|(key, ())| key).collect());
            lost = done.lost;
        }
        let directory = self.directory(&splits)?;
        let spec = JobSpec { code: packed.code, state: packed.state, settings };
        let run = driver::Run {
            spec,
            splits: &splits,
            directory: directory.as_ref(),
            speculate: self.speculate,
            compress: self.compress,
            bar: Bar::new(self.progress),
        };
        let done = driver::run(cluster, run)?;
        let mut report =
            report(done.maps.iter().map(|map| &map.totals), done.reduces.iter().map(|reduce| &reduce.totals));
        for map in &done.maps {
            report.counters.merge(&map.counters);
            report.spilled_bytes += map.spilled;
            report.shuffled_bytes += map.shuffled_bytes();
        }
        for reduce in &done.reduces {
            report.counters.merge(&reduce.counters);
        }
        report.warnings.extend(too_little);
        report.reissued = done.reissued;
        report.lost = lost.into_iter().chain(done.lost).map(|death| (death.vm, death.why)).collect();
        let parts = done.reduces.into_iter().map(|reduce| reduce.collected).collect();
        self.finish(directory, parts, report, start, done.map_time)
    }

    /// Runs the job in the caller's thread, without VMs, one task after the other: for debugging. The output is the
    /// same as that of [`run`](Self::run).
    ///
    /// # Errors
    /// [`JobError`].
    pub fn run_serial(&self) -> Result<Outcome<M::OutKey, M::OutValue>, JobError> {
        let start = Instant::now();
        let (mut settings, splits) = self.prepare(self.limits(None))?;
        if self.is_cut_by_range() {
            let sample = serial::sample(&self.code, &sample::settings(&settings), &sample::splits(&splits));
            settings.bounds = self.bounds(sample.map_err(|failure| here(&failure))?);
        }
        let directory = self.directory(&splits)?;
        let done = serial::run(&self.code, &settings, &splits, directory.as_ref());
        let done = done.map_err(|failure| here(&failure))?;
        let mut report = report(done.maps.iter(), done.reduces.iter());
        report.counters = done.counters;
        report.spilled_bytes = done.spilled;
        report.shuffled_bytes = done.shuffled;
        self.finish(directory, done.collected, report, start, done.map_time)
    }

    fn limits(&self, cluster: Option<&Cluster<'_>>) -> Limits {
        let (vms, workers) = match cluster {
            Some(cluster) => (cluster.alive().max(1), cluster.workers.len() / cluster.places.len()),
            None => (1, 1),
        };
        match (self.memory, cluster) {
            (Some(memory), _) => Limits::of_process(memory / vms as u64, workers as u64),
            (None, Some(cluster)) => {
                let least = cluster.places.iter().map(|place| place.memory / 2).min().unwrap_or_default();
                Limits::of_records(least.max(64 << 20), workers as u64)
            }
            (None, None) => Limits::of_records(1 << 30, 1),
        }
    }

    /// A warning if this many VMs cannot keep the memory limit.
    fn too_little_memory(&self, vms: usize) -> Option<String> {
        let (limit, least) = (self.memory?, memory::least(vms));
        (limit < least).then(|| {
            format!(
                "a memory limit of {} cannot be kept: {vms} VMs need at least {}; \
                 raise the limit, or use fewer VMs",
                human(limit),
                human(least)
            )
        })
    }

    fn prepare(&self, limits: Limits) -> Result<(Settings, Vec<Split>), JobError> {
        if self.reducers == 0 || u32::try_from(self.reducers).is_err() {
            return Err(JobError::Settings(format!("a job cannot have {} reducers", self.reducers)));
        }
        let splits = cut(&self.input.source, self.input.framing, self.split_size)?;
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let directory = match &self.output.place {
            Place::Collect => None,
            // Workers have the working directory of this process, if it exists on their machine.
            Place::Directory { path, .. } => {
                Some(std::path::absolute(path).unwrap_or_else(|_| path.clone()).into())
            }
        };
        let settings = Settings {
            framing: self.input.framing,
            reducers: self.reducers,
            bounds: None,
            map_memory: size(limits.unsorted),
            store_memory: size(limits.runs),
            merge_memory: size(limits.merge),
            format: self.output.format,
            directory,
            skippable: self.skippable,
            sample: None,
        };
        Ok((settings, splits))
    }

    /// Whether a sample must be taken before the job begins.
    fn is_cut_by_range(&self) -> bool {
        self.sorted && self.reducers > 1
    }

    /// Chooses ranges of keys from a sample of them.
    fn bounds(&self, sample: Vec<Vec<u8>>) -> Option<Vec<Vec<u8>>> {
        Some(partition::bounds::<M::Key>(sample, self.reducers))
    }

    fn directory(&self, splits: &[Split]) -> Result<Option<Directory>, JobError> {
        let Place::Directory { path, overwrite } = &self.output.place else { return Ok(None) };
        let inputs: BTreeSet<&Path> = splits.iter().flat_map(Split::files).collect();
        match Directory::prepare(path, *overwrite, inputs) {
            Ok(directory) => Ok(Some(directory)),
            Err(error) => Err(JobError::Output { path: path.clone(), error: error.into() }),
        }
    }

    fn finish(
        &self,
        directory: Option<Directory>,
        parts: Vec<Vec<Bytes>>,
        mut report: Report,
        start: Instant,
        map_time: Duration,
    ) -> Result<Outcome<M::OutKey, M::OutValue>, JobError> {
        let path = directory.as_ref().map(|directory| directory.path().to_owned());
        if let (Some(directory), Some(path)) = (directory, &path) {
            let committed = directory.commit();
            committed.map_err(|error| JobError::Output { path: path.clone(), error: error.into() })?;
        }
        report.map_time = map_time;
        report.reduce_time = start.elapsed().saturating_sub(map_time);
        if let Some((key, share)) = report.dominating_key() {
            tracing::warn!(
                "the key {key:?} has {:.0} % of all records: one reducer has most of the work",
                share * 100.0
            );
        }
        Ok(Outcome { parts, directory: path, report, kind: PhantomData })
    }
}

/// Converts the failure of a task that ran in the caller's process.
fn here(failure: &Failure) -> JobError {
    JobError::Failed { task: "a task".into(), vm: "(none: this process)".into(), why: failure.to_string() }
}

fn report<'a>(
    maps: impl Iterator<Item = &'a MapTotals>,
    reduces: impl Iterator<Item = &'a ReduceTotals>,
) -> Report {
    let mut report = Report::default();
    for map in maps {
        report.maps += 1;
        report.input_records += map.records;
        report.input_bytes += map.bytes;
        report.emitted += map.emitted;
        report.skipped.extend(map.spoiled.iter().map(|spoiled| (spoiled.place.clone(), spoiled.why.clone())));
    }
    for reduce in reduces {
        report.shuffled_records += reduce.records;
        report.output_records += reduce.output_records;
        report.output_bytes += reduce.output_bytes;
        report.reducers.push(Reducer {
            records: reduce.records,
            keys: reduce.keys,
            largest_key: reduce.largest.key.clone(),
            largest_records: reduce.largest.records,
        });
    }
    report
}

impl<K: Datum, V: Datum> Outcome<K, V> {
    /// Returns the records: reducer by reducer, each in the order in which it emitted them.
    ///
    /// # Errors
    /// [`JobError::NotCollected`] if they went to a directory.
    pub fn collect(&self) -> Result<Vec<(K, V)>, JobError> {
        if let Some(directory) = &self.directory {
            return Err(JobError::NotCollected(directory.clone()));
        }
        let mut records = Vec::with_capacity(usize::try_from(self.report.output_records).unwrap_or(0));
        for part in &self.parts {
            read_records(part, &mut records)?;
        }
        Ok(records)
    }
}

/// Appends the records of a collected part.
fn read_records<K: Datum, V: Datum>(part: &[Bytes], records: &mut Vec<(K, V)>) -> Result<(), JobError> {
    let bytes = match part {
        [one] => one.clone(),
        several => Bytes::from(several.concat()),
    };
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let (length, used) = match pair_width::<K, V>() {
            Some(width) => (width, 0),
            None => varint::get(rest).ok_or_else(damaged)?,
        };
        let (record, after) = rest[used..].split_at_checked(length).ok_or_else(damaged)?;
        records.push(<(K, V)>::own(<(K, V)>::decode(record).map_err(|_| damaged())?));
        rest = after;
    }
    Ok(())
}

/// No job leaves this, but bytes from a network are not trusted.
fn damaged() -> JobError {
    JobError::Settings("the collected records cannot be read".into())
}

impl<K, V> Outcome<K, V> {
    /// Statistics of the job.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The counters of user code.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.report.counters
    }

    /// The output directory, if there is one.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }
}

impl<K, V> fmt::Debug for Outcome<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outcome").field("directory", &self.directory).field("report", &self.report).finish()
    }
}
