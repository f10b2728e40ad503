//! Rings in memory that two processes of one machine share.
//!
//! The first messages of a pair take another path, so that ranks that rarely communicate need no ring. Then the writer
//! creates a ring and offers it to the reader in a message; it uses the ring once the reader has marked it as joined.

use std::sync::atomic::{AtomicUsize, Ordering};

use river_core::{Line, SharedLines, SharedName};
use serde::{Deserialize, Serialize};

use super::{LINES, Patience, Wait};
use crate::lend::ring::{Reader, Writer, memory_of};

/// A process is the writer of at most this many rings at a time.
const RINGS: usize = 256;
/// How many rings this process is the writer of.
static MADE: AtomicUsize = AtomicUsize::new(0);
/// Messages of a pair before a ring is offered.
const FEW: u32 = 8;

/// What the reader of a ring is told about it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RingOffer {
    lines: u16,
    name: SharedName,
}

impl RingOffer {
    /// Joins the ring. Returns its reading side, or `None` if this process cannot open it.
    pub(crate) fn join(&self) -> Option<Reader<SharedLines>> {
        if !self.lines.is_power_of_two() || self.lines > LINES {
            return None;
        }
        let reader = Reader::new(SharedLines::open(&self.name, memory_of(self.lines.into())).ok()?);
        reader.join();
        Some(reader)
    }
}

/// The writing side of a ring that is created once it pays.
#[derive(Debug)]
pub(crate) enum LazyRing {
    /// There is no ring yet: this many messages have taken the other path.
    Few(u32),
    Offered(Box<SharedWriter>),
    Open(Box<(SharedWriter, Patience)>),
    /// There will be no ring.
    Never,
}

impl LazyRing {
    pub(crate) const NEW: Self = Self::Few(0);

    #[cfg(test)]
    pub(crate) fn open(lines: SharedLines) -> Self {
        MADE.fetch_add(1, Ordering::Relaxed);
        Self::Open((SharedWriter(Writer::new(lines)), Patience::new(None)).into())
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }

    /// Returns the line for long messages of the ring, if it is used.
    pub(crate) fn aside(&self) -> Option<&Line> {
        let Self::Open(open) = self else { return None };
        Some(open.0.0.aside())
    }

    /// Pushes a record of some words, followed by bytes; waits for room if that is worthwhile. Returns `None` if the record
    /// has to take the other path, and otherwise whether the caller has to wake the reader, which sleeps for this reason.
    pub(crate) fn push<const N: usize>(
        &mut self,
        words: [u64; N],
        bytes: &[u8],
        reason: u64,
    ) -> Option<bool> {
        let Self::Open(open) = self else { return None };
        let (SharedWriter(writer), patience) = &mut **open;
        patience.count();
        let pushed =
            writer.push(words, bytes) || patience.wait_until(writer, |writer| writer.push(words, bytes));
        pushed.then(|| super::sleep::has_to_wake(writer.asleep(), reason))
    }

    /// Notes that a message has taken the other path. After enough of them, creates a ring of this many lines and returns what
    /// is to be offered to the reader; once the reader has joined it, uses the ring from now on.
    pub(crate) fn advance(
        &mut self,
        lines: u16,
        waits: Option<Wait>,
        shares_memory: impl FnOnce() -> bool,
    ) -> Option<RingOffer> {
        match self {
            Self::Never | Self::Open(_) => {}
            Self::Few(count) if *count < FEW => *count += 1,
            Self::Few(_) => {
                let created = if shares_memory() { SharedWriter::create(lines) } else { None };
                let (way, offer) = match created {
                    Some((ring, offer)) => (Self::Offered(ring.into()), Some(offer)),
                    None => (Self::Never, None),
                };
                *self = way;
                return offer;
            }
            Self::Offered(ring) if ring.0.is_joined() => {
                if let Self::Offered(mut ring) = std::mem::replace(self, Self::Never) {
                    // From now on, no other process can open it.
                    ring.0.memory().seal();
                    *self = Self::Open((*ring, Patience::new(waits)).into());
                }
            }
            Self::Offered(_) => {}
        }
        None
    }
}

/// A writer that counts as one of this process's rings.
#[derive(Debug)]
pub(crate) struct SharedWriter(Writer<SharedLines>);

impl SharedWriter {
    /// Creates a ring of this many lines. Returns it with the offer for its reader, or `None` if there cannot be another one.
    fn create(lines: u16) -> Option<(Self, RingOffer)> {
        if MADE.load(Ordering::Relaxed) >= RINGS {
            return None;
        }
        let memory = SharedLines::create(memory_of(lines.into())).ok()?;
        let offer = RingOffer { lines, name: memory.name() };
        MADE.fetch_add(1, Ordering::Relaxed);
        Some((Self(Writer::new(memory)), offer))
    }
}

impl Drop for SharedWriter {
    fn drop(&mut self) {
        MADE.fetch_sub(1, Ordering::Relaxed);
    }
}
