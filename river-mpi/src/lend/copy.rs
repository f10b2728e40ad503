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

use super::Wait;

/// Shorter ones are over before anybody could help.
pub(super) const LONG: usize = 64 << 10;
/// What is taken at once.
const PART: usize = 32 << 10;

/// A copy under way, of a slice that both know.
#[derive(Debug, Default)]
pub(super) struct Copy {
    /// Null: nobody leads.
    out: AtomicPtr<u8>,
    /// How many parts were taken, or more.
    taken: AtomicUsize,
    /// How many of them are copied.
    done: AtomicUsize,
}

impl Copy {
    /// Copies all of a slice that is as long as `out`. Others may begin before `first` is done.
    ///
    /// # Safety
    /// The slice is there and is not written before this returns. Until then nobody else leads, and who helps is given the
    /// same slice.
    pub(super) unsafe fn lead(&self, start: *const u8, out: &mut [u8], first: impl FnOnce()) {
        self.taken.store(0, Relaxed);
        self.done.store(0, Relaxed);
        let led = Led { copy: self, start, to: out.as_mut_ptr(), len: out.len() };
        self.out.store(led.to, Release);
        first();
    }

    /// Copies some of it, if somebody leads.
    ///
    /// # Safety
    /// The slice is there and is not written before this returns, and until then nobody begins to lead a copy of another one.
    pub(super) unsafe fn help(&self, start: *const u8, len: usize) {
        let to = self.out.load(Acquire);
        if !to.is_null() {
            // SAFETY: who leads does not return before every part that is taken here is copied; none is left when it does.
            unsafe { self.work(start, to, len) };
        }
    }

    /// # Safety
    /// `to` can be written as long as a part that was taken is not copied; otherwise as `lead` and `help` say.
    unsafe fn work(&self, start: *const u8, to: *mut u8, len: usize) {
        loop {
            let at = self.taken.fetch_add(1, Relaxed) * PART;
            if at >= len {
                return;
            }
            // SAFETY: a part within both, which nobody else has taken.
            unsafe { start.add(at).copy_to_nonoverlapping(to.add(at), PART.min(len - at)) };
            self.done.fetch_add(1, Release);
        }
    }
}

/// A copy that somebody leads. It ends when all is copied, though what its leader does first may panic.
struct Led<'a> {
    copy: &'a Copy,
    start: *const u8,
    to: *mut u8,
    len: usize,
}

impl Drop for Led<'_> {
    fn drop(&mut self) {
        // SAFETY: as the caller of `lead` says. `to` is borrowed there mutably, and every part is taken once.
        unsafe { self.copy.work(self.start, self.to, self.len) };
        let mut wait = Wait::default();
        while self.copy.done.load(Acquire) < self.len.div_ceil(PART) {
            wait.once();
        }
        self.copy.out.store(null_mut(), Relaxed);
    }
}
