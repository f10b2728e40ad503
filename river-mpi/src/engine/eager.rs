//! Up to which length messages to a rank are sent eagerly.
//!
//! Between processes of one machine an eager message is copied into a ring and out of it, and an offered one is copied once,
//! by the kernel, at a fixed cost. For some KiB, which of the two is faster depends on the cores: a line that another core has
//! read last takes several times as long to write if the two share no cache. Where a rank runs may change at any time, so the
//! sender measures: if its copies into the ring take longer than offers would, it offers such messages, all but a few, by
//! which it notices if that changes.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::Engine;

/// The limit if the receiver cannot read the sender's memory.
const EAGER: usize = 64 << 10;
/// The limits between processes of one machine, while copies are slow, and while they are fast.
const SLOW: usize = 4 << 10;
const FAST: usize = 16 << 10;
/// The limit of standard sends there.
const STANDARD: usize = 8 << 10;
/// The limit within a process, where reading the sender's memory takes no system call.
const LOCAL: usize = 4 << 10;

/// A copy of a KiB into a ring is slow if it takes longer than this.
const KIB: Duration = Duration::from_nanos(180);
/// Copies are taken for slow after this many more slow than fast ones: one alone may have been interrupted.
const MANY: u8 = 4;
/// While they are slow, one message of so many is sent eagerly nevertheless.
const PROBE: u8 = 64;

/// How fast a rank's copies for another rank are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// How many more copies were slow than fast, [`MANY`] at most.
    slow: u8,
    /// How many messages were offered since the last copy.
    offered: u8,
}

impl Pace {
    /// Whether the next message of medium length is to be offered.
    fn offers(self) -> bool {
        self.slow == MANY && self.offered < PROBE
    }

    /// Returns the pace after such a message was offered.
    fn offered(self) -> Self {
        Self { offered: (self.offered + 1).min(PROBE), ..self }
    }

    /// Returns the pace after this many bytes were copied in this time.
    fn copied(self, bytes: usize, time: Duration) -> Self {
        let is_slow = time * 1024 > KIB * u32::try_from(bytes).unwrap_or(u32::MAX);
        let slow = if is_slow { (self.slow + 1).min(MANY) } else { self.slow.saturating_sub(1) };
        Self { slow, offered: 0 }
    }
}

impl Engine<'_> {
    /// Returns the length up to which messages to a rank are sent eagerly.
    pub(super) fn eager(&self, to: u32) -> usize {
        if self.local(to).is_some() {
            LOCAL
        } else if !self.shares_memory(to) {
            EAGER
        } else if self.pace_of(to).get().offers() {
            SLOW
        } else {
            FAST
        }
    }

    /// Returns the length up to which a standard send returns at once. It does not depend on what was measured, and neither
    /// does whether a program waits for ever.
    pub(super) fn returns_at_once(&self, to: u32) -> usize {
        if self.local(to).is_some() {
            LOCAL
        } else if self.shares_memory(to) {
            STANDARD
        } else {
            EAGER
        }
    }

    /// Notes that a message of this length was offered.
    pub(super) fn note_offer(&self, to: u32, bytes: usize) {
        if bytes <= FAST {
            let pace = self.pace_of(to);
            pace.set(pace.get().offered());
        }
    }

    /// Copies a message of this length into the ring to another process, by `copy`.
    pub(super) fn timed<R>(&self, to: u32, bytes: usize, copy: impl FnOnce() -> R) -> R {
        // A replay could not reproduce what was measured.
        if !(SLOW + 1..=FAST).contains(&bytes) || !self.shares_memory(to) || self.vr.is_recoverable() {
            return copy();
        }
        let start = Instant::now();
        let result = copy();
        let pace = self.pace_of(to);
        pace.set(pace.get().copied(bytes, start.elapsed()));
        result
    }

    fn pace_of(&self, to: u32) -> &Cell<Pace> {
        &self.paces[to as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 8 << 10;
    const QUICK: Duration = Duration::from_nanos(500);
    const SLUGGISH: Duration = Duration::from_micros(2);

    fn copied(pace: Pace, times: u8, time: Duration) -> Pace {
        (0..times).fold(pace, |pace, _| pace.copied(LEN, time))
    }

    #[test]
    fn slow_copies_are_replaced_by_offers_but_not_because_of_one() {
        let pace = copied(Pace::default(), MANY - 1, SLUGGISH);
        assert!(!pace.offers());
        assert!(!copied(copied(pace, 2, QUICK), 1, SLUGGISH).offers());
        assert!(copied(pace, 1, SLUGGISH).offers());
    }

    #[test]
    fn one_message_of_many_is_copied_and_if_that_is_fast_again_so_are_the_next() {
        let slow = copied(Pace::default(), MANY, SLUGGISH);
        let probed = (0..PROBE).fold(slow, |pace, _| {
            assert!(pace.offers());
            pace.offered()
        });
        assert!(!probed.offers());
        assert!(probed.copied(LEN, SLUGGISH).offers());
        assert!(!probed.copied(LEN, QUICK).offers());
    }
}
