//! The life of operations, from start to outcome.

use smallvec::SmallVec;

use super::describe::WaitReason;
use super::{ALL, Engine, Landing, Op, OpId, OpState, Outcome, State};
use crate::error::{MpiError, Result};
use crate::header::{Header, Kind, Receipt};
use crate::matching::Key;

impl Engine<'_> {
    pub(super) fn add(&self, state: OpState) -> OpId {
        // Constructed in place: a copy of what was just written would stall until the store buffer has drained.
        self.state.borrow_mut().ops.insert_with_key(|_| Op::new(state)).into()
    }

    pub(super) fn forget(&self, op: OpId) {
        let mut state = self.state.borrow_mut();
        if let Some(op) = state.ops.remove(op.key()) {
            state.buffer_free += op.buffered;
        }
    }

    /// Handles everything that has arrived, and moves the data that is due. Does not block.
    pub(crate) fn progress(&self) -> Result {
        let result = self.poll_all();
        self.run_due(None);
        result
    }

    /// Handles everything that has arrived. Does not block.
    pub(crate) fn poll_all(&self) -> Result {
        loop {
            match self.vr.try_receive_where(ALL, |_| true) {
                Ok(Some(envelope)) => self.handle(envelope, None),
                Ok(None) => break,
                Err(error) => self.trouble(error)?,
            }
        }
        while self.poll_queues(&mut None, &mut None) {}
        self.advance_background();
        if self.state.borrow().ended { Err(MpiError::Stopped) } else { Ok(()) }
    }

    /// Whether an operation is complete.
    pub(crate) fn is_complete(&self, op: OpId) -> bool {
        self.state.borrow().is_complete(op)
    }

    /// The error that an operation ends with, if it can never complete.
    pub(crate) fn failure(&self, op: OpId) -> Result {
        let what = || self.describe_op(op).unwrap_or_default();
        self.why_never(op).map_err(|error| error.while_waiting_for(what))
    }

    fn why_never(&self, op: OpId) -> Result {
        let state = self.state.borrow();
        let Some(op) = state.ops.get(op.key()) else { return Ok(()) };
        let (context, whom) = match &op.state {
            OpState::Posted(ask) => (Some(ask.pattern.context), ask.sources.as_slice()),
            OpState::Due(offer) => (Some(offer.header.key.context), std::slice::from_ref(&offer.header.from)),
            OpState::Arriving(arrival) => {
                (Some(arrival.header.key.context), std::slice::from_ref(&arrival.header.from))
            }
            OpState::Offered { to, key, .. }
            | OpState::Unmatched { to, key }
            | OpState::Wanted { to, key, .. } => (Some(key.context), std::slice::from_ref(to)),
            OpState::Sent { to } => (None, std::slice::from_ref(to)),
            OpState::Broken(text) => return Err(MpiError::Type(text.clone())),
            _ => return Ok(()),
        };
        state.refuse(context)?;
        state.mourn(whom, self.me)
    }

    /// Like [`failure`](Self::failure), for a caller that polls and never waits: from now on, this rank is notified of the
    /// ends of the ranks that could complete the operation.
    pub(crate) fn lasting_failure(&self, op: OpId) -> Result {
        self.watch(&self.needed_by(&[op]));
        self.failure(op)
    }

    /// Waits until one of these operations is complete. Returns an error if one of them never can be.
    pub(crate) fn wait_for(&self, ops: &[OpId]) -> Result {
        self.progress()?;
        self.wait_landing(ops, None)
    }

    /// Like [`wait_for`](Self::wait_for), with memory for messages that arrive, but does not first handle what has arrived
    /// already.
    pub(crate) fn wait_landing(&self, ops: &[OpId], mut landing: Option<&mut dyn Landing>) -> Result {
        loop {
            if ops.iter().any(|&op| self.is_complete(op)) {
                // Others may be waiting for data that this rank lends, and it may not enter the engine again soon.
                self.send_wanted(landing.as_deref());
                return Ok(());
            }
            for &op in ops {
                self.failure(op)?;
            }
            let whom = self.needed_by(ops);
            self.block(WaitReason::Ops(ops), &whom, None, reborrow(&mut landing))?;
        }
    }

    /// Gives an operation a seat among those that are waited for together. Returns `false` if it is complete already.
    #[inline]
    pub(crate) fn seat(&self, op: OpId, seat: u32) -> bool {
        let mut state = self.state.borrow_mut();
        if let Some(op) = state.ops.get_mut(op.key()) {
            op.seat = seat;
        }
        !state.is_complete(op)
    }

    pub(super) fn needed_by(&self, ops: &[OpId]) -> SmallVec<[u32; 4]> {
        let state = self.state.borrow();
        let mut whom = SmallVec::new();
        for op in ops.iter().filter_map(|op| state.ops.get(op.key())) {
            match &op.state {
                OpState::Posted(ask) => whom.extend_from_slice(ask.sources.as_slice()),
                OpState::Due(offer) => whom.push(offer.header.from),
                OpState::Arriving(arrival) => whom.push(arrival.header.from),
                OpState::Offered { to, .. }
                | OpState::Wanted { to, .. }
                | OpState::Unmatched { to, .. }
                | OpState::Sent { to } => whom.push(*to),
                _ => {}
            }
        }
        whom
    }

    /// Ends a complete operation and returns its outcome; returns `None` if it is not complete. A caller that gives memory
    /// for a receive asks [`take_landed`](Self::take_landed) first.
    pub(crate) fn take(&self, op: OpId) -> Option<Outcome> {
        let mut state = self.state.borrow_mut();
        if !state.is_complete(op) {
            return None;
        }
        match state.ops.remove(op.key())?.state {
            OpState::Arrived(arrival) => Some(Outcome::Received(arrival)),
            OpState::Cancelled => Some(Outcome::Cancelled),
            _ => Some(Outcome::Sent),
        }
    }

    /// Like [`take`](Self::take), for a receive whose message has landed in the caller's memory; returns `None` if it has
    /// not.
    #[inline]
    pub(crate) fn take_landed(&self, op: OpId) -> Option<Receipt> {
        let mut state = self.state.borrow_mut();
        let OpState::Landed(receipt) = state.ops.get(op.key())?.state else { return None };
        state.ops.remove(op.key());
        Some(receipt)
    }

    /// Detaches an operation whose outcome nobody will ask for. A send goes on; a receive is withdrawn.
    pub(crate) fn detach(&self, id: OpId) {
        self.send_if_wanted(id, None);
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let Some(op) = state.ops.get_mut(id.key()) else { return };
        match &op.state {
            OpState::Posted(ask) => {
                let pattern = ask.pattern;
                state.matching.unpost(id.0, &pattern);
                state.ops.remove(id.key());
            }
            OpState::Due(offer) => {
                let header = offer.header;
                state.ops.remove(id.key());
                self.confirm(state, &header);
            }
            OpState::Offered { .. } if op.lent => {
                // From now on, the caller may change the slice.
                let copy = op.seal.take().and_then(|seal| self.copy_of_lent(&seal));
                let Some(copy) = copy else {
                    tracing::error!("this process cannot read its own memory any more: a message is lost");
                    state.ops.remove(id.key());
                    return;
                };
                if let OpState::Offered { data, .. } = &mut op.state {
                    *data = Some(copy);
                }
                (op.lent, op.detached) = (false, true);
            }
            // The answers to these carry their ids. If they were removed now, another operation might have the same id after
            // a safepoint.
            _ if op.recalled => op.detached = true,
            OpState::Arriving(_) | OpState::Offered { .. } | OpState::Unmatched { .. } => op.detached = true,
            OpState::Arrived(arrival) => {
                if arrival.len() > 0 {
                    tracing::debug!(
                        from = arrival.header.from,
                        "the message of a dropped receive is dropped"
                    );
                }
                state.ops.remove(id.key());
            }
            _ => drop(state.ops.remove(id.key())),
        }
    }

    /// Asks for an operation to be cancelled. It completes afterwards either way, cancelled or not.
    pub(crate) fn cancel(&self, id: OpId) -> Result {
        self.progress()?;
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let Some(op) = state.ops.get_mut(id.key()) else { return Ok(()) };
        let to = match &op.state {
            // Its message is arriving, and a part of its memory is overwritten already.
            OpState::Posted(_) if op.torn => return Ok(()),
            OpState::Posted(ask) => {
                let pattern = ask.pattern;
                op.state = OpState::Cancelled;
                state.matching.unpost(id.0, &pattern);
                return Ok(());
            }
            OpState::Offered { to, .. } | OpState::Unmatched { to, .. } | OpState::Sent { to } => *to,
            _ => return Ok(()),
        };
        if op.recalled {
            return Ok(());
        }
        op.recalled = true;
        self.withdraw(state, to, id.0, id)
    }

    /// Asks for a message that has left to be cancelled. Returns the operation that gets the answer.
    pub(crate) fn recall(&self, to: u32, ticket: u64) -> Result<OpId> {
        self.progress()?;
        let op = self.add(OpState::Sent { to });
        let state = &mut *self.state.borrow_mut();
        if let Some(op) = state.ops.get_mut(op.key()) {
            op.recalled = true;
        }
        let asked = self.withdraw(state, to, ticket, op);
        asked.map(|()| op).inspect_err(|_| drop(state.ops.remove(op.key())))
    }

    fn withdraw(&self, state: &mut State, to: u32, ticket: u64, op: OpId) -> Result {
        let header = Header { length: op.0, ..self.header(Kind::CancelRequest, Key::NONE, ticket, 0) };
        self.tell(state, to, &header)
    }
}

/// Reborrows for a shorter lifetime.
pub(super) fn reborrow<'a>(landing: &'a mut Option<&mut dyn Landing>) -> Option<&'a mut dyn Landing> {
    match landing {
        Some(landing) => Some(&mut **landing),
        None => None,
    }
}

impl State {
    pub(super) fn is_complete(&self, op: OpId) -> bool {
        self.ops.get(op.key()).is_none_or(|op| {
            !op.recalled
                && matches!(
                    op.state,
                    OpState::Landed(_)
                        | OpState::Arrived(_)
                        | OpState::Sent { .. }
                        | OpState::Granted { .. }
                        | OpState::Cancelled
                )
        })
    }
}
