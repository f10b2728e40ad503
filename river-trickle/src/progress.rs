//! How far a farm has come.

/// What a progress callback is told, each time after some items were finished or a VM was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// How many items are done. May decrease in a `forkfold`, when a VM dies with what it had folded.
    pub done_items: u64,
    /// How many items there are, if the work knows it.
    pub total_items: Option<u64>,
    /// How many VMs work.
    pub vms: usize,
}
