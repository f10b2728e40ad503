//! A long copy that the reader and the lender of a slice make together, if the lender has nothing to do but wait for it: two
//! cores copy twice as fast as one.
//!
//! The reader leads. Both claim one unclaimed part after the other and copy it, until none is left; then the reader waits
//! until every claimed part has been copied.

// See the header of the parent module.
#![allow(unsafe_code)]

use std::ptr::null_mut;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicUsize};

use river_core::aliasing;

use super::Wait;

/// Shorter copies are done before anyone could help.
pub(super) const LONG: usize = 64 << 10;
/// Bytes that are claimed at once.
const PART: usize = 32 << 10;

/// The state of a copy of a slice that both sides know.
#[derive(Debug, Default)]
pub(super) struct Copy {
    /// The destination; null while nobody leads.
    out: AtomicPtr<u8>,
    /// How many parts have been claimed; it may exceed the number of parts.
    taken: AtomicUsize,
    /// How many parts have been copied.
    done: AtomicUsize,
}

impl Copy {
    /// Calls `first`, then copies a slice that is as long as `out`. Helpers may begin while `first` runs.
    ///
    /// # Safety
    /// Until this returns, the slice must stay valid and must not be written, nobody else may lead, and every helper must be
    /// given the same slice.
    pub(super) unsafe fn lead(&self, start: *const u8, out: &mut [u8], first: impl FnOnce()) {
        self.taken.store(0, Relaxed);
        self.done.store(0, Relaxed);
        let led = Led { copy: self, start, to: out.as_mut_ptr(), len: out.len() };
        self.out.store(led.to, Release);
        first();
    }

    /// Copies parts of the slice, if somebody leads.
    ///
    /// # Safety
    /// Until this returns, the slice must stay valid and must not be written, and nobody may begin to lead a copy of another
    /// slice.
    pub(super) unsafe fn help(&self, start: *const u8, len: usize) {
        let to = self.out.load(Acquire);
        if !to.is_null() {
            // SAFETY: the leader does not return before every part that is claimed here has been copied; afterwards none is
            // left to claim.
            unsafe { self.work(start, to, len) };
        }
    }

    /// # Safety
    /// `to` must stay valid for writes until every claimed part has been copied; otherwise as for `lead` and `help`.
    unsafe fn work(&self, start: *const u8, to: *mut u8, len: usize) {
        loop {
            let at = self.taken.fetch_add(1, Relaxed) * PART;
            if at >= len {
                return;
            }
            // SAFETY: the part lies within both buffers, and nobody else has claimed it.
            unsafe { copy(start.add(at), to.add(at), PART.min(len - at)) };
            self.done.fetch_add(1, Release);
        }
    }
}

/// Copies bytes, fast even if the addresses alias.
///
/// # Safety
/// As for [`std::ptr::copy_nonoverlapping`].
pub(super) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    for part in aliasing::parts(from.addr(), to.addr(), len) {
        // SAFETY: as the caller guarantees for all of the bytes.
        unsafe { from.add(part.start).copy_to_nonoverlapping(to.add(part.start), part.len()) };
    }
}

/// A copy that is being led. Dropping it finishes the copy, even if `first` has panicked.
struct Led<'a> {
    copy: &'a Copy,
    start: *const u8,
    to: *mut u8,
    len: usize,
}

impl Drop for Led<'_> {
    fn drop(&mut self) {
        // SAFETY: as the caller of `lead` guarantees. `to` is borrowed mutably there, and every part is claimed once.
        unsafe { self.copy.work(self.start, self.to, self.len) };
        let mut wait = Wait::default();
        while self.copy.done.load(Acquire) < self.len.div_ceil(PART) {
            wait.once();
        }
        self.copy.out.store(null_mut(), Relaxed);
    }
}
