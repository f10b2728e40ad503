//! The same between ranks that are processes of one machine: one ring of cache lines per pair, in shared memory.
//!
//! Used only by operations whose messages are all short, and known to be so on every rank. The first messages of a pair go
//! through the engine, so that a communicator that is used once needs no rings. Then the sender creates a ring and sends its
//! name; it uses the ring once the receiver has marked it as joined. A message that finds the ring full goes through the
//! engine, and so does the rest of that operation; so the receiver always empties the ring first. Sleeping and waking work
//! as between threads.

use std::cell::RefCell;
use std::rc::Rc;
use std::thread::available_parallelism;
use std::time::Instant;

use bytes::Bytes;

use super::ring::{LINES, Receiver, Sender, Sleeper};
use super::{PATIENCE, YIELDS, look_awake};
use crate::coll::{Landed, Message};
use crate::engine::{Arrival, Ask, Engine, Sources};
use crate::error::Result;
use crate::header::Header;
use crate::matching::{Key, Pattern};
use crate::peer::number;
use crate::queue::{SharedWriter, Wait};

/// Messages of a pair before a ring is offered.
const FEW: u32 = 8;
/// After so many messages a sender looks whether the receiver is still there.
const LOOK: u32 = 64;
/// With more ranks in a communicator there would be too many rings.
const RANKS: usize = 16;
/// The tag of what is said about rings; those of operations are not negative.
const OFFER: i32 = -1;

/// A rank's way to the others of its communicator that are other processes of its machine.
pub(crate) struct ShmPath {
    /// The context of collective operations.
    context: u32,
    rank: u32,
    members: Rc<[u32]>,
    /// Who are such.
    reach: Vec<bool>,
    outgoing: RefCell<Vec<Outgoing>>,
    incoming: RefCell<Vec<Incoming>>,
    /// Whether all ranks of this machine can run at the same time.
    at_once: bool,
}

/// The way to a rank.
enum Outgoing {
    /// So many messages have gone by the engine.
    Few(u32),
    Offered(SharedWriter),
    Open(Sender),
    /// There will be no ring.
    Never,
}

/// The way from a rank.
enum Incoming {
    /// No ring was offered yet.
    Few,
    Open(Box<Receiver>),
    Never,
}

impl ShmPath {
    /// Of one of these ranks of the world; `None` if there are no such others.
    pub(crate) fn new(engine: &Engine<'_>, context: u32, members: &Rc<[u32]>, rank: usize) -> Option<Self> {
        // A record has to have everything that is received, and a trace should.
        if engine.vr().is_recoverable() || engine.vr().is_traced() || members.len() > RANKS {
            return None;
        }
        let me = engine.place_of(engine.me());
        let here = members.iter().filter(|member| engine.place_of(**member).machine == me.machine).count();
        let reach = members.iter().map(|member| engine.place_of(*member)).map(|place| {
            // Threads of one process have another way.
            place.machine == me.machine && place.host != me.host
        });
        let reach: Vec<bool> = reach.collect();
        reach.contains(&true).then(|| Self {
            context: context + 1,
            rank: number(rank),
            members: members.clone(),
            outgoing: RefCell::new(reach.iter().map(|_| Outgoing::Few(0)).collect()),
            incoming: RefCell::new(reach.iter().map(|_| Incoming::Few).collect()),
            reach,
            at_once: here <= available_parallelism().map_or(1, usize::from),
        })
    }

    /// Whether that rank is another process of this machine.
    pub(crate) fn reaches(&self, rank: usize) -> bool {
        self.reach.get(rank).copied().unwrap_or(false)
    }

    /// Sends a copy.
    pub(crate) fn send(&self, engine: &Engine<'_>, to: usize, tag: i32, bytes: &[u8]) -> Result {
        let (member, key) = (self.members[to], self.key(tag));
        let looks = matches!(&self.outgoing.borrow()[to], Outgoing::Open(sender) if sender.pushed().is_multiple_of(LOOK));
        if looks {
            // Before it is sent: who has received it may end at once.
            engine.progress()?;
            engine.check_alive(member)?;
        }
        let pushed = match &mut self.outgoing.borrow_mut()[to] {
            Outgoing::Open(sender) => sender.push(tag, bytes),
            _ => None,
        };
        match pushed {
            Some(Sleeper::Awake) => Ok(()),
            Some(Sleeper::Asleep) => engine.send_shared(member, key, Bytes::new()),
            None => {
                self.advance(engine, to, tag)?;
                engine.send_copy(member, key, bytes)
            }
        }
    }

    /// The next message of a rank in an operation, which it waits for; it goes into `out` if it fits there and has no memory of its
    /// own.
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

    /// The same in an operation that is none of short messages for this rank: if it is one for the sender, who has made another
    /// call, this rank has to hear of it. `None`: what comes of that rank comes by the engine.
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
        if let Some(landed) = look_awake(self.at_once, || self.look(from, tag, out)) {
            return Ok(landed);
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            engine.progress()?;
            if let Some(landed) = self.look_late(engine, from, tag, out) {
                return Ok(landed);
            }
            if Instant::now() >= deadline {
                break;
            }
            for _ in 0..YIELDS {
                engine.vr().yield_core();
                if let Some(landed) = self.look(from, tag, out) {
                    return Ok(landed);
                }
            }
        }
        loop {
            if let Some(landed) = self.sleep(engine, from, tag, out)? {
                return Ok(landed);
            }
        }
    }

    /// Sleeps until there is a message of that rank in that operation, or something else has come.
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
        // Somebody has sent a message for this, or will: an empty one that wakes, or one that found no room in the ring.
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

    /// The same, also of what has come by the engine. That was sent later than what is in the ring, which can be seen now.
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

    /// False: this rank was woken, and a message says so.
    fn wake_up(&self, from: usize) -> bool {
        match &self.incoming.borrow()[from] {
            Incoming::Open(receiver) => receiver.wake_up(),
            Incoming::Few | Incoming::Never => true,
        }
    }

    /// A message to a rank goes by the engine, with all of its operation: whether those of the next one do.
    #[cold]
    fn advance(&self, engine: &Engine<'_>, to: usize, tag: i32) -> Result {
        let way = std::mem::replace(&mut self.outgoing.borrow_mut()[to], Outgoing::Never);
        let way = match way {
            Outgoing::Few(count) if count < FEW => Outgoing::Few(count + 1),
            Outgoing::Few(_) => self.offer(engine, to)?.map_or(Outgoing::Never, Outgoing::Offered),
            Outgoing::Offered(ring) if ring.is_joined() => {
                Outgoing::Open(Sender::new(ring, Wait::for_room(self.at_once), tag))
            }
            other => other,
        };
        self.outgoing.borrow_mut()[to] = way;
        Ok(())
    }

    /// Makes a ring and tells its reader where it is. `None`: there can be none.
    fn offer(&self, engine: &Engine<'_>, to: usize) -> Result<Option<SharedWriter>> {
        let member = self.members[to];
        let ring = if engine.shares_memory(member) { SharedWriter::create(LINES) } else { None };
        let Some((ring, name)) = ring else { return Ok(None) };
        let Ok(name) = postcard::to_stdvec(&name) else { return Ok(None) };
        engine.send_copy(member, self.key(OFFER), &name)?;
        Ok(Some(ring))
    }

    /// Reads from the ring that a rank has offered, if it has.
    fn meet(&self, engine: &Engine<'_>, from: usize) {
        let Some(offer) = engine.arrived(&self.ask(from, OFFER).pattern) else { return };
        let receiver = postcard::from_bytes(&offer).ok().and_then(|name| Receiver::join(&name));
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

/// Where a message is that came by the engine.
fn landed_of((header, arrival): (Header, Option<Arrival>)) -> Landed {
    match arrival {
        Some(arrival) => Message::Whole(arrival.into_bytes()).into(),
        None => Landed::Here(usize::try_from(header.length).unwrap_or(usize::MAX)),
    }
}
