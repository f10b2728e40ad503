//! Executes tasks, wherever they run: a map task reads a split and leaves sorted runs; a reduce task merges segments of
//! such runs and writes a part of the output.

mod map;
mod reduce;

pub(crate) use map::{Check, MapTask, MapTotals, Scratch, map};
pub(crate) use reduce::{ReduceTotals, keys, reduce};
