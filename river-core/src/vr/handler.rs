//! Handlers: what a VR does with certain envelopes while it waits for anything.

use std::cell::RefCell;
use std::rc::Rc;

use super::Vr;
use super::queue::ONLY_LOOKS;
use crate::envelope::Envelope;
use crate::mailbox::{PostId, Selector};
use crate::state::Call;

type Action = Rc<RefCell<dyn FnMut(&Vr, Envelope)>>;

/// The actions of a VR's handlers.
#[derive(Default)]
pub(super) struct Handlers {
    actions: RefCell<Vec<(PostId, Action)>>,
    /// The handlers that are running: a handler may itself receive.
    busy: RefCell<Vec<PostId>>,
}

/// Handles envelopes until it is dropped; made by [`Vr::handle`]. Envelopes that have arrived by then and were not handled
/// return to their places in the queue.
#[must_use = "a handler that is dropped handles nothing any more; `detach` keeps it"]
#[derive(Debug)]
pub struct Handler<'a> {
    vr: &'a Vr,
    id: PostId,
}

impl Handler<'_> {
    /// Keeps the handler active for as long as the VR lives.
    pub fn detach(self) {
        std::mem::forget(self);
    }
}

impl Drop for Handler<'_> {
    fn drop(&mut self) {
        self.vr.handlers.actions.borrow_mut().retain(|(id, _)| *id != self.id);
        if let Ok(mut mailbox) = self.vr.mailbox.try_borrow_mut() {
            mailbox.unpost(self.id);
        }
    }
}

impl Handlers {
    pub(super) fn is_empty(&self) -> bool {
        self.actions.borrow().is_empty()
    }
}

/// Marks a handler as running, until it has returned or panicked.
struct Busy<'a> {
    handlers: &'a Handlers,
    id: PostId,
}

impl<'a> Busy<'a> {
    fn new(handlers: &'a Handlers, id: PostId) -> Self {
        handlers.busy.borrow_mut().push(id);
        Self { handlers, id }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.handlers.busy.borrow_mut().retain(|busy| *busy != self.id);
    }
}

impl Vr {
    /// Runs an action for every envelope that matches, from now on and for those that are already queued, in order of
    /// arrival. No other receive gets these envelopes. Does not block.
    ///
    /// The action runs on this VR's thread, inside the receive in which the VR is when the envelope arrives, or else the next
    /// one that it calls, before that receive returns. It may send and receive, and is not called again while it runs. If it
    /// panics, so does the receive; later envelopes are handled as before. The action owns what it captures: use an `Rc` to
    /// share state with it.
    ///
    /// ```
    /// # use std::cell::Cell;
    /// # use std::rc::Rc;
    /// # use river_core::{Channel, Selector};
    /// # const PING: Channel = Channel::named("ping");
    /// # const WORK: Channel = Channel::named("work");
    /// # river_core::testing::threads(1, |vr, _, _| {
    /// let pings = Rc::new(Cell::new(0));
    /// let counted = pings.clone();
    /// let handler = vr.handle(Selector::on(PING), |_| true, move |_, _| counted.set(counted.get() + 1));
    /// vr.send_bytes(vr.id(), PING, 0, vec![]).unwrap();
    /// vr.send_bytes(vr.id(), WORK, 0, vec![]).unwrap();
    /// vr.receive(Selector::on(WORK)).unwrap();
    /// assert_eq!(pings.get(), 1);
    /// # drop(handler);
    /// # });
    /// ```
    ///
    /// # Panics
    /// If called from within a receive's predicate, which may only look at the envelope.
    pub fn handle(
        &self,
        selector: Selector,
        accept: impl FnMut(&Envelope) -> bool + 'static,
        action: impl FnMut(&Vr, Envelope) + 'static,
    ) -> Handler<'_> {
        // A divergence is reported by the next receive.
        let _ = self.enter(|| Call::Post(selector));
        let id = self.with_mailbox(|mailbox, swap| mailbox.post(selector, Box::new(accept), true, swap));
        let id = id.expect(ONLY_LOOKS);
        self.handlers.actions.borrow_mut().push((id, Rc::new(RefCell::new(action))));
        Handler { vr: self, id }
    }

    /// Runs the handlers for which an envelope has arrived. Returns whether at least one has run.
    #[inline]
    pub(super) fn serve(&self) -> bool {
        self.mailbox.borrow().has_standing() && self.run_handlers()
    }

    #[cold]
    fn run_handlers(&self) -> bool {
        let mut served = false;
        loop {
            let next = self.with_mailbox(|mailbox, _| mailbox.take_standing(&self.handlers.busy.borrow()));
            let Ok(Some((id, envelope))) = next else { return served };
            let action =
                self.handlers.actions.borrow().iter().find(|(of, _)| *of == id).map(|(_, a)| a.clone());
            let Some(action) = action else { continue };
            let _busy = Busy::new(&self.handlers, id);
            (action.borrow_mut())(self, self.taken(envelope));
            served = true;
        }
    }
}

impl std::fmt::Debug for Handlers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handlers").field("busy", &self.busy).finish_non_exhaustive()
    }
}
