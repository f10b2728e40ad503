//! Receives that were started and make their own vector.

use std::fmt;
use std::marker::PhantomData;

use crate::communicator::Communicator;
use crate::element::{self, Element};
use crate::engine::{Arrival, OpId, Outcome};
use crate::error::{MpiError, Result};
use crate::status::Status;

/// A receive under way whose message becomes a vector, however long it is.
#[must_use = "a receive that is dropped is taken back"]
pub struct Receive<'a, T> {
    comm: Communicator<'a>,
    state: Option<OpId>,
    kind: PhantomData<fn() -> T>,
}

impl<'a, T: Element> Receive<'a, T> {
    pub(crate) fn new(comm: &Communicator<'a>, op: Option<OpId>) -> Self {
        Self { comm: comm.clone(), state: op, kind: PhantomData }
    }

    /// Waits for the message.
    ///
    /// # Errors
    /// [`MpiError::Type`] if the bytes that came are no elements of this type; [`MpiError::ProcFailed`] if the sender
    /// is gone.
    ///
    /// # Blocking
    /// Until the message has come.
    pub fn wait(mut self) -> Result<(Vec<T>, Status)> {
        let Some(op) = self.state else { return Ok((Vec::new(), Status::EMPTY)) };
        let comm = self.comm.clone();
        comm.guard(comm.engine().wait_for(&[op]))?;
        comm.guard(self.finish(op))?.ok_or(MpiError::Stopped)
    }

    /// The message, if it has come. Does not block. After it was handed out there is nothing any more.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn test(&mut self) -> Result<Option<(Vec<T>, Status)>> {
        let Some(op) = self.state else { return Ok(None) };
        let comm = self.comm.clone();
        comm.guard(comm.engine().pump())?;
        if !comm.engine().is_complete(op) {
            comm.guard(comm.engine().failure(op))?;
            return Ok(None);
        }
        comm.guard(self.finish(op))
    }

    /// Takes the receive back, if its message has not come yet. It is to be completed nevertheless.
    ///
    /// # Errors
    /// [`MpiError::Stopped`] if the job is ending.
    pub fn cancel(&mut self) -> Result {
        let result = self.state.map_or(Ok(()), |op| self.comm.engine().cancel(op));
        self.comm.guard(result)
    }

    fn finish(&mut self, op: OpId) -> Result<Option<(Vec<T>, Status)>> {
        let Some(outcome) = self.comm.engine().take(op) else { return Ok(None) };
        self.state = None;
        match outcome {
            Outcome::Received(arrival) => to_vec(&arrival).map(Some),
            _ => Ok(Some((Vec::new(), Status::CANCELLED))),
        }
    }
}

/// A message as a vector.
pub(crate) fn to_vec<T: Element>(arrival: &Arrival) -> Result<(Vec<T>, Status)> {
    Ok((arrival.read(element::elements)?, Status::of(&arrival.header)))
}

impl<T> Drop for Receive<'_, T> {
    fn drop(&mut self) {
        if let Some(op) = self.state {
            self.comm.engine().detach(op);
        }
    }
}

impl<T> fmt::Debug for Receive<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receive({})", if self.state.is_some() { "active" } else { "complete" })
    }
}
