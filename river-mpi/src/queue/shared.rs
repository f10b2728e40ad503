//! Rings in memory that two processes of one machine share.

use std::sync::atomic::{AtomicUsize, Ordering};

use river_core::{SharedLines, SharedName};

use crate::lend::ring::{Reader, Writer, memory_of};

/// A process makes so many at most.
const RINGS: usize = 256;
/// How many it has made, and has still.
static MADE: AtomicUsize = AtomicUsize::new(0);

/// The writing side of a ring that its reader may not have yet. It counts as one of this process.
#[derive(Debug)]
pub(crate) struct SharedWriter(Writer<SharedLines>);

impl SharedWriter {
    /// A new one of so many lines, and what its reader finds it by. `None`: there cannot be another one.
    pub(crate) fn create(lines: usize) -> Option<(Self, SharedName)> {
        if MADE.load(Ordering::Relaxed) >= RINGS {
            return None;
        }
        let lines = SharedLines::create(memory_of(lines)).ok()?;
        let name = lines.name();
        Some((Self::new(lines), name))
    }

    pub(crate) fn new(lines: SharedLines) -> Self {
        MADE.fetch_add(1, Ordering::Relaxed);
        Self(Writer::new(lines))
    }

    /// Whether the reader has it.
    pub(crate) fn is_joined(&self) -> bool {
        self.0.is_joined()
    }

    /// Nobody else can have it any more.
    pub(crate) fn seal(&mut self) {
        self.0.memory().seal();
    }

    pub(crate) fn writer(&mut self) -> &mut Writer<SharedLines> {
        &mut self.0
    }
}

impl Drop for SharedWriter {
    fn drop(&mut self) {
        MADE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The reading side of a ring of so many lines that another process has made, which sees that it is read. `None`: this process
/// cannot have it.
pub(crate) fn join(name: &SharedName, lines: usize) -> Option<Reader<SharedLines>> {
    let reader = Reader::new(SharedLines::open(name, memory_of(lines)).ok()?);
    reader.join();
    Some(reader)
}
