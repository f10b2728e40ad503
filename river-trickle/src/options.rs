//! How a farm deals with failures.

use std::time::Duration;

/// The settings of a farm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// How many times an item is tried again if its function panicked or took too long.
    pub(crate) retries: u32,
    /// How long a chunk may take.
    pub(crate) deadline: Option<Duration>,
    /// How many VMs may die of the same chunk.
    pub(crate) attempts: usize,
    /// Whether the farm may be cancelled from outside.
    pub(crate) cancellable: bool,
    /// Whether idle VMs also run the chunks of stragglers.
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
