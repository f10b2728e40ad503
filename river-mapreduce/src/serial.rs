//! A job in the caller's thread, one task after the other: for debugging, and to compare with.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::counters::Counters;
use crate::failure::Failure;
use crate::input::Split;
use crate::job::MapReduce;
use crate::output::{Directory, OutputBuffer, Sink, part_file};
use crate::sort::{Run, RunSpace, Source};
use crate::spec::Settings;
use crate::task::{self, MapTotals, ReduceTotals};

/// The number of bytes of a run per read.
const READ: usize = 64 << 10;

/// The result of a job in the caller's thread.
pub(crate) struct Done {
    pub(crate) maps: Vec<MapTotals>,
    pub(crate) reduces: Vec<ReduceTotals>,
    pub(crate) counters: Counters,
    /// Indexed by reducer.
    pub(crate) collected: Vec<Vec<Bytes>>,
    pub(crate) shuffled: u64,
    pub(crate) spilled: u64,
    pub(crate) map_time: Duration,
}

/// Runs all tasks. Without a directory the output is returned.
pub(crate) fn run<M: MapReduce>(
    job: &M,
    settings: &Settings,
    splits: &[Split],
    directory: Option<&Directory>,
) -> Result<Done, Failure> {
    let space = RunSpace::new(settings.store_memory, std::env::temp_dir());
    let mut done = Done {
        maps: Vec::new(),
        reduces: Vec::new(),
        counters: Counters::default(),
        collected: Vec::new(),
        shuffled: 0,
        spilled: 0,
        map_time: Duration::ZERO,
    };
    let start = Instant::now();
    let mut runs: Vec<Run> = Vec::new();
    let (mut skippable, mut scratch) = (settings.skippable, None);
    for split in splits {
        let task = settings.map_task(split, &space, skippable);
        let (mapped, totals) = task::map(job, &task, &mut scratch, &mut |_| Ok(()))?;
        skippable = skippable.saturating_sub(totals.spoiled.len() as u64);
        done.counters.merge(&mapped.counters);
        done.maps.push(totals);
        runs.extend(mapped.runs);
    }
    drop(scratch);
    done.map_time = start.elapsed();
    done.spilled = runs.iter().map(Run::spilled_bytes).sum();
    done.shuffled = runs.iter().flat_map(Run::parts).map(|part| part.len).sum();
    for reducer in 0..settings.reducers {
        let mut source = Local { runs: &runs, part: reducer, read: vec![0; runs.len()] };
        let mut parts = Vec::new();
        let (mut to_file, mut to_caller);
        let sink: Sink<'_> = match directory {
            Some(directory) => {
                to_file = part_file(directory.path(), reducer as u32, 0).map_err(Failure::Output)?;
                &mut to_file
            }
            None => {
                to_caller = |bytes: Vec<u8>| {
                    parts.push(Bytes::from(bytes));
                    Ok(Vec::new())
                };
                &mut to_caller
            }
        };
        let output = OutputBuffer::new(settings.format, sink);
        let (totals, counters) = task::reduce(job, &mut source, runs.len(), output)?;
        if let Some(directory) = directory {
            let committed = directory.commit_part(reducer as u32, 0);
            committed.map_err(|error| Failure::Output(format!("{}: {error}", directory.path().display())))?;
        }
        done.counters.merge(&counters);
        done.reduces.push(totals);
        done.collected.push(parts);
    }
    Ok(done)
}

/// The keys of a sample.
pub(crate) fn sample<M: MapReduce>(
    job: &M,
    settings: &Settings,
    splits: &[Split],
) -> Result<Vec<Vec<u8>>, Failure> {
    let space = RunSpace::new(settings.store_memory, std::env::temp_dir());
    let (mut keys, mut scratch) = (Vec::new(), None);
    for split in splits {
        let task = settings.map_task(split, &space, settings.skippable);
        let (mapped, _) = task::map(job, &task, &mut scratch, &mut |_| Ok(()))?;
        for run in &mapped.runs {
            keys.extend(run.keys::<M::Key, M::Value>(0)?);
        }
    }
    Ok(keys)
}

/// The runs of this process.
struct Local<'a> {
    runs: &'a [Run],
    part: usize,
    read: Vec<u64>,
}

impl Source for Local<'_> {
    type Error = Failure;

    fn next_chunk(&mut self, segment: usize) -> Result<Option<Bytes>, Failure> {
        let run = &self.runs[segment];
        let chunk = run.read(self.part, self.read[segment], run.natural_read(READ))?;
        self.read[segment] += chunk.len() as u64;
        Ok((!chunk.is_empty()).then_some(chunk))
    }
}
