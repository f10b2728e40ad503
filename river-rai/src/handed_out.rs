//! The unanswered calls that a server has handed out to its helpers, or will; shared by all of them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use river_core::VrId;

use crate::protocol::Ticket;

#[derive(Clone, Debug, Default)]
pub(crate) struct HandedOut(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// Whether each of them was cancelled.
    calls: HashMap<(VrId, Ticket), bool>,
    /// Clients that are gone, while calls of theirs may still be queued that the server has not examined.
    gone: HashSet<VrId>,
    /// The server ends, so nobody waits for anything.
    over: bool,
}

impl HandedOut {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a call. A call that is already known stays as it is.
    pub(crate) fn add(&self, call: (VrId, Ticket)) {
        let mut inner = self.lock();
        let gone = inner.gone.contains(&call.0);
        inner.calls.entry(call).or_insert(gone);
    }

    pub(crate) fn remove(&self, call: (VrId, Ticket)) {
        self.lock().calls.remove(&call);
    }

    pub(crate) fn cancel(&self, call: (VrId, Ticket)) {
        if let Some(cancelled) = self.lock().calls.get_mut(&call) {
            *cancelled = true;
        }
    }

    /// Notes that a client is gone, so nobody waits for its calls.
    pub(crate) fn lose(&self, client: VrId) {
        let mut inner = self.lock();
        inner.gone.insert(client);
        for ((by, _), cancelled) in &mut inner.calls {
            *cancelled |= *by == client;
        }
    }

    /// Notes that the server ends: the results of calls that are being executed are no longer wanted.
    pub(crate) fn end(&self) {
        self.lock().over = true;
    }

    /// Whether the server ends.
    pub(crate) fn is_over(&self) -> bool {
        self.lock().over
    }

    /// Whether a client is gone but may have left requests that the server has not examined.
    pub(crate) fn is_lost(&self, client: VrId) -> bool {
        self.lock().gone.contains(&client)
    }

    /// Notes that the server has examined everything from a client that is gone.
    pub(crate) fn forget(&self, client: VrId) {
        self.lock().gone.remove(&client);
    }

    pub(crate) fn is_cancelled(&self, call: (VrId, Ticket)) -> bool {
        self.lock().calls.get(&call).copied().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_the_calls_of_a_client_that_is_gone_be_they_known_by_then_or_not() {
        let (calls, gone, other) = (HandedOut::default(), VrId::fresh(), VrId::fresh());
        calls.add((gone, Ticket(1)));
        calls.lose(gone);
        calls.add((gone, Ticket(2)));
        calls.add((other, Ticket(1)));
        // It had to wait, and is examined again.
        calls.add((gone, Ticket(1)));
        assert!(calls.is_cancelled((gone, Ticket(1))) && calls.is_cancelled((gone, Ticket(2))));
        assert!(!calls.is_cancelled((other, Ticket(1))));
        // A client of another program may come back.
        calls.forget(gone);
        calls.add((gone, Ticket(3)));
        assert!(!calls.is_cancelled((gone, Ticket(3))));
    }
}
