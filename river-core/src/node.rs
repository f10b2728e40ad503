//! A process of a program: its VRs, and the router that finds the link to any VR.
//!
//! The router asks, in this order: does the VR live here; has it ended here; do I know its host; does the program's
//! directory know it. What it learns it keeps, so the directory is asked once per VR and process.
//!
//! Order of locks: `book`, then a peer's `link`, then an inbox. None is held while anything is sent.

mod deaths;
mod foreign;
mod mirrors;
mod moves;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use crate::control;
use crate::discovery::Network;
use crate::down::{Down, Why};
use crate::envelope::{Channel, Envelope};
use crate::frame::{Frame, Kind, gate};
use crate::id::{HostId, IdMap, IdSet, ProgramId, VmId, VrId};
use crate::inbox::{Event, Inbox};
use crate::inboxes::Inboxes;
use crate::key::ClusterKey;
use crate::limit::{Gates, WhenFull};
#[cfg(test)]
use crate::link::SimNet;
use crate::link::{By, Inlets, Link, Offer, Reader, Rings, Sink, TcpLink};
use crate::noise::{self, HandshakeError, Session};
use crate::protocol::{Hello, MemoryName, Place, Reply, Request, Welcome};
use crate::rt;
use crate::state::Registry;
use crate::status::{ProcessReport, Usage};
use crate::trace::Traces;

pub(crate) use foreign::VisitEnd;
use foreign::{Foreign, Published};
use mirrors::Mirrors;

const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
const SYSTEM: Channel = Channel::named("river-core");

/// A request and where its answer is waited for.
pub(crate) type Asked = (Request, Sender<Reply>);

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) program: ProgramId,
    /// The name of the VM that this process runs on; for the initiator, of the machine.
    pub(crate) vm: String,
    key: ClusterKey,
    local: Arc<Inboxes>,
    book: Mutex<Book>,
    requests: Requests,
    ways: Ways,
    gates: Gates,
    courier: Sender<Notice>,
    /// Whether the VRs of this program are recorded if nothing else is said.
    pub(crate) recoverable: bool,
    pub(crate) states: Registry,
    /// Set before the first VR begins, if the program is traced.
    pub(crate) traces: OnceLock<Arc<Traces>>,
    /// VMs that want to be given back; known to the initiator's process only.
    leaving: Mutex<Vec<VmId>>,
    any_leaving: AtomicBool,
    published: Published,
    /// How often VRs have changed their processes.
    moves: AtomicU64,
    mirrors: Mirrors,
}

/// Who answers what VRs ask of the program.
enum Requests {
    Program(rt::Sender<Asked>),
    #[cfg(test)]
    Sim(Arc<dyn Fn(Request) -> Option<Reply> + Send + Sync>),
}

/// How envelopes leave and reach this process.
#[derive(Debug)]
enum Ways {
    Real {
        reader: Reader,
        /// Whether rings are offered and taken.
        rings: bool,
    },
    #[cfg(test)]
    Sim(Arc<SimNet>),
}

/// What the router has learnt.
#[derive(Debug, Default)]
struct Book {
    ended: IdMap<VrId, Why>,
    /// Who watches a VR of this process.
    watchers: IdMap<VrId, Vec<VrId>>,
    located: IdMap<VrId, HostId>,
    peers: IdMap<HostId, Peer>,
    /// VRs of this process that other programs may send to.
    open: IdSet<VrId>,
    stopped: bool,
}

#[derive(Debug, Default)]
struct Peer {
    address: Option<SocketAddr>,
    link: Arc<Mutex<Option<Link>>>,
    /// Connections from this peer that are being read.
    inbound: usize,
    /// Connections of an earlier visit whose end has not been heard of.
    stale: usize,
    /// Said to be dead while there may be something of it left to read.
    doomed: Option<Why>,
    down: Option<Why>,
    /// Of another program.
    foreign: Option<Foreign>,
    /// Watches of VRs here on VRs there: (watcher, watched).
    watches: Vec<(VrId, VrId)>,
}

/// A notice that some thread that must not block wants sent.
#[derive(Debug)]
pub(crate) enum Notice {
    Down {
        to: VrId,
        down: Down,
    },
    /// For a process: the mailbox of a VR of this one is full, or has room again.
    Gate {
        to: HostId,
        vr: VrId,
        full: Option<WhenFull>,
    },
    /// A watch on a VR that is elsewhere now.
    Watch {
        watcher: VrId,
        watched: VrId,
    },
    /// About a mirrored VR, for the process that has it or its twin.
    Mirror {
        to: HostId,
        vr: VrId,
        lane: u64,
        number: u64,
    },
}

impl Node {
    /// The process's node, which others reach on that network. Requests of its VRs come out of the receiver that belongs to
    /// `requests`.
    pub(crate) fn start(
        (place, network): (Place, Network),
        program: ProgramId,
        vm: String,
        key: ClusterKey,
        requests: rt::Sender<Asked>,
        recoverable: bool,
    ) -> io::Result<Arc<Self>> {
        let (courier, notices) = crossbeam_channel::unbounded();
        let rings = rings_allowed()?;
        let local = Arc::new(Inboxes::default());
        let sink = Arc::new(Deliver { local: local.clone(), node: OnceLock::new() });
        let reader = Reader::start(sink.clone())?;
        let node = Arc::new(Self {
            place,
            program,
            vm,
            key,
            local,
            book: Mutex::default(),
            requests: Requests::Program(requests),
            ways: Ways::Real { reader, rings },
            gates: Gates::default(),
            courier,
            recoverable,
            states: Registry::default(),
            traces: OnceLock::new(),
            leaving: Mutex::default(),
            any_leaving: AtomicBool::new(false),
            published: Published::on(network),
            moves: AtomicU64::new(0),
            mirrors: Mirrors::default(),
        });
        let weak = Arc::downgrade(&node);
        thread::Builder::new().name("river-notices".into()).spawn(move || carry(&weak, &notices))?;
        let _ = sink.node.set(Arc::downgrade(&node));
        Ok(node)
    }

    /// The same name, for as long as the process lives. A program has few VMs.
    pub(crate) fn intern(&self, name: &str) -> &'static str {
        static NAMES: Mutex<Vec<&str>> = Mutex::new(Vec::new());
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.iter().find(|known| **known == name) {
            return known;
        }
        let new: &'static str = Box::leak(name.into());
        names.push(new);
        new
    }

    pub(crate) fn key(&self) -> &ClusterKey {
        &self.key
    }

    /// What a waiting VR looks into.
    pub(crate) fn pump(&self) -> Option<&Inlets> {
        self.reader().map(|reader| &**reader.inlets())
    }

    fn reader(&self) -> Option<&Reader> {
        match &self.ways {
            Ways::Real { reader, .. } => Some(reader),
            #[cfg(test)]
            Ways::Sim(_) => None,
        }
    }

    /// Who answers at this process's address.
    pub(crate) fn welcome(&self) -> Welcome {
        Welcome::Host(self.place.host, self.rings().map(Rings::bell))
    }

    /// The rings of this process, if it takes any.
    fn rings(&self) -> Option<&Rings> {
        match &self.ways {
            Ways::Real { reader, rings: true } => Some(reader.rings()),
            _ => None,
        }
    }

    /// Asks the program. Blocks until it answers; `None` if it has ended.
    pub(crate) fn ask(&self, request: Request) -> Option<Reply> {
        match &self.requests {
            Requests::Program(requests) => {
                let (answer, reply) = crossbeam_channel::bounded(1);
                requests.try_send((request, answer)).ok()?;
                reply.recv().ok()
            }
            #[cfg(test)]
            Requests::Sim(answer) => answer(request),
        }
    }

    /// Asks the program for a verdict on a host, which comes back as [`host_down`](Self::host_down).
    fn report(&self, host: HostId, error: String) {
        let request = Request::Verdict { host, error };
        match &self.requests {
            Requests::Program(requests) => {
                let (answer, _) = crossbeam_channel::bounded(1);
                let _ = requests.try_send((request, answer));
            }
            #[cfg(test)]
            Requests::Sim(answer) => drop(answer(request)),
        }
    }

    // ---- VRs of this process ----

    pub(crate) fn add(&self, vr: VrId) -> Arc<Inbox> {
        let inbox = self.local.insert(vr);
        if self.book().stopped {
            let _ = inbox.push(Event::Stop);
        }
        inbox
    }

    /// Takes an ended VR out and tells its watchers, after everything that it had sent. May block.
    pub(crate) fn remove(&self, vr: VrId, why: &Why) {
        // In this order, so that nobody finds it neither here nor ended.
        let watchers = {
            let mut book = self.book();
            book.ended.insert(vr, why.clone());
            book.open.remove(&vr);
            book.watchers.remove(&vr).unwrap_or_default()
        };
        self.published.withdraw(vr);
        let inbox = self.local.remove(vr);
        self.ended_with_copies(vr);
        let down = Down { who: vr, why: why.clone() };
        let mut told = watchers;
        // Whoever sent something that will never be read learns of it too.
        let left = inbox.map(|inbox| inbox.close(|host| self.gate(host, vr, None)));
        for event in left.unwrap_or_default() {
            if let Event::Envelope(envelope) = event {
                told.push(envelope.src);
            }
        }
        told.sort_unstable();
        told.dedup();
        for watcher in told {
            self.tell(watcher, &down);
        }
    }

    /// Stops all VRs of this process at their next call. Who waits for room in a full mailbox is let in, so that its send is
    /// made.
    pub(crate) fn freeze(&self) {
        self.states.freeze();
        self.local.let_in(true);
        self.gates.let_in(true);
    }

    /// Lets them go on.
    pub(crate) fn thaw(&self) {
        self.local.let_in(false);
        self.gates.let_in(false);
        self.states.thaw();
    }

    /// Ends every receive of this process: the program stops.
    pub(crate) fn stop(&self) {
        self.book().stopped = true;
        self.published.end();
        self.thaw();
        self.stop_mirrors();
        self.local.stop();
        self.gates.open_all();
    }

    // ---- limits ----

    /// Whether an envelope may be sent to a VR of another process. Waits for room there if that VR wants it so.
    pub(crate) fn pass(&self, to: VrId) -> bool {
        self.gates.pass(to)
    }

    /// Tells a process that the mailbox of a VR of this one is full, or has room again. Does not block.
    pub(crate) fn gate(&self, to: HostId, vr: VrId, full: Option<WhenFull>) {
        let _ = self.courier.send(Notice::Gate { to, vr, full });
    }

    fn tell_gate(&self, to: HostId, vr: VrId, full: Option<WhenFull>) {
        if let Ok(link) = self.connect(to) {
            let payload = vec![gate::encode(full)].into();
            let _ = link.notify(
                Kind::Gate,
                &Envelope { src: vr, dst: vr, seq: 0, channel: SYSTEM, lane: 0, payload },
            );
        }
    }

    /// Whether the program is ending.
    pub(crate) fn is_stopped(&self) -> bool {
        self.book().stopped
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.local.is_empty()
    }

    /// What this process looks like from outside.
    pub(crate) fn status(&self) -> ProcessReport {
        let peers: Vec<_> = self.book().peers.iter().map(|(host, peer)| (*host, peer.link.clone())).collect();
        // A link that is being dialled is locked, and has carried nothing yet.
        let links = peers.iter().filter_map(|(host, link)| link.try_lock().ok()?.as_ref()?.status(*host));
        let links = links.collect();
        ProcessReport { usage: Usage::of(std::process::id()), vrs: self.local.status(), links }
    }

    pub(crate) fn inbox(&self, vr: VrId) -> Option<Arc<Inbox>> {
        self.local.get(vr)
    }

    // ---- VMs ----

    /// A VM wants to be given back.
    pub(crate) fn note_leaving(&self, vm: VmId) {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner).push(vm);
        self.any_leaving.store(true, Relaxed);
    }

    pub(crate) fn leaving(&self) -> Vec<VmId> {
        if self.any_leaving.load(Relaxed) {
            self.leaving.lock().unwrap_or_else(PoisonError::into_inner).clone()
        } else {
            Vec::new()
        }
    }

    // ---- routing ----

    /// Notes where a VR lives, unless that is known already: what is known is as new, or newer if the VR has moved meanwhile.
    pub(crate) fn learn(&self, vr: VrId, place: Place) {
        if place.host != self.place.host && self.inbox(vr).is_none() {
            let mut book = self.book();
            book.located.entry(vr).or_insert(place.host);
            book.peers.entry(place.host).or_default().address = Some(place.address);
        }
    }

    /// The link to a VR, dialled if need be. Blocks for the directory's answer or for the dialling.
    pub(crate) fn route(&self, to: VrId) -> Result<Link, Down> {
        let gone = |why| Down { who: to, why };
        loop {
            if let Some(inbox) = self.inbox(to) {
                return Ok(Link::Local(inbox));
            }
            let (ended, host) = {
                let book = self.book();
                (book.ended.get(&to).cloned(), book.located.get(&to).copied())
            };
            if let Some(why) = ended {
                return Err(gone(why));
            }
            if let Some(host) = host {
                return self.connect(host).map_err(gone);
            }
            match self.ask(Request::Locate(to)) {
                Some(Reply::At(place)) if place.host == self.place.host => {
                    // The directory knows it here, but it has ended in the meantime or is just being made.
                    let why = self.book().ended.get(&to).cloned();
                    return self.inbox(to).map(Link::Local).ok_or_else(|| gone(why.unwrap_or(Why::Unknown)));
                }
                Some(Reply::At(place)) => self.learn(to, place),
                Some(Reply::Dead { host, why }) => {
                    self.book().located.insert(to, host);
                    self.host_down(host, &why);
                    return Err(gone(why));
                }
                Some(Reply::Gone(why)) => return Err(gone(why)),
                _ => return Err(gone(Why::ProgramEnded)),
            }
        }
    }

    /// Why sending to `to` failed, once that is known. Blocks, for a bounded time, for the verdict on its host.
    pub(crate) fn post_mortem(&self, to: VrId) -> Down {
        let host = {
            let book = self.book();
            if let Some(why) = book.ended.get(&to) {
                return Down { who: to, why: why.clone() };
            }
            book.located.get(&to).copied()
        };
        let why = host.map_or(Why::Finished, |host| self.verdict(host, "the connection broke"));
        Down { who: to, why }
    }

    fn connect(&self, host: HostId) -> Result<Link, Why> {
        let (slot, address) = {
            let mut book = self.book();
            let peer = book.peers.entry(host).or_default();
            if let Some(why) = &peer.down {
                return Err(why.clone());
            }
            (peer.link.clone(), peer.address)
        };
        // One dialler per peer: a second connection would break the order of what two of them send.
        let mut link = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = &*link {
            return Ok(link.clone());
        }
        let dialled = match address {
            Some(address) => self.dial(Place { host, address }),
            None => Err(DialError::Unknown),
        };
        match dialled {
            Ok(new) => {
                *link = Some(new.clone());
                Ok(new)
            }
            Err(error) => {
                drop(link);
                Err(self.verdict(host, &error.to_string()))
            }
        }
    }

    fn dial(&self, to: Place) -> Result<Link, DialError> {
        #[cfg(test)]
        if let Ways::Sim(net) = &self.ways {
            return net.connect(self.place.host, to.host).map(Link::Sim).ok_or(DialError::Unknown);
        }
        let mut stream = TcpStream::connect_timeout(&to.address, DIAL_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DIAL_TIMEOUT))?;
        // A ring is worth a try on one machine; without memory for it, the connection does.
        let sealed = noise::must_be_sealed(to.address.ip());
        if sealed {
            control::give_up_early(&stream)?;
        }
        let rings = self.rings().filter(|_| !sealed);
        let offer = rings.and_then(|_| Offer::new().ok());
        let ring = offer.as_ref().map(Offer::name);
        let port = self.place.address.port();
        let program = self.program_of(to.host);
        let hello = Hello::Data { program, from: self.place.host, port, ring };
        let hello = postcard::to_stdvec(&hello)?;
        let (welcome, session) = noise::dial(&mut stream, &self.key, &hello, sealed)?;
        let bell = match postcard::from_bytes(&welcome)? {
            Welcome::Host(host, bell) if host == to.host => bell,
            _ => return Err(DialError::Stranger(to.address)),
        };
        if let Some(offer) = offer {
            let mut taken = [0];
            stream.read_exact(&mut taken)?;
            if let (1, Some(bell), Some(rings)) = (taken[0], bell, rings) {
                return Ok(Link::Shm(Arc::new(offer.accepted(
                    stream,
                    (to.host, &bell),
                    rings.segments(),
                )?)));
            }
        }
        let inlets = self.reader().ok_or(DialError::Unknown)?.inlets().clone();
        Ok(Link::Tcp(Arc::new(TcpLink::new(stream, session, inlets)?)))
    }

    fn verdict(&self, host: HostId, error: &str) -> Why {
        if let Some(why) = self.book().peers.get(&host).and_then(|peer| peer.down.clone()) {
            return why;
        }
        if let Some(why) = self.lose_foreign(host, error) {
            return why;
        }
        match self.ask(Request::Verdict { host, error: error.into() }) {
            Some(Reply::Gone(why)) => why,
            _ => Why::ProgramEnded,
        }
    }

    // ---- connections from others ----

    /// Takes over an authenticated connection on which `from` will send, through a ring if it offers one.
    pub(crate) fn accept(
        &self,
        from: Place,
        (mut stream, session): (TcpStream, Option<Session>),
        ring: Option<&MemoryName>,
    ) -> io::Result<()> {
        {
            let mut book = self.book();
            let peer = book.peers.entry(from.host).or_default();
            // What the directory says is better: a machine with several addresses may listen on one and dial by another.
            peer.address.get_or_insert(from.address);
            peer.inbound += 1;
        }
        let mut taken = false;
        if let Some(ring) = ring {
            taken = self.rings().is_some_and(|rings| rings.attach(from.host, ring).is_ok());
            // In plain even if the connection is sealed: it says nothing that a look at the traffic would not.
            stream.write_all(&[u8::from(taken)])?;
        }
        let by = if taken { By::Ring } else { By::Connection(session) };
        match &self.ways {
            Ways::Real { reader, .. } => reader.add(from.host, stream, by),
            #[cfg(test)]
            Ways::Sim(_) => Ok(()),
        }
    }

    fn arrived(&self, from: HostId, frame: Frame) {
        let _delivering = self.mirrors.deliver();
        if self.book().peers.get(&from).is_some_and(|peer| peer.down.is_some()) {
            // It was declared lost, and is not heard of any more even if it lives.
            return;
        }
        let Frame { kind, envelope } = frame;
        if !self.admits(from, kind, &envelope) {
            return;
        }
        match kind {
            Kind::Envelope => {
                let (src, dst) = (envelope.src, envelope.dst);
                let refused = match self.inbox(dst) {
                    Some(inbox) => {
                        inbox.arrive(envelope, from, |full| self.gate(from, dst, Some(full))).is_err()
                    }
                    None => true,
                };
                if refused {
                    let mut book = self.book();
                    book.located.entry(src).or_insert(from);
                    let why = book.ended.get(&dst).cloned().unwrap_or(Why::Unknown);
                    let _ = self.courier.send(Notice::Down { to: src, down: Down { who: dst, why } });
                }
            }
            Kind::Watch => {
                if envelope.lane != moves::PASSED_ON {
                    self.book().located.entry(envelope.src).or_insert(from);
                }
                if self.inbox(envelope.dst).is_some() || self.book().ended.contains_key(&envelope.dst) {
                    self.add_watcher(envelope.src, envelope.dst);
                } else if self.has_left(envelope.dst) {
                    let (watcher, watched) = (envelope.src, envelope.dst);
                    let _ = self.courier.send(Notice::Watch { watcher, watched });
                } else {
                    let down = Down { who: envelope.dst, why: Why::Unknown };
                    let _ = self.courier.send(Notice::Down { to: envelope.src, down });
                }
            }
            Kind::Down => {
                let Ok(why) = postcard::from_bytes(envelope.payload.head()) else { return };
                let down = Down { who: envelope.src, why };
                if let Some(inbox) = self.inbox(envelope.dst) {
                    let _ = inbox.push(Event::Down(down));
                } else if self.has_left(envelope.dst) {
                    let _ = self.courier.send(Notice::Down { to: envelope.dst, down });
                }
            }
            Kind::Gate => {
                if let Some(full) = gate::decode(envelope.payload.head()) {
                    self.gates.set(envelope.src, from, full);
                }
            }
            // Who sends a copy learns by itself who is gone.
            Kind::Copy => drop(self.take_copy(envelope, Some(from))),
            Kind::Mirror => self.mirror_frame(from, &envelope),
        }
    }

    /// Sends a notice. May block.
    fn carry(&self, notice: Notice) {
        match notice {
            Notice::Down { to, down } => self.tell(to, &down),
            Notice::Gate { to, vr, full } => self.tell_gate(to, vr, full),
            Notice::Watch { watcher, watched } => self.pass_on_watch(watcher, watched),
            Notice::Mirror { to, vr, lane, number } => self.carry_mirror(to, vr, lane, number),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    #[error("the peer speaks nonsense: {0}")]
    Nonsense(#[from] postcard::Error),
    #[error("another process answers at {0}")]
    Stranger(SocketAddr),
    #[error("its address is not known")]
    Unknown,
}

/// Whether processes of one machine may talk through shared memory: yes, unless `RIVER_LINKS` says `tcp`, or `sealed`,
/// which is TCP as it is between machines.
fn rings_allowed() -> io::Result<bool> {
    match std::env::var("RIVER_LINKS").as_deref() {
        Err(_) | Ok("" | "auto") => Ok(true),
        Ok("tcp" | "sealed") => Ok(false),
        Ok(other) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "RIVER_LINKS is {other:?}: say tcp to do without shared memory, sealed to encrypt besides, auto or \
                 nothing for the fastest"
            ),
        )),
    }
}

/// The thread that sends what others must not block for. Ends with the node.
fn carry(node: &Weak<Node>, notices: &Receiver<Notice>) {
    while let Ok(notice) = notices.recv() {
        let Some(node) = node.upgrade() else { return };
        node.carry(notice);
    }
}

/// Takes what the reader has read.
struct Deliver {
    local: Arc<Inboxes>,
    node: OnceLock<Weak<Node>>,
}

impl Deliver {
    fn node(&self) -> Option<Arc<Node>> {
        self.node.get().and_then(Weak::upgrade)
    }
}

impl std::fmt::Debug for Requests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Requests")
    }
}

impl Sink for Deliver {
    #[cfg(test)]
    fn opened(&self, from: HostId) {
        if let Some(node) = self.node() {
            node.book().peers.entry(from).or_default().inbound += 1;
        }
    }

    fn frame(&self, from: HostId, frame: Frame) {
        let Frame { kind, envelope } = frame;
        let envelope = match kind {
            Kind::Envelope => match self.local.deliver(envelope) {
                Ok(()) => return,
                Err(envelope) => envelope,
            },
            _ => envelope,
        };
        if let Some(node) = self.node() {
            node.arrived(from, Frame { kind, envelope });
        }
    }

    fn trusts_all(&self) -> bool {
        self.local.is_unguarded()
    }

    fn closed(&self, from: HostId, why: String) {
        if let Some(node) = self.node() {
            node.inbound_closed(from, &why);
        }
    }
}

/// A node on a simulated network, driven by one thread.
#[cfg(test)]
impl Node {
    /// The node, and the notices that its courier thread would carry.
    pub(crate) fn simulated(
        place: Place,
        net: &Arc<SimNet>,
        answer: Arc<dyn Fn(Request) -> Option<Reply> + Send + Sync>,
    ) -> (Arc<Self>, Receiver<Notice>) {
        let (courier, notices) = crossbeam_channel::unbounded();
        let local = Arc::new(Inboxes::default());
        let node = Arc::new(Self {
            place,
            program: ProgramId::fresh(),
            vm: "sim".into(),
            key: ClusterKey::from_bytes([0; 32]),
            local: local.clone(),
            book: Mutex::default(),
            requests: Requests::Sim(answer),
            ways: Ways::Sim(net.clone()),
            gates: Gates::default(),
            courier,
            recoverable: false,
            states: Registry::default(),
            traces: OnceLock::new(),
            leaving: Mutex::default(),
            any_leaving: AtomicBool::new(false),
            published: Published::on(Network::Loopback),
            moves: AtomicU64::new(0),
            mirrors: Mirrors::default(),
        });
        let sink = Deliver { local, node: OnceLock::new() };
        let _ = sink.node.set(Arc::downgrade(&node));
        net.add(place.host, Arc::new(sink));
        (node, notices)
    }

    /// Sends the notices that wait.
    pub(crate) fn carry_now(&self, notices: &Receiver<Notice>) {
        while let Ok(notice) = notices.try_recv() {
            self.carry(notice);
        }
    }
}
