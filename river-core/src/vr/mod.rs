//! Virtual resources: what they are, what they see of the world, and the thread that each has of its own.

mod handler;
mod posted;
mod resource;
pub(crate) mod thread;

use std::any::{Any, TypeId};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::code;
use crate::discovery::{Query, VmInfo};
use crate::down::Down;
use crate::envelope::{Channel, Envelope, Payload};
use crate::error::{DeployError, RecvError, SendError};
use crate::id::{IdMap, IdSet, ProgramId, VmId, VrId};
use crate::inbox::{Inbox, Refused};
use crate::limit::QueueLimit;
use crate::link::Link;
use crate::mailbox::{Found, Mailbox, QueueStatus, Selector};
use crate::node::Node;
use crate::protocol::{Count, NewVr, Reply, Request};

pub use handler::Handler;
use handler::Handlers;
pub use posted::Posted;
use resource::Create;
pub(crate) use resource::{Creation, Resource};
pub use resource::{Group, VirtualResource};

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
}

#[derive(Debug)]
struct Route {
    link: Link,
    next: u64,
}

impl Vr {
    /// The VR of the calling thread.
    pub(crate) fn new(id: VrId, parent: Option<VrId>, node: Arc<Node>, inbox: Arc<Inbox>) -> Self {
        inbox.adopt();
        Self {
            id,
            parent,
            node,
            inbox,
            mailbox: RefCell::default(),
            handlers: Handlers::default(),
            routes: RefCell::default(),
            observed: RefCell::default(),
            slots: RefCell::default(),
            fresh_number: Cell::new(0),
            limited: Cell::new(false),
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
        &self.node.vm
    }

    /// The program that this VR is part of.
    #[must_use]
    pub fn program(&self) -> ProgramId {
        self.node.program
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
        let mut routes = self.routes.borrow_mut();
        let route = match routes.entry(to) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let link = self.node.route(to).map_err(SendError::Down)?;
                entry.insert(Route { link, next: 0 })
            }
        };
        if !matches!(route.link, Link::Local(_)) && !self.node.pass(to) {
            return Err(SendError::Full(to));
        }
        let envelope =
            Envelope { src: self.id, dst: to, seq: route.next, channel, lane, payload: payload.into() };
        match route.link.send(envelope) {
            Ok(()) => {
                route.next += 1;
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
        let found = {
            let mut mailbox = self.mailbox.try_borrow_mut().map_err(|_| RecvError::Reentrant)?;
            mailbox.take(&selector, &mut accept, &mut |events| self.inbox.swap(events))
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
        self.wait_for(selector, deadline, || self.try_receive_where(selector, &mut accept))
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
            if !self.inbox.wait(deadline, &self.node.pump()) {
                let queued = self.mailbox.borrow().len();
                let waited = start.map_or(Duration::ZERO, |start| start.elapsed());
                return Err(RecvError::Timeout { waited, queued });
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
        let mut mailbox = self.mailbox.borrow_mut();
        let id = mailbox.post(selector, Box::new(accept), false, &mut |events| self.inbox.swap(events));
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
        let mut mailbox = self.mailbox.try_borrow_mut().ok()?;
        mailbox.visit(&selector, &mut visitor, &mut |events| self.inbox.swap(events))
    }

    /// What waits in this VR's mailbox. Does not block.
    #[must_use]
    pub fn queue(&self) -> QueueStatus {
        // Within a predicate, which may only look at the envelope, there is no telling.
        let mailbox = self.mailbox.try_borrow_mut();
        mailbox.map(|mut mailbox| mailbox.status(&mut |events| self.inbox.swap(events))).unwrap_or_default()
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
        let mut mailbox = self.mailbox.borrow_mut();
        mailbox.status(&mut |events| self.inbox.swap(events));
        self.limited.set(limit.is_some());
        self.inbox.set_limit(limit, mailbox.lengths(), |host| self.node.gate(host, self.id, None));
    }

    /// An envelope leaves the mailbox.
    #[inline]
    fn taken(&self, envelope: Envelope) -> Envelope {
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
        if new {
            self.node.watch(self.id, who);
        }
        new
    }

    fn forget(&self, down: Down) -> RecvError {
        self.routes.borrow_mut().remove(&down.who);
        RecvError::Down(down)
    }

    // ---- virtual machines ----

    /// Finds virtual machines that answer. Returns as soon as as many have answered as the query asks for, otherwise
    /// after a quarter of a second. The variable `RIVER_VMS`, which `river run -n` sets, is an upper limit for all
    /// queries of a program.
    ///
    /// # Errors
    /// [`DeployError::Discovery`] if no search could be made. Finding none is not an error.
    pub fn discover(&self, query: Query) -> Result<Vec<VmInfo>, DeployError> {
        self.vms(Request::Discover(query))
    }

    /// Leases virtual machines for this program, in the order given: `count` is `4`, `2..` or `..`. A lease is
    /// exclusive and ends with the program.
    ///
    /// Of two programs that want the same VMs at the same moment one gets them, the other an error.
    ///
    /// # Errors
    /// [`DeployError::TooFew`] if fewer than wanted could be leased; then none is kept.
    ///
    /// # Blocking
    /// Until all have answered; while others hold too many of them, it tries again for a third of a second.
    pub fn allocate(&self, vms: Vec<VmInfo>, count: impl Into<Count>) -> Result<Vec<VmInfo>, DeployError> {
        self.allocate_within(vms, count, Duration::from_millis(330))
    }

    /// Like [`allocate`](Self::allocate), but tries again for as long as that if other programs hold too many of the VMs.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate), when the time is over.
    pub fn allocate_within(
        &self,
        vms: Vec<VmInfo>,
        count: impl Into<Count>,
        patience: Duration,
    ) -> Result<Vec<VmInfo>, DeployError> {
        self.vms(Request::Allocate { vms, count: count.into(), patience })
    }

    /// Starts virtual machines in this program's own initiator, leased by it, found by nobody else, gone when it ends.
    ///
    /// # Errors
    /// [`DeployError::Vm`] if the machine does not let them start.
    pub fn start_local(&self, count: usize) -> Result<Vec<VmInfo>, DeployError> {
        self.vms(Request::StartLocal(count))
    }

    /// Gives leases back. The VRs that run there end.
    ///
    /// # Errors
    /// [`DeployError::Stopped`] if the program is ending.
    pub fn release(&self, vms: &[VmInfo]) -> Result<(), DeployError> {
        let ids: Vec<VmId> = vms.iter().map(|vm| vm.id).collect();
        match self.node.ask(Request::Release(ids)) {
            Some(Reply::Done) => Ok(()),
            Some(Reply::Failed(error)) => Err(error),
            _ => Err(DeployError::Stopped),
        }
    }

    /// The VMs of this program that somebody wants back (`river vm --drain`), oldest request first: a program that can do
    /// without one [releases](Self::release) it. Known to the VRs of the initiator's process only; elsewhere empty.
    #[must_use]
    pub fn leaving(&self) -> Vec<VmId> {
        self.node.leaving()
    }

    /// Starts a VR in this very process, beside this one, which becomes its parent: for what has to wait while its
    /// parent goes on. It need not be able to travel, so it may capture.
    ///
    /// Only this VR and what the helper itself deploys or writes to can address it.
    ///
    /// # Errors
    /// The system's, if it has no thread left.
    pub fn spawn(
        &self,
        name: &str,
        body: impl FnOnce(&Vr) -> crate::error::Result + Send + 'static,
    ) -> std::io::Result<VrId> {
        let id = VrId::fresh();
        thread::spawn(&self.node, id, name, self.id, Box::new(Some(body)), |_, _| {})?;
        self.mailbox.borrow_mut().adopt(id);
        self.observed.borrow_mut().insert(id);
        Ok(id)
    }

    /// Starts one VR on each of the VMs given (a VM given twice gets two); `make` is called here with 0, 1, ...
    ///
    /// The program's command line, working directory (where it exists) and the environment variables that `RIVER_PASS`
    /// names are those of the initiator there; the rest of the environment is that of the VM.
    ///
    /// This VR becomes their parent, and is told without asking when one of them does not end normally.
    ///
    /// # Errors
    /// [`DeployError`]: a VM is not leased, cannot run this program, or is out of reach. VRs that were started before
    /// the error go on.
    ///
    /// # Blocking
    /// Until all of them run.
    pub fn deploy<V: VirtualResource>(
        &self,
        vms: &[VmInfo],
        mut make: impl FnMut(usize) -> V,
    ) -> Result<Group<V>, DeployError> {
        let new = vms.iter().enumerate().map(|(index, vm)| Ok((vm.id, self.new_vr(&make(index))?)));
        let vrs = new.collect::<Result<Vec<_>, DeployError>>()?;
        let ids: Vec<VrId> = vrs.iter().map(|(_, new)| new.id).collect();
        let places = match self.node.ask(Request::Deploy(vrs)) {
            Some(Reply::Deployed(places)) => places,
            Some(Reply::Failed(error)) => return Err(error),
            _ => return Err(DeployError::Stopped),
        };
        for (id, place) in places {
            self.node.learn(id, place);
            self.adopt(id);
        }
        Ok(Group::new(ids))
    }

    /// The VR of that name on a leased VM: the one that is there, or a new one made by `make`, of which this VR becomes
    /// the parent. Whoever asks for the same name on the same VM in this program gets the same VR, also if two ask at
    /// once; when it has ended, the next one who asks gets a new one.
    ///
    /// ```
    /// use river_core::{Channel, Result, Selector, VirtualResource, Vr};
    /// use serde::{Deserialize, Serialize};
    ///
    /// const COUNTER: Channel = Channel::named("counter");
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Counter(u8);
    ///
    /// impl VirtualResource for Counter {
    ///     fn main(&mut self, vr: &Vr) -> Result {
    ///         loop {
    ///             let question = vr.receive(Selector::on(COUNTER))?;
    ///             vr.send_bytes(question.src, COUNTER, 0, vec![self.0])?;
    ///             self.0 += 1;
    ///         }
    ///     }
    /// }
    ///
    /// # fn main() -> Result {
    /// # river_core::try_run(|vr| {
    /// let vms = vr.start_local(1)?;
    /// for count in 0..3 {
    ///     let counter = vr.service(&vms[0], "counter", || Counter(0))?;
    ///     vr.send_bytes(counter, COUNTER, 0, vec![])?;
    ///     assert_eq!(vr.receive(Selector::on(COUNTER).from(counter))?.payload.to_bytes()[0], count);
    /// }
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`deploy`](Self::deploy).
    ///
    /// # Blocking
    /// Until it runs.
    pub fn service<V: VirtualResource>(
        &self,
        vm: &VmInfo,
        name: &str,
        make: impl FnOnce() -> V,
    ) -> Result<VrId, DeployError> {
        let new = self.new_vr(&make())?;
        let (id, request) = (new.id, Request::Service { vm: vm.id, name: name.to_owned(), new });
        match self.node.ask(request) {
            Some(Reply::Deployed(places)) => {
                let Some(&(found, place)) = places.first() else { return Err(DeployError::Stopped) };
                self.node.learn(found, place);
                if found == id {
                    self.adopt(id);
                }
                Ok(found)
            }
            Some(Reply::Failed(error)) => Err(error),
            _ => Err(DeployError::Stopped),
        }
    }

    /// A VR as it travels.
    fn new_vr<V: VirtualResource>(&self, value: &V) -> Result<NewVr, DeployError> {
        let name = std::any::type_name::<V>();
        let state = postcard::to_stdvec(value)
            .map_err(|error| DeployError::State { name: name.into(), error: error.to_string() })?;
        Ok(NewVr {
            id: VrId::fresh(),
            code: code::code_ptr::<Create<V>, ()>(()),
            name: name.into(),
            state,
            parent: self.id,
            parent_at: self.node.place,
        })
    }

    /// Has the end of a VR that this one has deployed reported.
    fn adopt(&self, child: VrId) {
        self.mailbox.borrow_mut().adopt(child);
        self.observed.borrow_mut().insert(child);
        self.node.expect(self.id, child);
    }

    fn vms(&self, request: Request) -> Result<Vec<VmInfo>, DeployError> {
        match self.node.ask(request) {
            Some(Reply::Vms(vms)) => Ok(vms),
            Some(Reply::Failed(error)) => Err(error),
            _ => Err(DeployError::Stopped),
        }
    }

    /// Waits until something that no receive has looked at has arrived, or the deadline has passed.
    ///
    /// For layers that run a receive loop of their own; returns true if something has arrived.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> bool {
        self.inbox.wait(Some(Instant::now() + timeout), &self.node.pump())
    }
}
