//! Measures how long things take, which determines the size of chunks and windows, and which VMs are slow.

use std::time::Duration;

/// A VM should have this much work queued, or messages cost more than the work.
const AHEAD: Duration = Duration::from_millis(2);
/// At most this many bytes may be queued for that reason.
const BYTES: usize = 256 << 10;
/// The largest window.
const MOST: usize = 1024;
/// Batches that are measured before windows grow.
const WARM_UP: u32 = 16;
/// Weight of the newest measurement.
const WEIGHT: f64 = 0.2;
/// A VM is slow if it has been silent for this many times the average of a batch, ...
const SLOW: u32 = 4;
/// ... but at least for this long.
const PATIENCE: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(crate) struct Pace {
    /// Moving averages, in seconds and bytes.
    chunk: f64,
    item: f64,
    batch: f64,
    pull: f64,
    bytes: f64,
    finished: u32,
    window: usize,
}

impl Pace {
    pub(crate) fn new(window: usize) -> Self {
        Self { chunk: 0.0, item: 0.0, batch: 0.0, pull: 0.0, bytes: 0.0, finished: 0, window }
    }

    /// Records that a chunk of that size was pulled from the work.
    pub(crate) fn pulled(&mut self, took: Duration, bytes: usize) {
        let weight = if self.bytes == 0.0 { 1.0 } else { WEIGHT };
        average(&mut self.pull, took.as_secs_f64(), weight);
        average(&mut self.bytes, bytes as f64, weight);
    }

    /// Records that a VM has done a batch.
    pub(crate) fn finished(&mut self, took: Duration, chunks: usize, items: u64) {
        let weight = if self.finished == 0 { 1.0 } else { WEIGHT };
        self.finished = self.finished.saturating_add(1);
        let took = took.as_secs_f64();
        average(&mut self.batch, took, weight);
        average(&mut self.chunk, took / chunks.max(1) as f64, weight);
        average(&mut self.item, took / items.max(1) as f64, weight);
        if self.finished > WARM_UP {
            let cost = self.chunk.max(self.pull).max(1e-9);
            let by_time = (AHEAD.as_secs_f64() / cost) as usize;
            let by_bytes = (BYTES as f64 / self.bytes.max(1.0)) as usize;
            self.window = by_time.min(by_bytes).min(2 * self.window).clamp(1, MOST);
        }
    }

    /// How many chunks a VM should have outstanding.
    pub(crate) fn window(&self) -> usize {
        self.window
    }

    /// The time per item, if measured.
    pub(crate) fn per_item(&self) -> Option<Duration> {
        (self.finished > 0).then(|| Duration::from_secs_f64(self.item))
    }

    /// How long a VM may be silent before others run its work as well. `None` if nothing was measured yet.
    pub(crate) fn patience(&self) -> Option<Duration> {
        (self.finished > 0).then(|| (SLOW * Duration::from_secs_f64(self.batch)).max(PATIENCE))
    }
}

fn average(value: &mut f64, new: f64, weight: f64) {
    *value += weight * (new - *value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_grows_for_small_chunks_only_and_not_before_it_is_known_that_they_are() {
        let mut pace = Pace::new(2);
        let grow = |pace: &mut Pace, took| (0..40).for_each(|_| pace.finished(took, 1, 1));
        pace.pulled(Duration::ZERO, 10);
        pace.finished(Duration::from_nanos(100), 1, 1);
        assert_eq!(pace.window(), 2);
        grow(&mut pace, Duration::from_nanos(100));
        assert_eq!(pace.window(), MOST);
        grow(&mut pace, Duration::from_millis(100));
        assert_eq!(pace.window(), 1);
        assert!(pace.patience() > Some(Duration::from_millis(300)));
    }

    #[test]
    fn large_chunks_and_slow_work_keep_it_small() {
        let mut pace = Pace::new(2);
        pace.pulled(Duration::ZERO, 1 << 20);
        (0..40).for_each(|_| pace.finished(Duration::from_nanos(100), 1, 1));
        assert_eq!(pace.window(), 1);
        let mut pace = Pace::new(2);
        pace.pulled(Duration::from_millis(1), 1);
        (0..40).for_each(|_| pace.finished(Duration::from_nanos(100), 1, 1));
        assert_eq!(pace.window(), 2);
    }
}
