//! Receives that are posted now and completed later.

use std::time::Instant;

use super::Vr;
use super::queue::ONLY_LOOKS;
use super::receive::Handled;
use crate::envelope::Envelope;
use crate::error::RecvError;
use crate::mailbox::{PostId, Selector};
use crate::state::Call;

/// A receive that was posted by [`Vr::post`]. It gets the earliest envelope that matches it and no earlier posted receive,
/// whether or not anybody tests it. If it is dropped, it is cancelled: an envelope that it had got returns to its place in
/// the queue.
#[must_use = "a posted receive that is dropped is taken back"]
#[derive(Debug)]
pub struct Posted<'a> {
    vr: &'a Vr,
    id: PostId,
    selector: Selector,
}

impl Vr {
    /// Posts a receive, to be completed later: from now on, the earliest envelope that matches it and no earlier posted
    /// receive belongs to it. Does not block.
    ///
    /// ```
    /// # use river_core::{Channel, Selector};
    /// # const CHANNEL: Channel = Channel::named("doc");
    /// # river_core::testing::threads(1, |vr, _, _| {
    /// let mut posted = vr.post(Selector::on(CHANNEL).lane(7), |_| true);
    /// assert!(posted.test().unwrap().is_none());
    /// vr.send_bytes(vr.id(), CHANNEL, 7, b"hello".to_vec()).unwrap();
    /// assert_eq!(&posted.wait().unwrap().payload.to_bytes()[..], b"hello");
    /// # });
    /// ```
    ///
    /// # Panics
    /// If called from within a receive's predicate, which may only look at the envelope.
    pub fn post(&self, selector: Selector, accept: impl FnMut(&Envelope) -> bool + 'static) -> Posted<'_> {
        // A divergence is reported when the posted receive is tested.
        let _ = self.enter(|| Call::Post(selector));
        let id = self.with_mailbox(|mailbox, swap| mailbox.post(selector, Box::new(accept), false, swap));
        let id = id.expect(ONLY_LOOKS);
        Posted { vr: self, id, selector }
    }
}

impl Posted<'_> {
    /// Returns the envelope, if it has arrived. Does not block. Once the envelope was returned, returns `None`.
    ///
    /// # Errors
    /// As [`Vr::receive`].
    pub fn test(&mut self) -> Result<Option<Envelope>, RecvError> {
        self.vr.enter(|| Call::Test)?;
        match self.attempt()? {
            (None, _) if self.vr.glance() => Ok(self.attempt()?.0),
            (found, _) => Ok(found),
        }
    }

    /// The flag is that of [`Vr::look`].
    fn attempt(&self) -> Result<(Option<Envelope>, bool), RecvError> {
        self.vr.look(|mailbox, swap| mailbox.complete(self.id, swap))
    }

    /// Waits for the envelope.
    ///
    /// # Errors
    /// As [`Vr::receive`], and [`RecvError::HandedOut`] if [`test`](Self::test) has returned it before.
    pub fn wait(self) -> Result<Envelope, RecvError> {
        self.wait_until(None)
    }

    /// Waits for the envelope, but no longer than until the deadline; the receive is then cancelled.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), and [`RecvError::Timeout`].
    pub fn wait_until(self, deadline: Option<Instant>) -> Result<Envelope, RecvError> {
        self.vr.enter(|| Call::Complete)?;
        if !self.vr.mailbox.try_borrow().map_err(|_| RecvError::Reentrant)?.has_posted(self.id) {
            return Err(RecvError::HandedOut);
        }
        let found =
            self.vr.wait_for(self.selector, deadline.into(), Handled::GoesOn, None, || self.attempt())?;
        // Without a taker, nothing else ends the wait.
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
