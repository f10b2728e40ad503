//! How long a sender waits for room in a ring.

use std::ops::Deref;
use std::time::{Duration, Instant};

use river_core::Line;

use crate::lend::ring::Writer;

/// A sender that waits for room gives up after this long without a sign of progress from the receiver.
const PATIENCE: Duration = Duration::from_micros(50);
/// It waits at most this long, whatever the receiver does.
const LONGEST: Duration = Duration::from_micros(500);
/// Looks of a sender for room between two looks at the clock.
const LOOKS: u32 = 32;
/// After this many looks at the clock, some microseconds, it also yields between them: the receiver may need this core.
const ALONE: u32 = 16;
/// After a wait in vain, a sender does not wait again for this many messages.
const IMPATIENT: u32 = 1024;

/// A sender's.
#[derive(Debug)]
pub(crate) struct Patience {
    /// `None`: it does not wait for room at all.
    waits: Option<Wait>,
    /// For so many it does not.
    impatient: u32,
}

/// How a sender waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// By looking: the receiver can run at the same time.
    Looking,
    /// By letting others run: the receiver may need this core.
    Yielding,
}

impl Wait {
    /// How to wait, if the receiver can run at the same time or not.
    pub(crate) fn for_room(at_once: bool) -> Self {
        if at_once { Self::Looking } else { Self::Yielding }
    }
}

impl Patience {
    pub(crate) fn new(waits: Option<Wait>) -> Self {
        Self { waits, impatient: 0 }
    }

    /// Something is to be sent.
    #[inline]
    pub(crate) fn count(&mut self) {
        self.impatient = self.impatient.saturating_sub(1);
    }

    /// Waits a moment until it is done, for which there has to be room. False: there is none, or it is of no use to wait for it.
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
