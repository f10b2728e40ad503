//! The envelopes that wait in a VR's mailbox: inspecting them without taking any, and limiting them.

use std::cell::BorrowMutError;

use super::Vr;
use crate::envelope::Envelope;
use crate::inbox::{Event, Moment, Pump};
use crate::limit::QueueLimit;
use crate::mailbox::{Mailbox, QueueStatus, Selector, Swap};
use crate::state::Call;

/// The panic message for calls from within a predicate.
pub(super) const ONLY_LOOKS: &str = "a receive's predicate may only look at the envelope";

impl Vr {
    /// Shows the envelopes that wait and that the selector admits, oldest first, until the visitor returns `Some`.
    /// Takes none of them, and does not block.
    ///
    /// ```
    /// # use river_core::{Channel, Selector};
    /// # const CHANNEL: Channel = Channel::named("doc");
    /// # river_core::testing::threads(1, |vr, _, _| {
    /// vr.send_bytes(vr.id(), CHANNEL, 0, b"hello".to_vec()).unwrap();
    /// let length = vr.peek_where(Selector::on(CHANNEL), |envelope| Some(envelope.payload.len()));
    /// assert_eq!(length, Some(5));
    /// assert!(vr.try_receive_where(Selector::on(CHANNEL), |_| true).unwrap().is_some(), "it is still there");
    /// # });
    /// ```
    pub fn peek_where<R>(
        &self,
        selector: Selector,
        mut visitor: impl FnMut(&Envelope) -> Option<R>,
    ) -> Option<R> {
        self.enter(|| Call::Peek(selector)).ok()?;
        self.glance();
        self.with_mailbox(|mailbox, swap| mailbox.visit(&selector, &mut visitor, swap)).ok()?
    }

    /// Returns the state of this VR's mailbox. Does not block.
    #[must_use]
    pub fn queue(&self) -> QueueStatus {
        // Within a predicate, which may only look at the envelope, the state is not known.
        let look = || self.with_mailbox(Mailbox::status).unwrap_or_default();
        self.remember_what_is_done_again(Call::Queue, look)
    }

    /// Sets or removes the limit of this VR's mailbox. Without a limit, a sender that is faster than this VR fills the
    /// memory. Envelopes that are already queued count against it. Does not block.
    ///
    /// Senders of the same process are stopped at once. Other processes are notified, so envelopes that are in transit by
    /// then still arrive. Senders are admitted again when half of the limit is free.
    ///
    /// # Panics
    /// If called from within a receive's predicate, which may only look at the envelope.
    pub fn limit_queue(&self, limit: Option<QueueLimit>) {
        // A divergence is reported by the next receive.
        let _ = self.enter(|| Call::LimitQueue);
        let set = self.with_mailbox(|mailbox, swap| {
            mailbox.status(swap);
            self.limited.set(limit.is_some());
            self.inbox.set_limit(limit, mailbox.lengths(), |host| self.node.gate(host, self.id, None));
        });
        set.expect(ONLY_LOOKS);
    }

    /// Passes the mailbox and access to new arrivals to `act`, then publishes for monitoring how many envelopes it holds,
    /// and tells the inbox which losses the VR has heard of. Fails while a predicate runs.
    #[inline]
    pub(super) fn with_mailbox<T>(
        &self,
        act: impl FnOnce(&mut Mailbox, &mut Swap<'_>) -> T,
    ) -> Result<T, BorrowMutError> {
        let mut mailbox = self.mailbox.try_borrow_mut()?;
        let result = act(&mut mailbox, &mut |events| self.arrivals(events));
        let held = mailbox.unreceived();
        if self.held.replace(held) != held {
            self.inbox.holds(held);
        }
        let heard = mailbox.heard();
        if !heard.is_empty() {
            self.inbox.heard(heard.drain(..));
        }
        Ok(result)
    }

    /// Returns what has arrived since the last call, and when the first of it came; `None` if nothing has.
    fn arrivals(&self, events: &mut Vec<Event>) -> Option<Moment> {
        match &self.journal {
            None => self.inbox.swap(events).inspect(|_| self.node.pump().drained()),
            // Its recorder decides when something arrives.
            Some(journal) => journal.recorder.arrivals(events, &self.inbox),
        }
    }

    /// Accounts for an envelope that leaves the mailbox.
    #[inline]
    pub(super) fn taken(&self, envelope: Envelope) -> Envelope {
        if let Some(tracer) = &self.tracer
            && self.is_live()
        {
            let payload = &envelope.payload;
            tracer.received(&envelope.label(), payload.len(), || payload.clone());
        }
        if self.limited.get() {
            self.inbox.took(envelope.payload.len(), |host| self.node.gate(host, self.id, None));
        }
        envelope
    }
}
