//! Carries out plans.
//!
//! An [`Execution`] is a state machine: it does all steps that it can, and stops at a receive whose message has not arrived.
//! A blocking operation then waits for the message, a non-blocking one returns and tries again later; there is no other
//! difference between them.
//!
//! * this module: the steps, one after the other
//! * `send`, `receive`: the steps that involve other ranks

mod receive;
mod send;

use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::memory::Memory;
use super::offers::Offers;
use super::plan::{Plan, Step};
use super::span::Span;
use super::wire::{Message, Wire};
use crate::element::Element;
use crate::error::MpiError;
use crate::lend::Loan;
use crate::op::Operator;
pub(super) use receive::with_received;

/// Longer messages travel in pieces of this many bytes, so that a piece is still in the cache when it is copied or combined,
/// and the receiver works while the sender still copies.
pub(crate) const PIECE: usize = 32 << 10;
/// From this many bytes on, data that is sent several times or forwarded is shared instead of copied.
const SHARE: usize = 2048;
/// The longest piece that another process reads from this process's memory, or that is sent over a network. It is bounded so
/// that a rank that forwards a message need not wait for all of it.
pub(crate) const LONG_PIECE: usize = 256 << 10;

/// A message does not have the length that the plan expects, or does not contain values of the type: the ranks did not make
/// the same call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    pub(crate) from: usize,
    pub(crate) sent: usize,
    pub(crate) expected: usize,
}

impl Mismatch {
    /// Returns the error to report if a message's contents turn out to be wrong; fails if its length is wrong.
    pub(super) fn check(from: usize, sent: usize, expected: usize) -> Result<Self, Self> {
        let mismatch = Self { from, sent, expected };
        if sent == expected { Ok(mismatch) } else { Err(mismatch) }
    }
}

impl From<Mismatch> for MpiError {
    fn from(Mismatch { from, sent, expected }: Mismatch) -> Self {
        // The caller fills in the operation.
        MpiError::Mismatch { operation: String::new(), from, sent, expected }
    }
}

/// For operations without an operator. Their plans are checked, so they never use it.
pub(crate) struct NoOperator;

impl<T: Element> Operator<T> for NoOperator {
    fn apply(&self, left: T, _: T) -> T {
        left
    }

    fn is_commutative(&self) -> bool {
        true
    }
}

/// The state of an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Done,
    /// It needs a message from this rank.
    Waits {
        from: usize,
    },
}

/// One rank's part of one operation, under way.
pub(crate) struct Execution {
    plan: Rc<Plan>,
    tag: i32,
    /// The length of a piece in bytes.
    piece: usize,
    next: usize,
    /// How many elements of the next step's message have been received.
    received: usize,
    /// The message of the next step, if the previous step has received it already.
    early: Option<Message>,
    /// The message that the previous step sent or received, if the next step sends it or a part of it.
    carried: Option<Carried>,
}

/// A message in the form in which it travels.
struct Carried {
    span: Span,
    pieces: SmallVec<[Bytes; 1]>,
}

impl Execution {
    /// Creates an execution. The plan must have passed [`Plan::check`] for buffers of the lengths that `memory` will have.
    pub(crate) fn new(plan: Rc<Plan>, tag: i32) -> Self {
        Self { plan, tag, piece: PIECE, next: 0, received: 0, early: None, carried: None }
    }

    /// Sets the length of pieces, in bytes. It must be the same on all ranks.
    pub(crate) fn with_pieces_of(self, piece: usize) -> Self {
        Self { piece, ..self }
    }

    /// Does all steps, waiting for messages.
    pub(crate) fn run<T: Element, W: Wire>(
        &mut self,
        wire: &W,
        memory: &mut Memory<'_, T>,
        operator: &dyn Operator<T>,
    ) -> Result<(), W::Error> {
        let tag = self.tag;
        // Even after an error, offers are settled before the caller gets its memory back.
        let mut offers = Offers::new(wire, true);
        self.steps(&mut offers, memory, operator, |from| wire.receive(from, tag).map(Some))?;
        offers.finish(memory);
        Ok(())
    }

    /// Does all steps that need no waiting.
    pub(crate) fn advance<T: Element, W: Wire>(
        &mut self,
        wire: &W,
        memory: &mut Memory<'_, T>,
        operator: &dyn Operator<T>,
    ) -> Result<Progress, W::Error> {
        let tag = self.tag;
        let mut offers = Offers::new(wire, false);
        self.steps(&mut offers, memory, operator, |from| wire.try_receive(from, tag))
    }

    fn steps<T: Element, W: Wire>(
        &mut self,
        offers: &mut Offers<'_, W>,
        memory: &mut Memory<'_, T>,
        operator: &dyn Operator<T>,
        receive: impl Fn(usize) -> Result<Option<Message>, W::Error>,
    ) -> Result<Progress, W::Error> {
        let plan = Rc::clone(&self.plan);
        while let Some(step) = plan.step(self.next) {
            match step {
                Step::Send { what, to } => match *plan.spans(what) {
                    [span] => self.send(offers, memory, span, to)?,
                    ref spans => self.send_gathered(offers.wire, memory, spans, to)?,
                },
                Step::Recv { into, from } => {
                    if !self.receive(offers, memory, plan.spans(into), from, &receive)? {
                        return Ok(Progress::Waits { from });
                    }
                }
                Step::RecvReduce { side, operand, into, from } => {
                    let reduce = |memory: &mut Memory<'_, T>, elements: Range<usize>, received: &[T]| {
                        let (operand, into) = (operand.part(elements.clone()), into.part(elements));
                        memory.combine(operator, side, received, operand, into);
                    };
                    if !self.receive_reduced(offers, memory, into, from, &receive, reduce)? {
                        return Ok(Progress::Waits { from });
                    }
                }
                // In place there may be nothing to copy, and then no need to wait for readers.
                Step::Copy { from, into } if memory.home(from) == into => {}
                Step::Copy { from, into } => {
                    self.carried = None;
                    offers.settle(memory.home(into));
                    self.copy(offers, memory, from, into)?;
                }
                Step::Reduce { side, what, into } => {
                    self.carried = None;
                    offers.settle(memory.home(into));
                    memory.fold(operator, side, what, into);
                }
            }
            self.next += 1;
        }
        self.carried = None;
        Ok(Progress::Done)
    }

    // Sender and receiver agree on the length of a message but not on that of its pieces; a piece's own length tells it.

    /// The number of elements in a piece.
    fn piece_len<T>(&self) -> usize {
        (self.piece / size_of::<T>().max(1)).max(1)
    }

    /// Copies a span. If the next step receives a long message that another thread lends in the meantime, takes part in that
    /// copy, too, so that both copies begin as early as possible.
    fn copy<T: Element, W: Wire>(
        &mut self,
        offers: &Offers<'_, W>,
        memory: &mut Memory<'_, T>,
        from: Span,
        into: Span,
    ) -> Result<(), W::Error> {
        if let Some(Step::Recv { into: next, from: rank }) = self.plan.step(self.next + 1)
            && let [place] = *self.plan.spans(next)
            && place.len * size_of::<T>() >= Loan::LONG
            && offers.wire.lends_from(rank).is_some()
            && !place.overlaps(into)
            && !offers.hit(place)
        {
            let (mut from, mut into) = (from, into);
            while from.len > 0 && self.early.is_none() {
                let some = from.len.min(self.piece_len::<T>());
                memory.copy(from.part(0..some), into.part(0..some));
                (from, into) = (from.part(some..from.len), into.part(some..into.len));
                self.early = offers.wire.try_receive(rank, self.tag)?;
            }
            if let Some(Message::Lent(loan)) = &self.early
                && loan.len() == place.len * size_of::<T>()
                && memory.copy_and_take(from, into, loan, place)
            {
                self.early = None;
                self.next += 1;
            } else {
                memory.copy(from, into);
            }
            return Ok(());
        }
        memory.copy(from, into);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
