//! An asymmetric fence, which costs the frequent side nothing.
//!
//! The writer of a ring and a reader that goes to sleep over it form a Dekker pair (see [`Bell`](super::bell::Bell)): each
//! needs a fence between its own store and its load of the other's word. Writes are frequent, and their fence would wait
//! until the store has reached the other core; sleep is rare. So the side that goes to sleep has the kernel interrupt all
//! cores that run registered processes (membarrier(2)), which acts as a fence for both sides.

use std::sync::LazyLock;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{compiler_fence, fence};

use rustix::thread::{MembarrierCommand, membarrier};

/// Whether other processes' fences reach this one.
static REGISTERED: LazyLock<bool> =
    LazyLock::new(|| membarrier(MembarrierCommand::RegisterGlobalExpedited).is_ok());

/// Whether [`heavy`] reaches other processes.
pub(super) fn is_heavy() -> bool {
    *REGISTERED && membarrier(MembarrierCommand::GlobalExpedited).is_ok()
}

/// The fence of the side that goes to sleep.
pub(super) fn heavy() {
    fence(SeqCst);
    // If the kernel has no such fence, writers have been told to use one of their own.
    let _ = membarrier(MembarrierCommand::GlobalExpedited);
}

/// The fence of a writer. `theirs` says whether the other side's fence is heavy.
pub(super) fn light(theirs: bool) {
    if theirs && *REGISTERED { compiler_fence(SeqCst) } else { fence(SeqCst) }
}
