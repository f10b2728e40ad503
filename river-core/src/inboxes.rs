//! The inboxes of a process, and the short way into them for what comes from other processes.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::envelope::Envelope;
use crate::id::{IdMap, VrId};
use crate::inbox::{Event, Inbox};
use crate::status::VrStatus;

/// Who lives in this process.
#[derive(Debug, Default)]
pub(crate) struct Inboxes {
    by_vr: RwLock<IdMap<VrId, Arc<Inbox>>>,
    /// Some host is known to be dead: from then on it matters where an envelope comes from.
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

    /// What all mailboxes look like.
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

    /// Whether those who wait for room in a mailbox of this process are let in nevertheless.
    pub(crate) fn let_in(&self, all: bool) {
        self.read().values().for_each(|inbox| inbox.let_in(all));
    }

    /// Closes the short way: from now on [`deliver`](Self::deliver) gives everything back, and nobody is in the middle of it.
    pub(crate) fn guard(&self) {
        self.guarded.store(true, Relaxed);
        drop(self.write());
    }

    /// Whether the short way is open.
    pub(crate) fn is_unguarded(&self) -> bool {
        !self.guarded.load(Relaxed)
    }

    /// The short way: hands an envelope over, or gives it back if somebody has to look at it first.
    pub(crate) fn deliver(&self, envelope: Envelope) -> Result<(), Envelope> {
        let inboxes = self.read();
        // With the lock held, so that `guard` can wait for who has looked.
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
