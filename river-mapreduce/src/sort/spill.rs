//! Storage of runs that are not in memory: one unnamed file, so that it disappears with the process, however that ends.
//! Freed space is reused, and the file is never larger than the most space that was needed at one time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// The file of all runs of a job on a VM: a process may have many more runs than open files.
#[derive(Debug)]
pub(super) struct SpillFile {
    file: File,
    room: Mutex<Room>,
}

/// A range of bytes in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    start: u64,
    len: u64,
}

/// The free space of a file.
#[derive(Debug, Default)]
struct Room {
    /// All bytes from this offset on are free.
    end: u64,
    /// The lengths of the free gaps before `end`, by their offsets. No two of them are adjacent, and none touches the
    /// end.
    gaps: BTreeMap<u64, u64>,
}

impl Room {
    /// Allocates up to `most` contiguous bytes, at least one.
    fn take(&mut self, most: u64) -> Extent {
        let Some((start, gap)) = self.gaps.pop_first() else {
            let start = self.end;
            self.end += most;
            return Extent { start, len: most };
        };
        let len = gap.min(most);
        if gap > len {
            self.gaps.insert(start + len, gap - len);
        }
        Extent { start, len }
    }

    /// Frees bytes. Returns `true` if the end has moved.
    fn give_back(&mut self, extent: Extent) -> bool {
        let Extent { mut start, mut len } = extent;
        if let Some((&before, &gap)) = self.gaps.range(..start).next_back()
            && before + gap == start
        {
            self.gaps.remove(&before);
            (start, len) = (before, gap + len);
        }
        if let Some(gap) = self.gaps.remove(&(start + len)) {
            len += gap;
        }
        if start + len == self.end {
            self.end = start;
            return true;
        }
        self.gaps.insert(start, len);
        false
    }
}

impl SpillFile {
    pub(super) fn new(directory: &Path) -> io::Result<Self> {
        Ok(Self { file: tempfile::tempfile_in(directory)?, room: Mutex::default() })
    }

    fn take(&self, most: u64) -> Extent {
        self.room.lock().unwrap_or_else(PoisonError::into_inner).take(most)
    }

    fn give_back(&self, extents: &[Extent]) {
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        let moved = extents.iter().fold(false, |moved, extent| room.give_back(*extent) | moved);
        if moved {
            // If that fails, the space is reused nevertheless.
            let _ = self.file.set_len(room.end);
        }
    }
}

/// The bytes of one run in the file, in order. Dropping it frees them.
#[derive(Debug)]
pub(super) struct Spilled {
    file: Arc<SpillFile>,
    extents: Vec<Extent>,
}

impl Spilled {
    pub(super) fn new(file: Arc<SpillFile>) -> Self {
        Self { file, extents: Vec::new() }
    }

    pub(super) fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let extent = self.file.take(bytes.len() as u64);
            match self.extents.last_mut() {
                Some(last) if last.start + last.len == extent.start => last.len += extent.len,
                _ => self.extents.push(extent),
            }
            let (now, later) = bytes.split_at(extent.len as usize);
            self.file.file.write_all_at(now, extent.start)?;
            bytes = later;
        }
        Ok(())
    }

    /// Fills the buffer with appended bytes, from `offset`.
    pub(super) fn read(&self, mut offset: u64, mut into: &mut [u8]) -> io::Result<()> {
        for extent in &self.extents {
            if offset >= extent.len {
                offset -= extent.len;
                continue;
            }
            let here = (extent.len - offset).min(into.len() as u64) as usize;
            let (now, later) = into.split_at_mut(here);
            self.file.file.read_exact_at(now, extent.start + offset)?;
            (into, offset) = (later, 0);
            if into.is_empty() {
                break;
            }
        }
        if into.is_empty() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl Drop for Spilled {
    fn drop(&mut self) {
        self.file.give_back(&self.extents);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_keep_their_bytes_and_room_is_used_again(
            script in prop::collection::vec((0usize..6, prop::option::weighted(0.7, 1usize..200)), 0..100),
        ) {
            let file = Arc::new(SpillFile::new(&std::env::temp_dir()).unwrap());
            let new = || (Spilled::new(Arc::clone(&file)), Vec::new());
            let mut runs: Vec<(Spilled, Vec<u8>)> = (0..6).map(|_| new()).collect();
            let mut most = 0;
            for (turn, (run, action)) in script.into_iter().enumerate() {
                match action {
                    Some(count) => {
                        let bytes: Vec<u8> = (0..count).map(|at| (turn * 31 + at) as u8).collect();
                        runs[run].0.append(&bytes).unwrap();
                        runs[run].1.extend(bytes);
                    }
                    None => runs[run] = new(),
                }
                most = most.max(runs.iter().map(|(_, bytes)| bytes.len()).sum());
                prop_assert!(file.file.metadata().unwrap().len() <= most as u64);
                let (spilled, expected) = &runs[run];
                for offset in [0, expected.len() / 3] {
                    let mut bytes = vec![0; expected.len() - offset];
                    spilled.read(offset as u64, &mut bytes).unwrap();
                    prop_assert!(bytes == expected[offset..]);
                }
                prop_assert!(spilled.read(1, &mut vec![0; expected.len()]).is_err() || expected.is_empty());
            }
            for (spilled, expected) in &runs {
                let mut bytes = vec![0; expected.len()];
                spilled.read(0, &mut bytes).unwrap();
                prop_assert!(bytes == *expected);
            }
            runs.clear();
            prop_assert_eq!(file.file.metadata().unwrap().len(), 0);
        }
    }
}
