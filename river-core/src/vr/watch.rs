//! Watching other VRs: notifications that one is gone.

use super::Vr;
use super::queue::ONLY_LOOKS;
use crate::down::Down;
use crate::error::RecvError;
use crate::id::VrId;

impl Vr {
    /// Asks to be told when a VR is gone, for whatever reason: by a [`RecvError::Down`] from the first receive after that
    /// which finds no envelope. If the VR is gone already, the next such receive returns the error.
    ///
    /// ```
    /// # use river_core::{Channel, RecvError, Selector, Why};
    /// # const CHANNEL: Channel = Channel::named("doc");
    /// # river_core::testing::threads(2, |vr, index, ids| {
    /// # if index == 1 {
    /// #     vr.send_bytes(ids[0], CHANNEL, 0, b"farewell".to_vec()).unwrap();
    /// #     return;
    /// # }
    /// # let peer = ids[1];
    /// vr.watch(peer);
    /// // First all that it had sent, then the news of its end; neither receive names it.
    /// assert_eq!(vr.receive(Selector::on(CHANNEL)).unwrap().src, peer);
    /// match vr.receive(Selector::on(CHANNEL)) {
    ///     Err(RecvError::Down(down)) => assert_eq!((down.who, down.why), (peer, Why::Finished)),
    ///     other => panic!("{other:?}"),
    /// }
    /// # });
    /// ```
    ///
    /// # Blocking
    /// As a first send to that VR.
    ///
    /// # Panics
    /// If called from within a receive's predicate, which may only look at the envelope.
    pub fn watch(&self, who: VrId) {
        if self.mailbox.try_borrow_mut().expect(ONLY_LOOKS).watch(who) {
            self.observe(who);
        }
    }

    /// Cancels a [`watch`](Self::watch).
    ///
    /// # Panics
    /// As [`watch`](Self::watch).
    pub fn unwatch(&self, who: VrId) {
        self.with_mailbox(|mailbox, _| mailbox.unwatch(who)).expect(ONLY_LOOKS);
    }

    /// Asks to have the end of `who` reported, once. Returns whether that was new, so that a notice may have arrived.
    pub(super) fn expect_from(&self, who: VrId) -> bool {
        !self.observed.borrow().contains(&who)
            && self.mailbox.borrow().why_down(who).is_none()
            && self.observe(who)
    }

    fn observe(&self, who: VrId) -> bool {
        let new = self.observed.borrow_mut().insert(who);
        // While a record is replayed, it says which VRs have ended; the others are watched when the replay is over.
        if new && self.is_live() {
            self.node.watch(self.id, who);
        }
        new
    }

    pub(super) fn forget(&self, down: Down) -> RecvError {
        if let Some(tracer) = &self.tracer {
            tracer.down(&down);
        }
        self.routes.borrow_mut().remove(&down.who);
        if self.node.is_foreign(down.who) {
            self.start_afresh(down.who);
        }
        RecvError::Down(down)
    }
}
