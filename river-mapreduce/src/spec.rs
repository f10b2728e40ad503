//! A job as it travels to the workers.

use std::sync::Arc;

use river_core::code::CodePtr;
use serde::{Deserialize, Serialize};

use crate::input::{Framing, Limit, Split};
use crate::output::Format;
use crate::raw_path::RawPath;
use crate::sort::RunSpace;
use crate::task::MapTask;

/// What all tasks of a job have in common.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) framing: Framing,
    pub(crate) reducers: usize,
    /// The first keys of all ranges but the first, if the output is sorted as a whole.
    pub(crate) bounds: Option<Vec<Vec<u8>>>,
    /// Bytes of memory of a worker for what is not sorted yet, ...
    pub(crate) map_memory: usize,
    /// ... for sorted runs, beyond which they go to files, ...
    pub(crate) store_memory: usize,
    /// ... and for segments that are being merged.
    pub(crate) merge_memory: usize,
    pub(crate) format: Format,
    /// Where parts are written; `None` if they go to the caller.
    pub(crate) directory: Option<RawPath>,
    /// How many records may be left out.
    pub(crate) skippable: u64,
    /// Only the keys of so much of each split are asked for, to choose ranges by.
    pub(crate) sample: Option<Limit>,
}

impl Settings {
    /// A map task of the job, in which so many records may be left out.
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

/// A job as it travels to the workers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct JobSpec {
    /// Makes the job of `state`.
    pub(crate) code: CodePtr,
    pub(crate) state: Vec<u8>,
    pub(crate) settings: Settings,
}
