//! How long a sender waits for room in a ring.

use std::ops::Deref;
use std::time::{Duration, Instant};

use river_core::Line;

use crate::lend::ring::Writer;

/// A sender that waits for room gives up after this long without a sign of progress from the receiver.
const PATIENCE: Duration = Duration::from_micros(50);
/// It waits at most this long, whatever the receiver does.
const LONGEST: Duration = Duration::from_micros(500);
/// Polls for room between two reads of the clock.
const LOOKS: u32 = 32;
/// After this many reads of the clock, a few microseconds, the sender also yields between them: the receiver may need this
/// core.
const ALONE: u32 = 16;
/// After an unsuccessful wait, a sender does not wait again for this many messages.
const IMPATIENT: u32 = 1024;

/// Decides whether and how long a sender waits for room.
#[derive(Debug)]
pub(crate) struct Patience {
    /// How it waits for room; `None` if it does not wait at all.
    waits: Option<Wait>,
    /// For how many more messages it does not wait, as its last wait was unsuccessful.
    impatient: u32,
}

/// How a sender waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// By polling: the receiver can run at the same time.
    Looking,
    /// By yielding: the receiver may need this core.
    Yielding,
}

impl Wait {
    /// Returns how to wait, given whether the receiver can run at the same time.
    pub(crate) fn for_room(at_once: bool) -> Self {
        if at_once { Self::Looking } else { Self::Yielding }
    }
}

impl Patience {
    pub(crate) fn new(waits: Option<Wait>) -> Self {
        Self { waits, impatient: 0 }
    }

    /// Counts a message that is about to be sent.
    #[inline]
    pub(crate) fn count(&mut self) {
        self.impatient = self.impatient.saturating_sub(1);
    }

    /// Calls `done`, which needs room, until it succeeds or patience runs out. Returns `false` if there is no room in time,
    /// or if it does not pay to wait.
    pub(crate) fn wait_until<L: Deref<Target = [Line]>>(
        &mut self,
        lines: &mut Writer<L>,
        mut done: impl FnMut(&mut Writer<L>) -> bool,
    ) -> bool {
        let (looks, alone, patience) = match self.waits {
            Some(Wait::Looking) => (LOOKS, ALONE, PATIENCE),
            Some(Wait::Yielding) => (1, 0, LONGEST),
            None => return false,
        };
        if self.impatient > 0 {
            return false;
        }
        let begun = Instant::now();
        let (mut sign, mut progress) = (begun, lines.progress());
        for round in 0.. {
            for _ in 0..looks {
                std::hint::spin_loop();
                if done(lines) {
                    return true;
                }
            }
            let (now, seen) = (Instant::now(), lines.progress());
            if seen != std::mem::replace(&mut progress, seen) {
                sign = now;
            }
            if now - sign >= patience || now - begun >= LONGEST {
                break;
            }
            if round >= alone {
                std::thread::yield_now();
            }
        }
        self.impatient = IMPATIENT;
        false
    }
}
