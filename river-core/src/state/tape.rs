//! A recording of one VR: all of its inputs from its beginning to its end, in the order in which they came.
//!
//! ```text
//!  0  "RIVERTAP" | format u32
//! 12  chunks: length u64 | XXH3 of the bytes u64 | bytes: pieces, by postcard
//! ```
//!
//! Little-endian. Chunks are appended while the VR runs. A chunk that is not intact is ignored with everything after it, so
//! a recording that was cut short by a death holds what had happened up to shortly before.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::base::{Base, Origin};
use super::file::FileError;
use super::record::{Record, Told};
use crate::down::Why;

const MAGIC: &[u8; 8] = b"RIVERTAP";
const FORMAT: u32 = 1;
const HEAD: usize = 16;

/// A time in microseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Time(u64);

impl Time {
    /// The current time, to a few milliseconds: an exact time would cost as much as handing over an envelope.
    pub(crate) fn now() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        let time = Duration::try_from(time).unwrap_or_default();
        Self(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
    }
}

impl From<Time> for SystemTime {
    fn from(time: Time) -> Self {
        UNIX_EPOCH.checked_add(Duration::from_micros(time.0)).unwrap_or(UNIX_EPOCH)
    }
}

#[derive(Serialize, Deserialize)]
enum Piece {
    /// Comes first: the VR, and its VM.
    Begin {
        origin: Origin,
        vm: String,
        base: Base,
        at: Time,
    },
    /// The next inputs and their times: each time holds from that line on, counted from the last safepoint.
    Told(Told, Vec<(u64, Time)>),
    Safepoint(Base, Time),
    End(Why, Time),
}

/// Inputs of a VR that have not been written yet.
#[derive(Debug, Default)]
pub(crate) struct Tape {
    pieces: Vec<Piece>,
    /// How much of the record is in the pieces.
    lines: usize,
    events: usize,
    times: Vec<(u64, Time)>,
    ended: bool,
}

impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Piece")
    }
}

impl Tape {
    pub(crate) fn new(origin: &Origin, vm: &str, base: &Base) -> Self {
        let (origin, vm, base, at) = (origin.clone(), vm.to_owned(), base.clone(), Time::now());
        Self { pieces: vec![Piece::Begin { origin, vm, base, at }], ..Self::default() }
    }

    /// Notes the time of what was just recorded.
    pub(crate) fn note(&mut self, record: &Record) {
        // `None` if a safepoint was just made.
        let Some(line) = record.len().checked_sub(1) else { return };
        let now = Time::now();
        if self.times.last().is_none_or(|(_, last)| *last != now) {
            self.times.push((line as u64, now));
        }
    }

    /// Notes a safepoint of the VR, given the record before it and the new one.
    pub(crate) fn safepoint(&mut self, before: &Record, after: &Record) {
        self.take_in(before);
        self.pieces.push(Piece::Safepoint((**after.base()).clone(), Time::now()));
        (self.lines, self.events) = (0, 0);
        self.times.clear();
    }

    /// Takes what must be written next, if anything.
    pub(crate) fn flush(&mut self, record: &Record, ended: Option<&Why>) -> Unwritten {
        self.take_in(record);
        if let Some(why) = ended
            && !self.ended
        {
            self.ended = true;
            self.pieces.push(Piece::End(why.clone(), Time::now()));
        }
        Unwritten(std::mem::take(&mut self.pieces))
    }

    fn take_in(&mut self, record: &Record) {
        let told = record.since(self.lines, self.events);
        if !told.is_empty() {
            (self.lines, self.events) = record.lengths();
            self.pieces.push(Piece::Told(told, std::mem::take(&mut self.times)));
        }
    }
}

/// Pieces on their way to a file.
#[derive(Debug)]
pub(crate) struct Unwritten(Vec<Piece>);

impl Unwritten {
    /// The bytes to append to the VR's file; empty if there is nothing.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.0.is_empty() {
            return bytes;
        }
        if matches!(self.0.first(), Some(Piece::Begin { .. })) {
            bytes.extend_from_slice(MAGIC);
            bytes.extend_from_slice(&FORMAT.to_le_bytes());
        }
        let start = bytes.len();
        bytes.resize(start + HEAD, 0);
        match postcard::to_extend(&self.0, bytes) {
            Ok(mut bytes) => {
                let (head, body) = bytes[start..].split_at_mut(HEAD);
                head[..8].copy_from_slice(&(body.len() as u64).to_le_bytes());
                head[8..].copy_from_slice(&xxh3_64(body).to_le_bytes());
                bytes
            }
            Err(error) => {
                tracing::error!(%error, "an input of a VR cannot be encoded: its recording is incomplete");
                Vec::new()
            }
        }
    }
}

/// The inputs between two safepoints, and their times, each of which holds from that line on.
#[derive(Debug)]
pub(crate) struct Stretch {
    pub(crate) record: Record,
    pub(crate) began: Time,
    pub(crate) times: Vec<(u64, Time)>,
}

/// A recording that was read.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) origin: Origin,
    pub(crate) vm: String,
    /// The first begins with the VR, each other one at a safepoint.
    pub(crate) stretches: Vec<Stretch>,
    pub(crate) end: Option<(Why, Time)>,
}

/// Reads a recording from the bytes of its file, as far as it is intact.
pub(crate) fn read(bytes: &[u8]) -> Result<Content, FileError> {
    let (magic, rest) = bytes.split_first_chunk().ok_or(FileError::Torn)?;
    if magic != MAGIC {
        return Err(FileError::Magic);
    }
    let (format, mut rest) = rest.split_first_chunk().ok_or(FileError::Torn)?;
    let format = u32::from_le_bytes(*format);
    if format != FORMAT {
        return Err(FileError::Format(format));
    }
    let mut content = None;
    while let Some((chunk, after)) = chunk(rest) {
        for piece in postcard::from_bytes::<Vec<Piece>>(chunk)? {
            take(&mut content, piece)?;
        }
        rest = after;
    }
    content.ok_or(FileError::Torn)
}

fn chunk(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (hash, rest) = rest.split_first_chunk()?;
    let (chunk, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    (xxh3_64(chunk) == u64::from_le_bytes(*hash)).then_some((chunk, rest))
}

fn take(content: &mut Option<Content>, piece: Piece) -> Result<(), FileError> {
    let stretch = |base, began| Stretch { record: Record::new(base), began, times: Vec::new() };
    match (piece, content) {
        (Piece::Begin { origin, vm, base, at }, content @ None) => {
            *content = Some(Content { origin, vm, stretches: vec![stretch(base, at)], end: None });
        }
        (Piece::Told(told, times), Some(content)) => {
            let last = content.stretches.last_mut().ok_or(FileError::Torn)?;
            last.record.extend(told);
            last.times.extend(times);
        }
        (Piece::Safepoint(base, at), Some(content)) => content.stretches.push(stretch(base, at)),
        (Piece::End(why, at), Some(content)) => content.end = Some((why, at)),
        _ => return Err(FileError::Torn),
    }
    Ok(())
}

/// A recording of one chunk that has these bytes and a valid checksum, for fuzzers.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn sealed(chunk: &[u8]) -> Vec<u8> {
    let (length, hash) = ((chunk.len() as u64).to_le_bytes(), xxh3_64(chunk).to_le_bytes());
    [MAGIC, &FORMAT.to_le_bytes()[..], &length, &hash, chunk].concat()
}

#[cfg(test)]
mod tests;
