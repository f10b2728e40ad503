//! Virtual resources: what they are, what they see of the world, and the thread that each has of its own.

mod content;
mod handler;
mod machines;
mod posted;
mod recorded;
mod resource;
mod services;
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

use crate::arriving::{Arriving, Intake};
use crate::down::Down;
use crate::envelope::{Channel, Envelope, Label, Payload};
use crate::error::{RecvError, SendError};
use crate::id::{IdMap, IdSet, ProgramId, VrId};
use crate::inbox::{Event, Inbox, Limit, Moment, Pump, Refused, Taker};
use crate::limit::QueueLimit;
use crate::link::Link;
use crate::mailbox::{Found, Mailbox, QueueStatus, Selector};
use crate::node::Node;
use crate::state::{Base, Blocked, Call, Recorder};
use crate::trace::{Reason, Tracer};

use content::Content;
pub use handler::Handler;
use handler::Handlers;
pub use posted::Posted;
use recorded::Journal;
pub use recorded::Random;
pub(crate) use resource::{Creation, Resource};
pub use resource::{Group, VirtualResource};
pub use services::Service;
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
    /// Up to which [move](Node::moves) of VRs the routes are right.
    moves: Cell<u64>,
    /// The VRs whose end reaches this one.
    observed: RefCell<IdSet<VrId>>,
    slots: RefCell<HashMap<TypeId, Rc<dyn Any>>>,
    fresh_number: Cell<u64>,
    /// Whether the mailbox has a limit.
    limited: Cell<bool>,
    /// How many envelopes were in its mailbox when that was last told to who looks from outside.
    held: Cell<usize>,
    /// How many names it has given to VRs that it deployed.
    names: Cell<u64>,
    random: RefCell<Pcg64Mcg>,
    /// For how long it had been running at that moment.
    clock: Cell<(Duration, Instant)>,
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
        let moves = Cell::new(node.moves());
        let mailbox = Mailbox::from(base.queue.clone());
        inbox.holds(mailbox.unreceived());
        let tracer = node.traces.get().map(|traces| Box::new(Tracer::new(traces.clone(), id, parent)));
        Self {
            id,
            parent,
            node,
            moves,
            inbox,
            held: Cell::new(mailbox.unreceived()),
            mailbox: RefCell::new(mailbox),
            handlers: Handlers::default(),
            routes: RefCell::default(),
            observed: RefCell::new(base.observed.iter().copied().collect()),
            slots: RefCell::default(),
            fresh_number: Cell::new(base.fresh_number),
            limited: Cell::new(false),
            names: Cell::new(base.names),
            random: RefCell::new(base.random.clone()),
            clock: Cell::new((base.uptime, Instant::now())),
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

    /// Sends a payload that is made of parts and lies in the caller's memory, which can be used again afterwards. It is
    /// copied where it has to be only: a shared ring and a connection are written to straight from it. The receiver finds the same
    /// bytes at the same offsets, in one piece or in several.
    ///
    /// ```
    /// # use river_core::{Channel, Selector};
    /// # const CHANNEL: Channel = Channel::named("doc");
    /// # river_core::testing::threads(1, |vr, _, _| {
    /// vr.send_parts(vr.id(), CHANNEL, 0, &[b"hello ", b"world"]).unwrap();
    /// assert_eq!(&vr.receive(Selector::on(CHANNEL)).unwrap().payload.to_bytes()[..], b"hello world");
    /// # });
    /// ```
    ///
    /// # Errors
    /// As [`send_bytes`](Self::send_bytes).
    ///
    /// # Blocking
    /// As [`send_bytes`](Self::send_bytes); besides, over a connection, until the connection has taken it.
    pub fn send_parts(
        &self,
        to: VrId,
        channel: Channel,
        lane: u64,
        parts: &[&[u8]],
    ) -> Result<(), SendError> {
        match &self.journal {
            None => self.dispatch(to, None, channel, lane, parts),
            Some(_) => self.recorded_send(to, channel, lane, parts.concat().into()),
        }
    }

    /// The longest payload that travels to a VR in one go: who has more to send does well to send it in parts as long as
    /// this, which are copied out at one end while the next one is copied in at the other. For a recorded VR it does not
    /// depend on where the other one is.
    ///
    /// # Blocking
    /// As a first send to that VR.
    #[must_use]
    pub fn handy_size(&self, to: VrId) -> usize {
        const ELSEWHERE: usize = 128 << 10;
        if self.journal.is_some() {
            return ELSEWHERE;
        }
        self.link_to(to).and_then(|link| link.handy_size()).unwrap_or(ELSEWHERE)
    }

    /// Whether what is sent to a VR passes through memory alone: it lives in this process, or in one of this machine with
    /// which this one shares memory. Of a recorded VR nobody knows.
    ///
    /// # Blocking
    /// As a first send to that VR.
    #[must_use]
    pub fn shares_memory_with(&self, other: VrId) -> bool {
        let link = if self.journal.is_none() { self.link_to(other) } else { None };
        matches!(link, Some(Link::Local(_) | Link::Shm(_)))
    }

    /// `None`: it is gone, as is told to who sends to it.
    fn link_to(&self, to: VrId) -> Option<Link> {
        let link = self.routes.borrow().get(&to).map(|route| route.link.clone());
        link.or_else(|| self.node.route(to).ok())
    }

    /// Sends for real, with that number or the next one.
    fn dispatch(
        &self,
        to: VrId,
        number: Option<u64>,
        channel: Channel,
        lane: u64,
        content: impl Content,
    ) -> Result<(), SendError> {
        let mut routes = self.routes.borrow_mut();
        let moves = self.node.moves();
        if self.moves.replace(moves) != moves {
            routes.clear();
        }
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
        let label = Label { src: self.id, dst: to, seq, channel, lane };
        let sending = self
            .tracer
            .as_ref()
            .map(|tracer| (tracer, tracer.sending(&label, content.len(), || content.beginning())));
        match content.send(&route.link, label) {
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

    /// Like [`receive_where`](Self::receive_where), but returns at once, `None` if nothing that matches is there. What comes over TCP
    /// is looked for every 20 us at most: who has nothing else to do had better wait.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn try_receive_where(
        &self,
        selector: Selector,
        mut accept: impl FnMut(&Envelope) -> bool,
    ) -> Result<Option<Envelope>, RecvError> {
        self.enter(|| Call::TryReceive(selector))?;
        if let Some(envelope) = self.attempt(selector, &mut accept)? {
            return Ok(Some(envelope));
        }
        // What lies in a ring or a socket has come, though nobody has brought it in.
        if self.journal.is_none() {
            self.node.pump().glance(&self.inbox);
        }
        if self.journal.is_none() && self.inbox.is_ready() {
            return self.attempt(selector, &mut accept);
        }
        Ok(None)
    }

    /// Takes the earliest envelope that the selector and the predicate accept, if it is there.
    fn attempt(
        &self,
        selector: Selector,
        accept: &mut dyn FnMut(&Envelope) -> bool,
    ) -> Result<Option<Envelope>, RecvError> {
        let found = {
            let mut mailbox = self.mailbox.try_borrow_mut().map_err(|_| RecvError::Reentrant)?;
            let found = mailbox.take(&selector, accept, &mut |events| self.arrivals(events));
            self.holds(&mailbox);
            found
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
        let attempt = || self.attempt(selector, &mut accept).map(|found| found.map(Some));
        let found = self.wait_for(selector, deadline.into(), None, attempt)?;
        // Without a taker there is nothing else that ends the wait.
        found.ok_or(RecvError::Stopped)
    }

    /// Waits no longer than so long for an envelope that the selector admits. One that lies in memory shared with its
    /// sender's process is shown to `take` there, which may copy what it carries to where it belongs, and then it is
    /// received: `Ok(None)` says that this has happened at least once. What comes another way, or is left by `take`, is
    /// returned. So an envelope that everybody has waited for is copied twice between two processes, and no memory
    /// is taken for it.
    ///
    /// `take` must neither send nor receive. Envelopes are shown in the order in which they are received otherwise. A
    /// VR that is recorded or has a limit, and one with [posted](Self::post) receives or handlers for the same channel,
    /// is shown none.
    ///
    /// # Errors
    /// As [`receive_until`](Self::receive_until).
    pub fn receive_arriving(
        &self,
        selector: Selector,
        patience: Duration,
        mut take: impl FnMut(&Arriving<'_>) -> Intake,
    ) -> Result<Option<Envelope>, RecvError> {
        self.enter(|| Call::Receive(selector))?;
        let shown = self.journal.is_none()
            && !self.limited.get()
            && self.mailbox.try_borrow().is_ok_and(|mailbox| !mailbox.is_posted(&selector));
        let mut noted = Vec::new();
        let mut offer = |arriving: &Arriving<'_>| {
            if arriving.label.dst != self.id || !selector.admits_label(&arriving.label) {
                return Intake::Left;
            }
            let intake = take(arriving);
            if intake != Intake::Left {
                self.inbox.was_passed_by(arriving.len);
                self.note(arriving, &mut noted);
            }
            intake
        };
        let mut taker = Taker::new(&mut offer);
        let attempt = || self.attempt(selector, &mut |_| true).map(|found| found.map(Some));
        let found = self.wait_for(selector, Limit::For(patience), shown.then_some(&mut taker), attempt);
        self.trace_noted(noted);
        found
    }

    /// What has arrived since the last time, and when the first of it came; `None`: nothing.
    fn arrivals(&self, events: &mut Vec<Event>) -> Option<Moment> {
        match &self.journal {
            None => self.inbox.swap(events),
            Some(journal) => journal.recorder.arrivals(events, &self.inbox),
        }
    }

    /// Tries again and again until there is something, waiting in between for something to arrive. The default if the
    /// taker has taken something.
    fn wait_for<T: Default>(
        &self,
        selector: Selector,
        mut limit: Limit,
        mut taker: Option<&mut Taker<'_>>,
        mut attempt: impl FnMut() -> Result<Option<T>, RecvError>,
    ) -> Result<T, RecvError> {
        // The clock is worth a look only if there is a moment at which the time is over.
        let start = matches!(limit, Limit::Until(_)).then(Instant::now);
        let patience = if let Limit::For(patience) = limit { patience } else { Duration::ZERO };
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
            if !self.wait_for_arrivals(&mut limit, selector.awaited(), taker.as_deref_mut()) {
                let queued = self.mailbox.borrow().len();
                let waited = start.map_or(patience, |start| start.elapsed());
                self.journal.iter().for_each(|journal| journal.recorder.timed_out(waited));
                return Err(RecvError::Timeout { waited, queued });
            }
            if taker.as_ref().is_some_and(|taker| taker.taken) {
                return Ok(T::default());
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
        self.holds(&mailbox);
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
        let seen = mailbox.visit(&selector, &mut visitor, &mut |events| self.arrivals(events));
        self.holds(&mailbox);
        seen
    }

    /// What waits in this VR's mailbox. Does not block.
    #[must_use]
    pub fn queue(&self) -> QueueStatus {
        let look = || {
            // Within a predicate, which may only look at the envelope, there is no telling.
            let Ok(mut mailbox) = self.mailbox.try_borrow_mut() else { return QueueStatus::default() };
            let status = mailbox.status(&mut |events| self.arrivals(events));
            self.holds(&mailbox);
            status
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
        self.holds(&mailbox);
        self.limited.set(limit.is_some());
        self.inbox.set_limit(limit, mailbox.lengths(), |host| self.node.gate(host, self.id, None));
    }

    /// Tells who looks from outside how much the mailbox holds, if that is not what it held before.
    #[inline]
    fn holds(&self, mailbox: &Mailbox) {
        let held = mailbox.unreceived();
        if self.held.replace(held) != held {
            self.inbox.holds(held);
        }
    }

    /// An envelope leaves the mailbox.
    #[inline]
    fn taken(&self, envelope: Envelope) -> Envelope {
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
        if self.node.is_foreign(down.who) {
            self.start_afresh(down.who);
        }
        RecvError::Down(down)
    }

    /// Waits until something that no receive has looked at has arrived, or the deadline has passed.
    ///
    /// For layers that run a receive loop of their own; returns true if something has arrived.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> bool {
        let wait = || self.wait_for_arrivals(&mut Limit::For(timeout), None, None);
        // A divergence is told by the receive that follows.
        self.remember(Call::Wait, wait).unwrap_or(true)
    }
}
