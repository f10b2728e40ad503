//! Slices that a rank sends and waits for: meanwhile the receiver copies them straight from where they lie.
//!
//! A rank has some [`Slots`], which all of its process can see. A send takes a [`Lease`] of one, and its offer has the
//! number of that: it is unlike that of any other lease, so that nobody takes one for another. The slice can be copied
//! only while its rank [shows](Slots::show) it, which is when it waits for the send: then the slice is borrowed by who waits.
//!
//! ```text
//!               reader            reader
//!   SHOWN -----------------> READING -----------> READ
//!     ^ |
//!     | | owner
//!     | v
//!   HIDDEN
//! ```

// See the header of the parent module.
#![allow(unsafe_code)]

use std::array;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize};

use bytes::Bytes;
use crossbeam_utils::CachePadded;

use super::Wait;

/// What a rank can offer at the same time by slots.
const SLOTS: u64 = 64;

/// A slot's word is the number of its lease, and in its lowest bits the state of the slice.
const STATES: u64 = 4;
const HIDDEN: u64 = 0;
const SHOWN: u64 = 1;
const READING: u64 = 2;
const READ: u64 = 3;

/// The slots of a rank.
#[derive(Debug)]
pub(crate) struct Slots {
    slots: [CachePadded<Slot>; SLOTS as usize],
    /// One bit for each that is free. Only the owner looks at this and at `next`.
    free: AtomicU64,
    next: AtomicU64,
}

#[derive(Debug)]
struct Slot {
    /// 0: there is no lease.
    word: AtomicU64,
    start: AtomicPtr<u8>,
    len: AtomicUsize,
}

/// A slot in use, for one slice, until it is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    slots: Arc<Slots>,
    number: u64,
}

/// Bytes that are shown as long as they are kept here.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Dropped first: then nobody reads them any more.
    lease: Lease,
    _bytes: Bytes,
}

/// A slice with the number of its lease.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown<'a> {
    pub(crate) number: u64,
    pub(crate) data: &'a [u8],
}

impl Slots {
    pub(crate) fn new() -> Self {
        let slot = || Slot { word: 0.into(), start: AtomicPtr::default(), len: 0.into() };
        // So that what lay here before is not taken for a lease.
        let first = RandomState::new().hash_one(0) >> 1 & !(STATES * SLOTS - 1);
        Self {
            slots: array::from_fn(|_| CachePadded::new(slot())),
            free: u64::MAX.into(),
            next: (first | (STATES * SLOTS)).into(),
        }
    }

    /// A slot for a slice, which nobody can read yet; `None`: all are in use. Only for the rank whose slots they are.
    pub(crate) fn lease(self: &Arc<Self>, data: &[u8]) -> Option<Lease> {
        let free = self.free.load(Relaxed);
        let index = free.trailing_zeros();
        self.free.store(free & free.checked_sub(1)?, Relaxed);
        let next = self.next.load(Relaxed);
        self.next.store(next.wrapping_add(STATES * SLOTS), Relaxed);
        let number = next | (u64::from(index) * STATES);
        let slot = self.slot(number);
        slot.start.store(data.as_ptr().cast_mut(), Relaxed);
        slot.len.store(data.len(), Relaxed);
        slot.word.store(number | HIDDEN, Release);
        Some(Lease { slots: self.clone(), number })
    }

    /// A slot for bytes, which others can copy from now on.
    pub(crate) fn keep(self: &Arc<Self>, bytes: Bytes) -> Option<Kept> {
        let lease = self.lease(&bytes)?;
        self.slot(lease.number).word.store(lease.number | SHOWN, Release);
        Some(Kept { lease, _bytes: bytes })
    }

    /// Lets others copy these slices while `body` runs. Returns when nobody reads them any more, which is soon after that.
    pub(crate) fn show<R>(&self, shown: &[Shown<'_>], body: impl FnOnce() -> R) -> R {
        /// However `body` ends.
        struct Hide<'a>(&'a Slots, &'a [Shown<'a>]);
        impl Drop for Hide<'_> {
            fn drop(&mut self) {
                self.1.iter().for_each(|shown| self.0.slot(shown.number).hide(shown.number));
            }
        }
        let _hide = Hide(self, shown);
        for &Shown { number, data } in shown {
            let slot = self.slot(number);
            let is_it = slot.start.load(Relaxed).cast_const() == data.as_ptr()
                && slot.len.load(Relaxed) == data.len();
            // If it is read already, or the lease is over, nothing is shown.
            if is_it && slot.word.load(Relaxed) == number | HIDDEN {
                slot.start.store(data.as_ptr().cast_mut(), Relaxed);
                let _ = slot.word.compare_exchange(number | HIDDEN, number | SHOWN, Release, Relaxed);
            }
        }
        body()
    }

    /// Copies the slice of a lease, which must be as long. False: it is not shown.
    pub(crate) fn copy_to(&self, number: u64, out: &mut [u8]) -> bool {
        /// Whatever the reader does, the owner learns that it is over.
        struct Done<'a>(&'a Slot, u64);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.word.store(self.1, Release);
            }
        }
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
        // SAFETY: what is shown is borrowed by the caller of `show` until that returns, or owned by a `Kept` until its lease is
        // dropped; neither is over before the word is READ. Who has set READING is the only one that sets it, and nobody gives
        // the slot another slice meanwhile. `out` is another memory, as it is borrowed mutably.
        unsafe { std::ptr::copy_nonoverlapping(start, out.as_mut_ptr(), len) };
        true
    }

    /// The slot of a lease.
    fn slot(&self, number: u64) -> &Slot {
        &self.slots[(number / STATES % SLOTS) as usize]
    }
}

impl Slot {
    /// Returns when nobody reads the slice of a lease any more, and nobody will.
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
    /// What an offer says.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The number of the lease that a word says, whatever the state.
    pub(crate) fn number_of(word: u64) -> u64 {
        word & !(STATES - 1)
    }

    /// Where the slice lies, and how long it is.
    pub(crate) fn data(&self) -> (u64, usize) {
        let slot = self.slots.slot(self.number);
        (slot.start.load(Relaxed).expose_provenance() as u64, slot.len.load(Relaxed))
    }

    /// Where the word lies, which begins with the number as long as the lease lasts.
    pub(crate) fn word(&self) -> u64 {
        std::ptr::from_ref(&self.slots.slot(self.number).word).expose_provenance() as u64
    }
}

impl Kept {
    pub(crate) fn lease(&self) -> &Lease {
        &self.lease
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let slot = self.slots.slot(self.number);
        slot.hide(self.number);
        slot.word.store(0, SeqCst);
        let free = self.slots.free.load(Relaxed);
        self.slots.free.store(free | 1 << (self.number / STATES % SLOTS), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_copied_once_and_what_is_not_never() {
        let slots = Arc::new(Slots::new());
        let (data, mut out) = ([1, 2, 3], [0; 3]);
        let lease = slots.lease(&data).unwrap();
        let shown = [Shown { number: lease.number(), data: &data }];
        assert!(!slots.copy_to(lease.number(), &mut out), "nobody waits");
        slots.show(&shown, || assert!(!slots.copy_to(lease.number(), &mut [0; 2]), "it is longer"));
        assert!(!slots.copy_to(lease.number(), &mut out), "nobody waits any more");
        slots.show(&shown, || {
            assert!(slots.copy_to(lease.number(), &mut out));
            assert!(!slots.copy_to(lease.number(), &mut [0; 3]), "it was read");
        });
        assert_eq!(out, data);
        let old = lease.number();
        drop(lease);
        let next = slots.lease(&data).unwrap();
        slots.show(&[Shown { number: next.number(), data: &data }], || {
            assert!(!slots.copy_to(old, &mut out), "that was another one");
        });
    }

    #[test]
    fn what_is_kept_is_shown_all_the_time() {
        let slots = Arc::new(Slots::new());
        let kept = slots.keep(Bytes::from(vec![1, 2, 3])).unwrap();
        let (number, mut out) = (kept.lease().number(), [0; 3]);
        assert!(slots.copy_to(number, &mut out));
        assert_eq!(out, [1, 2, 3]);
        let other = slots.keep(Bytes::from(vec![1, 2, 3])).unwrap().lease().number();
        assert!(!slots.copy_to(other, &mut out), "it is gone");
    }

    #[test]
    fn another_slice_than_that_of_the_lease_is_not_shown() {
        let slots = Arc::new(Slots::new());
        let data = [1, 2, 3];
        let lease = slots.lease(&data[..2]).unwrap();
        slots.show(&[Shown { number: lease.number(), data: &data[1..] }], || {
            assert!(!slots.copy_to(lease.number(), &mut [0; 2]));
        });
    }

    #[test]
    fn slots_end_and_come_back() {
        let slots = Arc::new(Slots::new());
        let mut leases: Vec<_> = (0..SLOTS).map(|_| slots.lease(&[]).unwrap()).collect();
        assert!(slots.lease(&[]).is_none());
        let gone = leases.swap_remove(7).number();
        let again = slots.lease(&[]).unwrap().number();
        assert_ne!(gone, again);
    }

    #[test]
    fn who_shows_waits_for_who_reads() {
        const ROUNDS: u64 = 2000;
        let slots = Arc::new(Slots::new());
        let (sender, receiver) = std::sync::mpsc::channel();
        let reader = std::thread::spawn({
            let slots = slots.clone();
            move || {
                let mut out = vec![0; 5000];
                receiver
                    .iter()
                    .filter(|&(number, byte)| {
                        let read = slots.copy_to(number, &mut out);
                        assert!(!read || out.iter().all(|&other| other == byte));
                        read
                    })
                    .count()
            }
        });
        let mut data = vec![0; 5000];
        for round in 0..ROUNDS {
            data.fill(round as u8);
            let lease = slots.lease(&data).unwrap();
            slots.show(&[Shown { number: lease.number(), data: &data }], || {
                sender.send((lease.number(), round as u8)).unwrap();
                for _ in 0..round % 8 {
                    std::thread::yield_now();
                }
                while round == 0 && slots.slot(lease.number()).word.load(Acquire) != lease.number() | READ {
                    std::thread::yield_now();
                }
            });
        }
        drop(sender);
        assert!(reader.join().unwrap() > 0);
    }
}
