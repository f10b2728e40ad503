//! Requests: operations that are started and completed later.

mod receive;
mod several;

use std::fmt;

use crate::communicator::Communicator;
use crate::engine::{Engine, OpId, Outcome, Sending};
use crate::error::{MpiError, Result};
use crate::status::Status;
use crate::target::Target;

pub use receive::Receive;
pub(crate) use receive::to_vec;
use several::Seats;
pub(crate) use several::land_all;
pub use several::{test_all, test_any, test_some, wait_all, wait_any, wait_some};

/// An operation in progress (MPI 1.3, section 3.7).
///
/// It owns or borrows its buffer, so nothing else can touch memory that a message may still be written to; the buffer is
/// written only inside `wait` and `test`. If the request is dropped, a send continues in the background and a receive is
/// cancelled; if the receive's message had already arrived, the message is lost, and part of it may be in the buffer. A
/// request lent by a [`Persistent`](crate::Persistent) returns to it unchanged. All requests of a rank make progress while
/// any operation of that rank waits.
#[must_use = "a request that is dropped is taken back, if it is a receive"]
pub struct Request<'a> {
    comm: Communicator<'a>,
    stage: Stage,
    pending: Option<Box<dyn Pending + 'a>>,
    target: Target<'a>,
    /// Where the operation is returned to when the request is dropped, if it is only lent.
    home: Option<&'a mut Stage>,
}

/// The state of a request.
#[derive(Debug)]
pub(crate) enum Stage {
    /// There is nothing to wait for, as the peer is `PROC_NULL` or the message is in the attached buffer; the result was not
    /// collected yet.
    Null,
    /// A send that was completed when it was started; the result was not collected yet.
    Gone {
        to: u32,
        ticket: u64,
    },
    UnderWay(OpId),
    /// Complete, or never started.
    Complete(Status),
    /// Failed, with an error that was not returned yet.
    Failed(Box<MpiError>),
}

impl Stage {
    pub(crate) const INACTIVE: Self = Self::Complete(Status::EMPTY);

    /// Whether the result has not been collected yet.
    pub(crate) fn is_active(&self) -> bool {
        !matches!(self, Self::Complete(_))
    }

    pub(crate) fn op(&self) -> Option<OpId> {
        match *self {
            Self::UnderWay(op) => Some(op),
            Self::Null | Self::Gone { .. } | Self::Complete(_) | Self::Failed(_) => None,
        }
    }
}

/// `None` is a send with nothing to wait for, such as one to [`PROC_NULL`](crate::PROC_NULL).
impl From<Option<Sending>> for Stage {
    #[inline]
    fn from(sending: Option<Sending>) -> Self {
        match sending {
            Some(Sending::Gone { to, ticket }) => Self::Gone { to, ticket },
            Some(Sending::UnderWay(op)) => Self::UnderWay(op),
            None => Self::Null,
        }
    }
}

/// `None` is a receive from [`PROC_NULL`](crate::PROC_NULL).
impl From<Option<OpId>> for Stage {
    #[inline]
    fn from(op: Option<OpId>) -> Self {
        op.map_or(Self::Null, Self::UnderWay)
    }
}

impl<'a> Request<'a> {
    // Inlined: a request built here and moved to the caller would be copied before its parts have left the store buffer.
    #[inline]
    pub(crate) fn new(comm: &Communicator<'a>, stage: impl Into<Stage>, target: Target<'a>) -> Self {
        Self { comm: comm.clone(), stage: stage.into(), pending: None, target, home: None }
    }

    /// Creates a request for an operation that is lent to it: it returns to its owner when the request is dropped.
    pub(crate) fn lent(comm: &Communicator<'a>, home: &'a mut Stage, target: Target<'a>) -> Self {
        let stage = std::mem::replace(home, Stage::INACTIVE);
        let mut request = Self::new(comm, stage, target);
        request.home = Some(home);
        request
    }

    /// Creates a request for an operation of more than one message.
    pub(crate) fn of_pending(comm: &Communicator<'a>, pending: Box<dyn Pending + 'a>) -> Self {
        let mut request = Self::new(comm, Stage::INACTIVE, Target::Nothing);
        request.pending = Some(pending);
        request
    }

    /// Waits until the operation is complete.
    ///
    /// # Errors
    /// [`MpiError::Truncated`], [`MpiError::Type`] if a message does not fit; [`MpiError::ProcFailed`] if the peer is gone.
    ///
    /// # Blocking
    /// Until the message has arrived, or the buffer of a send can be reused.
    pub fn wait(mut self) -> Result<Status> {
        self.complete()
    }

    /// Completes the operation if it can be completed now; does not block. Once it is complete, the request is inactive, and
    /// `test` keeps returning its status.
    ///
    /// # Errors
    /// Those of [`wait`](Self::wait).
    pub fn test(&mut self) -> Result<Option<Status>> {
        let comm = self.comm.clone();
        comm.guard(self.try_test())
    }

    /// Asks for the operation to be cancelled (MPI 1.3, section 3.8). The request must still be completed; its status tells
    /// whether it was cancelled.
    ///
    /// # Errors
    /// [`MpiError::ProcFailed`] if the receiver of a send is gone.
    pub fn cancel(&mut self) -> Result {
        if self.pending.is_some() {
            let text = "a collective operation cannot be cancelled: other ranks take part in it".to_owned();
            return self.comm.guard(Err(MpiError::Request(text)));
        }
        let engine = self.comm.engine();
        let result = match self.stage {
            Stage::Gone { to, ticket } => {
                engine.recall(to, ticket).map(|op| self.stage = Stage::UnderWay(op))
            }
            Stage::UnderWay(op) => engine.cancel(op),
            Stage::Null | Stage::Complete(_) | Stage::Failed(_) => Ok(()),
        };
        self.comm.guard(result)
    }

    /// Whether the operation was not completed yet.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.stage.is_active() || self.pending.is_some()
    }

    /// Completes an operation of more than one message, if possible. Returns `false` if it is not done yet.
    fn test_pending(&mut self) -> Result<bool> {
        let Some(pending) = &mut self.pending else { return Ok(true) };
        let tested = pending.test(self.comm.engine());
        if !matches!(tested, Ok(false)) {
            self.pending = None;
        }
        tested
    }

    // Functions that this is not inlined into copy its result: see `Engine::send_at_once`.
    #[inline(always)]
    fn complete(&mut self) -> Result<Status> {
        match self.collect() {
            Some(status) => Ok(status),
            None => self.complete_late(),
        }
    }

    /// Returns the status, if the message has left, or is in the buffer already.
    #[inline(always)]
    fn collect(&mut self) -> Option<Status> {
        if self.pending.is_some() {
            return None;
        }
        let status = match self.stage {
            Stage::UnderWay(op) => {
                let receipt = self.comm.engine().take_landed(op)?;
                if let Err(error) = self.target.has(receipt) {
                    self.stage = Stage::Failed(error.into());
                    return None;
                }
                receipt.into()
            }
            Stage::Null | Stage::Gone { .. } => Status::EMPTY,
            Stage::Complete(status) => return Some(status),
            Stage::Failed(_) => return None,
        };
        self.stage = Stage::Complete(status);
        Some(status)
    }

    #[inline(never)]
    fn complete_late(&mut self) -> Result<Status> {
        if self.pending.is_none() {
            match self.finish() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) => {}
                Err(error) => return self.comm.guard(Err(error)),
            }
        }
        let comm = self.comm.clone();
        while !comm.guard(self.test_pending())? {
            let whom = self.pending.as_ref().map(|pending| pending.waits_for());
            comm.guard(comm.engine().idle(whom.as_slice()))?;
        }
        if let Some(op) = self.stage.op()
            && comm.engine().seat(op, 0)
        {
            let engine = comm.engine();
            let wait = |request: &mut Self| {
                engine.poll_all()?;
                engine.wait_landing(&[op], Some(&mut Seats::of(request)))
            };
            comm.guard(engine.show(self.shown(), || wait(self)))?;
        }
        comm.guard(self.finish().map(|status| status.unwrap_or(Status::EMPTY)))
    }

    /// The slice that a send in progress borrows.
    fn shown(&self) -> Option<(OpId, &'a [u8])> {
        match self.target {
            Target::Source(data) => Some((self.stage.op()?, data)),
            _ => None,
        }
    }

    fn try_test(&mut self) -> Result<Option<Status>> {
        if !self.test_pending()? {
            return Ok(None);
        }
        let Some(op) = self.stage.op() else { return self.finish() };
        let engine = self.comm.engine();
        engine.progress()?;
        if !engine.is_complete(op) {
            engine.lasting_failure(op)?;
            return Ok(None);
        }
        self.finish()
    }

    /// Returns the outcome, if the operation is complete.
    fn finish(&mut self) -> Result<Option<Status>> {
        if let Some(status) = self.collect() {
            return Ok(Some(status));
        }
        let op = match std::mem::replace(&mut self.stage, Stage::INACTIVE) {
            Stage::UnderWay(op) => op,
            Stage::Failed(error) => return Err(*error),
            Stage::Null | Stage::Gone { .. } | Stage::Complete(_) => return Ok(Some(Status::EMPTY)),
        };
        let Some(outcome) = self.comm.engine().take(op) else {
            self.stage = Stage::UnderWay(op);
            return Ok(None);
        };
        let status = match &outcome {
            Outcome::Sent => Status::EMPTY,
            Outcome::Cancelled => Status::CANCELLED,
            Outcome::Received(arrival) => {
                self.target.take(arrival)?;
                Status::of(&arrival.header)
            }
        };
        self.stage = Stage::Complete(status);
        Ok(Some(status))
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            if self.stage.is_active() {
                *home = std::mem::replace(&mut self.stage, Stage::INACTIVE);
            }
        } else if let Some(op) = self.stage.op() {
            self.comm.engine().detach(op);
        }
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({})", if self.is_active() { "active" } else { "complete" })
    }
}

/// A collective operation in progress.
pub(crate) trait Pending {
    /// Advances the operation. Returns `true` once it is complete and its result was delivered.
    fn test(&mut self, engine: &Engine<'_>) -> Result<bool>;

    /// Whether the operation is done, so that only `test` remains to be called.
    fn is_done(&self) -> bool;

    /// The rank of the world that it waits for.
    fn waits_for(&self) -> u32;
}
