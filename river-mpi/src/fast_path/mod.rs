//! The shared-memory fast path of blocking collectives, between ranks that are threads of one process: instead of the
//! mailbox, one single-producer queue per pair of ranks, which a waiting rank polls itself. A short message costs the
//! transfer of one cache line.
//!
//! * `queue`: the queue of one pair
//! * `mesh`: where the ranks of a communicator find each other's queues, and publish what they sleep for
//! * here: sending and waiting
//! * `ring`, `shm`: the fast path between processes of one machine
//!
//! A rank that waits long must still notice other messages, the death of a peer, and deadlocks. So after polling for about
//! 50 us it publishes in the mesh what it waits for, polls once more a millisecond later, and then blocks in the engine. A
//! sender that finds this entry in the mesh also sends an empty message through the engine, which wakes the receiver. All
//! failure handling stays in the engine.
//!
//! Not used by recoverable VRs, whose record must contain everything that they receive, nor by traced ones.

mod mesh;
mod queue;
mod ring;
mod shm;

use std::cell::RefCell;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::coll::{Landed, Message, SHORT};
use crate::engine::{Ask, Engine, Sources};
use crate::error::Result;
use crate::matching::{Key, Pattern};
use crate::peer::number;
use crate::queue::Wait;
use mesh::{Mesh, MeshKey};
use queue::{Receiver, Sender};
pub(crate) use shm::{ShmPath, landed_of};

/// How long a rank polls for a message before it sleeps.
const PATIENCE: Duration = Duration::from_micros(50);
/// How often it polls before it yields its core: for about a microsecond.
const SPINS: usize = 100;
/// How often it polls between two `spin_loop` hints, which take long on some processors.
const LOOKS: usize = 4;
/// How often it yields before it lets the engine make progress.
const YIELDS: usize = 4;

/// A rank's path to the members of its communicator that share its process.
pub(crate) struct LocalPath {
    mesh: Arc<Mesh>,
    /// The context of collective operations.
    context: u32,
    rank: u32,
    /// By rank: its rank in the world, if it is another rank of this process.
    peers: Vec<Option<u32>>,
    senders: RefCell<Vec<Option<Sender>>>,
    receivers: RefCell<Vec<Option<Receiver>>>,
    /// Whether all ranks of this process can run at the same time.
    at_once: bool,
}

impl LocalPath {
    /// Creates the path of member `rank` of a communicator with this context; `members` are ranks of the world. Returns
    /// `None` if no other member shares its process, or the VR is recoverable or traced.
    pub(crate) fn new(engine: &Engine<'_>, context: u32, members: &[u32], rank: usize) -> Option<Self> {
        // The record of a recoverable VR must contain everything that it receives, and a trace should.
        if engine.vr().is_recoverable() || engine.vr().is_traced() {
            return None;
        }
        let host = engine.place_of(engine.me()).host;
        let shares_process = |&&member: &&u32| engine.place_of(member).host == host;
        let count = members.iter().filter(shares_process).count();
        let first = *members.iter().find(shares_process)?;
        if count < 2 {
            return None;
        }
        let peers = members
            .iter()
            .map(|member| (shares_process(&member) && *member != engine.me()).then_some(*member));
        let key = MeshKey { first: engine.id_of(first), context };
        let at_once = count <= available_parallelism().map_or(1, usize::from);
        Some(Self {
            mesh: Mesh::enter(key, count, members.len(), Wait::for_room(at_once)),
            context: context + 1,
            rank: number(rank),
            peers: peers.collect(),
            senders: RefCell::new(members.iter().map(|_| None).collect()),
            receivers: RefCell::new(members.iter().map(|_| None).collect()),
            at_once,
        })
    }

    /// Whether `rank` is another rank of this process.
    pub(crate) fn reaches(&self, rank: usize) -> bool {
        self.peers.get(rank).is_some_and(Option::is_some)
    }

    /// Sends to a rank of this process.
    pub(crate) fn send(&self, engine: &Engine<'_>, to: usize, tag: i32, message: Message) -> Result {
        self.with_sender(to, |sender| sender.push(tag, message));
        self.wake(engine, to, tag)
    }

    /// Sends a copy of `bytes` to a rank of this process.
    pub(crate) fn send_copy(&self, engine: &Engine<'_>, to: usize, tag: i32, bytes: &[u8]) -> Result {
        self.with_sender(to, |sender| {
            if bytes.len() > SHORT || !sender.push_copy(tag, bytes) {
                sender.push(tag, Message::Whole(engine.copy_of(bytes)));
            }
        });
        self.wake(engine, to, tag)
    }

    fn with_sender(&self, to: usize, push: impl FnOnce(&mut Sender)) {
        let mut senders = self.senders.borrow_mut();
        push(senders[to].get_or_insert_with(|| self.mesh.sender(self.rank, number(to))));
    }

    /// Wakes a rank that sleeps until the message arrives that was just sent to it.
    fn wake(&self, engine: &Engine<'_>, to: usize, tag: i32) -> Result {
        if self.mesh.has_to_wake(to, self.rank, tag)
            && let Some(member) = self.peers[to]
        {
            let key = Key { context: self.context, source: self.rank, tag };
            engine.send_shared(member, key, Bytes::new())?;
        }
        Ok(())
    }

    /// Returns the next message of operation `tag` from a rank of this process, if it has arrived.
    pub(crate) fn try_receive(&self, from: usize, tag: i32) -> Option<Message> {
        self.look(from, |receiver| receiver.pop(tag))
    }

    /// Waits for the next message of operation `tag` from a rank of this process.
    pub(crate) fn receive(&self, engine: &Engine<'_>, from: usize, tag: i32) -> Result<Message> {
        self.wait(engine, from, tag, |receiver| receiver.pop(tag))
    }

    /// Like [`receive`](Self::receive), but a message that was copied into the queue is copied into `out`, if it fits.
    pub(crate) fn receive_into(
        &self,
        engine: &Engine<'_>,
        from: usize,
        tag: i32,
        out: &mut [u8],
    ) -> Result<Landed> {
        self.wait(engine, from, tag, |receiver| receiver.pop_into(tag, out))
    }

    fn look<R>(&self, from: usize, pop: impl FnOnce(&mut Receiver) -> Option<R>) -> Option<R> {
        let mut receivers = self.receivers.borrow_mut();
        pop(receivers[from].get_or_insert_with(|| self.mesh.receiver(number(from), self.rank)))
    }

    fn wait<R>(
        &self,
        engine: &Engine<'_>,
        from: usize,
        tag: i32,
        mut pop: impl FnMut(&mut Receiver) -> Option<R>,
    ) -> Result<R> {
        match self.look(from, &mut pop) {
            Some(message) => Ok(message),
            None => self.go_on_waiting(engine, from, tag, pop),
        }
    }

    #[inline(never)]
    fn go_on_waiting<R>(
        &self,
        engine: &Engine<'_>,
        from: usize,
        tag: i32,
        mut pop: impl FnMut(&mut Receiver) -> Option<R>,
    ) -> Result<R> {
        if let Some(message) = poll(engine, self.at_once, |_| self.look(from, &mut pop))? {
            return Ok(message);
        }
        loop {
            if let Some(message) = self.sleep(engine, from, tag, &mut pop)? {
                return Ok(message);
            }
        }
    }

    /// Sleeps until there is a message from that rank in that operation.
    fn sleep<R>(
        &self,
        engine: &Engine<'_>,
        from: usize,
        tag: i32,
        mut pop: impl FnMut(&mut Receiver) -> Option<R>,
    ) -> Result<Option<R>> {
        let me = self.rank as usize;
        self.mesh.fall_asleep(me, number(from), tag);
        let message = match self.look(from, &mut pop) {
            None => engine
                .sleep_briefly(|| self.look(from, &mut pop))
                .inspect_err(|_| _ = self.mesh.wake_up(me))?,
            message => message,
        };
        if message.is_some() && self.mesh.wake_up(me) {
            return Ok(message);
        }
        // Receives the wake-up message that a sender has sent, or will send.
        let pattern = Pattern { context: self.context, source: Some(number(from)), tag: Some(tag) };
        let sources = self.peers[from].map_or(Sources::One(engine.me()), Sources::One);
        let woken = engine.receive(&Ask { pattern, sources }, None);
        self.mesh.wake_up(me);
        woken?;
        Ok(message.or_else(|| self.look(from, &mut pop)))
    }
}

/// Polls for a message for [`PATIENCE`]. `look` is told whether the engine has just made progress.
///
/// It keeps the core for the first microsecond, unless the ranks cannot all run at the same time: the awaited one may need
/// it.
fn poll<R>(engine: &Engine<'_>, at_once: bool, mut look: impl FnMut(bool) -> Option<R>) -> Result<Option<R>> {
    for round in 1..=if at_once { SPINS } else { 1 } {
        let found = look(false);
        if found.is_some() {
            return Ok(found);
        }
        if round.is_multiple_of(LOOKS) {
            std::hint::spin_loop();
        }
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        for _ in 0..YIELDS {
            engine.vr().yield_core();
            let found = look(false);
            if found.is_some() {
                return Ok(found);
            }
        }
        engine.progress()?;
        let found = look(true);
        if found.is_some() || Instant::now() >= deadline {
            return Ok(found);
        }
    }
}
