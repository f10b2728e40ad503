//! Sorts what a map task emits into runs, and merges many runs into one sorted sequence.
//!
//! * `entries`: sorting references to records
//! * `run`: sorted records, one part for each reducer, in memory or in a file
//! * `spill`: the temporary file of runs
//! * `buffer`: collects records and sorts them
//! * `table`: combines records by key while collecting them
//! * `merge`: the k-way merge

mod buffer;
mod entries;
mod merge;
mod run;
mod spill;
mod table;

pub(crate) use buffer::SortBuffer;
pub(crate) use merge::{Group, Merge, Source, Truncated};
#[cfg(test)]
pub(crate) use run::RunWriter;
pub(crate) use run::{Part, Run, RunError, RunSpace};
pub(crate) use table::CombineTable;

use std::cmp::Ordering;

use crate::datum::Ref;

/// Compares the encodings of two values of one key.
pub type ValueOrder = fn(&[u8], &[u8]) -> Ordering;

/// Folds the second value of a key into the first. Calls may be grouped arbitrarily, so it must be associative; the
/// values come in the order in which they were emitted.
pub type Combiner<'a, V> = &'a (dyn Fn(&mut V, Ref<'_, V>) + Sync);
