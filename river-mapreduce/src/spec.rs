//! A job as it is sent to the workers.

use std::sync::Arc;

use river_core::code::CodePtr;
use serde::{Deserialize, Serialize};

use crate::input::{Framing, Limit, Split};
use crate::output::Format;
use crate::raw_path::RawPath;
use crate::sort::RunSpace;
use crate::task::MapTask;

/// The settings that all tasks of a job have in common.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) framing: Framing,
    pub(crate) reducers: usize,
    /// The first keys of all ranges but the first, if the output is sorted as a whole.
    pub(crate) bounds: Option<Vec<Vec<u8>>>,
    /// A worker's memory, in bytes, for unsorted records, ...
    pub(crate) map_memory: usize,
    /// ... for sorted runs, which are spilled to files beyond that, ...
    pub(crate) store_memory: usize,
    /// ... and for segments that are being merged.
    pub(crate) merge_memory: usize,
    pub(crate) format: Format,
    /// The directory for parts; `None` if they are returned to the caller.
    pub(crate) directory: Option<RawPath>,
    /// How many records may be skipped.
    pub(crate) skippable: u64,
    /// For a sample: only the keys, from this much of each split, are wanted.
    pub(crate) sample: Option<Limit>,
}

impl Settings {
    /// A map task of the job, in which this many records may be skipped.
    pub(crate) fn map_task<'a>(
        &'a self,
        split: &'a Split,
        space: &'a Arc<RunSpace>,
        skippable: u64,
    ) -> MapTask<'a> {
        MapTask {
            split,
            framing: self.framing,
            at_most: self.sample,
            reducers: self.reducers,
            bounds: self.bounds.as_deref(),
            memory: self.map_memory,
            space,
            skippable,
        }
    }
}

/// A job as it is sent to the workers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct JobSpec {
    /// Makes the job from `state`.
    pub(crate) code: CodePtr,
    pub(crate) state: Vec<u8>,
    pub(crate) settings: Settings,
}
