//! Divides a stream of bytes into records.

use std::io::{self, Read};

use super::Framing;
use crate::varint;

/// The number of bytes per read.
const READ: usize = 256 << 10;
/// The approximate size of a block of lines, in bytes.
const BLOCK: usize = 64 << 10;
/// The maximum length of a record.
const LONGEST: usize = 1 << 30;

/// A part of a stream: the records that begin in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Region {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Region {
    pub(super) const ALL: Self = Self { start: 0, end: u64::MAX };
}

#[derive(Debug)]
pub(super) enum FrameError<E> {
    Io(io::Error),
    Stopped(E),
}

/// Reads records; the buffer is reused for the next stream.
#[derive(Debug)]
pub(super) struct Frames {
    framing: Framing,
    buffer: Vec<u8>,
    /// The bytes of the buffer that have been read and not consumed.
    from: usize,
    to: usize,
    /// How many of these have been searched without finding the end of a record.
    searched: usize,
}

/// What was found at the start of the unconsumed bytes.
enum Frame {
    /// A record of `len` bytes, after `before` bytes and followed by `after` that belong to no record.
    Record { before: usize, len: usize, after: usize },
    /// More bytes are needed; the first `searched` of the bytes need not be searched again.
    Incomplete { searched: usize },
}

impl Frames {
    pub(super) fn new(framing: Framing) -> Self {
        Self { framing, buffer: Vec::new(), from: 0, to: 0, searched: 0 }
    }

    /// Calls `each` with the offset and the bytes of every record that begins in the region. The stream begins at
    /// offset `at`: at the region's start, or one byte earlier, where that byte shows whether a record begins there.
    pub(super) fn read<E>(
        &mut self,
        stream: &mut impl Read,
        at: u64,
        region: Region,
        each: &mut impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), FrameError<E>> {
        (self.from, self.to, self.searched) = (0, 0, 0);
        let mut offset = at;
        let mut skip_first = at < region.start;
        let mut ended = false;
        loop {
            while self.from < self.to {
                if offset >= region.end && !skip_first {
                    return Ok(());
                }
                let rest = &self.buffer[self.from..self.to];
                let limit = usize::try_from(region.end - offset.min(region.end)).unwrap_or(usize::MAX);
                let (before, len, after) =
                    match frame(self.framing, rest, self.searched, ended, skip_first, limit) {
                        Frame::Record { before, len, after } => (before, len, after),
                        Frame::Incomplete { searched } => {
                            self.searched = searched;
                            break;
                        }
                    };
                self.searched = 0;
                if !skip_first {
                    let record = &rest[before..before + len];
                    each(offset, record).map_err(FrameError::Stopped)?;
                }
                skip_first = false;
                let consumed = before + len + after;
                self.from += consumed;
                offset += consumed as u64;
            }
            if ended {
                return match self.from < self.to {
                    // Only a record of known length can be incomplete at the end.
                    true => Err(FrameError::Io(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("the last record, at byte {offset}, is not complete"),
                    ))),
                    false if self.framing == Framing::Whole && offset == at => {
                        each(0, &[]).map_err(FrameError::Stopped)
                    }
                    false => Ok(()),
                };
            }
            ended = self.fill(stream).map_err(FrameError::Io)?;
        }
    }

    /// Reads more bytes. Returns `true` at the end of the stream.
    fn fill(&mut self, stream: &mut impl Read) -> io::Result<bool> {
        if self.from > 0 {
            self.buffer.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
        }
        if self.buffer.len() < self.to + READ / 2 {
            if self.to > LONGEST {
                let text = format!("a record of more than {LONGEST} bytes");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            self.buffer.resize((self.buffer.len() * 2).max(READ), 0);
        }
        let end = self.buffer.len().min(self.to + READ);
        let free = &mut self.buffer[self.to..end];
        loop {
            match stream.read(free) {
                Ok(read) => {
                    self.to += read;
                    return Ok(read == 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Finds the record at the start of `rest`; no line may begin at `limit` or later. `searched`: the number of bytes of
/// `rest` known to contain no end of a record. `tail`: the bytes begin inside an earlier record, and only its end is
/// wanted.
fn frame(framing: Framing, rest: &[u8], searched: usize, ended: bool, tail: bool, limit: usize) -> Frame {
    let until = |delimiter: u8| match memchr::memchr(delimiter, &rest[searched..]) {
        Some(len) => Frame::Record { before: 0, len: searched + len, after: 1 },
        None if ended => Frame::Record { before: 0, len: rest.len(), after: 0 },
        None => Frame::Incomplete { searched: rest.len() },
    };
    let incomplete = Frame::Incomplete { searched };
    let exactly = |before: usize, len: usize| match before.checked_add(len) {
        Some(end) if end <= rest.len() => Frame::Record { before, len, after: 0 },
        _ => Frame::Incomplete { searched },
    };
    match framing {
        Framing::Blocks if tail => until(b'\n'),
        Framing::Lines => match until(b'\n') {
            Frame::Record { len, after, .. } if len > 0 && rest[len - 1] == b'\r' => {
                Frame::Record { before: 0, len: len - 1, after: after + 1 }
            }
            other => other,
        },
        Framing::Delimited(delimiter) => until(delimiter),
        Framing::Fixed(len) => exactly(0, len),
        Framing::Encoded => match varint::get(rest) {
            Some((len, used)) => exactly(used, len),
            None => incomplete,
        },
        Framing::Whole if ended => Frame::Record { before: 0, len: rest.len(), after: 0 },
        Framing::Whole => incomplete,
        Framing::Blocks => {
            // Whole lines, the last of which begins before the limit.
            let last = rest.len().min(limit).min(BLOCK);
            if last == limit || last == BLOCK {
                let from = searched.max(last - 1);
                match memchr::memchr(b'\n', &rest[from..]) {
                    Some(end) => return Frame::Record { before: 0, len: from + end + 1, after: 0 },
                    None if ended => return Frame::Record { before: 0, len: rest.len(), after: 0 },
                    None => return Frame::Incomplete { searched: rest.len() },
                }
            }
            match ended {
                true => Frame::Record { before: 0, len: rest.len(), after: 0 },
                false => incomplete,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A stream that returns a few bytes at a time.
    struct Trickling<'a>(&'a [u8], usize);

    impl Read for Trickling<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(self.0.len()).min(buffer.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn records(framing: Framing, text: &[u8], cuts: &[usize], step: usize) -> Vec<(u64, Vec<u8>)> {
        let mut bounds: Vec<usize> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
        bounds.extend([0, text.len()]);
        bounds.sort_unstable();
        bounds.dedup();
        let mut records = Vec::new();
        let mut frames = Frames::new(framing);
        for pair in bounds.windows(2) {
            let region = Region { start: pair[0] as u64, end: pair[1] as u64 };
            let from = pair[0].saturating_sub(1);
            let each = &mut |offset, record: &[u8]| {
                records.push((offset, record.to_vec()));
                Ok::<(), ()>(())
            };
            frames.read(&mut Trickling(&text[from..], step), from as u64, region, each).unwrap();
        }
        records
    }

    proptest! {
        #[test]
        fn every_line_is_in_the_region_where_it_begins(
            text in "[ab\r\n]{0,60}", cuts: Vec<usize>, step in 1usize..20,
        ) {
            let mut expected = Vec::new();
            let mut offset = 0;
            for line in text.split_inclusive('\n') {
                let bare = line.strip_suffix('\n').unwrap_or(line);
                let bare = bare.strip_suffix('\r').unwrap_or(bare);
                expected.push((offset, bare.as_bytes().to_vec()));
                offset += line.len() as u64;
            }
            prop_assert_eq!(records(Framing::Lines, text.as_bytes(), &cuts, step), expected);
            let delimited = records(Framing::Delimited(b'a'), text.as_bytes(), &cuts, step);
            let bytes: Vec<Vec<u8>> = delimited.into_iter().map(|(_, record)| record).collect();
            let expected: Vec<Vec<u8>> =
                text.split_inclusive('a').map(|s| s.trim_end_matches('a').as_bytes().to_vec()).collect();
            prop_assert_eq!(bytes, expected);
        }

        #[test]
        fn blocks_are_whole_lines(
            lines in prop::collection::vec((0usize..40_000).prop_map(|n| "x".repeat(n)), 0..12),
            cuts: Vec<usize>, ended: bool,
        ) {
            let mut text = lines.join("\n");
            if ended {
                text.push('\n');
            }
            let blocks = records(Framing::Blocks, text.as_bytes(), &cuts, 10_000);
            let mut at = 0;
            for (offset, block) in &blocks {
                prop_assert_eq!(*offset, at);
                at += block.len() as u64;
                prop_assert!(block.ends_with(b"\n") || at == text.len() as u64);
            }
            prop_assert_eq!(at, text.len() as u64);
        }
    }

    #[test]
    fn nothing_is_searched_twice_for_the_end_of_a_record() {
        for (framing, len) in
            [(Framing::Lines, 100), (Framing::Delimited(b'\n'), 100), (Framing::Blocks, BLOCK)]
        {
            let mut text = vec![b'x'; len];
            let Frame::Incomplete { searched } = frame(framing, &text, 0, false, false, usize::MAX) else {
                panic!("{framing:?}: there is no end");
            };
            assert_eq!(searched, len, "{framing:?}");
            // An end that would be found only by searching the searched bytes again.
            text[len - 1] = b'\n';
            text.extend_from_slice(b"yy\n");
            let Frame::Record { len: found, .. } = frame(framing, &text, searched, false, false, usize::MAX)
            else {
                panic!("{framing:?}: there is an end");
            };
            assert!(found >= len + 2, "{framing:?}: {found}");
        }
    }

    #[test]
    fn records_of_known_length_must_be_complete() {
        let each = &mut |_: u64, _: &[u8]| Ok::<(), ()>(());
        for (framing, text) in [(Framing::Fixed(4), &b"abcdef"[..]), (Framing::Encoded, b"\x01a\x05bc")] {
            let read = Frames::new(framing).read(&mut Trickling(text, 100), 0, Region::ALL, each);
            assert!(matches!(read, Err(FrameError::Io(error)) if error.to_string().contains("not complete")));
        }
        assert_eq!(records(Framing::Fixed(3), b"abcdef", &[], 2).len(), 2);
        assert_eq!(records(Framing::Whole, b"abcdef", &[], 2), [(0, b"abcdef".to_vec())]);
        assert_eq!(
            records(Framing::Encoded, b"\x01a\x02bc", &[], 1),
            [(0, b"a".to_vec()), (2, b"bc".to_vec())]
        );
    }
}
