//! Virtual resources: what they are, what they see of the world, and the thread that each has of its own.

mod handler;
mod machines;
mod posted;
mod recorded;
mod resource;
pub(crate) mod thread;
mod traced;

use std::any::{Any, TypeId};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand_pcg::Pcg64Mcg;

use crate::down::Down;
use crate::envelope::{Channel, Envelope, Payload};
use crate::error::{RecvError, SendError};
use crate::id::{IdMap, IdSet, ProgramId, VrId};
use crate::inbox::{Event, Inbox, Moment, Refused};
use crate::limit::QueueLimit;
use crate::link::Link;
use crate::mailbox::{Found, Mailbox, QueueStatus, Selector};
use crate::node::Node;
use crate::state::{Base, Blocked, Call, Recorder};
use crate::trace::{Reason, Tracer};

pub use handler::Handler;
use handler::Handlers;
pub use posted::Posted;
use recorded::Journal;
pub use recorded::Random;
pub(crate) use resource::{Creation, Resource};
pub use resource::{Group, VirtualResource};
pub use traced::Span;

/// A virtual resource's own view: its name, its mailbox, and everything that it can ask of the others.
///
/// It belongs to the VR's thread and cannot leave it. All methods take `&self`, so that handles made from it (a farm,
/// a communicator) can be used side by side.
#[derive(Debug)]
pub struct Vr {
    id: VrId,
    parent: Option<VrId>,
    node: Arc<Node>,
    inbox: Arc<Inbox>,
    mailbox: RefCell<Mailbox>,
    handlers: Handlers,
    routes: RefCell<IdMap<VrId, Route>>,
    /// The VRs whose end reaches this one.
    observed: RefCell<IdSet<VrId>>,
    slots: RefCell<HashMap<TypeId, Rc<dyn Any>>>,
    fresh_number: Cell<u64>,
    /// Whether the mailbox has a limit.
    limited: Cell<bool>,
    /// How many envelopes it has taken out of its mailbox.
    received: Cell<u64>,
    /// How many names it has given to VRs that it deployed.
    names: Cell<u64>,
    random: RefCell<Pcg64Mcg>,
    /// Of a recoverable VR.
    journal: Option<Journal>,
    /// Of a program that is traced.
    tracer: Option<Box<Tracer>>,
}

#[derive(Debug)]
struct Route {
    link: Link,
    next: u64,
}

impl Vr {
    /// The VR of the calling thread.
    pub(crate) fn new(id: VrId, parent: Option<VrId>, node: Arc<Node>, inbox: Arc<Inbox>) -> Self {
        Self::from_base(id, parent, node, inbox, &Base::new(id, Bytes::new()))
    }

    /// The VR of the calling thread, recorded; from where its record begins.
    pub(crate) fn recorded(node: Arc<Node>, inbox: Arc<Inbox>, recorder: Arc<Recorder>) -> Self {
        let (base, origin) = (recorder.base(), &recorder.origin);
        let mut vr = Self::from_base(origin.id, origin.parent, node, inbox, &base);
        vr.journal = Some(Journal::new(recorder, base));
        vr
    }

    fn from_base(id: VrId, parent: Option<VrId>, node: Arc<Node>, inbox: Arc<Inbox>, base: &Base) -> Self {
        inbox.adopt();
        let tracer = node.traces.get().map(|traces| Box::new(Tracer::new(traces.clone(), id, parent)));
        Self {
            id,
            parent,
            node,
            inbox,
            mailbox: RefCell::new(base.queue.clone().into()),
            handlers: Handlers::default(),
            routes: RefCell::default(),
            observed: RefCell::new(base.observed.iter().copied().collect()),
            slots: RefCell::default(),
            fresh_number: Cell::new(base.fresh_number),
            limited: Cell::new(false),
            received: Cell::new(0),
            names: Cell::new(base.names),
            random: RefCell::new(base.random.clone()),
            journal: None,
            tracer,
        }
    }

    /// This VR's name.
    #[must_use]
    pub fn id(&self) -> VrId {
        self.id
    }

    /// The VR that deployed this one; `None` in the initiator, the VR with which the program starts.
    #[must_use]
    pub fn parent(&self) -> Option<VrId> {
        self.parent
    }

    /// The name of the VM that this VR runs on; in the initiator, that of the machine.
    #[must_use]
    pub fn vm(&self) -> &str {
        match &self.journal {
            None => &self.node.vm,
            Some(_) => self.recorded_vm(),
        }
    }

    /// The program that this VR is part of; for a recoverable VR, the one in which it began.
    #[must_use]
    pub fn program(&self) -> ProgramId {
        self.journal.as_ref().map_or(self.node.program, Journal::program)
    }

    /// A number that this VR has not been given before, for tickets and the like. Starts at 1.
    #[must_use]
    pub fn fresh_number(&self) -> u64 {
        self.fresh_number.set(self.fresh_number.get() + 1);
        self.fresh_number.get()
    }

    /// This VR's own `T`, made by `Default` when first asked for: where a layer keeps what belongs to it and the VR.
    ///
    /// ```
    /// # use std::cell::Cell;
    /// # river_core::testing::threads(1, |vr, _, _| {
    /// #[derive(Default)]
    /// struct Calls(Cell<u64>);
    ///
    /// vr.slot::<Calls>().0.set(1);
    /// assert_eq!(vr.slot::<Calls>().0.get(), 1);
    /// # });
    /// ```
    #[must_use]
    pub fn slot<T: Default + 'static>(&self) -> Rc<T> {
        let slot = self.slots.borrow().get(&TypeId::of::<T>()).cloned();
        let slot = slot.unwrap_or_else(|| {
            let new: Rc<dyn Any> = Rc::new(T::default());
            self.slots.borrow_mut().entry(TypeId::of::<T>()).or_insert(new).clone()
        });
        // The key is the type, so the downcast always succeeds; a fresh value would only lose state.
        slot.downcast().unwrap_or_default()
    }

    // ---- envelopes ----

    /// Sends a payload to a VR. `Ok` means accepted, not received.
    ///
    /// # Errors
    /// [`SendError::Down`] if the destination is known to be gone, [`SendError::Full`] if its mailbox has a limit and is
    /// full; the payload is dropped then.
    ///
    /// # Blocking
    /// The first time for a destination it may wait for the directory and for a connection. Later it waits while the
    /// destination's process does not read and what lies between is full: a quarter of a mebibyte on the same machine,
    /// the buffers of the connection and 8 MiB more otherwise. A process that lives always reads.
    pub fn send_bytes(
        &self,
        to: VrId,
        channel: Channel,
        lane: u64,
        payload: impl Into<Payload>,
    ) -> Result<(), SendError> {
        match &self.journal {
            None => self.dispatch(to, None, channel, lane, payload.into()),
            Some(_) => self.recorded_send(to, channel, lane, payload.into()),
        }
    }

    /// Sends for real, with that number or the next one.
    fn dispatch(
        &self,
        to: VrId,
        number: Option<u64>,
        channel: Channel,
        lane: u64,
        payload: Payload,
    ) -> Result<(), SendError> {
        let mut routes = self.routes.borrow_mut();
        let route = match routes.entry(to) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let link = self.timed(Reason::Connect, Some(to), || self.node.route(to));
                let link = link.map_err(SendError::Down)?;
                entry.insert(Route { link, next: 0 })
            }
        };
        let local = matches!(route.link, Link::Local(_));
        if !local && !self.timed(Reason::Full, Some(to), || self.node.pass(to)) {
            return Err(SendError::Full(to));
        }
        let seq = number.unwrap_or(route.next);
        let envelope = Envelope { src: self.id, dst: to, seq, channel, lane, payload };
        let sending = self.tracer.as_ref().map(|tracer| (tracer, tracer.sending(&envelope)));
        match route.link.send(envelope) {
            Ok(()) => {
                route.next = seq + 1;
                if let Some((tracer, sending)) = sending {
                    tracer.sent(sending, if local { Reason::Full } else { Reason::Send });
                }
                return Ok(());
            }
            Err(Refused::Full) => return Err(SendError::Full(to)),
            Err(Refused::Closed) => {}
        }
        routes.remove(&to);
        drop(routes);
        Err(SendError::Down(self.node.post_mortem(to)))
    }

    /// Takes the earliest envelope that the selector admits, waiting for it if need be.
    ///
    /// # Errors
    /// [`RecvError::Down`] if the only VR that the selector admits is gone and has nothing left in the queue, or if a
    /// watched VR or a child that did not end normally is gone; [`RecvError::Stopped`] when the program ends.
    pub fn receive(&self, selector: Selector) -> Result<Envelope, RecvError> {
        self.receive_until(selector, None, |_| true)
    }

    /// Takes the earliest envelope that the selector admits and the predicate accepts, waiting for it if need be. The
    /// predicate runs on this thread and must not receive.
    ///
    /// ```
    /// # use river_core::{Channel, Selector};
    /// # const CHANNEL: Channel = Channel::named("doc");
    /// # river_core::testing::threads(1, |vr, _, _| {
    /// for word in ["a", "list", "of", "words"] {
    ///     vr.send_bytes(vr.id(), CHANNEL, 0, word.as_bytes().to_vec()).unwrap();
    /// }
    /// let long = vr.receive_where(Selector::on(CHANNEL), |envelope| envelope.payload.len() > 2).unwrap();
    /// assert_eq!(&long.payload.to_bytes()[..], b"list");
    /// // The others wait where they were.
    /// assert_eq!(&vr.receive(Selector::on(CHANNEL)).unwrap().payload.to_bytes()[..], b"a");
    /// # });
    /// ```
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn receive_where(
        &self,
        selector: Selector,
        accept: impl FnMut(&Envelope) -> bool,
    ) -> Result<Envelope, RecvError> {
        self.receive_until(selector, None, accept)
    }

    /// Like [`receive_where`](Self::receive_where), but returns at once, `None` if nothing that matches is there.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn try_receive_where(
        &self,
        selector: Selector,
        mut accept: impl FnMut(&Envelope) -> bool,
    ) -> Result<Option<Envelope>, RecvError> {
        self.enter(|| Call::TryReceive(selector))?;
        self.attempt(selector, &mut accept)
    }

    /// Takes the earliest envelope that the selector and the predicate accept, if it is there.
    fn attempt(
        &self,
        selector: Selector,
        accept: &mut dyn FnMut(&Envelope) -> bool,
    ) -> Result<Option<Envelope>, RecvError> {
        let found = {
            let mut mailbox = self.mailbox.try_borrow_mut().map_err(|_| RecvError::Reentrant)?;
            mailbox.take(&selector, accept, &mut |events| self.arrivals(events))
        };
        self.serve();
        match found {
            Found::Envelope(envelope) => Ok(Some(self.taken(envelope))),
            Found::Nothing => Ok(None),
            Found::Down(down) => Err(self.forget(down)),
            Found::Stopped => Err(RecvError::Stopped),
        }
    }

    /// Like [`receive_where`](Self::receive_where), but waits no longer than until the deadline.
    ///
    /// ```
    /// # use std::time::{Duration, Instant};
    /// # use river_core::{Channel, RecvError, Selector};
    /// # const CHANNEL: Channel = Channel::named("doc");
    /// # river_core::testing::threads(1, |vr, _, _| {
    /// let deadline = Instant::now() + Duration::from_millis(5);
    /// let nothing = vr.receive_until(Selector::on(CHANNEL), Some(deadline), |_| true);
    /// assert!(matches!(nothing, Err(RecvError::Timeout { .. })));
    /// # });
    /// ```
    ///
    /// # Errors
    /// As [`receive`](Self::receive), and [`RecvError::Timeout`].
    pub fn receive_until(
        &self,
        selector: Selector,
        deadline: Option<Instant>,
        mut accept: impl FnMut(&Envelope) -> bool,
    ) -> Result<Envelope, RecvError> {
        self.enter(|| Call::Receive(selector))?;
        self.wait_for(selector, deadline, || self.attempt(selector, &mut accept))
    }

    /// What has arrived since the last time, and when the first of it came; `None`: nothing.
    fn arrivals(&self, events: &mut Vec<Event>) -> Option<Moment> {
        match &self.journal {
            None => self.inbox.swap(events),
            Some(journal) => journal.recorder.arrivals(events, &self.inbox),
        }
    }

    /// Tries again and again until there is something, waiting in between for something to arrive.
    fn wait_for<T>(
        &self,
        selector: Selector,
        deadline: Option<Instant>,
        mut attempt: impl FnMut() -> Result<Option<T>, RecvError>,
    ) -> Result<T, RecvError> {
        // The clock is worth a look only if there is a limit.
        let start = deadline.map(|_| Instant::now());
        let mut watched = false;
        loop {
            if let Some(found) = attempt()? {
                return Ok(found);
            }
            match self.recorded_wait()? {
                Blocked::Live => {}
                Blocked::Again => continue,
                Blocked::TimedOut(waited) => {
                    let queued = self.mailbox.borrow().len();
                    return Err(RecvError::Timeout { waited, queued });
                }
            }
            if let Some(src) = selector.awaited()
                && !watched
                && src != self.id
            {
                // From now on the death of the only one who could answer ends the wait.
                watched = true;
                if self.expect_from(src) {
                    continue;
                }
            }
            if !self.wait_for_arrivals(deadline, selector.awaited()) {
                let queued = self.mailbox.borrow().len();
                let waited = start.map_or(Duration::ZERO, |start| start.elapsed());
                self.journal.iter().for_each(|journal| journal.recorder.timed_out(waited));
                return Err(RecvError::Timeout { waited, queued });
            }
            if let Some(journal) = &self.journal
                && !self.handlers.is_empty()
            {
                journal.recorder.again();
            }
        }
    }

    /// Posts a receive, to be completed later: from now on the earliest envelope that matches, and that no receive
    /// posted before wants, belongs to it. Does not block.
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
        // A divergence is told by the look at what was posted.
        let _ = self.enter(|| Call::Post(selector));
        let mut mailbox = self.mailbox.borrow_mut();
        let id = mailbox.post(selector, Box::new(accept), false, &mut |events| self.arrivals(events));
        Posted::new(self, id, selector)
    }

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
        let mut mailbox = self.mailbox.try_borrow_mut().ok()?;
        mailbox.visit(&selector, &mut visitor, &mut |events| self.arrivals(events))
    }

    /// What waits in this VR's mailbox. Does not block.
    #[must_use]
    pub fn queue(&self) -> QueueStatus {
        let look = || {
            // Within a predicate, which may only look at the envelope, there is no telling.
            let mailbox = self.mailbox.try_borrow_mut();
            mailbox.map(|mut mailbox| mailbox.status(&mut |events| self.arrivals(events))).unwrap_or_default()
        };
        self.remember_what_is_done_again(Call::Queue, look)
    }

    /// Sets, or takes back, the limit of what may wait in this VR's mailbox: without one a sender that is faster than this VR
    /// fills the memory. What waits now counts. Does not block.
    ///
    /// Senders of the same process are stopped at once. Other processes are told, so that what was under way in the
    /// meantime still comes. They are let in again when half of the limit is free.
    ///
    /// # Panics
    /// If called from within a receive's predicate, which may only look at the envelope.
    pub fn limit_queue(&self, limit: Option<QueueLimit>) {
        // A divergence is told by the receive that follows.
        let _ = self.enter(|| Call::LimitQueue);
        let mut mailbox = self.mailbox.borrow_mut();
        mailbox.status(&mut |events| self.arrivals(events));
        self.limited.set(limit.is_some());
        self.inbox.set_limit(limit, mailbox.lengths(), |host| self.node.gate(host, self.id, None));
    }

    /// An envelope leaves the mailbox.
    #[inline]
    fn taken(&self, envelope: Envelope) -> Envelope {
        self.received.set(self.received.get() + 1);
        self.inbox.has_taken(self.received.get());
        if let Some(tracer) = &self.tracer
            && self.is_live()
        {
            tracer.received(&envelope);
        }
        if self.limited.get() {
            self.inbox.took(envelope.payload.len(), |host| self.node.gate(host, self.id, None));
        }
        envelope
    }

    // ---- deaths ----

    /// Asks to be told when a VR is gone, for whatever reason: by a [`RecvError::Down`] from the first receive that
    /// finds no envelope after that. If it is gone already, the next such receive says so.
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
    pub fn watch(&self, who: VrId) {
        if self.mailbox.borrow_mut().watch(who) {
            self.observe(who);
        }
    }

    /// Takes a [`watch`](Self::watch) back.
    pub fn unwatch(&self, who: VrId) {
        self.mailbox.borrow_mut().unwatch(who);
    }

    /// Has the death of `who` reported, once. True: it was not asked for before, so something may have arrived.
    fn expect_from(&self, who: VrId) -> bool {
        !self.observed.borrow().contains(&who)
            && self.mailbox.borrow().why_down(who).is_none()
            && self.observe(who)
    }

    fn observe(&self, who: VrId) -> bool {
        let new = self.observed.borrow_mut().insert(who);
        // While a record is replayed it says who has ended; the rest is watched at its end.
        if new && self.is_live() {
            self.node.watch(self.id, who);
        }
        new
    }

    fn forget(&self, down: Down) -> RecvError {
        if let Some(tracer) = &self.tracer {
            tracer.down(&down);
        }
        self.routes.borrow_mut().remove(&down.who);
        RecvError::Down(down)
    }

    /// Waits until something that no receive has looked at has arrived, or the deadline has passed.
    ///
    /// For layers that run a receive loop of their own; returns true if something has arrived.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> bool {
        let wait = || self.wait_for_arrivals(Some(Instant::now() + timeout), None);
        // A divergence is told by the receive that follows.
        self.remember(Call::Wait, wait).unwrap_or(true)
    }
}
