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
use std::sync::atomic::{Ordering, compiler_fence};

use river_core::{Intake, Payload, RecvError, Selector, SharedLines, SharedName};

use super::intake::{Hook, Incoming, Landing};
use super::ops::reborrow;
use super::wait::DEATHS;
use super::{Engine, Gone, LANE, MESSAGES, State};
use crate::error::Result;
use crate::header::{HEADER, Header, Kind};
use crate::job::Place;
use crate::lend::ring::{Reader, Record};
use crate::matching::Key;
use crate::queue::{self, Patience, SharedWriter, Wait};

/// Longer messages go by the link.
const LONGEST: usize = 2 << 10;
/// Lines of a ring.
const LINES: usize = 1024;
/// Messages to a rank before a ring is offered.
const FEW: u32 = 8;
/// After so many messages a sender looks whether the receiver is still there.
const LOOK: u64 = 64;
/// With more ranks on a machine there would be too many rings.
const RANKS: usize = 16;
/// Messages of one rank in a row before the others have their turn.
const TURN: usize = 64;

/// A rank's rings to and from the other processes of its machine.
#[derive(Debug)]
pub(super) struct Shm {
    /// By rank.
    outgoing: RefCell<Vec<Outgoing>>,
    incoming: RefCell<Vec<Ring>>,
    /// By rank: whether there is a ring from it.
    open: Vec<Cell<bool>>,
    /// Whether to wait for room: if not all run at once, the receiver may be waiting for this core.
    waits: Option<Wait>,
}

/// The way to a rank.
#[derive(Debug)]
enum Outgoing {
    /// So many messages have gone by the link.
    Few(u32),
    Offered(Box<SharedWriter>),
    Open(Box<(SharedWriter, Patience)>),
    /// There will be no ring.
    Never,
}

/// What a rank has sent.
#[derive(Debug)]
struct Ring {
    from: u32,
    reader: Reader<SharedLines>,
}

impl Shm {
    /// Of a rank; `None` if there are no such others.
    pub(super) fn new(me: u32, places: &[Place], at_once: bool) -> Option<Self> {
        let mine = places.get(me as usize)?;
        let here = places.iter().filter(|place| place.machine == mine.machine).count();
        // Threads of one process have another way.
        let reached = |place: &Place| place.machine == mine.machine && place.host != mine.host;
        if here > RANKS || !places.iter().any(reached) {
            return None;
        }
        let way = |place| if reached(place) { Outgoing::Few(0) } else { Outgoing::Never };
        Some(Self {
            outgoing: RefCell::new(places.iter().map(way).collect()),
            incoming: RefCell::default(),
            open: vec![Cell::new(false); places.len()],
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

    /// Puts a message into the ring to a rank. `None`: it has to go by the link; true: the rank has to be woken.
    fn push(&self, to: u32, number: u64, header: &[u8; HEADER], data: &[u8]) -> Option<bool> {
        let mut outgoing = self.outgoing.borrow_mut();
        let Outgoing::Open(open) = outgoing.get_mut(to as usize)? else { return None };
        let (ring, patience) = &mut **open;
        if data.len() > LONGEST {
            return None;
        }
        patience.count();
        let [a, b, c, d] = bytemuck::cast::<_, [u64; HEADER / 8]>(*header);
        let (words, writer) = ([number, a, b, c, d], ring.writer());
        if !writer.push(words, data) && !patience.wait_until(writer, |writer| writer.push(words, data)) {
            return None;
        }
        // Who falls asleep at this very moment looks again a little later.
        compiler_fence(Ordering::SeqCst);
        let asleep = writer.asleep();
        Some(asleep.load(Ordering::Relaxed) != 0 && asleep.swap(0, Ordering::SeqCst) != 0)
    }

    fn is_outgoing(&self, to: u32) -> bool {
        matches!(self.outgoing.borrow().get(to as usize), Some(Outgoing::Open(_)))
    }

    /// A message goes by the link. A ring is offered then, or used from the next one on, or given up: the name of one to be
    /// offered.
    fn advance(&self, to: u32, shares_memory: impl FnOnce() -> bool) -> Option<SharedName> {
        let mut outgoing = self.outgoing.borrow_mut();
        let way = outgoing.get_mut(to as usize)?;
        match way {
            Outgoing::Never | Outgoing::Open(_) => {}
            Outgoing::Few(count) if *count < FEW => *count += 1,
            Outgoing::Few(_) => {
                let created = if shares_memory() { SharedWriter::create(LINES) } else { None };
                let Some((ring, name)) = created else {
                    *way = Outgoing::Never;
                    return None;
                };
                *way = Outgoing::Offered(ring.into());
                return Some(name);
            }
            Outgoing::Offered(ring) if ring.is_joined() => {
                let Outgoing::Offered(mut ring) = std::mem::replace(way, Outgoing::Never) else {
                    return None;
                };
                ring.seal();
                *way = Outgoing::Open((*ring, Patience::new(self.waits)).into());
            }
            Outgoing::Offered(_) => {}
        }
        None
    }

    /// Says whether this rank has to be woken.
    pub(super) fn set_asleep(&self, asleep: bool) {
        for ring in &*self.incoming.borrow() {
            ring.reader.asleep().store(asleep.into(), Ordering::SeqCst);
        }
    }
}

/// A message in a ring, behind its number.
struct Numbered<'a>(Record<'a>);

impl<'a> Numbered<'a> {
    /// `None`: it is none.
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
    /// Sends a message, which is counted, by the ring to a rank. False: it has to go by the link.
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
            // Before it is sent: who has received it may end at once.
            self.check_there(state, to)?;
        }
        let Some(sleeps) = shm.push(to, number, header, data) else { return Ok(false) };
        if sleeps {
            self.wake(to);
        }
        Ok(true)
    }

    /// Who sends by a ring is not told by the link that nobody reads it any more.
    #[cold]
    fn check_there(&self, state: &mut State, to: u32) -> Result {
        let id = self.id_of(to);
        if !std::mem::replace(&mut state.watched[to as usize], true) {
            self.vr.watch(id);
        }
        let selector = Selector::on(DEATHS).lane(LANE).from(id);
        // What else there is is told to who waits.
        let Err(RecvError::Down(down)) = self.vr.try_receive_where(selector, |_| false) else {
            return Ok(());
        };
        // And this is told again, to who can look first at what it had sent.
        self.vr.watch(down.who);
        if down.who == id { Err(Gone::of(&down).error(to)) } else { Ok(()) }
    }

    /// A message to a rank has gone by the link.
    pub(super) fn went_by_link(&self, to: u32) {
        let Some(shm) = &self.shm else { return };
        let Some(name) = shm.advance(to, || self.shares_memory(to)) else { return };
        let header = self.header(Kind::OfferRing, Key { context: 0, source: 0, tag: 0 }, 0, 0);
        if let Ok(name) = postcard::to_stdvec(&name) {
            // That it is gone is told to who waits for it.
            let _ = self.vr.send_bytes(self.id_of(to), MESSAGES, LANE, header.with(&name));
        }
    }

    /// Reads from the ring that a rank offers.
    pub(super) fn meet(&self, from: u32, name: &[u8]) {
        let Some(shm) = self.shm.as_ref().filter(|shm| !shm.is_open(from)) else { return };
        let reader = postcard::from_bytes(name).ok().and_then(|name| queue::join(&name, LINES));
        if let (Some(reader), Some(open)) = (reader, shm.open.get(from as usize)) {
            open.set(true);
            shm.incoming.borrow_mut().push(Ring { from, reader });
        }
    }

    /// Takes what has come by rings, of that rank or of any, a turn at most of each or until somebody has what he waits for.
    /// `None`: there was nothing.
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
                let intake = self.take_record(&message, hook.as_deref_mut(), reborrow(landing));
                reader.skip(len);
                some = Some(intake);
                if intake == Intake::Done {
                    return some;
                }
            }
        }
        some
    }

    /// Whether something that its sender has sent before what comes by the link lies in a ring.
    pub(super) fn is_ahead(&self, arriving: &impl Incoming) -> bool {
        let Some(shm) = self.shm.as_ref().filter(|shm| !shm.is_unused()) else { return false };
        let Some(Header { from, .. }) = Header::decode(&arriving.head()) else { return false };
        let incoming = shm.incoming.borrow();
        let Some(ring) = incoming.iter().find(|ring| ring.from == from) else { return false };
        let next = self.state.borrow().received[from as usize] + 1;
        ring.reader.next().and_then(Numbered::of).is_some_and(|(number, _)| number == next)
    }
}
