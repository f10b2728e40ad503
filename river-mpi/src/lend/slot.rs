//! A table of the slices that a rank is sending, from which receivers in the same process copy them directly.
//!
//! Each rank is a [`Lender`] with a fixed table of [`Slots`] that its whole process can see. A send [leases](Lease) a slot and
//! puts the unique number of the lease into its offer. A borrowed slice can be copied only while its rank
//! [shows](Lender::show) it, that is, while the rank waits for the send and therefore still borrows the slice. Bytes that the
//! send owns are [kept](Kept) with their lease, and are shown for as long as it lasts.
//!
//! ```text
//!               reader            reader
//!   SHOWN -----------------> READING -----------> READ
//!     ^ |   <-----------------
//!     | |    of another length
//!     | | owner
//!     | v
//!   HIDDEN
//! ```

// See the header of the parent module.
#![allow(unsafe_code)]

use std::array;
use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, fence};

use bytes::Bytes;
use crossbeam_utils::CachePadded;

use super::Wait;
use super::copy::{Copy, LONG, copy};

/// Shorter slices are read before their sender could help.
pub(crate) const HELPED: usize = 32 << 10;
const _: () = assert!(HELPED <= LONG, "a reader within this process asks for help from `LONG` on");

/// How many slices a rank can offer by slots at the same time: as many as a word has bits.
const SLOTS: u64 = u64::BITS as u64;

/// A slot's word holds the number of its lease and, in its lowest bits, the state of the slice.
const STATES: u64 = 4;
const HIDDEN: u64 = 0;
const SHOWN: u64 = 1;
const READING: u64 = 2;
const READ: u64 = 3;

/// The slots of a rank, as other ranks access them.
#[derive(Debug)]
pub(crate) struct Slots([CachePadded<Slot>; SLOTS as usize]);

/// The owner of the slots: it alone leases, shows and hides them.
#[derive(Debug)]
pub(crate) struct Lender {
    slots: Arc<Slots>,
    /// One bit for each free slot.
    free: Cell<u64>,
    /// The number of the next lease, without the index of its slot.
    next: Cell<u64>,
    /// The leases of the long slices among those that `show` is showing.
    long: RefCell<Vec<u64>>,
}

#[derive(Debug)]
struct Slot {
    /// 0 if there is no lease.
    word: AtomicU64,
    start: AtomicPtr<u8>,
    len: AtomicUsize,
    /// The reader's copy, if the slice is long.
    copy: Copy,
}

/// A slot in use for one slice, until this is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    lender: Rc<Lender>,
    number: u64,
}

/// Owned bytes that are shown for as long as this exists.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Dropped first; from then on, nobody reads the bytes.
    lease: Lease,
    _bytes: Bytes,
}

/// A slice with the number of its lease.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown<'a> {
    pub(crate) number: u64,
    pub(crate) data: &'a [u8],
}

impl Lender {
    pub(crate) fn new() -> Self {
        let slot =
            || Slot { word: 0.into(), start: AtomicPtr::default(), len: 0.into(), copy: Copy::default() };
        // Random, so that whatever lay at this address before is not taken for a lease.
        let first = RandomState::new().hash_one(0) >> 1 & !(STATES * SLOTS - 1);
        Self {
            slots: Arc::new(Slots(array::from_fn(|_| CachePadded::new(slot())))),
            free: u64::MAX.into(),
            next: (first | (STATES * SLOTS)).into(),
            long: RefCell::default(),
        }
    }

    /// Returns the slots, for other ranks.
    pub(crate) fn slots(&self) -> &Arc<Slots> {
        &self.slots
    }

    /// Leases a slot for a slice, which nobody can read yet. Returns `None` if all slots are in use.
    pub(crate) fn lease(self: &Rc<Self>, data: &[u8]) -> Option<Lease> {
        let free = self.free.get();
        let index = free.trailing_zeros();
        self.free.set(free & free.checked_sub(1)?);
        let next = self.next.get();
        self.next.set(next.wrapping_add(STATES * SLOTS));
        let number = next | (u64::from(index) * STATES);
        let slot = self.slots.slot(number);
        slot.start.store(data.as_ptr().cast_mut(), Relaxed);
        slot.len.store(data.len(), Relaxed);
        slot.word.store(number | HIDDEN, Release);
        Some(Lease { lender: self.clone(), number })
    }

    /// Leases a slot for bytes, which others can copy from now on. Returns `None` if all slots are in use.
    pub(crate) fn keep(self: &Rc<Self>, bytes: Bytes) -> Option<Kept> {
        let lease = self.lease(&bytes)?;
        self.slots.slot(lease.number).word.store(lease.number | SHOWN, Release);
        Some(Kept { lease, _bytes: bytes })
    }

    /// Lets others copy these slices while `body` runs. Returns once nobody reads them any more, soon after `body` has ended.
    pub(crate) fn show<R>(&self, shown: &[Shown<'_>], body: impl FnOnce() -> R) -> R {
        /// Hides the slices, however `body` ends.
        struct Hide<'a>(&'a Lender, &'a [Shown<'a>], usize);
        impl Drop for Hide<'_> {
            fn drop(&mut self) {
                let Self(lender, shown, long) = self;
                lender.long.borrow_mut().truncate(*long);
                shown.iter().for_each(|shown| lender.slots.slot(shown.number).hide(shown.number));
            }
        }
        let _hide = Hide(self, shown, self.long.borrow().len());
        for &Shown { number, data } in shown {
            let slot = self.slots.slot(number);
            let is_it = slot.start.load(Relaxed).cast_const() == data.as_ptr()
                && slot.len.load(Relaxed) == data.len();
            // Nothing is shown if the slice was read already, or the lease is over.
            if is_it && slot.word.load(Relaxed) == number | HIDDEN {
                if data.len() >= HELPED {
                    self.long.borrow_mut().push(number);
                }
                slot.start.store(data.as_ptr().cast_mut(), Relaxed);
                let _ = slot.word.compare_exchange(number | HIDDEN, number | SHOWN, Release, Relaxed);
            }
        }
        body()
    }

    /// Whether a slice is being sent.
    pub(crate) fn has_leases(&self) -> bool {
        self.free.get() != u64::MAX
    }

    /// Whether [`show`](Self::show) is showing long slices.
    #[inline]
    pub(crate) fn shows_long(&self) -> bool {
        !self.long.borrow().is_empty()
    }

    /// Calls `body` with a long slice that [`show`](Self::show) is showing, if it is showing that.
    pub(crate) fn with_long<R>(&self, number: u64, body: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let slot = self.slots.slot(number);
        if !self.long.borrow().contains(&number) || Lease::number_of(slot.word.load(Relaxed)) != number {
            return None;
        }
        let (start, len) = (slot.start.load(Relaxed), slot.len.load(Relaxed));
        // SAFETY: the slot still has this lease, so these are the address and the length of its slice, which is borrowed by the
        // caller of `show`, in which this thread is.
        Some(body(unsafe { std::slice::from_raw_parts(start, len) }))
    }

    /// Helps readers that are copying long slices shown by [`show`](Self::show). Returns `false` if there are none.
    #[inline]
    pub(crate) fn help(&self) -> bool {
        let mut helped = false;
        for &number in &*self.long.borrow() {
            let slot = self.slots.slot(number);
            if slot.word.load(Acquire) == number | READING {
                let (start, len) = (slot.start.load(Relaxed), slot.len.load(Relaxed));
                // SAFETY: the slice is borrowed by the caller of `show`, in which this thread is; so nobody leads a copy of
                // another slice in this slot before this returns.
                unsafe { slot.copy.help(start, len) };
                helped = true;
            }
        }
        helped
    }
}

impl Slots {
    /// Copies the slice of a lease to `out`. Returns `false` if it is not shown, or has another length.
    pub(crate) fn copy_to(&self, number: u64, out: &mut [u8]) -> bool {
        /// However the read ends, the owner learns that it is over.
        struct Done<'a>(&'a Slot, u64);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.word.store(self.1, Release);
            }
        }
        // The number comes from a message, and may be invalid.
        let number = Lease::number_of(number);
        let slot = self.slot(number);
        if slot.word.compare_exchange(number | SHOWN, number | READING, Acquire, Relaxed).is_err() {
            return false;
        }
        let mut done = Done(slot, number | READ);
        let (start, len) = (slot.start.load(Relaxed), slot.len.load(Relaxed));
        if len != out.len() {
            done.1 = number | SHOWN;
            return false;
        }
        // SAFETY: a shown slice is borrowed by the caller of `show` until that returns, or owned by a `Kept` until its lease
        // is dropped; both wait as long as the word is READING. Only this thread has set it to that, and nobody gives the
        // slot another slice meanwhile. `out` is different memory, as it is borrowed mutably.
        unsafe {
            if len < LONG {
                copy(start, out.as_mut_ptr(), len);
            } else {
                slot.copy.lead(start, out, || ());
            }
        }
        true
    }

    /// The slot of a lease.
    fn slot(&self, number: u64) -> &Slot {
        &self.0[(number / STATES % SLOTS) as usize]
    }
}

impl Slot {
    /// Hides the slice of a lease. Returns once nobody reads it any more.
    fn hide(&self, number: u64) {
        let mut wait = Wait::default();
        loop {
            match self.word.compare_exchange(number | SHOWN, number | HIDDEN, Relaxed, Acquire) {
                Err(word) if word == number | READING => _ = wait.once(),
                _ => return,
            }
        }
    }
}

impl Lease {
    /// Returns the number that an offer carries.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Returns the number of the lease in a word, whatever its state.
    pub(crate) fn number_of(word: u64) -> u64 {
        word & !(STATES - 1)
    }

    /// Returns the address and the length of the slice.
    pub(crate) fn data(&self) -> (u64, usize) {
        let slot = self.lender.slots.slot(self.number);
        (slot.start.load(Relaxed).expose_provenance() as u64, slot.len.load(Relaxed))
    }

    /// Returns the address of the word, which holds the number for as long as the lease lasts.
    pub(crate) fn word(&self) -> u64 {
        std::ptr::from_ref(&self.lender.slots.slot(self.number).word).expose_provenance() as u64
    }
}

impl Kept {
    pub(crate) fn lease(&self) -> &Lease {
        &self.lease
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let slot = self.lender.slots.slot(self.number);
        slot.hide(self.number);
        slot.word.store(0, SeqCst);
        // No later write to the slice becomes visible before that.
        fence(Release);
        self.lender.free.set(self.lender.free.get() | 1 << (self.number / STATES % SLOTS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_copied_once_and_what_is_not_never() {
        let lender = Rc::new(Lender::new());
        let (data, mut out) = ([1, 2, 3], [0; 3]);
        let lease = lender.lease(&data).unwrap();
        let shown = [Shown { number: lease.number(), data: &data }];
        assert!(!lender.slots().copy_to(lease.number(), &mut out), "nobody waits");
        lender.show(&shown, || assert!(!lender.slots().copy_to(lease.number(), &mut [0; 2]), "it is longer"));
        assert!(!lender.slots().copy_to(lease.number(), &mut out), "nobody waits any more");
        lender.show(&shown, || {
            assert!(lender.slots().copy_to(lease.number(), &mut out));
            assert!(!lender.slots().copy_to(lease.number(), &mut [0; 3]), "it was read");
        });
        assert_eq!(out, data);
        let old = lease.number();
        drop(lease);
        let next = lender.lease(&data).unwrap();
        lender.show(&[Shown { number: next.number(), data: &data }], || {
            assert!(!lender.slots().copy_to(old, &mut out), "that was another one");
        });
    }

    #[test]
    fn what_is_long_is_copied_together() {
        let lender = Rc::new(Lender::new());
        let slots = lender.slots().clone();
        let data: Vec<u8> = (0..3 * LONG + 7).map(|at| (at % 251) as u8).collect();
        for _ in 0..20 {
            let lease = lender.lease(&data).unwrap();
            let number = lease.number();
            lender.show(&[Shown { number, data: &data }], || {
                std::thread::scope(|scope| {
                    let reader = scope.spawn(|| {
                        let mut out = vec![0; data.len()];
                        assert!(slots.copy_to(number, &mut out));
                        out
                    });
                    while !reader.is_finished() {
                        lender.help();
                    }
                    assert!(reader.join().unwrap() == data);
                });
            });
            assert!(lender.long.borrow().is_empty());
        }
    }

    #[test]
    fn what_is_kept_is_shown_all_the_time() {
        let lender = Rc::new(Lender::new());
        let kept = lender.keep(Bytes::from(vec![1, 2, 3])).unwrap();
        let (number, mut out) = (kept.lease().number(), [0; 3]);
        assert!(lender.slots().copy_to(number, &mut out));
        assert_eq!(out, [1, 2, 3]);
        let other = lender.keep(Bytes::from(vec![1, 2, 3])).unwrap().lease().number();
        assert!(!lender.slots().copy_to(other, &mut out), "it is gone");
    }

    #[test]
    fn another_slice_than_that_of_the_lease_is_not_shown() {
        let lender = Rc::new(Lender::new());
        let data = [1, 2, 3];
        let lease = lender.lease(&data[..2]).unwrap();
        lender.show(&[Shown { number: lease.number(), data: &data[1..] }], || {
            assert!(!lender.slots().copy_to(lease.number(), &mut [0; 2]));
        });
    }

    #[test]
    fn slots_end_and_come_back() {
        let lender = Rc::new(Lender::new());
        let mut leases: Vec<_> = (0..SLOTS).map(|_| lender.lease(&[]).unwrap()).collect();
        assert!(lender.lease(&[]).is_none());
        let gone = leases.swap_remove(7).number();
        let again = lender.lease(&[]).unwrap().number();
        assert_ne!(gone, again);
    }

    #[test]
    fn who_shows_or_keeps_waits_for_who_reads() {
        const ROUNDS: u64 = 2000;
        let lender = Rc::new(Lender::new());
        let (sender, receiver) = std::sync::mpsc::channel();
        let reader = std::thread::spawn({
            let slots = lender.slots().clone();
            move || {
                let mut out = vec![0; 5000];
                let mut read = |number, byte| {
                    let read = slots.copy_to(number, &mut out);
                    assert!(!read || out.iter().all(|&other| other == byte));
                    read
                };
                receiver.iter().filter(|&(number, byte)| read(number, byte)).count()
            }
        });
        let mut data = vec![0; 5000];
        for round in 0..ROUNDS {
            let tell = |number| {
                sender.send((number, round as u8)).unwrap();
                for _ in 0..round % 8 {
                    std::thread::yield_now();
                }
                let word = || lender.slots().slot(number).word.load(Acquire);
                while round == 0 && word() != number | READ {
                    std::thread::yield_now();
                }
            };
            data.fill(round as u8);
            if round % 2 == 0 {
                let lease = lender.lease(&data).unwrap();
                lender.show(&[Shown { number: lease.number(), data: &data }], || tell(lease.number()));
            } else {
                let kept = lender.keep(Bytes::from(data.clone())).unwrap();
                tell(kept.lease().number());
            }
        }
        drop(sender);
        assert!(reader.join().unwrap() > 0);
    }
}
