//! Waiting for several requests at once (MPI 1.3, section 3.7.5).

use smallvec::SmallVec;

use super::{Request, Stage};
use crate::engine::{Landing, OpId};
use crate::error::Result;
use crate::status::Status;
use crate::target::Target;

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
pub(super) struct Seats<'r, 'a> {
    requests: &'r mut [Request<'a>],
    /// The operation whose completion ends the wait; `None` if that of any does.
    last: Option<OpId>,
}

impl<'r, 'a> Seats<'r, 'a> {
    pub(super) fn of(request: &'r mut Request<'a>) -> Self {
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
