//! How the reader of a queue sleeps, and its writers wake it.
//!
//! The reader publishes what it sleeps for, looks into the queue once more, and sleeps. A writer pushes, and then looks whether the
//! reader sleeps for that. Either could miss the other only if both looked before they saw what the other one had stored (Dekker).
//! The reader's side has a fence against that. The writer's has none, as it would take as long as the message: it only keeps the
//! compiler from moving the push behind the look. So a reader has to look into the queue again after a millisecond, when every
//! earlier store of another core is visible, before it sleeps for longer.

use std::sync::atomic::{AtomicU64, Ordering, compiler_fence, fence};

/// The reason of a reader that sleeps until anything comes.
pub(crate) const ASLEEP: u64 = 1;

/// Publishes whether the reader sleeps until anything comes.
pub(crate) fn set(word: &AtomicU64, asleep: bool) {
    if asleep {
        fall_asleep(word, ASLEEP);
    } else {
        wake_up(word);
    }
}

/// Publishes that the reader sleeps until something comes for this reason, which is not 0.
pub(crate) fn fall_asleep(word: &AtomicU64, reason: u64) {
    word.store(reason, Ordering::SeqCst);
    fence(Ordering::SeqCst);
}

/// Publishes that the reader is awake. Returns `false` if a writer has woken it.
pub(crate) fn wake_up(word: &AtomicU64) -> bool {
    word.swap(0, Ordering::SeqCst) != 0
}

/// Returns whether the reader sleeps for this reason and has to be woken by the caller, who has pushed something: `true` once for
/// each sleep.
#[inline]
pub(crate) fn has_to_wake(word: &AtomicU64, reason: u64) -> bool {
    compiler_fence(Ordering::SeqCst);
    word.load(Ordering::Relaxed) == reason
        && word.compare_exchange(reason, 0, Ordering::SeqCst, Ordering::Relaxed).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleeper_is_woken_once_and_by_what_it_waits_for() {
        let word = AtomicU64::new(0);
        assert!(!has_to_wake(&word, 7));
        fall_asleep(&word, 7);
        assert!(!has_to_wake(&word, 6));
        assert!(has_to_wake(&word, 7) && !has_to_wake(&word, 7));
        assert!(!wake_up(&word));
        fall_asleep(&word, 8);
        assert!(wake_up(&word) && !has_to_wake(&word, 8));
    }
}
