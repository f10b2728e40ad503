//! The inboxes of a process, and a fast path into them for envelopes from other processes.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::envelope::Envelope;
use crate::id::{IdMap, VrId};
use crate::inbox::{Event, Inbox};
use crate::status::VrStatus;

/// The VRs that live in this process.
#[derive(Debug, Default)]
pub(crate) struct Inboxes {
    by_vr: RwLock<IdMap<VrId, Arc<Inbox>>>,
    /// Whether any host is known to be dead: from then on it matters where an envelope comes from.
    guarded: AtomicBool,
}

impl Inboxes {
    pub(crate) fn insert(&self, vr: VrId) -> Arc<Inbox> {
        let inbox = Arc::new(Inbox::default());
        self.write().insert(vr, inbox.clone());
        inbox
    }

    pub(crate) fn remove(&self, vr: VrId) -> Option<Arc<Inbox>> {
        self.write().remove(&vr)
    }

    pub(crate) fn get(&self, vr: VrId) -> Option<Arc<Inbox>> {
        self.read().get(&vr).cloned()
    }

    /// Returns the status of all mailboxes.
    pub(crate) fn status(&self) -> Vec<VrStatus> {
        self.read().iter().map(|(vr, inbox)| inbox.status(*vr)).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.read().is_empty()
    }

    /// Ends every receive.
    pub(crate) fn stop(&self) {
        for inbox in self.read().values() {
            let _ = inbox.push(Event::Stop);
        }
    }

    /// Sets whether senders that wait for room in a mailbox of this process are let in nevertheless.
    pub(crate) fn let_in(&self, all: bool) {
        self.read().values().for_each(|inbox| inbox.let_in(all));
    }

    /// Closes the fast path: from now on [`deliver`](Self::deliver) returns every envelope, and no call that delivers is
    /// under way.
    pub(crate) fn guard(&self) {
        self.guarded.store(true, Relaxed);
        drop(self.write());
    }

    /// Whether the fast path is open.
    pub(crate) fn is_unguarded(&self) -> bool {
        !self.guarded.load(Relaxed)
    }

    /// The fast path: delivers an envelope, or returns it if it must be checked first.
    pub(crate) fn deliver(&self, envelope: Envelope) -> Result<(), Envelope> {
        let inboxes = self.read();
        // Holding the lock, so that `guard` can wait for threads that are past this check.
        if self.guarded.load(Relaxed) {
            return Err(envelope);
        }
        let Some(inbox) = inboxes.get(&envelope.dst) else { return Err(envelope) };
        inbox.deliver(envelope)
    }

    fn read(&self) -> RwLockReadGuard<'_, IdMap<VrId, Arc<Inbox>>> {
        self.by_vr.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, IdMap<VrId, Arc<Inbox>>> {
        self.by_vr.write().unwrap_or_else(PoisonError::into_inner)
    }
}
