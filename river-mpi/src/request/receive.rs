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
    stage: Stage,
    kind: PhantomData<fn() -> T>,
}

enum Stage {
    UnderWay(OpId),
    /// From nobody.
    Null,
    /// The message was handed out.
    Over,
}

impl<T> Receive<'_, T> {
    fn op(&self) -> Option<OpId> {
        if let Stage::UnderWay(op) = self.stage { Some(op) } else { None }
    }
}

impl<'a, T: Element> Receive<'a, T> {
    pub(crate) fn new(comm: &Communicator<'a>, op: Option<OpId>) -> Self {
        Self { comm: comm.clone(), stage: op.map_or(Stage::Null, Stage::UnderWay), kind: PhantomData }
    }

    /// Waits for the message.
    ///
    /// # Errors
    /// [`MpiError::Type`] if the bytes that came are no elements of this type; [`MpiError::ProcFailed`] if the sender
    /// is gone; [`MpiError::Request`] if [`test`](Self::test) has returned the message before.
    ///
    /// # Blocking
    /// Until the message has come.
    pub fn wait(mut self) -> Result<(Vec<T>, Status)> {
        let comm = self.comm.clone();
        let op = match self.stage {
            Stage::UnderWay(op) => op,
            Stage::Null => return Ok((Vec::new(), Status::EMPTY)),
            Stage::Over => {
                return comm.guard(Err(MpiError::Request("the message was handed out already".into())));
            }
        };
        comm.guard(comm.engine().wait_for(&[op]))?;
        comm.guard(self.finish(op))?.ok_or(MpiError::Stopped)
    }

    /// The message, if it has come; later calls return `None`. Does not block.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn test(&mut self) -> Result<Option<(Vec<T>, Status)>> {
        let op = match self.stage {
            Stage::UnderWay(op) => op,
            Stage::Null => {
                self.stage = Stage::Over;
                return Ok(Some((Vec::new(), Status::EMPTY)));
            }
            Stage::Over => return Ok(None),
        };
        let comm = self.comm.clone();
        comm.guard(comm.engine().progress())?;
        if !comm.engine().is_complete(op) {
            comm.guard(comm.engine().lasting_failure(op))?;
            return Ok(None);
        }
        comm.guard(self.finish(op))
    }

    /// Cancels the receive, if no message has matched it. It must still be completed.
    ///
    /// # Errors
    /// [`MpiError::Stopped`] if the job is ending.
    pub fn cancel(&mut self) -> Result {
        let result = self.op().map_or(Ok(()), |op| self.comm.engine().cancel(op));
        self.comm.guard(result)
    }

    fn finish(&mut self, op: OpId) -> Result<Option<(Vec<T>, Status)>> {
        let Some(outcome) = self.comm.engine().take(op) else { return Ok(None) };
        self.stage = Stage::Over;
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
        if let Some(op) = self.op() {
            self.comm.engine().detach(op);
        }
    }
}

impl<T> fmt::Debug for Receive<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receive({})", if matches!(self.stage, Stage::Over) { "complete" } else { "active" })
    }
}
