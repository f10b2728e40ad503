//! Limits how much memory a process shares with all its peers together.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use rustix::process::{Resource, getrlimit};

/// The most bytes that segments may have: of address space, as memory is allocated when it is written to.
const MOST: usize = if cfg!(test) { 4 << 20 } else { 512 << 20 };
/// If the address space of a process is limited, segments may have this fraction of it.
const PART: u64 = 16;

/// What is left of the budget.
#[derive(Debug)]
pub(super) struct Budget(AtomicUsize);

/// A part of the budget that is in use until this is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self::of(MOST)
    }
}

impl Budget {
    /// Creates a budget of this many bytes, or of what the process may use if that is less.
    pub(super) fn of(most: usize) -> Self {
        let limit = getrlimit(Resource::As).current.and_then(|limit| usize::try_from(limit / PART).ok());
        Self(AtomicUsize::new(limit.unwrap_or(most).min(most)))
    }

    /// Reserves bytes of the budget; `None` if it has not enough left.
    pub(super) fn lease(self: &Arc<Self>, bytes: usize) -> Option<Lease> {
        self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(bytes)).ok()?;
        Some(Lease { budget: self.clone(), bytes })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.0.fetch_add(self.bytes, Relaxed);
    }
}
