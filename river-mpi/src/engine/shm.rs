//! Short messages between ranks that are processes of one machine: one ring of cache lines per pair, in shared memory, which
//! a waiting rank polls itself. They cost as little as between threads.
//!
//! The first messages of a pair go over the link, so that ranks that rarely talk to each other need no rings. Then the sender
//! offers a ring, and uses it once the receiver has marked it as joined. Messages that are long, or find the ring full, still
//! go over the link.
//!
//! The order of a pair's messages is kept: all of them, on either path, are numbered together, and a record in the ring
//! carries its number and is taken only after all messages before it. When a message arrives over the link, everything that
//! was sent before it is already visible in the ring, so the ring is emptied first.
//!
//! Sleeping and waking work as between threads (`local`).

use std::cell::{Cell, RefCell};

use river_core::{Intake, Line, Payload, RecvError, Selector, SharedLines};

use super::failures::DEATHS;
use super::halves::Asked;
use super::incoming::Incoming;
use super::intake::{Hook, Landing};
use super::ops::reborrow;
use super::poll::TURN;
use super::{EAGER_SHM, Engine, Gone, LANE, MESSAGES, State};
use crate::error::Result;
use crate::header::{HEADER, Header, Kind};
use crate::job::Place;
use crate::lend::Lender;
use crate::lend::ring::{Reader, Record};
use crate::matching::Key;
use crate::queue::{LazyRing, RingOffer, Wait, lines_for, sleep};

/// After this many messages, a sender checks whether the receiver is still there.
const LOOK: u64 = 64;
/// With more ranks on a machine there would be too many rings.
const RANKS: usize = 16;

/// A rank's rings to and from the other processes of its machine.
#[derive(Debug)]
pub(super) struct Shm {
    /// By rank.
    outgoing: RefCell<Vec<LazyRing>>,
    incoming: RefCell<Vec<Ring>>,
    /// By rank: whether there is a ring from it.
    open: Vec<Cell<bool>>,
    /// By rank: whether this rank may write into its memory; `None` if that is not known yet.
    trusted: Vec<Cell<Option<bool>>>,
    /// By rank: whether the memory of its process could be read.
    readable: Vec<Cell<bool>>,
    /// Lines of the rings from this rank.
    lines: u16,
    /// How to wait for room; `None` if not all ranks run at the same time, as the receiver may then be waiting for this core.
    waits: Option<Wait>,
}

/// The ring from a rank.
#[derive(Debug)]
struct Ring {
    from: u32,
    reader: Reader<SharedLines>,
}

impl Shm {
    /// Returns `None` if there is no rank in another process of this machine, or there are too many ranks on it.
    pub(super) fn new(me: u32, places: &[Place], at_once: bool) -> Option<Self> {
        let mine = places.get(me as usize)?;
        let here = places.iter().filter(|place| place.machine == mine.machine).count();
        // Threads of one process use `Local`.
        let reached = |place: &&Place| place.machine == mine.machine && place.host != mine.host;
        let others = places.iter().filter(reached).count();
        if here > RANKS || others == 0 {
            return None;
        }
        let way = |place| if reached(&place) { LazyRing::NEW } else { LazyRing::Never };
        Some(Self {
            outgoing: RefCell::new(places.iter().map(way).collect()),
            incoming: RefCell::default(),
            open: vec![Cell::new(false); places.len()],
            readable: vec![Cell::new(false); places.len()],
            trusted: vec![Cell::default(); places.len()],
            lines: lines_for(others, at_once),
            waits: at_once.then_some(Wait::Looking),
        })
    }

    /// Whether there is a ring from that rank.
    pub(super) fn is_open(&self, from: u32) -> bool {
        self.open.get(from as usize).is_some_and(Cell::get)
    }

    pub(super) fn is_unused(&self) -> bool {
        self.incoming.borrow().is_empty()
    }

    /// Puts a message into the ring to a rank. Returns `None` if it has to be sent over the link, and otherwise whether the
    /// rank has to be woken.
    fn push(&self, to: u32, number: u64, header: &[u8; HEADER], data: &[u8]) -> Option<bool> {
        let [a, b, c, d] = bytemuck::cast::<_, [u64; HEADER / 8]>(*header);
        let mut outgoing = self.outgoing.borrow_mut();
        let ring = outgoing.get_mut(to as usize).filter(|_| data.len() <= EAGER_SHM)?;
        ring.push([number, a, b, c, d], data, sleep::ASLEEP)
    }

    fn is_outgoing(&self, to: u32) -> bool {
        self.outgoing.borrow().get(to as usize).is_some_and(LazyRing::is_open)
    }

    /// Notes that the memory of a rank's process could be read.
    pub(super) fn note_read(&self, from: u32) {
        self.readable[from as usize].set(true);
    }

    /// Calls `body` with the line for long messages from a rank, if there is a ring from it and its memory could be read: it is
    /// the process by whose number this rank knows it, and this rank will notice if it ends.
    pub(super) fn aside<R>(&self, from: u32, body: impl FnOnce(&Line) -> R) -> Option<R> {
        if !self.readable[from as usize].get() {
            return None;
        }
        let incoming = self.incoming.borrow();
        incoming.iter().find(|ring| ring.from == from).map(|ring| body(ring.reader.aside()))
    }

    /// Writes the second halves of long messages that receivers are reading. Returns `true` if there was any.
    pub(super) fn help(&self, lender: &Lender) -> bool {
        let outgoing = self.outgoing.borrow();
        let mut helped = false;
        for (ring, trusted) in outgoing.iter().zip(&self.trusted) {
            let asked = ring.aside().and_then(Asked::of);
            helped |= asked.is_some_and(|asked| asked.help(lender, trusted));
        }
        helped
    }

    /// Publishes whether this rank has to be woken.
    pub(super) fn set_asleep(&self, asleep: bool) {
        for Ring { reader, .. } in &*self.incoming.borrow() {
            sleep::set(reader.asleep(), asleep);
        }
    }
}

/// A message in a ring, behind its number.
struct Numbered<'a>(Record<'a>);

impl<'a> Numbered<'a> {
    /// Returns `None` if the record is not a message.
    fn of(record: Record<'a>) -> Option<(u64, Self)> {
        let [number] = record.words();
        (record.len() >= size_of::<u64>() + HEADER).then_some((number, Self(record)))
    }
}

impl Incoming for Numbered<'_> {
    fn len(&self) -> usize {
        self.0.len() - size_of::<u64>()
    }

    fn head(&self) -> [u8; HEADER] {
        let [_, head @ ..] = self.0.words::<{ 1 + HEADER / 8 }>();
        bytemuck::cast(head)
    }

    fn copy_data(&self, out: &mut [u8]) -> bool {
        self.0.copy_to(1 + HEADER / 8, out);
        true
    }

    fn kept(&self, engine: &Engine<'_>) -> Payload {
        engine.pool.filled(self.len(), |bytes| self.0.copy_to(1, bytes)).into()
    }
}

impl Engine<'_> {
    /// Sends a message, which is counted already, through the ring to a rank. Returns `false` if it has to be sent over the
    /// link.
    #[inline]
    pub(super) fn send_by_shm(
        &self,
        state: &mut State,
        to: u32,
        header: &[u8; HEADER],
        data: &[u8],
    ) -> Result<bool> {
        let Some(shm) = &self.shm else { return Ok(false) };
        if !state.gone.is_empty() && state.gone.contains_key(&to) {
            return Ok(false);
        }
        let number = state.sent[to as usize];
        if number.is_multiple_of(LOOK) && shm.is_outgoing(to) {
            // Checked before it is sent: a rank that has received it may end at once.
            self.check_there(state, to)?;
        }
        let Some(sleeps) = shm.push(to, number, header, data) else { return Ok(false) };
        if sleeps {
            self.wake(to);
        }
        Ok(true)
    }

    /// Returns an error if nobody reads the ring to a rank any more, which the link does not tell a sender that uses the ring
    /// only.
    #[cold]
    fn check_there(&self, state: &mut State, to: u32) -> Result {
        let id = self.id_of(to);
        if !std::mem::replace(&mut state.watched[to as usize], true) {
            self.vr.watch(id);
        }
        let selector = Selector::on(DEATHS).lane(LANE).from(id);
        // Any other error is reported by the next wait.
        let Err(RecvError::Down(down)) = self.vr.try_receive_where(selector, |_| false) else {
            return Ok(());
        };
        // Has this rank notified once more: the next wait first takes what the dead one had sent.
        self.vr.watch(down.who);
        if down.who == id { Err(Gone::of(&down).error(to)) } else { Ok(()) }
    }

    /// Notes that a message to a rank has been sent over the link, and offers it a ring if it is time to.
    pub(super) fn went_by_link(&self, to: u32) {
        let Some(shm) = &self.shm else { return };
        let mut outgoing = shm.outgoing.borrow_mut();
        let Some(ring) = outgoing.get_mut(to as usize) else { return };
        let Some(offer) = ring.advance(shm.lines, shm.waits, || self.shares_memory(to)) else { return };
        let header = self.header(Kind::OfferRing, Key::NONE, 0, 0);
        if let Ok(offer) = postcard::to_stdvec(&offer) {
            // If the rank is gone, the next wait for it says so.
            let _ = self.vr.send_bytes(self.id_of(to), MESSAGES, LANE, header.with(&offer));
        }
    }

    /// Joins the ring that a rank offers.
    pub(super) fn meet(&self, from: u32, offer: &[u8]) {
        let Some(shm) = self.shm.as_ref().filter(|shm| !shm.is_open(from)) else { return };
        let reader = postcard::from_bytes(offer).ok().and_then(|offer: RingOffer| offer.join());
        if let (Some(reader), Some(open)) = (reader, shm.open.get(from as usize)) {
            open.set(true);
            shm.incoming.borrow_mut().push(Ring { from, reader });
        }
    }

    /// Takes messages that have arrived in rings, in that of `only` or in all, one turn of each at most, until the caller has
    /// what it waits for. Returns `None` if there was none.
    pub(super) fn poll_shm(
        &self,
        only: Option<u32>,
        hook: &mut Option<&mut Hook<'_>>,
        landing: &mut Option<&mut dyn Landing>,
    ) -> Option<Intake> {
        let shm = self.shm.as_ref()?;
        let mut some = None;
        for Ring { from, reader } in &mut *shm.incoming.borrow_mut() {
            if only.is_some_and(|only| only != *from) {
                continue;
            }
            for _ in 0..TURN {
                let Some(record) = reader.next() else { break };
                let len = record.len();
                let Some((number, message)) = Numbered::of(record) else {
                    tracing::warn!(from = *from, "something in a ring that is no MPI message");
                    reader.skip(len);
                    continue;
                };
                if number != self.state.borrow().received[*from as usize] + 1 {
                    break;
                }
                let intake = self.take_in(&message, hook.as_deref_mut(), reborrow(landing));
                reader.skip(len);
                some = Some(intake);
                if intake == Intake::Done {
                    return some;
                }
            }
        }
        some
    }

    /// Whether a ring holds a message that its sender has sent before this one, which arrives over the link.
    pub(super) fn is_ahead(&self, arriving: &impl Incoming) -> bool {
        let Some(shm) = self.shm.as_ref().filter(|shm| !shm.is_unused()) else { return false };
        let Some(Header { from, .. }) = arriving.header() else { return false };
        let incoming = shm.incoming.borrow();
        let Some(ring) = incoming.iter().find(|ring| ring.from == from) else { return false };
        let next = self.state.borrow().received[from as usize] + 1;
        ring.reader.next().and_then(Numbered::of).is_some_and(|(number, _)| number == next)
    }
}
