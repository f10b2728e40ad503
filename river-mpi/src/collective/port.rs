//! The [`Wire`] of collective operations. It sends messages in a communicator's second context. Blocking operations also use
//! queues and rings to ranks of the same machine, and memory that ranks of other processes read directly (CMA).

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::coll::{INLINE, LONG_PIECE, Landed, Message, SHORT, Wire};
use crate::communicator::Communicator;
use crate::engine::{Ask, Engine, Sources};
use crate::error::{MpiError, Result};
use crate::fast_path::{LocalPath, ShmPath, landed_of};
use crate::lend::Loan;
use crate::matching::{Key, Pattern};
use crate::peer::number;

/// The message length in bytes from which a rank of another process reads a message from the sender's memory.
const OFFER: usize = 16 << 10;

/// The ranks of an operation, numbered from 0, and this rank's number. Between two groups both groups belong to it.
#[derive(Clone)]
pub(super) struct Team {
    context: u32,
    members: Rc<[u32]>,
    rank: usize,
}

impl Team {
    /// The team of a communicator's own group.
    pub(super) fn local(comm: &Communicator<'_>) -> Self {
        Self::among(comm, comm.local().members().clone(), comm.rank())
    }

    /// The team of these ranks of the world; `rank` is the number of this rank.
    pub(super) fn among(comm: &Communicator<'_>, members: Rc<[u32]>, rank: usize) -> Self {
        Self { context: comm.context() + 1, members, rank }
    }

    pub(super) fn world_rank(&self, rank: usize) -> u32 {
        self.members[rank]
    }

    /// Describes what an operation waits for if it needs a message from that rank of the world.
    pub(super) fn describe(&self, engine: &Engine<'_>, rank: u32) -> String {
        format!("rank {rank} in {}", engine.name_of(self.context))
    }

    fn key(&self, tag: i32) -> Key {
        Key { context: self.context, source: number(self.rank), tag }
    }

    fn ask(&self, from: usize, tag: i32) -> Ask {
        let pattern = Pattern { context: self.context, source: Some(number(from)), tag: Some(tag) };
        Ask { pattern, sources: Sources::One(self.members[from]) }
    }
}

/// Connects a team to the engine that sends and receives for it.
pub(super) struct Port<'a, 'v> {
    pub(super) team: &'a Team,
    pub(super) engine: &'a Engine<'v>,
    /// The fast path to ranks of the same process. Either all ranks of an operation use it, or none.
    pub(super) local_path: Option<&'a LocalPath>,
    /// The fast path to other processes of this machine. Either all ranks of an operation use it, or none.
    pub(super) shm_path: Option<&'a ShmPath>,
    /// Whether the operation sends over `shm_path`: all ranks know that all messages are short.
    pub(super) all_short: bool,
}

impl Port<'_, '_> {
    /// Adds the operation that the engine's rank is in to an error.
    #[cold]
    pub(super) fn explain(&self, error: MpiError) -> MpiError {
        self.engine.note_failure(self.team.key(0).context);
        error.in_operation(|| self.engine.name_of(self.team.context), |from| self.team.world_rank(from))
    }

    fn local_path(&self, rank: usize) -> Option<&LocalPath> {
        self.local_path.filter(|path| path.reaches(rank))
    }

    fn shm_path(&self, rank: usize) -> Option<&ShmPath> {
        self.shm_path.filter(|path| path.reaches(rank))
    }

    /// The shared-memory path to a rank if all messages are short.
    fn short_shm_path(&self, rank: usize) -> Option<&ShmPath> {
        self.shm_path(rank).filter(|_| self.all_short)
    }
}

impl Wire for Port<'_, '_> {
    type Error = MpiError;

    fn send(&self, to: usize, tag: i32, bytes: &[u8]) -> Result {
        match self.local_path(to) {
            Some(path) => path.send_copy(self.engine, to, tag, bytes),
            None => match self.short_shm_path(to) {
                Some(path) => path.send(self.engine, to, tag, bytes),
                None => self.engine.send_copy(self.team.members[to], self.team.key(tag), bytes),
            },
        }
    }

    fn send_shared(&self, to: usize, tag: i32, bytes: Bytes) -> Result {
        match self.local_path(to) {
            Some(path) => path.send(self.engine, to, tag, Message::Whole(bytes)),
            None if self.short_shm_path(to).is_some() => self.send(to, tag, &bytes),
            None => self.engine.send_shared(self.team.members[to], self.team.key(tag), bytes),
        }
    }

    fn lends_from(&self, to: usize) -> Option<usize> {
        self.local_path(to).map(|_| SHORT + 1)
    }

    fn lend(&self, to: usize, tag: i32, loan: Arc<Loan>) -> Result {
        match self.local_path(to) {
            Some(path) => path.send(self.engine, to, tag, Message::Lent(loan)),
            None => self.send_shared(to, tag, loan.read(Bytes::copy_from_slice)),
        }
    }

    fn piece(&self, to: usize) -> usize {
        // Each piece costs two system calls.
        if self.engine.shares_memory(self.team.members[to]) { 0 } else { LONG_PIECE }
    }

    fn offers(&self, to: usize, bytes: usize) -> bool {
        bytes >= OFFER
            && self.local_path(to).is_none()
            && self.short_shm_path(to).is_none()
            && self.engine.lends(self.team.members[to], bytes.min(OFFER))
    }

    fn offer(&self, to: usize, tag: i32, bytes: &[u8]) -> Result<u64> {
        self.engine.offer_lent(self.team.members[to], self.team.key(tag), bytes)
    }

    fn settle(&self, offer: u64, patiently: bool) -> bool {
        self.engine.settle(offer, patiently)
    }

    fn settle_all(&self, offers: &[(u64, &[u8])], patiently: bool) {
        self.engine.settle_all(offers, patiently);
    }

    fn receive_into(&self, from: usize, tag: i32, out: &mut [u8]) -> Result<Option<Landed>> {
        if self.local_path(from).is_some() {
            return Ok(None);
        }
        self.receive_short(from, tag, out).map(Some)
    }

    fn receive_short(&self, from: usize, tag: i32, out: &mut [u8]) -> Result<Landed> {
        if let Some(path) = self.local_path(from) {
            return path.receive_into(self.engine, from, tag, out);
        }
        if let Some(path) = self.shm_path(from) {
            if self.all_short {
                return path.receive_into(self.engine, from, tag, out);
            }
            if let Some(landed) = path.receive_long(self.engine, from, tag, out)? {
                return Ok(landed);
            }
        }
        Ok(landed_of(self.engine.receive(&self.team.ask(from, tag), Some(out))?))
    }

    fn try_receive(&self, from: usize, tag: i32) -> Result<Option<Message>> {
        if let Some(path) = self.local_path(from) {
            return Ok(path.try_receive(from, tag));
        }
        let arrival = self.engine.try_receive(&self.team.ask(from, tag))?;
        Ok(arrival.map(|arrival| Message::Whole(arrival.into_bytes())))
    }

    fn receive(&self, from: usize, tag: i32) -> Result<Message> {
        if let Some(path) = self.local_path(from) {
            return path.receive(self.engine, from, tag);
        }
        // Room for a short message, so that it needs no allocation.
        let mut data = [0_u64; INLINE / 8];
        let out = bytemuck::bytes_of_mut(&mut data);
        Ok(match self.receive_short(from, tag, out)? {
            Landed::Elsewhere(message) => *message,
            Landed::Here(len) => Message::Short(data, len as u8),
        })
    }
}
