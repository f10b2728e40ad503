//! A single-producer, single-consumer ring of cache lines, for short records. It takes no lock and allocates nothing.
//!
//! The reader does not watch an index of the writer: the first word of a record holds the record's own position, so the
//! reader polls the very line in which the record will appear, and only that line changes hands (`FastForward`: Giacomoni,
//! Moseley and Vachharajani, `PPoPP` 2008). The other lines of a longer record carry no such word: they are data from end to
//! end, and are copied in one go. The line behind the last record always belongs to the writer: if the old data there
//! happens to look like the first word of the next record, the writer clears it before the reader can look at it.

// See the header of the parent module.
#![allow(unsafe_code)]

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use river_core::Line;

/// Data words of a record's first line: all but its first word.
const WORDS: usize = 7;
const WORD: usize = size_of::<u64>();
/// Bytes of data in that line.
const DATA: usize = WORDS * WORD;
/// A record's first word holds the number of its first line, counted from 1, and in this many bits below it the record's
/// length.
const LENGTH_BITS: u32 = 16;
/// The length in the first word of a mark, which has no data.
const MARK: usize = (1 << LENGTH_BITS) - 1;
/// The most bytes of a record.
pub(crate) const LONGEST: usize = MARK - 1;
/// After reading this many lines, the reader publishes how much it has read: a writer may be waiting for that.
const TOLD: u64 = 64;
/// If the ring is short, the reader does so after this fraction of it.
const PART: u64 = 8;

/// In front of its lines, a ring has some for what the reader tells the writer; every second of them is unused, as cores
/// fetch lines in pairs. In the first: how many lines can be written again; a heartbeat, which changes while the reader is at
/// work elsewhere; whether the reader is gone.
const READ: (usize, usize) = (0, 0);
const PULSE: (usize, usize) = (0, 1);
const GONE: (usize, usize) = (0, 2);
/// In the third: what the reader sleeps for; whether it has joined the ring.
const ASLEEP: (usize, usize) = (2, 0);
const JOINED: (usize, usize) = (2, 1);
/// The fifth is for long messages, which do not pass through the ring.
const ASIDE: usize = 4;
const FRONT: usize = 6;

/// The lines of a ring; their number, without those in front, is a power of two.
#[derive(Debug)]
struct Ring<L> {
    lines: L,
    mask: u64,
}

/// The writing side of a ring, in lines that both sides share.
#[derive(Debug)]
pub(crate) struct Writer<L = Arc<[Line]>> {
    ring: Ring<L>,
    /// How many lines were written.
    written: u64,
    /// How many lines had been read when this side last checked.
    read: u64,
}

/// The reading side.
#[derive(Debug)]
pub(crate) struct Reader<L: Deref<Target = [Line]> = Arc<[Line]>> {
    ring: Ring<L>,
    /// How many lines were read.
    read: u64,
    /// How many of them it has published to the writer.
    told: u64,
}

/// A record in a ring: bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    ring: &'a [Line],
    mask: u64,
    at: u64,
    len: usize,
}

/// Creates a ring of this many lines, a power of two.
pub(crate) fn ring(lines: usize) -> (Writer, Reader) {
    let lines: Arc<[Line]> = (0..memory_of(lines)).map(|_| Line::default()).collect();
    (Writer::new(lines.clone()), Reader::new(lines))
}

/// Returns how many lines of memory a ring of this many lines takes.
pub(crate) fn memory_of(lines: usize) -> usize {
    debug_assert!(lines.is_power_of_two());
    FRONT + lines
}

impl<L: Deref<Target = [Line]>> Ring<L> {
    fn new(lines: L) -> Self {
        let mask = (lines.len() - FRONT) as u64 - 1;
        Self { lines, mask }
    }

    fn len(&self) -> u64 {
        self.mask + 1
    }

    fn front(&self, (line, word): (usize, usize)) -> &AtomicU64 {
        &self.lines[line].0[word]
    }

    fn line(&self, at: u64) -> &[AtomicU64; 8] {
        line_of(&self.lines, self.mask, at)
    }

    fn until_end(&self, at: u64) -> &[Line] {
        until_end(&self.lines, self.mask, at)
    }
}

fn line_of(ring: &[Line], mask: u64, at: u64) -> &[AtomicU64; 8] {
    &ring[FRONT + (at & mask) as usize].0
}

/// Returns the lines from `at` to the end of the ring's memory, where the ring wraps around.
fn until_end(ring: &[Line], mask: u64, at: u64) -> &[Line] {
    &ring[FRONT + (at & mask) as usize..]
}

/// Returns how many lines a record of this length takes.
fn lines_of(len: usize) -> u64 {
    if len == MARK { 1 } else { 1 + len.saturating_sub(DATA).div_ceil(size_of::<Line>()) as u64 }
}

/// Returns the length in bytes of a record with these words and bytes.
fn len_of<const N: usize>(_: [u64; N], bytes: &[u8]) -> usize {
    N * WORD + bytes.len()
}

/// Whether a record is no longer than [`LONGEST`].
pub(crate) fn fits<const N: usize>(words: [u64; N], bytes: &[u8]) -> bool {
    len_of(words, bytes) <= LONGEST
}

/// Returns the first word of a record that begins at line `at`.
fn first_word(at: u64, len: usize) -> u64 {
    (at + 1) << LENGTH_BITS | len as u64
}

/// Whether a word is the first word of a record that begins at line `at`.
fn is_first(word: u64, at: u64) -> bool {
    (word ^ first_word(at, 0)) >> LENGTH_BITS == 0
}

impl<L: Deref<Target = [Line]>> Writer<L> {
    /// Creates the writer of a ring in [this many](memory_of) lines, whose words must all be 0.
    pub(crate) fn new(lines: L) -> Self {
        Self { ring: Ring::new(lines), written: 0, read: 0 }
    }

    /// Returns the memory of the ring.
    pub(crate) fn memory(&mut self) -> &mut L {
        &mut self.ring.lines
    }

    /// Whether the reader is gone.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.ring.front(GONE).load(Relaxed) != 0
    }

    /// Whether the reader has joined the ring.
    pub(crate) fn is_joined(&self) -> bool {
        self.ring.front(JOINED).load(Relaxed) != 0
    }

    /// Returns the word that holds what the reader sleeps for; 0 if it is awake.
    pub(crate) fn asleep(&self) -> &AtomicU64 {
        self.ring.front(ASLEEP)
    }

    /// Returns the line for long messages.
    pub(crate) fn aside(&self) -> &Line {
        &self.ring.lines[ASIDE]
    }

    /// Returns a value that keeps changing as long as the reader is at work.
    pub(crate) fn progress(&self) -> [u64; 2] {
        [READ, PULSE].map(|word| self.ring.front(word).load(Relaxed))
    }

    /// Whether there is room for a mark.
    pub(crate) fn has_room_for_mark(&mut self) -> bool {
        self.has_room(MARK)
    }

    /// Writes a mark, for which there must be room.
    pub(crate) fn push_mark(&mut self) {
        self.publish(MARK);
    }

    /// Publishes a record that is written except for its first word.
    fn publish(&mut self, len: usize) {
        let next = self.written + lines_of(len);
        let behind = &self.ring.line(next)[0];
        if is_first(behind.load(Relaxed), next) {
            behind.store(0, Relaxed);
        }
        self.ring.line(self.written)[0].store(first_word(self.written, len), Release);
        self.written = next;
    }

    fn has_room(&mut self, len: usize) -> bool {
        // Including the line behind it, which `publish` inspects.
        let written = self.written + lines_of(len) + 1;
        if written - self.read > self.ring.len() {
            let read = self.ring.front(READ).load(Acquire);
            // A reader in another process may have written anything here: then the ring appears full, or that reader reads
            // what it has itself caused to be overwritten.
            if (self.read..=self.written).contains(&read) {
                self.read = read;
            }
        }
        written - self.read <= self.ring.len()
    }

    /// Writes a record of some words, six at most, followed by bytes. Returns `false` if there is no room, or it is too long.
    pub(crate) fn push<const N: usize>(&mut self, words: [u64; N], bytes: &[u8]) -> bool {
        const { assert!(N < WORDS) };
        let len = len_of(words, bytes);
        if len > LONGEST || !self.has_room(len) {
            return false;
        }
        let (here, there) = bytes.split_at(bytes.len().min(DATA - N * WORD));
        let data = &self.ring.line(self.written)[1..];
        data.iter().zip(words).for_each(|(to, word)| to.store(word, Relaxed));
        fill(&data[N..], here);
        self.fill_lines(there);
        self.publish(len);
        true
    }

    /// Writes the bytes that do not fit into a record's first line to the lines behind it, for which there must be room.
    fn fill_lines(&self, mut bytes: &[u8]) {
        let mut at = self.written + 1;
        while !bytes.is_empty() {
            let lines = self.ring.until_end(at);
            let (here, there) = bytes.split_at(bytes.len().min(size_of_val(lines)));
            // SAFETY: these lines may be written, as they consist of atomics. There is room, so the reader has read what was
            // there, and until the record is published it looks at no more than its first word.
            unsafe {
                here.as_ptr().copy_to_nonoverlapping(lines.as_ptr().cast::<u8>().cast_mut(), here.len());
            };
            (bytes, at) = (there, at + lines.len() as u64);
        }
    }
}

/// Writes bytes to words, and pads the last one with zeros.
fn fill(words: &[AtomicU64], bytes: &[u8]) {
    let (whole, rest) = bytes.as_chunks::<WORD>();
    words.iter().zip(whole).for_each(|(to, bytes)| to.store(u64::from_ne_bytes(*bytes), Relaxed));
    if !rest.is_empty() {
        let mut last = [0; WORD];
        last[..rest.len()].copy_from_slice(rest);
        words[whole.len()].store(u64::from_ne_bytes(last), Relaxed);
    }
}

impl<L: Deref<Target = [Line]>> Reader<L> {
    /// Creates the reader of a ring in [this many](memory_of) lines.
    pub(crate) fn new(lines: L) -> Self {
        Self { ring: Ring::new(lines), read: 0, told: 0 }
    }

    /// Publishes that this side has joined the ring.
    pub(crate) fn join(&self) {
        self.ring.front(JOINED).store(1, Relaxed);
    }

    /// Returns the word that holds what this side sleeps for; 0 if it is awake.
    pub(crate) fn asleep(&self) -> &AtomicU64 {
        self.ring.front(ASLEEP)
    }

    /// Returns the line for long messages.
    pub(crate) fn aside(&self) -> &Line {
        &self.ring.lines[ASIDE]
    }

    /// Returns the next record, if it has arrived.
    pub(crate) fn next(&self) -> Option<Record<'_>> {
        let word = self.ring.line(self.read)[0].load(Acquire);
        is_first(word, self.read).then(|| Record {
            ring: &self.ring.lines,
            mask: self.ring.mask,
            at: self.read,
            len: word as usize & MARK,
        })
    }

    /// Gives the writer a heartbeat: this side is at work elsewhere.
    pub(crate) fn beat(&self) {
        let pulse = self.ring.front(PULSE);
        pulse.store(pulse.load(Relaxed) + 1, Relaxed);
    }

    /// Frees the next record, which has this many bytes.
    pub(crate) fn skip(&mut self, len: usize) {
        self.read += lines_of(len);
        if self.read - self.told >= TOLD.min(self.ring.len() / PART) {
            self.told = self.read;
            self.ring.front(READ).store(self.read, Release);
        }
    }
}

impl<L: Deref<Target = [Line]>> Drop for Reader<L> {
    fn drop(&mut self) {
        self.ring.front(GONE).store(1, Relaxed);
    }
}

impl Record<'_> {
    /// Returns its length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_mark(&self) -> bool {
        self.len == MARK
    }

    /// Returns its first words. Words beyond its end are meaningless.
    pub(crate) fn words<const N: usize>(&self) -> [u64; N] {
        const { assert!(N <= WORDS) };
        let line = line_of(self.ring, self.mask, self.at);
        std::array::from_fn(|at| line[1 + at].load(Relaxed))
    }

    /// Copies its bytes from word `word` of the data on.
    ///
    /// # Panics
    /// If it has fewer bytes.
    pub(crate) fn copy_to(&self, word: usize, out: &mut [u8]) {
        assert!(word <= WORDS && out.len() <= self.len.saturating_sub(word * WORD));
        let words = &line_of(self.ring, self.mask, self.at)[1 + word..];
        let (here, mut there) = out.split_at_mut(out.len().min(words.len() * WORD));
        let (whole, rest) = here.as_chunks_mut::<WORD>();
        let last = words.get(whole.len()).filter(|_| !rest.is_empty());
        whole.iter_mut().zip(words).for_each(|(out, word)| *out = word.load(Relaxed).to_ne_bytes());
        if let Some(last) = last {
            rest.copy_from_slice(&last.load(Relaxed).to_ne_bytes()[..rest.len()]);
        }
        let mut at = self.at + 1;
        while !there.is_empty() {
            let lines = until_end(self.ring, self.mask, at);
            let (out, rest) = there.split_at_mut(there.len().min(size_of_val(lines)));
            // SAFETY: these lines belong to the record, and its writer does not write them before it is skipped. (If it is in
            // another process and does so nevertheless, that only garbles bytes, and any bytes are valid.)
            unsafe { lines.as_ptr().cast::<u8>().copy_to_nonoverlapping(out.as_mut_ptr(), out.len()) };
            (there, at) = (rest, at + lines.len() as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const LINES: usize = 32;

    fn push(writer: &mut Writer, bytes: &[u8]) -> bool {
        writer.push([bytes.len() as u64, u64::MAX], bytes)
    }

    fn take(reader: &mut Reader) -> Option<Vec<u8>> {
        let record = reader.next()?;
        let [len, ones] = record.words();
        assert_eq!((len as usize, ones), (record.len() - 2 * WORD, u64::MAX));
        let mut bytes = vec![0; len as usize];
        record.copy_to(2, &mut bytes);
        let len = record.len();
        reader.skip(len);
        Some(bytes)
    }

    proptest! {
        #[test]
        fn records_come_in_order_whatever_is_in_them(
            steps in prop::collection::vec((any::<bool>(), 0..1000_usize, any::<u8>()), 1..400),
        ) {
            let (mut writer, mut reader) = ring(LINES);
            let mut model = VecDeque::new();
            for (pushes, len, byte) in steps {
                if pushes {
                    // Words that look like the first word of a later record.
                    let next = first_word(writer.written + u64::from(byte % 40), len);
                    let bytes = next.to_ne_bytes().into_iter().cycle().take(len).collect::<Vec<u8>>();
                    let lines = lines_of(len + 2 * WORD);
                    let pushed = push(&mut writer, &bytes);
                    prop_assert!(pushed || lines + 1 + writer.written - reader.told > LINES as u64);
                    if pushed {
                        model.push_back(bytes);
                    }
                } else {
                    prop_assert_eq!(take(&mut reader), model.pop_front());
                }
            }
        }

        #[test]
        fn what_is_behind_a_word_can_be_copied(len in 0..500_usize, from in 0..=WORDS) {
            let (mut writer, reader) = ring(LINES);
            let bytes: Vec<u8> = (0..len).map(|at| at as u8).collect();
            prop_assert!(writer.push([], &bytes));
            let from = from.min(len / WORD);
            let mut out = vec![0; len - from * WORD];
            reader.next().unwrap().copy_to(from, &mut out);
            prop_assert_eq!(&out[..], &bytes[from * WORD..]);
        }
    }

    #[test]
    fn the_count_of_lines_may_begin_again() {
        let (mut writer, mut reader) = ring(LINES);
        // Every line has been written by the time that the count wraps around.
        let near_the_end = (1 << (u64::BITS - LENGTH_BITS)) - 3 * LINES as u64;
        (writer.written, writer.read) = (near_the_end, near_the_end);
        (reader.read, reader.told) = (near_the_end, near_the_end);
        for round in 0..100_u8 {
            assert!(take(&mut reader).is_none());
            assert!(push(&mut writer, &[round; 100]));
            assert_eq!(take(&mut reader), Some(vec![round; 100]));
        }
    }

    #[test]
    fn a_writer_sees_that_the_reader_is_at_work() {
        let (mut writer, mut reader) = ring(LINES);
        let mut before = writer.progress();
        let mut changed = || std::mem::replace(&mut before, writer.progress()) != before;
        assert!(!changed());
        reader.beat();
        assert!(changed() && !changed());
        while push(&mut writer, &[1]) {}
        assert!((0..LINES / 4).all(|_| take(&mut reader).is_some()));
        assert!(writer.progress() != before && push(&mut writer, &[1]));
    }

    #[test]
    fn two_threads_see_whole_records() {
        const COUNT: u64 = 50_000;
        let (mut writer, mut reader) = ring(LINES);
        let other = std::thread::spawn(move || {
            for number in 0..COUNT {
                let bytes = vec![number as u8; (number * 7919 % 300) as usize];
                while !push(&mut writer, &bytes) {
                    std::thread::yield_now();
                }
            }
            writer
        });
        for number in 0..COUNT {
            let bytes = loop {
                match take(&mut reader) {
                    Some(bytes) => break bytes,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(bytes, vec![number as u8; (number * 7919 % 300) as usize]);
        }
        let writer = other.join().unwrap();
        assert!(!writer.is_abandoned());
        drop(reader);
        assert!(writer.is_abandoned());
    }
}
