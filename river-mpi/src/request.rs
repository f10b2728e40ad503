//! Requests: operations that are started and completed later.

mod receive;

use std::fmt;

use smallvec::SmallVec;

use crate::communicator::Communicator;
use crate::engine::{Engine, Landing, OpId, Outcome, Sending};
use crate::error::{MpiError, Result};
use crate::status::Status;
use crate::target::Target;

pub use receive::Receive;
pub(crate) use receive::to_vec;

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

/// Waits until all requests are complete, and returns their statuses in order.
///
/// # Errors
/// The error of the first one that fails. The others stay pending and can still be completed; [`test`](Request::test) returns
/// the status of those that are complete.
///
/// # Blocking
/// Like [`Request::wait`].
pub fn wait_all(requests: &mut [Request<'_>]) -> Result<Vec<Status>> {
    land_all(requests);
    let mut statuses = Vec::with_capacity(requests.len());
    for request in requests {
        statuses.push(request.complete()?);
    }
    Ok(statuses)
}

/// Waits until all messages have arrived, or one of them never can. Messages that arrive in any order are written directly to
/// their final places, instead of being buffered until they are waited for.
pub(crate) fn land_all(requests: &mut [Request<'_>]) {
    let active = requests.iter().filter(|request| request.stage.op().is_some()).count();
    let Some(first) = requests.first().filter(|_| active > 1) else { return };
    let engine = first.comm.engine().clone();
    let mut waiting = Vec::with_capacity(active);
    for (request, seat) in requests.iter().zip(0..) {
        waiting.extend(request.stage.op().filter(|&op| engine.seat(op, seat)));
    }
    let shown: SmallVec<[_; 16]> = requests.iter().filter_map(Request::shown).collect();
    let mut seats = Seats { last: waiting.last().copied(), requests };
    engine.show(shown, || {
        for op in waiting {
            // The error is returned when the request is completed.
            if engine.wait_landing(&[op], Some(&mut seats)).is_err() {
                return;
            }
        }
    });
}

/// Requests that are waited for together. The seat of each is its index.
struct Seats<'r, 'a> {
    requests: &'r mut [Request<'a>],
    /// The operation whose completion ends the wait; `None` if that of any does.
    last: Option<OpId>,
}

impl<'r, 'a> Seats<'r, 'a> {
    fn of(request: &'r mut Request<'a>) -> Self {
        let last = request.stage.op();
        Self { requests: std::slice::from_mut(request), last }
    }
}

impl Landing for Seats<'_, '_> {
    fn memory(&mut self, op: OpId, seat: u32) -> Option<&mut [u8]> {
        let request =
            self.requests.get_mut(seat as usize).filter(|request| request.stage.op() == Some(op))?;
        match &mut request.target {
            Target::Bytes(bytes, _) => Some(bytes),
            _ => None,
        }
    }

    fn source(&self, op: OpId, seat: u32) -> Option<&[u8]> {
        let request = self.requests.get(seat as usize)?;
        request.shown().filter(|&(shown, _)| shown == op).map(|(_, data)| data)
    }

    fn is_last(&self, op: OpId) -> bool {
        self.last.is_none_or(|last| last == op)
    }
}

/// Waits until an active request is complete, and returns its index and status. Returns `None` if none is active.
///
/// # Errors
/// The error of the request that fails, or that can never complete.
///
/// # Blocking
/// Like [`Request::wait`].
pub fn wait_any(requests: &mut [Request<'_>]) -> Result<Option<(usize, Status)>> {
    loop {
        if let Some(found) = test_any(requests)? {
            return Ok(Some(found));
        }
        let Some(comm) =
            requests.iter().find(|request| request.is_active()).map(|request| request.comm.clone())
        else {
            return Ok(None);
        };
        let pending = requests.iter().filter_map(|request| Some(request.pending.as_ref()?.waits_for()));
        let pending: Vec<u32> = pending.collect();
        let engine = comm.engine();
        let mut active = Vec::with_capacity(requests.len());
        for (request, seat) in requests.iter().zip(0..) {
            active.extend(request.stage.op().inspect(|&op| _ = engine.seat(op, seat)));
        }
        // Testing one request may have received a message that completes another.
        let is_done =
            |request: &Request<'_>| request.pending.as_ref().is_some_and(|pending| pending.is_done());
        if active.iter().any(|&op| engine.is_complete(op)) || requests.iter().any(is_done) {
            continue;
        }
        let shown: SmallVec<[_; 16]> = requests.iter().filter_map(Request::shown).collect();
        let waited = engine.show(shown, || match pending[..] {
            [] => engine.wait_landing(&active, Some(&mut Seats { last: None, requests })),
            _ => engine.idle_for(&active, &pending),
        });
        comm.guard(waited)?;
    }
}

/// Waits until at least one active request is complete, completes every request that is, and returns their indices and
/// statuses. The result is empty if no request is active.
///
/// # Errors
/// Those of [`wait_any`], if no request could be completed before the error; otherwise the next call returns it.
///
/// # Blocking
/// Like [`Request::wait`].
pub fn wait_some(requests: &mut [Request<'_>]) -> Result<Vec<(usize, Status)>> {
    let done = wait_any(requests)?.into_iter().collect();
    complete_some(requests, done)
}

/// Completes all requests and returns their statuses if all of them can be completed; otherwise completes none and returns
/// `None`. Does not block.
///
/// # Errors
/// Those of [`wait_all`].
pub fn test_all(requests: &mut [Request<'_>]) -> Result<Option<Vec<Status>>> {
    if let Some(first) = requests.first() {
        first.comm.guard(first.comm.engine().progress())?;
    }
    if requests.iter().any(|request| request.pending.as_ref().is_some_and(|pending| !pending.is_done())) {
        return Ok(None);
    }
    for Request { comm, stage, .. } in requests.iter() {
        if let Some(op) = stage.op()
            && !comm.engine().is_complete(op)
        {
            comm.guard(comm.engine().lasting_failure(op))?;
            return Ok(None);
        }
    }
    wait_all(requests).map(Some)
}

/// Completes one active request, if one can be completed, and returns its index and status. Does not block.
///
/// # Errors
/// Those of [`wait_any`].
pub fn test_any(requests: &mut [Request<'_>]) -> Result<Option<(usize, Status)>> {
    if let Some(first) = requests.iter().find(|request| request.is_active()) {
        first.comm.guard(first.comm.engine().progress())?;
    }
    for (index, request) in requests.iter_mut().enumerate() {
        let comm = request.comm.clone();
        let complete = match request.stage {
            Stage::UnderWay(op) => comm.engine().is_complete(op),
            Stage::Null | Stage::Gone { .. } | Stage::Failed(_) => true,
            Stage::Complete(_) => request.pending.is_some() && comm.guard(request.test_pending())?,
        };
        if complete {
            return Ok(request.test()?.map(|status| (index, status)));
        }
    }
    for Request { comm, stage, .. } in requests.iter() {
        stage.op().map_or(Ok(()), |op| comm.guard(comm.engine().lasting_failure(op)))?;
    }
    Ok(None)
}

/// Completes every active request that can be completed, and returns their indices and statuses. Does not block.
///
/// # Errors
/// Those of [`wait_some`].
pub fn test_some(requests: &mut [Request<'_>]) -> Result<Vec<(usize, Status)>> {
    complete_some(requests, Vec::new())
}

/// Completes the requests that can be completed, and appends them to `done`. If one fails after others were completed, its
/// error is kept for the next call.
fn complete_some(
    requests: &mut [Request<'_>],
    mut done: Vec<(usize, Status)>,
) -> Result<Vec<(usize, Status)>> {
    for (index, request) in requests.iter_mut().enumerate().filter(|(_, request)| request.is_active()) {
        match request.try_test() {
            Ok(status) => done.extend(status.map(|status| (index, status))),
            Err(error) if done.is_empty() => return request.comm.guard(Err(error)),
            Err(error) => {
                if !request.is_active() {
                    request.stage = Stage::Failed(Box::new(error));
                }
                break;
            }
        }
    }
    Ok(done)
}
