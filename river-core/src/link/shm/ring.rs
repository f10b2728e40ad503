//! A ring of bytes between two processes, one of which writes and one of which reads: two counters and a buffer.
//!
//! The counters only grow; their difference is what can be read. Large amounts are copied and published in pieces, so
//! that the reader copies one out while the writer copies the next one in, and both stay in the cache.

use std::io;
use std::sync::atomic::Ordering::{Acquire, Release, SeqCst};

use super::memory::Memory;
use crate::protocol::MemoryName;

/// Bytes in the buffer: a power of two.
pub(super) const CAPACITY: usize = 256 << 10;
/// Bytes that are published at once.
const PIECE: usize = 32 << 10;
/// The counters have cache lines, and the lines that are fetched along with them, of their own.
const HEAD: usize = 128;
const TAIL: usize = 256;
const BUFFER: usize = 4096;
const LENGTH: usize = BUFFER + CAPACITY;

/// The writing end: made by the process that has something to say.
#[derive(Debug)]
pub(super) struct RingWriter {
    memory: Memory,
    head: u64,
    /// What the reader may know of `head`.
    published: u64,
    /// The reader's counter when it was last looked at.
    tail: u64,
}

impl RingWriter {
    pub(super) fn create() -> io::Result<Self> {
        Ok(Self { memory: Memory::create(LENGTH)?, head: 0, published: 0, tail: 0 })
    }

    pub(super) fn name(&self) -> MemoryName {
        self.memory.name()
    }

    /// Copies as much of the bytes as there is room for, and returns how many that were. The reader sees them at the
    /// latest after [`publish`](Self::publish).
    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        let mut done = 0;
        while done < bytes.len() {
            let mut room = CAPACITY - (self.head - self.tail) as usize;
            if room < (bytes.len() - done).min(PIECE) {
                self.tail = self.reader_counter();
                room = CAPACITY - (self.head - self.tail) as usize;
                if room == 0 {
                    self.publish();
                    break;
                }
            }
            let at = self.head as usize % CAPACITY;
            let n = room.min(bytes.len() - done).min(PIECE).min(CAPACITY - at);
            self.memory.write(BUFFER + at, &bytes[done..done + n]);
            done += n;
            self.head += n as u64;
            if self.head - self.published >= PIECE as u64 {
                self.publish();
            }
        }
        done
    }

    /// Shows the reader all that was written.
    pub(super) fn publish(&mut self) {
        if self.published != self.head {
            self.published = self.head;
            // Sequentially consistent, as the writer looks next whether the reader sleeps: see `Bell`.
            self.memory.u64_at(HEAD).store(self.head, SeqCst);
        }
    }

    /// The reader's counter, or what it must have been if the reader wrote nonsense: then the ring looks full, and
    /// the link ends when the reader does.
    fn reader_counter(&self) -> u64 {
        let tail = self.memory.u64_at(TAIL).load(Acquire);
        if tail >= self.tail && tail <= self.head { tail } else { self.tail }
    }
}

/// The reading end.
#[derive(Debug)]
pub(super) struct RingReader {
    memory: Memory,
    tail: u64,
    head: u64,
}

impl RingReader {
    /// Takes the ring that a peer offers.
    pub(super) fn attach(name: &MemoryName) -> io::Result<Self> {
        Ok(Self { memory: Memory::open(name, LENGTH)?, tail: 0, head: 0 })
    }

    /// Reads as many bytes as there are and fit, and returns how many. `Err`: the peer broke the protocol.
    pub(super) fn read(&mut self, bytes: &mut [u8]) -> Result<usize, String> {
        if self.head == self.tail {
            self.head = self.memory.u64_at(HEAD).load(SeqCst);
            if self.head.wrapping_sub(self.tail) > CAPACITY as u64 {
                return Err("the peer's counter is out of range".into());
            }
        }
        let mut done = 0;
        while done < bytes.len() && self.tail < self.head {
            let at = self.tail as usize % CAPACITY;
            let there = (self.head - self.tail) as usize;
            let n = there.min(bytes.len() - done).min(PIECE).min(CAPACITY - at);
            self.memory.read(BUFFER + at, &mut bytes[done..done + n]);
            done += n;
            self.tail += n as u64;
            self.memory.u64_at(TAIL).store(self.tail, Release);
        }
        Ok(done)
    }

    /// Whether nothing has been written that was not read.
    pub(super) fn is_empty(&self) -> bool {
        self.head == self.tail && self.memory.u64_at(HEAD).load(SeqCst) == self.tail
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A ring is a queue of bytes.
        #[test]
        fn equals_a_queue(steps in prop::collection::vec((any::<bool>(), 0..CAPACITY + 10_000), 1..30)) {
            let mut writer = RingWriter::create().unwrap();
            let mut reader = RingReader::attach(&writer.name()).unwrap();
            let (mut model, mut counter) = (VecDeque::<u8>::new(), 0_u8);
            for (write, amount) in steps {
                if write {
                    let bytes: Vec<u8> = (0..amount).map(|i| counter.wrapping_add((i % 251) as u8)).collect();
                    counter = counter.wrapping_add(17);
                    let n = writer.write(&bytes);
                    writer.publish();
                    prop_assert_eq!(n, amount.min(CAPACITY - model.len()));
                    model.extend(&bytes[..n]);
                } else {
                    let mut bytes = vec![0; amount];
                    let n = reader.read(&mut bytes).unwrap();
                    prop_assert!(n <= model.len() && (n > 0 || amount == 0 || model.is_empty()));
                    prop_assert!(bytes[..n].iter().copied().eq(model.drain(..n)));
                }
                prop_assert_eq!(reader.is_empty(), model.is_empty());
            }
        }
    }

    #[test]
    fn bytes_pass_between_threads_in_order() {
        let mut writer = RingWriter::create().unwrap();
        let mut reader = RingReader::attach(&writer.name()).unwrap();
        const TOTAL: usize = 20_000_000;
        let sender = thread::spawn(move || {
            let bytes: Vec<u8> = (0..TOTAL).map(|i| (i % 253) as u8).collect();
            let mut done = 0;
            while done < TOTAL {
                let n = writer.write(&bytes[done..(done + 50_001).min(TOTAL)]);
                writer.publish();
                if n == 0 {
                    thread::yield_now();
                }
                done += n;
            }
            writer
        });
        let (mut done, mut buffer) = (0, vec![0; 70_000]);
        while done < TOTAL {
            let n = reader.read(&mut buffer).unwrap();
            assert!(buffer[..n].iter().enumerate().all(|(i, b)| *b == ((done + i) % 253) as u8));
            done += n;
            if n == 0 {
                thread::yield_now();
            }
        }
        drop(sender.join());
    }

    #[test]
    fn a_peer_that_lies_is_an_error_not_a_fault() {
        let writer = RingWriter::create().unwrap();
        let mut reader = RingReader::attach(&writer.name()).unwrap();
        writer.memory.u64_at(HEAD).store(CAPACITY as u64 + 1, SeqCst);
        assert!(reader.read(&mut [0; 10]).is_err());
    }
}
