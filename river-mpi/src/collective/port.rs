//! The wire of collective operations: messages in a communicator's second context.

use std::rc::Rc;

use bytes::Bytes;

use crate::coll::Wire;
use crate::communicator::Communicator;
use crate::engine::{Arrival, Ask, Engine, Sources};
use crate::error::{MpiError, Result};
use crate::matching::{Key, Pattern};

/// A rank's place among those of an operation, which are numbered from 0; between two groups those of both.
#[derive(Clone)]
pub(super) struct Seat {
    context: u32,
    members: Rc<[u32]>,
    rank: usize,
}

impl Seat {
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

    fn key(&self, tag: i32) -> Key {
        Key { context: self.context, source: number(self.rank), tag }
    }

    fn ask(&self, from: usize, tag: i32) -> Ask {
        let pattern = Pattern { context: self.context, source: Some(number(from)), tag: Some(tag) };
        Ask { pattern, sources: Sources::One(self.members[from]) }
    }
}

fn number(rank: usize) -> u32 {
    // A communicator's members are counted in 32 bits.
    u32::try_from(rank).unwrap_or(u32::MAX)
}

/// A seat with an engine that sends and receives.
pub(super) struct Port<'a, 'v> {
    pub(super) seat: &'a Seat,
    pub(super) engine: &'a Engine<'v>,
}

impl Wire for Port<'_, '_> {
    type Error = MpiError;

    fn send(&self, to: usize, tag: i32, bytes: &[u8]) -> Result {
        self.engine.send_copy(self.seat.members[to], self.seat.key(tag), bytes)
    }

    fn send_shared(&self, to: usize, tag: i32, bytes: Bytes) -> Result {
        self.engine.send_shared(self.seat.members[to], self.seat.key(tag), bytes)
    }

    fn try_receive(&self, from: usize, tag: i32) -> Result<Option<Bytes>> {
        let arrival = self.engine.try_receive(&self.seat.ask(from, tag))?;
        Ok(arrival.map(Arrival::into_bytes))
    }

    fn receive(&self, from: usize, tag: i32) -> Result<Bytes> {
        let (_, arrival) = self.engine.receive(&self.seat.ask(from, tag), None)?;
        Ok(arrival.map(Arrival::into_bytes).unwrap_or_default())
    }
}
