//! Rings in memory that two processes of one machine share.
//!
//! The first messages of a pair go another way, so that ranks that rarely talk to each other need no ring. Then the writer makes
//! one and offers it to the reader, in a message, and uses it once the reader has marked it as joined.

use std::sync::atomic::{AtomicUsize, Ordering};

use river_core::{SharedLines, SharedName};

use super::{Patience, Wait};
use crate::lend::ring::{Reader, Writer, memory_of};

/// A process makes at most this many.
const RINGS: usize = 256;
/// How many of those that it has made it still has.
static MADE: AtomicUsize = AtomicUsize::new(0);
/// Messages of a pair before a ring is offered.
const FEW: u32 = 8;

/// The writing side of a ring that is made when it pays.
#[derive(Debug)]
pub(crate) enum LazyRing {
    /// This many messages have gone another way.
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

    /// Pushes a record, some words and bytes behind them, for which it waits for room if that is of use. Returns `None` if the
    /// record has to go another way, and otherwise whether the reader, which sleeps for this reason, has to be woken.
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

    /// A message has gone another way: offers a ring of this many lines if there were enough of them, or uses the ring from now on
    /// if the reader has it. Returns the name of a ring to be offered to the reader.
    pub(crate) fn advance(
        &mut self,
        lines: usize,
        waits: Option<Wait>,
        shares_memory: impl FnOnce() -> bool,
    ) -> Option<SharedName> {
        match self {
            Self::Never | Self::Open(_) => {}
            Self::Few(count) if *count < FEW => *count += 1,
            Self::Few(_) => {
                let created = if shares_memory() { SharedWriter::create(lines) } else { None };
                let (way, name) = match created {
                    Some((ring, name)) => (Self::Offered(ring.into()), Some(name)),
                    None => (Self::Never, None),
                };
                *self = way;
                return name;
            }
            Self::Offered(ring) if ring.0.is_joined() => {
                if let Self::Offered(mut ring) = std::mem::replace(self, Self::Never) {
                    // Nobody else can have it any more.
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
    /// A new ring of this many lines, and the name by which its reader finds it. `None`: there cannot be another one.
    fn create(lines: usize) -> Option<(Self, SharedName)> {
        if MADE.load(Ordering::Relaxed) >= RINGS {
            return None;
        }
        let lines = SharedLines::create(memory_of(lines)).ok()?;
        let name = lines.name();
        MADE.fetch_add(1, Ordering::Relaxed);
        Some((Self(Writer::new(lines)), name))
    }
}

impl Drop for SharedWriter {
    fn drop(&mut self) {
        MADE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Joins a ring of this many lines that another process has made, and returns its reading side. `None`: this process cannot have
/// it.
pub(crate) fn join(name: &SharedName, lines: usize) -> Option<Reader<SharedLines>> {
    let reader = Reader::new(SharedLines::open(name, memory_of(lines)).ok()?);
    reader.join();
    Some(reader)
}
