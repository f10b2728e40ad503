//! The fast path between ranks that are processes of one machine: one ring of cache lines per pair, in shared memory.
//!
//! Used only by operations whose messages are all short, and known to be so on every rank. The first messages of a pair go
//! through the engine, so that a communicator that is used once needs no rings. Then the sender creates a ring and offers
//! it; it uses the ring once the receiver has marked it as joined. A message that finds the ring full goes through the
//! engine, and so does the rest of that operation; so the receiver always empties the ring first. Sleeping and waking work
//! as between threads.

use std::cell::RefCell;
use std::rc::Rc;
use std::thread::available_parallelism;

use bytes::Bytes;

use super::poll;
use super::ring::{Receiver, Sender};
use crate::coll::{Landed, Message};
use crate::engine::{Arrival, Ask, Engine, Sources};
use crate::error::Result;
use crate::header::Header;
use crate::matching::{Key, Pattern};
use crate::peer::number;
use crate::queue::Wait;

/// After this many messages, a sender checks whether the receiver is still there.
const LOOK: u32 = 64;
/// With more ranks in a communicator there would be too many rings.
const RANKS: usize = 16;
/// The tag of messages that offer a ring; the tags of operations are not negative.
const OFFER: i32 = -1;

/// A rank's path to the members of its communicator that are other processes of its machine.
pub(crate) struct ShmPath {
    /// The context of collective operations.
    context: u32,
    rank: u32,
    members: Rc<[u32]>,
    /// By rank: whether it is such a member.
    reach: Vec<bool>,
    outgoing: RefCell<Vec<Sender>>,
    incoming: RefCell<Vec<Incoming>>,
    /// Whether all ranks of this machine can run at the same time.
    at_once: bool,
}

/// The path from a rank.
enum Incoming {
    /// No ring was offered yet.
    Few,
    Open(Box<Receiver>),
    Never,
}

impl ShmPath {
    /// Creates the path of member `rank` of a communicator. Returns `None` if no member is another process of this machine,
    /// or the path cannot be used.
    pub(crate) fn new(engine: &Engine<'_>, context: u32, members: &Rc<[u32]>, rank: usize) -> Option<Self> {
        // The record of a recoverable VR must contain everything that it receives, and a trace should.
        if engine.vr().is_recoverable() || engine.vr().is_traced() || members.len() > RANKS {
            return None;
        }
        let me = engine.place_of(engine.me());
        let here = members.iter().filter(|member| engine.place_of(**member).machine == me.machine).count();
        let reach = members.iter().map(|member| engine.place_of(*member)).map(|place| {
            // Threads of one process use `LocalPath`.
            place.machine == me.machine && place.host != me.host
        });
        let reach: Vec<bool> = reach.collect();
        reach.contains(&true).then(|| Self {
            context: context + 1,
            rank: number(rank),
            members: members.clone(),
            outgoing: RefCell::new(reach.iter().map(|&reached| Sender::new(reached)).collect()),
            incoming: RefCell::new(reach.iter().map(|_| Incoming::Few).collect()),
            reach,
            at_once: here <= available_parallelism().map_or(1, usize::from),
        })
    }

    /// Whether `rank` is another process of this machine.
    pub(crate) fn reaches(&self, rank: usize) -> bool {
        self.reach.get(rank).copied().unwrap_or(false)
    }

    /// Sends a copy of `bytes`.
    pub(crate) fn send(&self, engine: &Engine<'_>, to: usize, tag: i32, bytes: &[u8]) -> Result {
        let (member, key) = (self.members[to], self.key(tag));
        let pushed = self.outgoing.borrow()[to].pushed();
        if pushed.is_some_and(|pushed| pushed.is_multiple_of(LOOK)) {
            // Checked before it is sent: a rank that has received it may end at once.
            engine.progress()?;
            engine.check_alive(member)?;
        }
        let wakes = self.outgoing.borrow_mut()[to].push(tag, bytes);
        match wakes {
            Some(false) => Ok(()),
            Some(true) => engine.send_shared(member, key, Bytes::new()),
            None => {
                self.offer(engine, to)?;
                engine.send_copy(member, key, bytes)
            }
        }
    }

    /// Waits for the next message of operation `tag` from a rank. A message from the ring is copied into `out`, if it fits.
    pub(crate) fn receive_into(
        &self,
        engine: &Engine<'_>,
        from: usize,
        tag: i32,
        out: &mut [u8],
    ) -> Result<Landed> {
        if let Incoming::Open(receiver) = &mut self.incoming.borrow_mut()[from]
            && let Some(landed) = receiver.pop_into(tag, out)
        {
            return Ok(landed);
        }
        self.go_on(engine, from, tag, out)
    }

    /// Like [`receive_into`](Self::receive_into), in an operation whose messages are not all short for this rank. If they are
    /// for the sender, which has then made a different call, this rank should notice; it does not if the message comes at the
    /// very moment when it falls asleep. Returns `None` if everything from that rank arrives through the engine.
    pub(crate) fn receive_long(
        &self,
        engine: &Engine<'_>,
        from: usize,
        tag: i32,
        out: &mut [u8],
    ) -> Result<Option<Landed>> {
        if !self.is_open(from) {
            return Ok(None);
        }
        self.fall_asleep(from, tag);
        let landed = self.look(from, tag, out);
        if landed.is_some() && self.wake_up(from) {
            return Ok(landed);
        }
        let arrived = engine.receive(&self.ask(from, tag), Some(&mut *out));
        let was_woken = !self.wake_up(from);
        let arrived = arrived?;
        Ok(Some(match landed {
            Some(landed) => landed,
            None if was_woken => self.look(from, tag, out).unwrap_or(Landed::Here(0)),
            None => landed_of(arrived),
        }))
    }

    #[inline(never)]
    fn go_on(&self, engine: &Engine<'_>, from: usize, tag: i32, out: &mut [u8]) -> Result<Landed> {
        if !self.is_open(from) {
            let arrived = engine.receive(&self.ask(from, tag), Some(&mut *out))?;
            self.meet(engine, from);
            return Ok(landed_of(arrived));
        }
        let landed = poll(engine, self.at_once, |has_progressed| match has_progressed {
            true => self.look_late(engine, from, tag, out),
            false => self.look(from, tag, out),
        });
        if let Some(landed) = landed? {
            return Ok(landed);
        }
        loop {
            if let Some(landed) = self.sleep(engine, from, tag, out)? {
                return Ok(landed);
            }
        }
    }

    /// Sleeps until there is a message from that rank in that operation, or something else has arrived.
    fn sleep(&self, engine: &Engine<'_>, from: usize, tag: i32, out: &mut [u8]) -> Result<Option<Landed>> {
        self.fall_asleep(from, tag);
        let landed = match self.look(from, tag, out) {
            None => {
                engine.sleep_briefly(|| self.look(from, tag, out)).inspect_err(|_| _ = self.wake_up(from))?
            }
            landed => landed,
        };
        if landed.is_some() && self.wake_up(from) {
            return Ok(landed);
        }
        // Receives what the sender has sent or will send: an empty wake-up message, or a message that found no room in the
        // ring.
        let arrived = engine.receive(&self.ask(from, tag), None);
        let was_woken = !self.wake_up(from);
        if let (_, Some(arrival)) = arrived?
            && !was_woken
        {
            self.keep_late(from, tag, Message::Whole(arrival.into_bytes()));
        }
        Ok(landed.or_else(|| self.look(from, tag, out)))
    }

    fn is_open(&self, from: usize) -> bool {
        matches!(self.incoming.borrow()[from], Incoming::Open(_))
    }

    fn look(&self, from: usize, tag: i32, out: &mut [u8]) -> Option<Landed> {
        match &mut self.incoming.borrow_mut()[from] {
            Incoming::Open(receiver) => receiver.pop_into(tag, out),
            Incoming::Few | Incoming::Never => None,
        }
    }

    /// Like [`look`](Self::look), but also takes a message that has arrived through the engine. It was sent after everything
    /// in the ring, all of which is visible by now.
    fn look_late(&self, engine: &Engine<'_>, from: usize, tag: i32, out: &mut [u8]) -> Option<Landed> {
        if !self.is_open(from) {
            return None;
        }
        let arrived = engine.arrived(&self.ask(from, tag).pattern)?;
        self.keep_late(from, tag, Message::Whole(arrived));
        self.look(from, tag, out)
    }

    fn keep_late(&self, from: usize, tag: i32, message: Message) {
        if let Incoming::Open(receiver) = &mut self.incoming.borrow_mut()[from] {
            receiver.keep_late(tag, message);
        }
    }

    fn fall_asleep(&self, from: usize, tag: i32) {
        if let Incoming::Open(receiver) = &self.incoming.borrow()[from] {
            receiver.fall_asleep(tag);
        }
    }

    /// Publishes that this rank is awake. Returns `false` if the sender has found it asleep, and has sent or will send a
    /// wake-up message.
    fn wake_up(&self, from: usize) -> bool {
        match &self.incoming.borrow()[from] {
            Incoming::Open(receiver) => receiver.wake_up(),
            Incoming::Few | Incoming::Never => true,
        }
    }

    /// Notes that a message to a rank goes through the engine, and offers it a ring if it is time to.
    #[cold]
    fn offer(&self, engine: &Engine<'_>, to: usize) -> Result {
        let (member, waits) = (self.members[to], Wait::for_room(self.at_once));
        let ring = self.outgoing.borrow_mut()[to].advance(waits, || engine.shares_memory(member));
        match ring.map(|ring| postcard::to_stdvec(&ring)) {
            Some(Ok(offer)) => engine.send_copy(member, self.key(OFFER), &offer),
            _ => Ok(()),
        }
    }

    /// Joins the ring that a rank has offered, if it has offered one.
    fn meet(&self, engine: &Engine<'_>, from: usize) {
        let Some(offer) = engine.arrived(&self.ask(from, OFFER).pattern) else { return };
        let receiver = postcard::from_bytes(&offer).ok().and_then(|offer| Receiver::join(&offer));
        self.incoming.borrow_mut()[from] =
            receiver.map_or(Incoming::Never, |receiver| Incoming::Open(receiver.into()));
    }

    fn key(&self, tag: i32) -> Key {
        Key { context: self.context, source: self.rank, tag }
    }

    fn ask(&self, from: usize, tag: i32) -> Ask {
        let pattern = Pattern { context: self.context, source: Some(number(from)), tag: Some(tag) };
        Ask { pattern, sources: Sources::One(self.members[from]) }
    }
}

/// Returns where a message is that arrived through the engine.
pub(crate) fn landed_of((header, arrival): (Header, Option<Arrival>)) -> Landed {
    match arrival {
        Some(arrival) => Message::Whole(arrival.into_bytes()).into(),
        None => Landed::Here(header.len()),
    }
}
