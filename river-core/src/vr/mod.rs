//! Virtual resources: what they are, how they interact with the world, and the thread that each has of its own.
//!
//! * `resource`: the trait that a VR implements
//! * `thread`: the thread of a VR
//! * `send`, `content`: sending, and the contents of a send
//! * `receive`: receiving and waiting
//! * `posted`: receives that are completed later
//! * `handler`: actions for certain envelopes, whatever the VR waits for
//! * `queue`: the envelopes that wait in its mailbox
//! * `watch`: notifications that another VR is gone
//! * `machines`: requests for VMs, and for VRs on them
//! * `services`: communication with other programs
//! * `effects`: substitutes for nondeterministic operations, for recoverable VRs
//! * `checkpoint`: the states from which recoverable VRs continue
//! * `recorded`: the record of a recoverable VR
//! * `traced`: what a VR does in addition if its program is traced

mod checkpoint;
mod content;
mod effects;
mod handler;
mod machines;
mod posted;
mod queue;
mod receive;
mod recorded;
mod resource;
mod send;
mod services;
pub(crate) mod thread;
mod traced;
mod watch;

use std::any::{Any, TypeId};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand_pcg::Pcg64Mcg;

use crate::id::{IdMap, IdSet, ProgramId, VrId};
use crate::inbox::Inbox;
use crate::mailbox::Mailbox;
use crate::node::Node;
use crate::state::{Base, Recorder};
use crate::trace::Tracer;

pub use effects::Random;
pub use handler::Handler;
use handler::Handlers;
pub use posted::Posted;
use recorded::Journal;
pub(crate) use resource::{Creation, Resource};
pub use resource::{Group, VirtualResource};
use send::Route;
pub use services::Service;
pub use traced::Span;

/// A virtual resource's own handle: its id, its mailbox, and everything that it can ask of the system.
///
/// It belongs to the VR's thread and cannot leave it. All methods take `&self`, so that several objects made from it (a farm,
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
    /// The VRs whose end is reported to this one.
    observed: RefCell<IdSet<VrId>>,
    slots: RefCell<HashMap<TypeId, Rc<dyn Any>>>,
    fresh_number: Cell<u64>,
    /// Whether the mailbox has a limit.
    limited: Cell<bool>,
    /// How many envelopes the mailbox held when that was last published for monitoring.
    held: Cell<usize>,
    /// How many ids it has given to VRs that it deployed.
    names: Cell<u64>,
    random: RefCell<Pcg64Mcg>,
    /// For how long it had been running at that instant.
    clock: Cell<(Duration, Instant)>,
    /// Set if the VR is recoverable.
    journal: Option<Journal>,
    /// Set if the program is traced.
    tracer: Option<Box<Tracer>>,
}

impl Vr {
    /// Creates the VR of the calling thread.
    pub(crate) fn new(id: VrId, parent: Option<VrId>, node: Arc<Node>, inbox: Arc<Inbox>) -> Self {
        Self::from_base(id, parent, node, inbox, &Base::new(id, Bytes::new()))
    }

    /// Creates the VR of the calling thread, recorded, from where its record begins.
    pub(crate) fn recorded(node: Arc<Node>, inbox: Arc<Inbox>, recorder: Arc<Recorder>) -> Self {
        let (base, origin) = (recorder.base(), &recorder.origin);
        let mut vr = Self::from_base(origin.id, origin.parent, node, inbox, &base);
        vr.journal = Some(Journal::new(recorder, base));
        vr
    }

    fn from_base(id: VrId, parent: Option<VrId>, node: Arc<Node>, inbox: Arc<Inbox>, base: &Base) -> Self {
        inbox.adopt();
        let mailbox = Mailbox::from(base.queue.clone());
        inbox.holds(mailbox.unreceived());
        let tracer = node.traces.get().map(|traces| Box::new(Tracer::new(traces.clone(), id, parent)));
        Self {
            id,
            parent,
            node,
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

    /// Returns this VR's id.
    #[must_use]
    pub fn id(&self) -> VrId {
        self.id
    }

    /// Returns the VR that deployed this one; `None` in the initiator, the VR with which the program starts.
    #[must_use]
    pub fn parent(&self) -> Option<VrId> {
        self.parent
    }

    /// Returns the name of the VM that this VR runs on; in the initiator, that of the machine.
    #[must_use]
    pub fn vm(&self) -> &str {
        match &self.journal {
            None => &self.node.vm,
            Some(_) => self.recorded_vm(),
        }
    }

    /// Returns the program that this VR is part of; for a recoverable VR, the one in which it began.
    #[must_use]
    pub fn program(&self) -> ProgramId {
        self.journal.as_ref().map_or(self.node.program, Journal::program)
    }

    /// Returns a number that this VR has not returned before, for tickets and the like. Starts at 1.
    #[must_use]
    pub fn fresh_number(&self) -> u64 {
        self.fresh_number.set(self.fresh_number.get() + 1);
        self.fresh_number.get()
    }

    /// Tells River whether this VR and the VRs that it constantly works with have a core each, for layers that know how many
    /// of them this machine has. If so, and the VR finds repeatedly while it waits that others run on its core, it asks the
    /// system to move it to another one. Without this call, that happens as long as the process has no more VRs than cores.
    /// Only the first call has an effect.
    pub fn expect_own_core(&self, expected: bool) {
        self.inbox.apart().expect(expected);
    }

    /// Yields the core, as [`thread::yield_now`](std::thread::yield_now) does, for layers that wait by polling memory instead
    /// of receiving an envelope.
    ///
    /// ```
    /// # use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    /// # river_core::testing::threads(1, |vr, _, _| {
    /// # static READY: AtomicBool = AtomicBool::new(true);
    /// while !READY.load(SeqCst) {
    ///     vr.yield_core();
    /// }
    /// # });
    /// ```
    pub fn yield_core(&self) {
        self.inbox.apart().yield_now();
    }

    /// Returns this VR's own `T`, made by `Default` when first asked for. A layer keeps its data about the VR there.
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
}
