//! The [`Wire`] of collective operations: messages in a communicator's second context and, for blocking operations, queues
//! and rings to ranks of the same machine, and memory that ranks of other processes read directly.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::coll::{INLINE, LONG_PIECE, Landed, Message, SHORT, Wire};
use crate::communicator::Communicator;
use crate::engine::{Ask, Engine, Sources};
use crate::error::{MpiError, Result};
use crate::fast_path::{LocalPath, ShmPath};
use crate::lend::Loan;
use crate::matching::{Key, Pattern};
use crate::peer::number;

/// From so many bytes on a rank of another process reads a message where it is.
const OFFER: usize = 16 << 10;

/// A rank's place among those of an operation, which are numbered from 0; between two groups those of both.
#[derive(Clone)]
pub(super) struct Team {
    context: u32,
    members: Rc<[u32]>,
    rank: usize,
}

impl Team {
    /// Among the ranks of a communicator's own group.
    pub(super) fn local(comm: &Communicator<'_>) -> Self {
        Self::among(comm, comm.local().members().clone(), comm.rank())
    }

    /// Among these ranks of the world, of which this one is that.
    pub(super) fn among(comm: &Communicator<'_>, members: Rc<[u32]>, rank: usize) -> Self {
        Self { context: comm.context() + 1, members, rank }
    }

    pub(super) fn world_rank(&self, rank: usize) -> u32 {
        self.members[rank]
    }

    /// What an operation waits for that needs a message of that rank of the world.
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

/// A team with an engine that sends and receives.
pub(super) struct Port<'a, 'v> {
    pub(super) team: &'a Team,
    pub(super) engine: &'a Engine<'v>,
    /// The way to ranks in the same process. All ranks of an operation use it, or none.
    pub(super) local_path: Option<&'a LocalPath>,
    /// The way to other processes of this machine. The same holds.
    pub(super) shm_path: Option<&'a ShmPath>,
    /// Whether that is used for sending: all ranks know that all messages are short.
    pub(super) all_short: bool,
}

impl Port<'_, '_> {
    /// What an error is in the operation that the engine's rank is in.
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

    /// The same if all messages are short.
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
        // Each costs two calls of the system.
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
        let (header, arrival) = self.engine.receive(&self.team.ask(from, tag), Some(out))?;
        Ok(match arrival {
            Some(arrival) => Message::Whole(arrival.into_bytes()).into(),
            None => Landed::Here(usize::try_from(header.length).unwrap_or(usize::MAX)),
        })
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
        // Room for a short one, which needs no memory then.
        let mut data = [0_u64; INLINE / 8];
        let out = bytemuck::bytes_of_mut(&mut data);
        Ok(match self.receive_short(from, tag, out)? {
            Landed::Elsewhere(message) => *message,
            Landed::Here(len) => Message::Short(data, len as u8),
        })
    }
}
