//! How the reader of a queue goes to sleep, and how its writers wake it.
//!
//! The reader publishes what it sleeps for, polls the queue once more, and sleeps. A writer pushes, and then checks whether
//! the reader sleeps for that. They miss each other only if each of them checks before it can see the other's store (Dekker).
//! The reader has a fence against that. The writer has none, since a fence would take as long as the message itself: it only
//! keeps the compiler from moving the push behind the check. So a reader must poll the queue again after a millisecond, when
//! every earlier store of another core is visible, before it sleeps any longer.

use std::sync::atomic::{AtomicU64, Ordering, compiler_fence, fence};

/// The reason of a reader that sleeps until anything arrives.
pub(crate) const ASLEEP: u64 = 1;

/// Publishes whether the reader sleeps until anything arrives.
pub(crate) fn set(word: &AtomicU64, asleep: bool) {
    if asleep {
        fall_asleep(word, ASLEEP);
    } else {
        wake_up(word);
    }
}

/// Publishes that the reader sleeps until something arrives for this reason, which must not be 0.
pub(crate) fn fall_asleep(word: &AtomicU64, reason: u64) {
    word.store(reason, Ordering::SeqCst);
    fence(Ordering::SeqCst);
}

/// Publishes that the reader is awake. Returns `false` if a writer has woken it.
pub(crate) fn wake_up(word: &AtomicU64) -> bool {
    word.swap(0, Ordering::SeqCst) != 0
}

/// Returns whether the reader sleeps for this reason, so that the caller, which has just pushed something, has to wake it:
/// `true` at most once for each sleep.
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
