//! Memory of which parts are lent to other threads: how a long message within a process is moved with one copy, or
//! combined straight out of its sender's buffer.
//!
//! A [`Region`] is a buffer of a rank that is executing a plan. Instead of the bytes, a message may carry a [`Loan`], which
//! says where in the region they are; the receiver reads them there. Before a lent part is overwritten, and before the region
//! ends, the loan is *settled*: either it has been read, or the owner copies the bytes, and the loan refers to the copy from
//! then on. So a sender never depends on its receiver, just as if it had sent a copy, and plans need not know about loans.
//!
//! Settling a loan waits for a reader that has begun, and helps it with a long copy. So a rank must settle everything that
//! it is going to overwrite before it begins to read; otherwise two ranks that combine each other's vectors would deadlock.
//!
//! ```text
//!           reader            reader
//!   LENT ------------> READING ------> DONE
//!     | owner
//!     +--------------> COPYING ------> COPIED
//! ```

// See the header of the parent module.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use river_core::aliasing;

use super::Wait;
use super::copy::{Copy, LONG};
use crate::element::{self, Element};

const LENT: u8 = 0;
const READING: u8 = 1;
const DONE: u8 = 2;
const COPYING: u8 = 3;
const COPIED: u8 = 4;

/// How long the end of a region waits for a reader that has not begun, in addition to several times the duration of a copy.
const PATIENCE: Duration = Duration::from_micros(50);
/// A lower bound of the bytes that are copied in a microsecond, when caches are cold.
const BYTES_PER_MICROSECOND: usize = 2000;

/// Bytes in the memory of another thread, which lends them to one reader.
#[derive(Debug)]
pub(crate) struct Loan {
    state: AtomicU8,
    start: NonNull<u8>,
    len: usize,
    /// The state of a copy that its reader makes.
    theirs: Copy,
    /// The bytes, once its owner has copied them.
    copy: OnceLock<Bytes>,
}

// SAFETY: `start` is read in state READING only by the one thread that has set it, and as long as the state is LENT or
// READING the region that made the loan neither ends nor lets the bytes be written (see `Region::settle`). The bytes
// are those of an `Element`, which is `Send` and `Sync`.
unsafe impl Send for Loan {}
// SAFETY: as above; everything else is atomic.
unsafe impl Sync for Loan {}

impl Loan {
    /// Returns the number of bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Copies the bytes, once, to a slice of the same length.
    pub(crate) fn copy_to(&self, out: &mut [u8]) {
        self.copy_to_after(out, || ());
    }

    /// Like [`copy_to`](Self::copy_to), but calls `first` before; the owner of a long loan may begin to copy meanwhile.
    pub(crate) fn copy_to_after(&self, out: &mut [u8], first: impl FnOnce()) {
        let reading = if self.is_long() && self.len == out.len() { self.begin() } else { None };
        if let Some(_reading) = reading {
            // SAFETY: as in `read`; the loan refers to one slice for as long as it exists, and the only helper is its owner.
            return unsafe { self.theirs.lead(self.start.as_ptr(), out, first) };
        }
        first();
        self.read(|bytes| aliasing::copy(bytes, out));
    }

    /// From this many bytes on, the owner helps the reader to copy.
    pub(crate) const LONG: usize = LONG;

    fn is_long(&self) -> bool {
        self.len >= Self::LONG
    }

    /// Passes the bytes to `read`, once.
    pub(crate) fn read<R>(&self, read: impl FnOnce(&[u8]) -> R) -> R {
        if let Some(_reading) = self.begin() {
            // SAFETY: before the state is DONE, the region does not end and these bytes are not written; and only the thread
            // that has set READING sets DONE.
            return read(unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) });
        }
        self.read_copy(read)
    }

    /// Begins to read the bytes in place. Returns `None` if the owner has copied them, or is copying them.
    fn begin(&self) -> Option<Reading<'_>> {
        let begun = self.state.compare_exchange(LENT, READING, Ordering::Acquire, Ordering::Acquire);
        begun.is_ok().then(|| Reading(&self.state))
    }

    fn read_copy<R>(&self, read: impl FnOnce(&[u8]) -> R) -> R {
        let mut wait = Wait::default();
        loop {
            match self.copy.get() {
                Some(copy) => return read(copy),
                // The owner is copying; it does nothing else meanwhile.
                None => _ = wait.once(),
            }
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.state.load(Ordering::Acquire), DONE | COPIED)
    }

    /// Whether the loan is over. If its reader is copying a long slice, this thread helps first.
    fn is_over_with_help(&self) -> bool {
        if self.is_long() && self.state.load(Ordering::Acquire) == READING {
            // SAFETY: called by the region, which has not ended; the loan refers to one slice for as long as it exists.
            unsafe { self.theirs.help(self.start.as_ptr(), self.len) };
        }
        self.is_over()
    }

    /// Ends the loan: copies the bytes if nobody has begun to read them, or waits for the reader, which is soon done. Then
    /// the bytes may be written again.
    fn settle(&self) {
        self.copy();
        let mut wait = Wait::default();
        while !self.is_over_with_help() {
            wait.once();
        }
    }

    /// Like [`settle`](Self::settle), but first gives the reader some time to begin.
    fn settle_in_peace(&self) {
        let mut wait = Wait::default();
        let patience = PATIENCE + Duration::from_micros((self.len / BYTES_PER_MICROSECOND) as u64);
        let mut deadline = None;
        while !self.is_over_with_help() {
            if wait.once() && Instant::now() >= *deadline.get_or_insert_with(|| Instant::now() + patience) {
                return self.settle();
            }
        }
    }

    /// Copies the bytes for the reader, if it has not begun to read them.
    fn copy(&self) {
        if self.state.compare_exchange(LENT, COPYING, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            // SAFETY: called by the region, which has not ended; nobody writes.
            let bytes = unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) };
            let _ = self.copy.set(Bytes::copy_from_slice(bytes));
            self.state.store(COPIED, Ordering::Release);
        }
    }
}

/// A read in progress. However it ends, even by a panic, the owner learns that it is over.
struct Reading<'a>(&'a AtomicU8);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.store(DONE, Ordering::Release);
    }
}

/// A buffer that plans read, write and lend parts of.
pub(crate) struct Region<'a, T> {
    start: NonNull<T>,
    len: usize,
    writable: bool,
    /// The loans that were not over when last checked.
    loans: Vec<(Range<usize>, Arc<Loan>)>,
    life: PhantomData<&'a mut [T]>,
}

impl<'a, T: Element> Region<'a, T> {
    /// Creates a region that can be written.
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        let (len, start) = (slice.len(), NonNull::from(slice).cast());
        Self { start, len, writable: true, loans: Vec::new(), life: PhantomData }
    }

    /// Creates a region that is only read.
    pub(crate) fn read_only(slice: &'a [T]) -> Self {
        let (len, start) = (slice.len(), NonNull::from(slice).cast());
        Self { start, len, writable: false, loans: Vec::new(), life: PhantomData }
    }

    /// Returns some elements, to be read.
    ///
    /// # Panics
    /// If the range is out of bounds.
    pub(crate) fn part(&self, range: Range<usize>) -> &[T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: within the slice that was borrowed for as long as `self` lives; other threads only read.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(range.start), range.len()) }
    }

    /// Returns some elements, to be written, once nobody reads them any more.
    ///
    /// # Panics
    /// If the range is out of bounds, or the region must not be written.
    pub(crate) fn part_mut(&mut self, range: Range<usize>) -> &mut [T] {
        assert!(self.writable && range.start <= range.end && range.end <= self.len);
        self.settle(&range);
        // SAFETY: within the slice that was borrowed mutably for as long as `self` lives; no loan of them is left.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(range.start), range.len()) }
    }

    /// Returns two parts, to be written, once nobody reads them any more.
    ///
    /// # Panics
    /// If they overlap, and as [`part_mut`](Self::part_mut).
    pub(crate) fn parts_mut(&mut self, one: Range<usize>, other: Range<usize>) -> (&mut [T], &mut [T]) {
        assert!(one.end <= other.start || other.end <= one.start);
        let first = NonNull::from(self.part_mut(one));
        let other = self.part_mut(other);
        // SAFETY: as in `part_mut`; the parts do not overlap, and `self` stays borrowed.
        (unsafe { &mut *first.as_ptr() }, other)
    }

    /// Returns some elements to read and others to write.
    ///
    /// # Panics
    /// If they overlap, and as [`part_mut`](Self::part_mut).
    pub(crate) fn parts(&mut self, read: Range<usize>, write: Range<usize>) -> (&[T], &mut [T]) {
        assert!(read.end <= write.start || write.end <= read.start);
        assert!(read.start <= read.end && read.end <= self.len);
        // SAFETY: as in `part`, and it does not overlap what is written.
        let read = unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(read.start), read.len()) };
        (read, self.part_mut(write))
    }

    /// Lends some elements to a reader.
    ///
    /// # Panics
    /// If the range is out of bounds.
    pub(crate) fn lend(&mut self, range: Range<usize>) -> Arc<Loan> {
        let bytes = element::bytes_of(self.part(range.clone()));
        let (start, len) = (NonNull::from(bytes).cast(), bytes.len());
        let (state, theirs, copy) = (AtomicU8::new(LENT), Copy::default(), OnceLock::new());
        let loan = Arc::new(Loan { state, start, len, theirs, copy });
        self.loans.push((range, loan.clone()));
        loan
    }

    /// Settles every loan that overlaps a range.
    pub(crate) fn settle(&mut self, range: &Range<usize>) {
        if self.loans.is_empty() {
            return;
        }
        self.loans.retain(|(lent, loan)| {
            if lent.start < range.end && range.start < lent.end {
                loan.settle();
                return false;
            }
            !loan.is_over()
        });
    }
}

impl<T> Drop for Region<'_, T> {
    fn drop(&mut self) {
        // A region lives on the stack of the thread that executes a plan, and is never passed to `mem::forget`.
        self.loans.iter().for_each(|(_, loan)| loan.settle_in_peace());
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn what_is_lent_is_read_where_it_lies() {
        let mut memory = [1_u64, 2, 3, 4];
        let at = memory.as_ptr().addr();
        let mut region = Region::new(&mut memory);
        let loan = region.lend(1..3);
        let (found, bytes) = loan.read(|bytes| (bytes.as_ptr().addr(), bytes.to_vec()));
        assert_eq!((found, bytes), (at + 8, element::bytes_of(&[2_u64, 3]).to_vec()));
        region.part_mut(0..4).fill(9);
    }

    #[test]
    fn a_reader_that_comes_late_finds_what_was_lent() {
        let mut memory = [1_u8, 2, 3, 4];
        let mut region = Region::new(&mut memory);
        let (early, late) = (region.lend(0..2), region.lend(2..4));
        // Nobody has begun to read them, so they are copied.
        region.part_mut(1..2).fill(9);
        drop(region);
        memory.fill(7);
        assert_eq!(early.read(<[u8]>::to_vec), [1, 2]);
        assert_eq!(late.read(<[u8]>::to_vec), [3, 4]);
    }

    #[test]
    fn a_region_does_not_end_while_it_is_read() {
        for round in 0..200_u64 {
            let (sender, receiver) = std::sync::mpsc::channel::<Arc<Loan>>();
            let reader = std::thread::spawn(move || {
                let loan = receiver.recv().unwrap();
                loan.read(|bytes| {
                    if round % 2 == 0 {
                        std::thread::yield_now();
                    }
                    bytes.to_vec()
                })
            });
            let mut memory = vec![round; 1000];
            let mut region = Region::new(&mut memory);
            sender.send(region.lend(0..1000)).unwrap();
            drop(region);
            memory.fill(u64::MAX);
            assert_eq!(reader.join().unwrap(), element::bytes_of(&[round; 1000]));
        }
    }

    #[test]
    fn what_is_long_is_copied_together_with_its_owner() {
        for round in 0..50_u8 {
            let mut memory: Vec<u8> = (0..3 * LONG + 7).map(|at| (at % 251) as u8 ^ round).collect();
            let lent = memory.clone();
            let (sender, receiver) = std::sync::mpsc::channel::<Arc<Loan>>();
            let reader = std::thread::spawn(move || {
                let loan = receiver.recv().unwrap();
                let mut out = vec![0; loan.len()];
                loan.copy_to(&mut out);
                out
            });
            let mut region = Region::new(&mut memory);
            sender.send(region.lend(0..lent.len())).unwrap();
            if round % 2 == 0 {
                region.settle(&(0..1));
            }
            drop(region);
            memory.fill(0);
            assert!(reader.join().unwrap() == lent);
        }
    }

    #[test]
    fn its_owner_helps_who_does_something_else_first() {
        for panics in [false, true] {
            let mut memory: Vec<u8> = (0..2 * LONG).map(|at| (at % 251) as u8).collect();
            let (lent, mut out) = (memory.clone(), vec![0; 2 * LONG]);
            let mut region = Region::new(&mut memory);
            let loan = region.lend(0..lent.len());
            let copied = catch_unwind(AssertUnwindSafe(|| {
                loan.copy_to_after(&mut out, || {
                    assert!(!loan.is_over_with_help(), "it is not over before its reader says so");
                    assert!(!panics);
                });
            }));
            assert_eq!(copied.is_err(), panics);
            assert!(loan.is_over() && out == lent);
        }
    }

    #[test]
    #[should_panic(expected = "writable")]
    fn what_is_only_to_be_read_cannot_be_written() {
        Region::read_only(&[1_u8]).part_mut(0..1);
    }
}
