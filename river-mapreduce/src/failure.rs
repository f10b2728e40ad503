//! Why an attempt at a task failed, as a worker reports it to the master.

use serde::{Deserialize, Serialize};

use crate::sort::{RunError, Truncated};

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub(crate) enum Failure {
    /// Its result is no longer needed.
    #[error("cancelled")]
    Cancelled,
    /// An input cannot be read.
    #[error("cannot read {path}: {error}")]
    Input { path: String, error: String },
    /// User code panicked on a record, or the record is malformed.
    #[error("record at {place}: {why}; a job can go on without such records (`Job::skip_bad_records`)")]
    Record { place: String, why: String },
    /// User code panicked on a key, or what it emitted cannot be written.
    #[error("reduce of key {key}: {why}")]
    Key { key: String, why: String },
    /// Temporary files cannot be written or read.
    #[error("{0}")]
    Space(String),
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(String),
    /// A map task that was run again had a different result.
    #[error(
        "map task {map} was run again and emitted something else: map functions have to be deterministic"
    )]
    Changed { map: u32 },
    /// The output of a map task exists, but cannot be read from here.
    #[error("VM {vm} cannot be read from: {why}")]
    Unreached { vm: String, why: String },
    /// An internal error.
    #[error("{0}")]
    Internal(String),
    /// User code panicked while it was not called for a record or a key.
    #[error("the job's partition, order of values, combiner or key type panicked: {0}")]
    Panicked(String),
}

impl Failure {
    /// Whether another attempt would fail as well.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Failure::Record { .. } | Failure::Key { .. } | Failure::Panicked(_))
    }
}

impl Truncated for Failure {
    fn truncated(segment: usize) -> Self {
        Failure::Internal(format!("segment {segment} ends within a record"))
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        Failure::Space(error.to_string())
    }
}
