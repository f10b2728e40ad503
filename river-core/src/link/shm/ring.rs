//! A ring of records between two processes, one of which writes and one of which reads.
//!
//! A record begins at a cache line, with a word that holds its length and is written last: the reader polls the very line in
//! which the record will appear, so a short message costs the transfer of one line. The word where the next record will
//! begin is zero; it is written before the record in front of it is published.
//!
//! The reader publishes its position only now and then. The writer looks at it when it has used up the space that it knows
//! to be free; at most a quarter of the ring is then free without the writer knowing it.

use std::io;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::budget::Lease;
use super::memory::Memory;
use crate::protocol::MemoryName;

/// Bytes in the buffer of a long ring: more than a core's second-level cache. A line that the reader has just read belongs to
/// its core's caches, and costs the writer more than one that has left them for a cache that both share.
pub(super) const LONG: usize = 2 << 20;
/// Bytes in the buffer of a short one.
pub(super) const SHORT: usize = 256 << 10;
/// The length of the longest record in bytes.
pub(super) const LONGEST: usize = (32 << 10) + 128;
const LINE: usize = 64;
const WORD: usize = 8;
/// How far ahead the writer prefetches a line: taking one from the reader's core costs as much as writing a few short
/// records.
const AHEAD: usize = 8 * LINE;
/// The counter has its own cache lines, including the adjacent ones that are fetched along with them.
const TAIL: usize = 256;
const BUFFER: usize = 4096;
/// The kind of record that fills the end of the buffer when the next record does not fit there.
const FILL: u8 = 0xff;

/// The contents of a record's word: its kind and a mark, which mean nothing to the ring, and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Title {
    pub(super) kind: u8,
    pub(super) mark: u16,
    pub(super) len: usize,
}

impl Title {
    /// Never zero, as the length is increased by one.
    fn encode(self) -> u64 {
        (self.len as u64 + 1) | (u64::from(self.kind) << 32) | (u64::from(self.mark) << 48)
    }

    fn decode(word: u64) -> Self {
        let len = (word as u32).wrapping_sub(1) as usize;
        Self { kind: (word >> 32) as u8, mark: (word >> 48) as u16, len }
    }
}

/// Returns the space that a record of this many bytes takes up.
fn size(len: usize) -> usize {
    (WORD + len).next_multiple_of(LINE)
}

/// The writing end, created by the sending process.
#[derive(Debug)]
pub(super) struct RingWriter {
    memory: Memory,
    capacity: usize,
    head: u64,
    /// The reader's counter when it was last read.
    tail: u64,
}

impl RingWriter {
    /// Creates a ring with a buffer of this many bytes, which must be [`LONG`] or [`SHORT`].
    pub(super) fn create(capacity: usize) -> io::Result<Self> {
        Ok(Self { memory: Memory::create(BUFFER + capacity)?, capacity, head: 0, tail: 0 })
    }

    /// Returns the same ring, which keeps the lease.
    pub(super) fn with(self, lease: Lease) -> Self {
        Self { memory: self.memory.with(lease), ..self }
    }

    pub(super) fn name(&self) -> MemoryName {
        self.memory.name()
    }

    /// Writes a record of at most [`LONGEST`] bytes, which consists of the head and the parts. Returns `false` if there is no
    /// room for it at present.
    pub(super) fn write<'a>(
        &mut self,
        title: Title,
        head: &[&[u8]],
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> bool {
        debug_assert!(title.len <= LONGEST && title.kind != FILL);
        let size = size(title.len);
        let mut at = self.head as usize % self.capacity;
        let fill = if at + size > self.capacity { self.capacity - at } else { 0 };
        // The word behind the record must be free as well.
        if !self.has_room(fill + size + LINE) {
            return false;
        }
        if fill > 0 {
            self.show(at, 0, Title { kind: FILL, mark: 0, len: fill - WORD });
            self.head += fill as u64;
            at = 0;
        }
        let mut to = BUFFER + at + WORD;
        let mut put = |part: &[u8]| {
            // Copying an empty part would cost as much as copying a short one.
            if !part.is_empty() {
                self.memory.write(to, part);
                to += part.len();
            }
        };
        head.iter().copied().for_each(&mut put);
        parts.for_each(put);
        debug_assert_eq!(to, BUFFER + at + WORD + title.len);
        self.show(at, (at + size) % self.capacity, title);
        self.head += size as u64;
        // The processor itself fetches the other lines while they are written.
        self.memory.fetch_to_write(BUFFER + (at + size + AHEAD) % self.capacity);
        true
    }

    fn show(&self, at: usize, next: usize, title: Title) {
        self.memory.u64_at(BUFFER + next).store(0, Relaxed);
        self.memory.u64_at(BUFFER + at).store(title.encode(), Release);
    }

    fn has_room(&mut self, bytes: usize) -> bool {
        let room = |ring: &Self| ring.capacity - (ring.head - ring.tail) as usize;
        if room(self) < bytes {
            let tail = self.memory.u64_at(TAIL).load(Acquire);
            // A nonsensical value changes nothing: the ring then looks full, and the link ends when the reader does.
            if tail >= self.tail && tail <= self.head {
                self.tail = tail;
            }
        }
        room(self) >= bytes
    }
}

/// The reading end.
#[derive(Debug)]
pub(super) struct RingReader {
    memory: Memory,
    capacity: usize,
    tail: u64,
    /// The value of `tail` that was published to the writer.
    told: u64,
}

/// A record that was found in a ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) title: Title,
    at: usize,
}

impl RingReader {
    /// Accepts the ring that a peer offers.
    pub(super) fn attach(name: &MemoryName) -> io::Result<Self> {
        let capacity = [LONG, SHORT].into_iter().find(|capacity| (BUFFER + capacity) as u64 == name.length);
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "a ring of another length");
        let capacity = capacity.ok_or_else(wrong)?;
        Ok(Self { memory: Memory::open(name, BUFFER + capacity)?, capacity, tail: 0, told: 0 })
    }

    /// Returns the oldest record, which stays until it is [`passed`](Self::pass). Fails if the peer broke the protocol.
    #[inline]
    pub(super) fn front(&mut self) -> Result<Option<Record>, String> {
        loop {
            let at = self.tail as usize % self.capacity;
            let word = self.memory.u64_at(BUFFER + at).load(Acquire);
            if word == 0 {
                return Ok(None);
            }
            let title = Title::decode(word);
            if title.kind == FILL {
                if at == 0 {
                    return Err("a record fills the whole ring".into());
                }
                self.skip(self.capacity - at);
                continue;
            }
            if title.len > LONGEST || at + size(title.len) > self.capacity {
                return Err(format!("a record claims {} bytes", title.len));
            }
            // The reader will wait for the next record at this line anyway.
            self.memory.fetch_to_read(BUFFER + (at + size(title.len)) % self.capacity);
            return Ok(Some(Record { title, at }));
        }
    }

    /// Copies bytes of a record, from this offset on. Panics if the record is shorter.
    pub(super) fn read(&self, record: Record, offset: usize, bytes: &mut [u8]) {
        assert!(offset <= record.title.len && bytes.len() <= record.title.len - offset);
        self.memory.read(BUFFER + record.at + WORD + offset, bytes);
    }

    /// Removes the oldest record.
    pub(super) fn pass(&mut self, record: Record) {
        self.skip(size(record.title.len));
    }

    fn skip(&mut self, bytes: usize) {
        self.tail += bytes as u64;
        if self.tail - self.told >= self.capacity as u64 / 4 {
            self.told = self.tail;
            self.memory.u64_at(TAIL).store(self.tail, Release);
        }
    }

    /// Whether everything that was written has been read.
    pub(super) fn is_empty(&self) -> bool {
        self.memory.u64_at(BUFFER + self.tail as usize % self.capacity).load(Acquire) == 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    fn take(reader: &mut RingReader) -> Option<(u16, Vec<u8>)> {
        let record = reader.front().unwrap()?;
        let mut bytes = vec![0; record.title.len];
        reader.read(record, 0, &mut bytes);
        reader.pass(record);
        Some((record.title.mark, bytes))
    }

    proptest! {
        /// A ring is a queue of records. An empty ring has room for any record.
        #[test]
        fn equals_a_queue(is_long: bool, steps in prop::collection::vec((any::<bool>(), 0..=LONGEST), 1..200)) {
            let mut writer = RingWriter::create(if is_long { LONG } else { SHORT }).unwrap();
            let mut reader = RingReader::attach(&writer.name()).unwrap();
            let mut model = VecDeque::new();
            for (number, (write, len)) in (0_u16..).zip(steps) {
                if write {
                    let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8 ^ number as u8).collect();
                    let (one, other) = bytes.split_at(len / 3);
                    let title = Title { kind: 1, mark: number, len };
                    if writer.write(title, &[one], std::iter::once(other)) {
                        model.push_back((number, bytes));
                    } else {
                        prop_assert!(!model.is_empty());
                    }
                } else {
                    prop_assert_eq!(take(&mut reader), model.pop_front());
                }
                prop_assert_eq!(reader.is_empty(), model.is_empty());
            }
        }
    }

    #[test]
    fn records_pass_between_threads_in_order() {
        let mut writer = RingWriter::create(SHORT).unwrap();
        let mut reader = RingReader::attach(&writer.name()).unwrap();
        const RECORDS: usize = 20_000;
        let len = |number: usize| number * 7919 % LONGEST / (1 + number % 50);
        let sender = thread::spawn(move || {
            for number in 0..RECORDS {
                let bytes = vec![number as u8; len(number)];
                let title = Title { kind: 1, mark: number as u16, len: bytes.len() };
                while !writer.write(title, &[&bytes], std::iter::empty()) {
                    thread::yield_now();
                }
            }
            writer
        });
        for number in 0..RECORDS {
            let (mark, bytes) = loop {
                match take(&mut reader) {
                    Some(record) => break record,
                    None => thread::yield_now(),
                }
            };
            assert_eq!((mark, bytes.len()), (number as u16, len(number)));
            assert!(bytes.iter().all(|byte| *byte == number as u8));
        }
        drop(sender.join());
    }

    #[test]
    fn a_peer_that_lies_is_an_error_not_a_fault() {
        let lie = |word: u64| {
            let writer = RingWriter::create(SHORT).unwrap();
            let mut reader = RingReader::attach(&writer.name()).unwrap();
            writer.memory.u64_at(BUFFER).store(word, Release);
            reader.front().map(drop)
        };
        assert!(lie(Title { kind: 1, mark: 0, len: LONGEST + 1 }.encode()).is_err());
        assert!(lie(1 << 32).is_err(), "a length of -1");
        assert!(lie(Title { kind: FILL, mark: 0, len: 0 }.encode()).is_err());
        assert!(lie(u64::MAX).is_err());
    }

    #[test]
    fn a_reader_that_lies_makes_the_ring_look_full_at_most() {
        let mut writer = RingWriter::create(SHORT).unwrap();
        writer.memory.u64_at(TAIL).store(u64::MAX, Release);
        let bytes = vec![0; LONGEST];
        let title = Title { kind: 1, mark: 0, len: LONGEST };
        let written = (0..100).take_while(|_| writer.write(title, &[&bytes], std::iter::empty())).count();
        assert_eq!(written, SHORT / size(LONGEST));
    }
}
