//! Receives that are posted now and completed later.

use std::time::Instant;

use super::Vr;
use crate::envelope::Envelope;
use crate::error::RecvError;
use crate::mailbox::{Found, PostId, Selector};
use crate::state::Call;

/// A receive that was posted by [`Vr::post`]. It gets the earliest envelope that matches and that no receive posted
/// before it wants, whether anybody looks at it or not. Dropped, it is taken back: what it had got returns to its
/// place in the queue.
#[must_use = "a posted receive that is dropped is taken back"]
#[derive(Debug)]
pub struct Posted<'a> {
    vr: &'a Vr,
    id: PostId,
    selector: Selector,
}

impl<'a> Posted<'a> {
    pub(super) fn new(vr: &'a Vr, id: PostId, selector: Selector) -> Self {
        Self { vr, id, selector }
    }

    /// The envelope, if it is there. Does not block. After it was handed out there is nothing any more.
    ///
    /// # Errors
    /// As [`Vr::receive`].
    pub fn test(&mut self) -> Result<Option<Envelope>, RecvError> {
        self.vr.enter(|| Call::Test)?;
        self.attempt()
    }

    fn attempt(&self) -> Result<Option<Envelope>, RecvError> {
        let found = {
            let mut mailbox = self.vr.mailbox.try_borrow_mut().map_err(|_| RecvError::Reentrant)?;
            let found = mailbox.complete(self.id, &mut |events| self.vr.arrivals(events));
            self.vr.holds(&mailbox);
            found
        };
        self.vr.serve();
        match found {
            Found::Envelope(envelope) => Ok(Some(self.vr.taken(envelope))),
            Found::Nothing => Ok(None),
            Found::Down(down) => Err(self.vr.forget(down)),
            Found::Stopped => Err(RecvError::Stopped),
        }
    }

    /// Waits for the envelope.
    ///
    /// # Errors
    /// As [`Vr::receive`].
    pub fn wait(self) -> Result<Envelope, RecvError> {
        self.wait_until(None)
    }

    /// Waits for the envelope, but no longer than until the deadline; the receive is taken back then.
    ///
    /// # Errors
    /// As [`Vr::receive_until`].
    pub fn wait_until(self, deadline: Option<Instant>) -> Result<Envelope, RecvError> {
        self.vr.enter(|| Call::Complete)?;
        let attempt = || self.attempt().map(|found| found.map(Some));
        let found = self.vr.wait_for(self.selector, deadline.into(), None, attempt)?;
        // Without a taker there is nothing else that ends the wait.
        found.ok_or(RecvError::Stopped)
    }
}

impl Drop for Posted<'_> {
    fn drop(&mut self) {
        if let Ok(mut mailbox) = self.vr.mailbox.try_borrow_mut() {
            mailbox.unpost(self.id);
        }
    }
}
