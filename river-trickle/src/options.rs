//! How a farm deals with what goes wrong.

use std::time::Duration;

/// What can be set on a farm before it runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// How often an item is done again whose function panicked or took too long.
    pub(crate) retries: u32,
    /// How long a chunk may take.
    pub(crate) deadline: Option<Duration>,
    /// VMs that may die of the same chunk.
    pub(crate) attempts: usize,
    /// Whether somebody may want to end the farm.
    pub(crate) cancellable: bool,
    /// Whether idle VMs do the work of slow ones as well.
    pub(crate) speculate: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            retries: 0,
            deadline: None,
            attempts: crate::scheduler::ATTEMPTS,
            cancellable: false,
            speculate: true,
        }
    }
}
