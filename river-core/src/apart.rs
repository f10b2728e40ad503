//! Keeps threads that poll for each other on cores of their own.
//!
//! The scheduler often puts a thread that is woken on the core of the thread that woke it. If both go on polling and
//! yielding, they take turns there, a few microseconds each, and neither ever sleeps: the kernel takes about a tenth of a
//! second to notice that another core is idle. So a thread that finds repeatedly that others ran while it yielded asks the
//! kernel to move it, once, and may then run anywhere again. It does not know which cores are idle, or whether any is. So
//! moves that do not help become rarer and rarer, and there are none if the process is known to have more threads than
//! cores: they would only spread the threads less evenly for a while.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io;
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// A yield to a thread that also only polls and yields takes 1.7 us; if no other thread runs, it takes a quarter of that. A
/// thread that gets its core back sooner than this has it to itself.
const ALONE: Duration = Duration::from_micros(1);
/// How many consecutive yields to others make a thread move, at first and at most, if moves do not help: from a tenth of a
/// millisecond to a tenth of a second.
const LEAST: u32 = 32;
const MOST: u32 = LEAST << 10;

/// How many threads of this process have an [`Apart`].
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// How a thread gets on with others on its core. Only that thread reads and writes it.
#[derive(Debug)]
pub(crate) struct Apart {
    /// Whether the thread and those that it works with have a core each; if nobody has set it, the process's own threads
    /// count.
    fits: OnceLock<bool>,
    /// Consecutive yields during which others ran.
    crowded: AtomicU32,
    /// How many of them make the thread move.
    patience: AtomicU32,
}

impl Default for Apart {
    fn default() -> Self {
        THREADS.fetch_add(1, Relaxed);
        Self { fits: OnceLock::new(), crowded: 0.into(), patience: LEAST.into() }
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        THREADS.fetch_sub(1, Relaxed);
    }
}

impl Apart {
    /// Sets whether the thread and those that it works with have a core each. Only the first call has an effect.
    pub(crate) fn expect(&self, fits: bool) {
        let _ = self.fits.set(fits);
    }

    /// Whether other threads ran when this one last yielded.
    pub(crate) fn is_crowded(&self) -> bool {
        self.crowded.load(Relaxed) > 0
    }

    /// Yields.
    pub(crate) fn yield_now(&self) {
        // How long that takes does not matter if the thread may not move.
        if self.fits.get() == Some(&false) {
            thread::yield_now();
        } else {
            self.yield_at(Instant::now());
        }
    }

    /// Yields, and returns whether no other thread ran. `now` is the current time.
    pub(crate) fn yield_at(&self, now: Instant) -> bool {
        thread::yield_now();
        let alone = now.elapsed() < ALONE;
        if self.note(alone) && self.fits() {
            // Where that is not allowed, the thread stays where it is.
            let _ = move_away();
        }
        alone
    }

    fn fits(&self) -> bool {
        let cores = || thread::available_parallelism().map_or(1, usize::from);
        self.fits.get().copied().unwrap_or_else(|| THREADS.load(Relaxed) <= cores())
    }

    /// Records the outcome of a yield. Returns whether the thread should move, if it can have a core to itself.
    fn note(&self, alone: bool) -> bool {
        let (crowded, patience) = (self.crowded.load(Relaxed), self.patience.load(Relaxed));
        if alone {
            self.crowded.store(0, Relaxed);
            self.patience.store((patience - 1).max(LEAST), Relaxed);
            return false;
        }
        let crowded = crowded.saturating_add(1);
        let moves = crowded >= patience;
        self.crowded.store(if moves { 1 } else { crowded }, Relaxed);
        if moves {
            self.patience.store((patience * 2).min(MOST), Relaxed);
        }
        moves
    }
}

/// Moves this thread to another core, if it may use one.
fn move_away() -> io::Result<()> {
    let cores = sched_getaffinity(None)?;
    let mut others = cores;
    others.unset(sched_getcpu());
    if others.count() == 0 {
        return Ok(());
    }
    sched_setaffinity(None, &others)?;
    // A thread that may run anywhere should be able to use cores that are added later, too.
    sched_setaffinity(None, &anywhere())?;
    if sched_getaffinity(None)? == cores {
        return Ok(());
    }
    sched_setaffinity(None, &cores)
}

fn anywhere() -> CpuSet {
    let mut all = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|core| all.set(core));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many yields the thread moves, if others run each time.
    fn until_it_moves(apart: &Apart) -> u32 {
        (1..).find(|_| apart.note(false)).unwrap()
    }

    #[test]
    fn moves_that_do_not_help_become_rare() {
        let apart = Apart::default();
        let waits: Vec<u32> = (0..20).map(|_| until_it_moves(&apart)).collect();
        assert!(waits.is_sorted());
        assert_eq!((waits[0], waits[19]), (LEAST, MOST - 1));
        (0..MOST).for_each(|_| assert!(!apart.note(true)));
        assert_eq!(until_it_moves(&apart), LEAST);
    }

    #[test]
    fn who_has_its_core_now_and_then_stays() {
        let apart = Apart::default();
        (0..100 * LEAST).for_each(|turn| assert!(!apart.note(turn % LEAST == 0), "turn {turn}"));
    }

    #[test]
    fn a_thread_that_moves_may_run_where_it_might_before() {
        let before = sched_getaffinity(None).unwrap();
        move_away().unwrap();
        assert_eq!(sched_getaffinity(None).unwrap(), before);
        let mut one = CpuSet::new();
        one.set(sched_getcpu());
        sched_setaffinity(None, &one).unwrap();
        move_away().unwrap();
        assert_eq!(sched_getaffinity(None).unwrap(), one);
    }
}
