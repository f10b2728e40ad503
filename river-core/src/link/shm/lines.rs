//! Cache lines that two processes share, for layers that communicate too frequently for messages.

use std::io;
use std::ops::Deref;
use std::sync::atomic::AtomicU64;

use serde::{Deserialize, Serialize};

use super::memory::{FIRST, Memory};
use crate::protocol::MemoryName;

/// A cache line: eight words.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Line(pub [AtomicU64; 8]);

const _: () = assert!(size_of::<Line>() == 64);

/// Cache lines that another process of the same user and machine can share. They are words that either process may change at
/// any time, so readers must check everything that they read.
///
/// One process creates them and sends the other their name in a message; the other opens them.
///
/// ```
/// use std::sync::atomic::Ordering::Relaxed;
///
/// use river_core::SharedLines;
///
/// # fn main() -> std::io::Result<()> {
/// let ours = SharedLines::create(8)?;
/// let theirs = SharedLines::open(&ours.name(), 8)?; // in the other process
/// ours[7].0[1].store(5, Relaxed);
/// assert_eq!(theirs[7].0[1].load(Relaxed), 5);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SharedLines(Memory);

/// The name by which another process of the same user opens [`SharedLines`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedName(MemoryName);

impl SharedLines {
    /// Creates this many lines, whose words all are 0. Their memory is allocated now, not when it is first used.
    ///
    /// # Errors
    /// The system has no memory, or no file, left.
    pub fn create(lines: usize) -> io::Result<Self> {
        Memory::create(length(lines)?).map(Self::populated)
    }

    /// Opens lines that another process has created. Their number must be the same.
    ///
    /// # Errors
    /// They cannot be opened: they belong to another user or machine, or have been [sealed](Self::seal).
    pub fn open(name: &SharedName, lines: usize) -> io::Result<Self> {
        Memory::open(&name.0, length(lines)?).map(Self::populated)
    }

    fn populated(memory: Memory) -> Self {
        memory.populate();
        Self(memory)
    }

    /// Returns the name by which others open them.
    #[must_use]
    pub fn name(&self) -> SharedName {
        SharedName(self.0.name())
    }

    /// Closes the file by which other processes open them: processes that have opened them keep them, but no other can open
    /// them.
    pub fn seal(&mut self) {
        self.0.close();
    }
}

impl Deref for SharedLines {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        self.0.lines()
    }
}

fn length(lines: usize) -> io::Result<usize> {
    let length = lines.checked_mul(size_of::<Line>()).and_then(|bytes| bytes.checked_add(FIRST));
    length.ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn lines_are_shared_until_they_are_sealed_and_longer() {
        let mut ours = SharedLines::create(3).unwrap();
        assert!(SharedLines::open(&ours.name(), 4).is_err());
        let theirs = SharedLines::open(&ours.name(), 3).unwrap();
        ours.seal();
        assert!(SharedLines::open(&ours.name(), 3).is_err());
        assert_eq!((ours.len(), theirs.len()), (3, 3));
        theirs[2].0[7].store(7, Relaxed);
        assert_eq!(ours[2].0[7].load(Relaxed), 7);
        assert!(SharedLines::create(usize::MAX / 8).is_err());
    }
}
