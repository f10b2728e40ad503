//! The progress engine of a rank: it matches messages that arrive, and moves the data of those that are matched. It runs in
//! the rank's own thread, whenever that is in an operation; there is no progress thread.
//!
//! A message of up to [`EAGER`] bytes is sent at once: the *eager* protocol. A longer one is *offered* by a request to send
//! (RTS): the *rendezvous* protocol. When a receive matches the offer, the receiver either reads the data straight from the
//! sender's memory ([`cma`]; within a process, while the sender waits, even without a system call: [`crate::lend`]), or
//! answers with a clear to send (CTS), and the data follows in pieces that are still cached when they are copied out. A
//! blocking send copies its pieces straight from the caller's slice, and a blocking receive straight into it, so a large
//! message is not buffered before it is wanted. A slice borrowed by a request is also sent from where it lies, if its owner
//! is waiting for that request when the receiver asks for it; otherwise the engine makes a copy.

mod arrival;
mod background;
mod cma;
mod describe;
mod detour;
mod failures;
mod halves;
mod handle;
mod incoming;
mod intake;
mod local;
mod op;
mod ops;
mod poll;
mod receive;
mod safepoint;
mod send;
mod shm;
mod survive;
mod wait;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::available_parallelism;

use river_core::trace::Label;
use river_core::{Channel, Down, Envelope, Payload, Selector, SendError, Span, Vr, VrId};
use rustc_hash::{FxHashMap, FxHashSet};
use slotmap::{DefaultKey, SlotMap};

pub(crate) use arrival::Arrival;
use arrival::Message;
pub(crate) use background::Background;
pub(crate) use intake::Landing;
use local::Local;
use op::{Op, OpState};
pub(crate) use op::{OpId, Outcome, Sending};
pub(crate) use safepoint::Kept;
use send::Hurry;
use shm::Shm;

use crate::error::{MpiError, Result};
use crate::header::{HEADER, Header, Kind};
use crate::job::{Agreement, AgreementKey, Life, Place};
use crate::lend::Lender;
use crate::matching::{Key, Matching, Pattern};
use crate::pool::Pool;

/// The channel of all messages between ranks.
pub(crate) const MESSAGES: Channel = Channel::named("mpi.messages");
/// The channel of reports to the supervisor.
pub(crate) const REPORTS: Channel = Channel::named("mpi.reports");
/// All messages are on one lane, so that the mailbox finds them without searching the messages of other layers.
pub(crate) const LANE: u64 = 1;
/// Everything that the engine receives.
const ALL: Selector = Selector::on(MESSAGES).lane(LANE);

/// Tells a VR how a trace describes this layer's envelopes. Costs a branch, unless the program is traced.
pub(crate) fn describe(vr: &Vr) {
    vr.describe_channel(MESSAGES, "mpi", Label::Envelope(label));
    vr.describe_channel(REPORTS, "mpi report", Label::None);
}

/// Describes an envelope in a trace.
fn label(envelope: &Envelope) -> Option<String> {
    let Header { kind, key, .. } = Header::decode(envelope.payload.head())?;
    Some(format!("{kind:?}, tag {}", key.tag))
}

/// Messages of up to this many bytes are sent eagerly.
const EAGER: usize = 64 << 10;
/// The limit if the receiver can read the sender's memory: an offer then costs less than a second copy.
const EAGER_SHM: usize = 8 << 10;
/// The limit within a process, where reading that memory takes no system call.
const EAGER_LOCAL: usize = 4 << 10;
/// Up to this many bytes, copying the data behind its header is cheaper than sending two parts.
const INLINE: usize = 4 << 10;
/// The longest piece of a message; shorter if that suits the link better.
const PIECE: usize = 1 << 20;
/// The length of a piece is a multiple of this, so that all pieces have the same alignment in memory.
const GRAIN: usize = 4 << 10;
/// If pieces are shorter than that, a message is cut into at least this many, unless they would become too short: one is copied
/// out while the next is copied in.
const PIECES: usize = 4;

/// How a send completes (MPI 1.3, section 3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// When the buffer can be used again.
    Standard,
    /// When a receive has matched it.
    Synchronous,
}

/// What a receive asks for, and the ranks that can satisfy it.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) pattern: Pattern,
    pub(crate) sources: Sources,
}

/// Ranks of the world.
#[derive(Clone, Debug)]
pub(crate) enum Sources {
    One(u32),
    Any(Rc<[u32]>),
}

impl Sources {
    fn as_slice(&self) -> &[u32] {
        match self {
            Self::One(rank) => std::slice::from_ref(rank),
            Self::Any(ranks) => ranks,
        }
    }
}

/// How a rank ended: by a failure, or normally.
#[derive(Clone, Debug)]
struct Gone {
    why: String,
    normal: bool,
}

impl Gone {
    fn of(down: &Down) -> Self {
        Self { why: down.why.to_string(), normal: down.why.is_normal() }
    }

    /// Returns the error of an operation that needs this rank.
    fn error(&self, rank: u32) -> MpiError {
        MpiError::ProcFailed { rank: rank as usize, why: self.why.clone(), waiting_for: String::new() }
    }
}

#[derive(Debug, Default)]
struct State {
    /// The names of the communicators that were given one.
    names: FxHashMap<u32, String>,
    matching: Matching<Message>,
    ops: SlotMap<DefaultKey, Op>,
    sent: Vec<u64>,
    received: Vec<u64>,
    /// Their sum: while it is unchanged, nothing has arrived.
    arrivals: u64,
    watched: Vec<bool>,
    gone: FxHashMap<u32, Gone>,
    /// Failures that the program has acknowledged, so that wildcard receives ignore them.
    acknowledged: FxHashSet<u32>,
    revoked: FxHashSet<u32>,
    /// Contexts in which a collective operation has failed here: what was offered in them may never be wanted.
    failed: FxHashSet<u32>,
    /// Receives that are [`OpState::Due`].
    due: Vec<OpId>,
    /// Sends that are [`OpState::Wanted`].
    wanted: Vec<OpId>,
    /// How many waiting sends of this rank have been matched or read: a sign of progress.
    matched: u64,
    /// The number of the last message that needed no operation.
    ticket: u64,
    /// Ranks whose memory could not be read.
    closed: FxHashSet<u32>,
    agreements: FxHashMap<AgreementKey, Agreement>,
    ended: bool,
    /// Free space in, and size of, the buffer for buffered sends.
    buffer_free: usize,
    buffer_size: usize,
}

/// The engine of one rank.
#[derive(Debug)]
pub(crate) struct Engine<'v> {
    vr: &'v Vr,
    me: u32,
    ranks: Vec<VrId>,
    places: Vec<Place>,
    /// The ranks in the same process.
    is_local: Vec<bool>,
    /// The transport to them, if there are any others.
    local: Option<Local>,
    /// The transport to other processes of this machine, if there are any.
    shm: Option<Shm>,
    /// What this rank lets the ranks of this machine read.
    lender: Rc<Lender>,
    /// Whether all ranks of this machine can run at the same time.
    at_once: bool,
    /// How many waits in a row have begun without polling the link.
    deaf: Cell<u32>,
    /// By rank: how many of the next long slices are copied at once, as the last ones were not wanted in time.
    hurry: Vec<Cell<Hurry>>,
    /// By rank: how many bytes are sent at once, and whether it shares memory with this one; 0 bytes if that is not known
    /// yet.
    pieces: Vec<Cell<(usize, bool)>>,
    pool: Arc<Pool>,
    supervisor: VrId,
    by_id: FxHashMap<VrId, u32>,
    state: RefCell<State>,
    /// The last collective operation that this rank was in.
    operation: Cell<&'static str>,
    /// The wait that was reported, while it lasts: its number, and the ranks that could end it.
    reported: RefCell<Option<(u64, Vec<u32>)>>,
    reports: Cell<u64>,
    next_context: Cell<u32>,
    /// What this rank can be recreated from; `None` in tests, whose ranks are threads.
    life: Option<Life>,
    background: background::Tasks,
}

impl<'v> Engine<'v> {
    /// Names what the rank does in a trace, until the guard is dropped.
    pub(crate) fn span(&self, name: &str) -> Span<'_> {
        self.vr.span(name)
    }

    pub(crate) fn new(vr: &'v Vr, me: u32, supervisor: VrId, ranks: Vec<VrId>, places: Vec<Place>) -> Self {
        describe(vr);
        let by_id = (0..).zip(&ranks).map(|(rank, &id)| (id, rank)).collect();
        let state = State::new(ranks.len());
        let is_local = places.iter().map(|place| place.host == places[me as usize].host).collect();
        let pieces = vec![Cell::new((0, false)); ranks.len()];
        // The record of a recoverable VR must contain everything that it receives, and a trace should.
        let by_mailbox = vr.is_recoverable() || vr.is_traced();
        let here = places.iter().filter(|place| place.machine == places[me as usize].machine).count();
        let at_once = here <= available_parallelism().map_or(1, usize::from);
        vr.expect_own_core(at_once);
        let lender = Rc::new(Lender::new());
        let local = if by_mailbox { None } else { Local::new(&ranks, me, &places, at_once, lender.slots()) };
        let shm = if by_mailbox { None } else { Shm::new(me, &places, at_once) };
        let hurry = vec![Cell::default(); ranks.len()];
        Self {
            vr,
            me,
            ranks,
            places,
            is_local,
            local,
            shm,
            lender,
            at_once,
            deaf: Cell::new(0),
            hurry,
            pieces,
            pool: Arc::default(),
            supervisor,
            by_id,
            state: RefCell::new(state),
            operation: Cell::new("a collective operation"),
            reported: RefCell::default(),
            reports: Cell::new(0),
            next_context: Cell::new(2),
            life: None,
            background: background::Tasks::default(),
        }
    }

    /// Sets what this rank can be recreated from.
    pub(crate) fn living(self, life: Option<Life>) -> Self {
        Self { life, ..self }
    }

    pub(crate) fn life(&self) -> Option<&Life> {
        self.life.as_ref()
    }

    pub(crate) fn vr(&self) -> &'v Vr {
        self.vr
    }

    pub(crate) fn me(&self) -> u32 {
        self.me
    }

    pub(crate) fn world_size(&self) -> usize {
        self.ranks.len()
    }

    pub(crate) fn id_of(&self, rank: u32) -> VrId {
        self.ranks[rank as usize]
    }

    pub(crate) fn place_of(&self, rank: u32) -> Place {
        self.places[rank as usize]
    }

    /// Whether all of these ranks are on one machine.
    pub(crate) fn share_machine(&self, ranks: &[u32]) -> bool {
        let mut machines = ranks.iter().map(|&rank| self.place_of(rank).machine);
        let first = machines.next();
        machines.all(|machine| Some(machine) == first)
    }

    /// The lowest context that this rank has not used.
    pub(crate) fn next_context(&self) -> u32 {
        self.next_context.get()
    }

    /// Notes that contexts below this are used.
    pub(crate) fn use_contexts_below(&self, context: u32) {
        self.next_context.set(self.next_context.get().max(context));
    }

    #[inline]
    fn header(&self, kind: Kind, key: Key, ticket: u64, length: usize) -> Header {
        Header { kind, from: self.me, key, ticket, length: length as u64 }
    }

    /// Returns how much data is sent to a rank at once.
    fn piece(&self, to: u32) -> usize {
        self.way(to).0
    }

    /// Whether messages to a rank pass through memory only.
    pub(crate) fn shares_memory(&self, to: u32) -> bool {
        self.way(to).1
    }

    fn way(&self, to: u32) -> (usize, bool) {
        let way = &self.pieces[to as usize];
        if way.get().0 == 0 {
            let id = self.id_of(to);
            let handy = self.vr.handy_size(id).saturating_sub(HEADER);
            way.set(((handy - handy % GRAIN).clamp(GRAIN, PIECE), self.vr.shares_memory_with(id)));
        }
        way.get()
    }

    /// Returns the length up to which messages to a rank are sent eagerly.
    fn eager(&self, to: u32) -> usize {
        if self.local(to).is_some() {
            EAGER_LOCAL
        } else if self.shares_memory(to) {
            EAGER_SHM
        } else {
            EAGER
        }
    }

    fn transmit(&self, to: u32, payload: impl Into<Payload>) -> Result {
        self.transmit_with(&mut self.state.borrow_mut(), to, payload.into())
    }

    fn transmit_with(&self, state: &mut State, to: u32, payload: Payload) -> Result {
        state.depart(to)?;
        let Err(payload) = self.pass(to, payload) else { return Ok(()) };
        if payload.head().len() == payload.len()
            && let Some((header, data)) = payload.head().split_first_chunk()
            && self.send_by_shm(state, to, header, data)?
        {
            return Ok(());
        }
        let sent = self.vr.send_bytes(self.id_of(to), MESSAGES, LANE, payload);
        sent.map_err(|error| state.not_sent(to, error))?;
        self.went_by_link(to);
        Ok(())
    }

    /// Sends a header without data.
    fn tell(&self, state: &mut State, to: u32, header: &Header) -> Result {
        self.transmit_parts(state, to, header, &[])
    }

    /// Sends a header and data that lies in the caller's memory.
    #[inline]
    fn transmit_slice(&self, to: u32, header: &Header, data: &[u8]) -> Result {
        let sent = self.transmit_parts(&mut self.state.borrow_mut(), to, header, data);
        sent.map_err(|error| error.while_waiting_for(|| self.describe_send(to, header.key)))
    }

    #[inline]
    fn transmit_parts(&self, state: &mut State, to: u32, header: &Header, data: &[u8]) -> Result {
        let header = header.encode();
        state.depart(to)?;
        if self.pass_slice(to, &header, data) || self.send_by_shm(state, to, &header, data)? {
            return Ok(());
        }
        if self.is_local[to as usize] {
            let sent = self.vr.send_bytes(self.id_of(to), MESSAGES, LANE, self.pool.join(&header, data));
            return sent.map_err(|error| state.not_sent(to, error));
        }
        let sent = self.vr.send_parts(self.id_of(to), MESSAGES, LANE, &[&header, data]);
        sent.map_err(|error| state.not_sent(to, error))?;
        self.went_by_link(to);
        Ok(())
    }
}

impl State {
    fn new(ranks: usize) -> Self {
        let (sent, received, watched) = (vec![0; ranks], vec![0; ranks], vec![false; ranks]);
        Self { sent, received, watched, ..Self::default() }
    }

    fn depart(&mut self, to: u32) -> Result {
        if self.ended {
            return Err(MpiError::Stopped);
        }
        self.sent[to as usize] += 1;
        Ok(())
    }

    fn not_sent(&mut self, to: u32, error: SendError) -> MpiError {
        self.sent[to as usize] -= 1;
        match error {
            SendError::Down(down) => self.bury(to, &down).error(to),
            _ => MpiError::Stopped,
        }
    }
}
