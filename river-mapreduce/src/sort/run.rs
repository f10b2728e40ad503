//! Runs: sorted records, the parts of all reducers one after the other, in memory while there is room, otherwise in a
//! file.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::spill::{SpillFile, Spilled};
use crate::datum::Datum;
use crate::record::Layout;

/// The number of bytes that are buffered before they are written to a file.
const WRITE: usize = 256 << 10;

/// The error of writing or reading a run.
#[derive(Clone, Debug, thiserror::Error)]
#[error("temporary file in {}: {error}", directory.display())]
pub(crate) struct RunError {
    directory: PathBuf,
    error: Arc<io::Error>,
}

/// The storage of runs: up to a number of bytes in memory, the others in a temporary file.
#[derive(Debug)]
pub(crate) struct RunSpace {
    limit: usize,
    used: AtomicUsize,
    directory: PathBuf,
    /// Created on first use.
    file: Mutex<Option<Arc<SpillFile>>>,
}

/// One reducer's part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    start: u64,
    /// Its length in bytes.
    pub(crate) len: u64,
    pub(crate) records: u64,
    /// The checksum of its bytes: a part that was made again must have the same.
    pub(crate) crc: u32,
}

/// A sorted run that is complete.
#[derive(Debug)]
pub(crate) struct Run {
    data: Data,
    parts: Vec<Part>,
    space: Arc<RunSpace>,
}

#[derive(Debug)]
enum Data {
    Memory(Bytes),
    File(Spilled),
}

impl RunSpace {
    /// Keeps up to `limit` bytes of runs in memory, the others in an unnamed file in `directory`.
    pub(crate) fn new(limit: usize, directory: PathBuf) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0), directory, file: Mutex::default() })
    }

    /// Allocates room in the file.
    fn spill(&self) -> Result<Spilled, RunError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match &*file {
            Some(file) => Arc::clone(file),
            None => {
                let new = SpillFile::new(&self.directory).map_err(|error| self.error(error))?;
                Arc::clone(file.insert(Arc::new(new)))
            }
        };
        Ok(Spilled::new(file))
    }

    fn error(&self, error: io::Error) -> RunError {
        RunError { directory: self.directory.clone(), error: Arc::new(error) }
    }

    /// Reserves this many bytes of memory, if available.
    fn reserve(&self, bytes: usize) -> bool {
        let take = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

impl Run {
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Whether the run is in a file.
    fn is_spilled(&self) -> bool {
        matches!(self.data, Data::File(_))
    }

    /// The number of bytes of the run that are in a file.
    pub(crate) fn spilled_bytes(&self) -> u64 {
        if self.is_spilled() { self.parts.iter().map(|part| part.len).sum() } else { 0 }
    }

    /// Reads up to `len` bytes of a reducer's part from `offset`: none at its end, or if there is no such part.
    pub(crate) fn read(&self, part: usize, offset: u64, len: usize) -> Result<Bytes, RunError> {
        let Some(part) = self.parts.get(part) else { return Ok(Bytes::new()) };
        let len = (part.len.saturating_sub(offset)).min(len as u64) as usize;
        let start = part.start + offset.min(part.len);
        match &self.data {
            Data::Memory(bytes) => Ok(bytes.slice(start as usize..start as usize + len)),
            Data::File(spilled) => {
                let mut bytes = vec![0; len];
                spilled.read(start, &mut bytes).map_err(|error| self.space.error(error))?;
                Ok(bytes.into())
            }
        }
    }

    /// The keys of a reducer's part.
    pub(crate) fn keys<K: Datum, V: Datum>(&self, part: usize) -> Result<Vec<Vec<u8>>, RunError> {
        let (bytes, layout) = (self.read(part, 0, usize::MAX)?, Layout::of::<K, V>());
        let (mut at, mut keys) = (0, Vec::new());
        while let Some(span) = layout.parse(&bytes[at..]) {
            keys.push(bytes[at..][span.key()].to_vec());
            at += span.len();
        }
        Ok(keys)
    }

    /// How many bytes a reader should request: everything if it is in memory, as that is not copied.
    pub(crate) fn natural_read(&self, usual: usize) -> usize {
        if self.is_spilled() { usual } else { usize::MAX }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Data::Memory(bytes) = &self.data {
            self.space.used.fetch_sub(bytes.len(), Ordering::Relaxed);
        }
    }
}

/// Writes a run, part after part.
#[derive(Debug)]
pub(crate) struct RunWriter {
    space: Arc<RunSpace>,
    /// The bytes that are in memory: all, or those still to be written to the file.
    buffer: Vec<u8>,
    file: Option<Spilled>,
    reserved: usize,
    /// The number of bytes in the file.
    written: u64,
    parts: Vec<Part>,
    part: Part,
    crc: crc32fast::Hasher,
    /// The start of the bytes in the buffer that are not in the checksum yet.
    unchecked: usize,
}

const EMPTY: Part = Part { start: 0, len: 0, records: 0, crc: 0 };

impl RunWriter {
    /// Begins a run of at most `bytes` bytes.
    pub(crate) fn new(space: &Arc<RunSpace>, bytes: usize) -> Result<Self, RunError> {
        let in_memory = space.reserve(bytes);
        let file = if in_memory { None } else { Some(space.spill()?) };
        Ok(Self {
            space: Arc::clone(space),
            buffer: Vec::with_capacity(if in_memory { bytes } else { WRITE + WRITE / 4 }),
            file,
            reserved: if in_memory { bytes } else { 0 },
            written: 0,
            parts: Vec::new(),
            part: EMPTY,
            crc: crc32fast::Hasher::new(),
            unchecked: 0,
        })
    }

    /// Appends a record to the current part.
    #[inline]
    pub(crate) fn record(&mut self, append: impl FnOnce(&mut Vec<u8>)) -> Result<(), RunError> {
        append(&mut self.buffer);
        self.part.records += 1;
        if self.file.is_some() && self.buffer.len() >= WRITE { self.flush() } else { Ok(()) }
    }

    /// Ends the current part.
    pub(crate) fn end_part(&mut self) {
        self.check();
        let end = self.written + self.buffer.len() as u64;
        let crc = std::mem::take(&mut self.crc).finalize();
        self.parts.push(Part { len: end - self.part.start, crc, ..self.part });
        self.part = Part { start: end, ..EMPTY };
    }

    /// Completes the run.
    pub(crate) fn finish(mut self) -> Result<Run, RunError> {
        let data = if self.file.is_some() {
            self.flush()?;
            self.file.take().map(Data::File)
        } else {
            None
        };
        let data = data.unwrap_or_else(|| {
            let bytes = Bytes::from(std::mem::take(&mut self.buffer));
            // Unused reservations are returned; the run keeps the rest, plus what it uses beyond that.
            self.space.used.fetch_add(bytes.len().saturating_sub(self.reserved), Ordering::Relaxed);
            self.reserved = self.reserved.saturating_sub(bytes.len());
            Data::Memory(bytes)
        });
        Ok(Run { data, parts: std::mem::take(&mut self.parts), space: Arc::clone(&self.space) })
    }

    fn check(&mut self) {
        self.crc.update(&self.buffer[self.unchecked..]);
        self.unchecked = self.buffer.len();
    }

    fn flush(&mut self) -> Result<(), RunError> {
        self.check();
        if let Some(file) = &mut self.file {
            file.append(&self.buffer).map_err(|error| self.space.error(error))?;
        }
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        self.unchecked = 0;
        Ok(())
    }
}

impl Drop for RunWriter {
    fn drop(&mut self) {
        self.space.used.fetch_sub(self.reserved, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(space: &Arc<RunSpace>, parts: &[&[&[u8]]]) -> Run {
        let bytes = parts.iter().flat_map(|part| part.iter()).map(|record| record.len()).sum();
        let mut writer = RunWriter::new(space, bytes).unwrap();
        for part in parts {
            for record in *part {
                writer.record(|out| out.extend_from_slice(record)).unwrap();
            }
            writer.end_part();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn memory_is_used_while_there_is_room() {
        let space = RunSpace::new(10, std::env::temp_dir());
        let parts: &[&[&[u8]]] = &[&[b"abc", b"d"], &[], &[b"efg"]];
        let first = run(&space, parts);
        let second = run(&space, parts);
        assert!(!first.is_spilled() && second.is_spilled());
        assert_eq!((first.spilled_bytes(), second.spilled_bytes()), (0, 7));
        for run in [&first, &second] {
            assert_eq!(
                run.parts().iter().map(|part| (part.len, part.records)).collect::<Vec<_>>(),
                [(4, 2), (0, 0), (3, 1)]
            );
            assert_eq!(run.read(0, 0, 100).unwrap(), "abcd");
            assert_eq!(run.read(0, 2, 1).unwrap(), "c");
            assert_eq!(run.read(2, 1, 100).unwrap(), "fg");
            assert_eq!(run.read(2, 30, 100).unwrap(), "");
            assert_eq!(run.read(3, 0, 100).unwrap(), "");
        }
        assert_eq!(first.parts(), second.parts());
        drop(first);
        assert!(!run(&space, parts).is_spilled());
    }

    #[test]
    fn a_run_that_is_larger_than_was_said_is_counted_as_what_it_is() {
        let space = RunSpace::new(100, std::env::temp_dir());
        let mut writer = RunWriter::new(&space, 10).unwrap();
        writer.record(|out| out.extend_from_slice(&[7; 90])).unwrap();
        writer.end_part();
        let run = writer.finish().unwrap();
        assert!(RunWriter::new(&space, 20).unwrap().finish().unwrap().is_spilled());
        drop(run);
        assert!(!RunWriter::new(&space, 100).unwrap().finish().unwrap().is_spilled());
    }

    #[test]
    fn a_long_run_is_written_as_it_grows() {
        let space = RunSpace::new(0, std::env::temp_dir());
        let record = [7; 1000];
        let records: Vec<&[u8]> = vec![&record; 2000];
        let run = run(&space, &[&records, &[b"x"]]);
        assert_eq!(run.read(0, 0, usize::MAX).unwrap(), vec![7; 2_000_000]);
        assert_eq!(run.read(1, 0, usize::MAX).unwrap(), "x");
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let space = RunSpace::new(0, "/no/such/directory".into());
        let error = RunWriter::new(&space, 1).unwrap_err().to_string();
        assert!(error.contains("/no/such/directory"), "{error}");
    }
}
