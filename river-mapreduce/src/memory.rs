//! Divides the memory of a job among its VMs, and that of a VM among its uses.

/// What a VM's process needs besides the data of jobs: code, threads, and the rings to and from two processes of its machine.
const PROCESS: u64 = 20 << 20;
/// With less than this for records, a process exceeds its share.
const RECORDS: u64 = 4 << 20;
/// More memory than this for unsorted records makes nothing faster.
const MOST_UNSORTED: u64 = 256 << 20;

/// The limits on what may be held at the same time, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Per worker: unsorted records.
    pub(crate) unsorted: u64,
    /// Per VM: sorted runs in memory. Others are spilled to files.
    pub(crate) runs: u64,
    /// Per worker: data that is being merged.
    pub(crate) merge: u64,
}

impl Limits {
    /// The limits of a VM with this many workers whose process may use `share` bytes.
    pub(crate) fn of_process(share: u64, workers: u64) -> Self {
        Self::of_records(share.saturating_sub(PROCESS).max(share / 4), workers)
    }

    /// The limits of a VM with this many workers whose records may use this many bytes.
    pub(crate) fn of_records(bytes: u64, workers: u64) -> Self {
        let workers = workers.max(1);
        // Records are both in the buffer and in the new run while they are sorted, if the run is kept in memory.
        let unsorted = (bytes * 2 / 5 / workers).min(MOST_UNSORTED);
        let merge = bytes * 3 / 20 / workers;
        Self { unsorted, runs: bytes.saturating_sub((unsorted + merge) * workers), merge }
    }
}

/// The smallest limit that this many VMs can keep.
pub(crate) fn least(vms: usize) -> u64 {
    (PROCESS + RECORDS) * vms as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shares_add_up_to_no_more_than_there_is(bytes in 0u64..1 << 50, workers in 1u64..100) {
            let limits = Limits::of_records(bytes, workers);
            prop_assert!((limits.unsorted + limits.merge) * workers + limits.runs <= bytes);
            let limits = Limits::of_process(bytes, workers);
            let records = (limits.unsorted + limits.merge) * workers + limits.runs;
            prop_assert!(records + PROCESS <= bytes || bytes < least(1));
        }
    }
}
