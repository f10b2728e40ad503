//! How the memory of a job is shared out among its VMs, and there among what they do.

/// What a VM's process needs beside what jobs are accounted for: its code, its threads, its links.
const PROCESS: u64 = 12 << 20;
/// With less than this for records a process takes more than its share.
const RECORDS: u64 = 4 << 20;
/// More memory for records that are not sorted yet makes nothing faster.
const MOST_UNSORTED: u64 = 256 << 20;

/// What may be held at the same time, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Of one worker: records that are not sorted yet.
    pub(crate) unsorted: u64,
    /// Of a VM: sorted runs. Those beyond go to files.
    pub(crate) runs: u64,
    /// Of one worker: what is being merged.
    pub(crate) merge: u64,
}

impl Limits {
    /// Of a VM with so many workers, whose process may take `share` bytes.
    pub(crate) fn of_process(share: u64, workers: u64) -> Self {
        Self::of_records(share.saturating_sub(PROCESS).max(share / 4), workers)
    }

    /// Of a VM with so many workers, whose records may take so many bytes.
    pub(crate) fn of_records(bytes: u64, workers: u64) -> Self {
        let workers = workers.max(1);
        // What is sorted is in the buffer and in the new run at the same time, if that is kept in memory.
        let unsorted = (bytes * 2 / 5 / workers).min(MOST_UNSORTED);
        let merge = bytes * 3 / 20 / workers;
        Self { unsorted, runs: bytes.saturating_sub((unsorted + merge) * workers), merge }
    }
}

/// The least that so many VMs stay within.
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
