//! The calls that a server has handed out to its helpers and that are not answered; shared by all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use river_core::VrId;

use crate::protocol::Ticket;

/// Whether each of them was cancelled.
#[derive(Clone, Debug, Default)]
pub(crate) struct HandedOut(Arc<Mutex<HashMap<(VrId, Ticket), bool>>>);

impl HandedOut {
    fn lock(&self) -> MutexGuard<'_, HashMap<(VrId, Ticket), bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, call: (VrId, Ticket)) {
        self.lock().insert(call, false);
    }

    pub(crate) fn remove(&self, call: (VrId, Ticket)) {
        self.lock().remove(&call);
    }

    pub(crate) fn cancel(&self, call: (VrId, Ticket)) {
        if let Some(cancelled) = self.lock().get_mut(&call) {
            *cancelled = true;
        }
    }

    /// Nobody waits for what this client has called.
    pub(crate) fn cancel_all_of(&self, client: VrId) {
        for ((by, _), cancelled) in &mut *self.lock() {
            *cancelled |= *by == client;
        }
    }

    pub(crate) fn is_cancelled(&self, call: (VrId, Ticket)) -> bool {
        self.lock().get(&call).copied().unwrap_or(false)
    }
}
