//! Limits of mailboxes: when a mailbox is full, and what senders then do.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::id::{HostId, IdMap, VrId};

/// How much may wait in a VR's mailbox, and what a send does when it is full. Set by
/// [`Vr::limit_queue`](crate::Vr::limit_queue).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimit {
    /// The most envelopes, of all layers together.
    pub messages: usize,
    /// The most bytes of payload.
    pub bytes: usize,
    /// What a send does while the mailbox is full.
    pub when_full: WhenFull,
}

/// What a send does if the destination's mailbox is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// It fails with [`SendError::Full`](crate::SendError::Full), and nothing is sent.
    Refuse,
    /// It waits until half of the limit is free, or the VR is gone. Two VRs that wait for room in each other's mailboxes wait
    /// forever.
    Wait,
}

/// A mailbox's limit and what counts against it.
#[derive(Debug)]
pub(crate) struct Limited {
    limit: QueueLimit,
    messages: usize,
    bytes: usize,
    /// The processes that were told that the mailbox is full.
    held_off: Vec<HostId>,
}

impl Limited {
    pub(crate) fn new(limit: QueueLimit) -> Self {
        Self { limit, messages: 0, bytes: 0, held_off: Vec::new() }
    }

    pub(crate) fn count(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes;
    }

    pub(crate) fn uncount(&mut self, bytes: usize) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// What a send does now; `None` if there is room. One message is always accepted, however large.
    pub(crate) fn full(&self) -> Option<WhenFull> {
        let full = self.messages >= self.limit.messages.max(1) || self.bytes >= self.limit.bytes.max(1);
        full.then_some(self.limit.when_full)
    }

    /// Whether enough room is free to admit the processes that were held off.
    pub(crate) fn has_room(&self) -> bool {
        self.messages <= self.limit.messages / 2 && self.bytes <= self.limit.bytes / 2
    }

    /// Records that a process is held off. Returns `false` if it already is.
    pub(crate) fn hold_off(&mut self, host: HostId) -> bool {
        let new = !self.held_off.contains(&host);
        if new {
            self.held_off.push(host);
        }
        new
    }

    /// Returns the processes that were held off; they are admitted from now on.
    pub(crate) fn let_in(&mut self) -> Vec<HostId> {
        std::mem::take(&mut self.held_off)
    }
}

/// What this process knows of full mailboxes elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    closed: Mutex<IdMap<VrId, (HostId, WhenFull)>>,
    opened: Condvar,
    /// Whether any mailbox is full: checked before each send to another process.
    any: AtomicBool,
    /// Senders that wait are let through, as a checkpoint is being taken.
    lets_in: AtomicBool,
}

impl Gates {
    /// Records that a VR on this host has a full mailbox, or has room again.
    pub(crate) fn set(&self, vr: VrId, host: HostId, full: Option<WhenFull>) {
        let mut closed = self.lock();
        match full {
            Some(when_full) => drop(closed.insert(vr, (host, when_full))),
            None => drop(closed.remove(&vr)),
        }
        self.changed(&closed);
    }

    /// Forgets the mailboxes of a host that is gone: a send to it finds that out.
    pub(crate) fn forget(&self, host: HostId) {
        let mut closed = self.lock();
        closed.retain(|_, (of, _)| *of != host);
        self.changed(&closed);
    }

    /// Lets all senders through, as the program ends.
    pub(crate) fn open_all(&self) {
        let mut closed = self.lock();
        closed.clear();
        self.changed(&closed);
    }

    /// Sets whether senders that wait are let through nevertheless.
    pub(crate) fn let_in(&self, all: bool) {
        self.lets_in.store(all, SeqCst);
        // Holding the lock, so that no sender is between its check and its wait.
        let closed = self.lock();
        self.changed(&closed);
    }

    /// Whether an envelope may be sent to this VR. Waits for room if its limit is [`WhenFull::Wait`].
    pub(crate) fn pass(&self, to: VrId) -> bool {
        if !self.any.load(SeqCst) {
            return true;
        }
        let mut closed = self.lock();
        loop {
            match closed.get(&to) {
                None => return true,
                Some((_, WhenFull::Refuse)) => return false,
                Some((_, WhenFull::Wait)) if self.lets_in.load(SeqCst) => return true,
                Some((_, WhenFull::Wait)) => {
                    closed = self.opened.wait(closed).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    fn changed(&self, closed: &IdMap<VrId, (HostId, WhenFull)>) {
        self.any.store(!closed.is_empty(), SeqCst);
        self.opened.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, IdMap<VrId, (HostId, WhenFull)>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
