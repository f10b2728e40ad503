//! Carries plans out.
//!
//! An [`Execution`] is a state machine: it does all steps that it can, and stops at a receive whose message
//! is not there. Whether the caller then waits for it or comes back later is all the difference between a
//! blocking and a non-blocking operation.

use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::memory::Memory;
use super::offers::Offers;
use super::plan::{Plan, Span, Step};
use super::wire::{Landing, Message, Wire};
use crate::element::{self, Element};
use crate::error::MpiError;
use crate::lend::Loan;
use crate::op::Operator;

/// A message of more bytes than that travels in pieces, so that a piece is still in the cache when it is
/// copied or combined, and the receiver is at work while the sender still copies.
pub(crate) const PIECE: usize = 32 << 10;
/// From so many bytes on, what is sent several times or passed on is shared instead of copied.
const SHARE: usize = 2048;
/// What another process reads out of this one's memory, or gets over a network, has so many bytes at most, so that who passes
/// it on need not wait for all of it.
pub(crate) const LONG_PIECE: usize = 256 << 10;

/// A message does not have the length that the plan expects, or is no value of the type: the ranks did not
/// make the same call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    pub(crate) from: usize,
    pub(crate) sent: usize,
    pub(crate) expected: usize,
}

impl Mismatch {
    /// The error to return if a message's contents are wrong, too; an error if its length is.
    pub(super) fn check(from: usize, sent: usize, expected: usize) -> Result<Self, Self> {
        let mismatch = Self { from, sent, expected };
        if sent == expected { Ok(mismatch) } else { Err(mismatch) }
    }
}

impl From<Mismatch> for MpiError {
    fn from(Mismatch { from, sent, expected }: Mismatch) -> Self {
        // Its operation is known to who carries it out.
        MpiError::Mismatch { operation: String::new(), from, sent, expected }
    }
}

/// For operations without an operator, whose plans, being checked, never ask for one.
pub(crate) struct NoOperator;

impl<T: Element> Operator<T> for NoOperator {
    fn apply(&self, left: T, _: T) -> T {
        left
    }

    fn is_commutative(&self) -> bool {
        true
    }
}

/// How far an execution has come.
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
    /// Bytes of a piece.
    piece: usize,
    next: usize,
    /// How many elements of the message that the next step receives have come.
    received: usize,
    /// The message of the next step, if the last one looked for it.
    early: Option<Message>,
    /// The message that the last step sent or received, if the next one sends the same or a part of it.
    carried: Option<Carried>,
}

/// A message as it travels.
struct Carried {
    span: Span,
    pieces: SmallVec<[Bytes; 1]>,
}

impl Execution {
    /// The plan must have passed [`Plan::check`] for buffers of the lengths that `memory` will have.
    pub(crate) fn new(plan: Rc<Plan>, tag: i32) -> Self {
        Self { plan, tag, piece: PIECE, next: 0, received: 0, early: None, carried: None }
    }

    /// With pieces of another size, in bytes: the same on all ranks.
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
        // Whatever happens, what was offered is settled before the memory is the caller's again.
        let mut offers = Offers::new(wire, true);
        self.steps(&mut offers, memory, operator, |from| wire.receive(from, tag).map(Some)).map(drop)
    }

    /// Does the steps that it can do without waiting.
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
                    let spans = plan.spans(into);
                    let len = spans.iter().map(|span| span.len).sum();
                    let carry = match *spans {
                        [span] if self.next_sends_of(span) && !self.next_offers::<T, _>(offers, span) => {
                            Some(span)
                        }
                        _ => None,
                    };
                    loop {
                        let landing = match *spans {
                            // What others may still read is settled when the message has come: until then they may wait
                            // for this rank as well.
                            [span] if carry.is_none() && offers.waits && !offers.hit(memory.home(span)) => {
                                self.land(offers.wire, memory, span, from)?
                            }
                            _ => None,
                        };
                        let message = match landing {
                            None if self.early.is_some() => self.early.take(),
                            None => receive(from)?,
                            Some(Landing::Message(message)) => Some(*message),
                            Some(Landing::Landed(bytes)) => {
                                let elements = self.elements::<T>(len, bytes);
                                let expected = elements.len() * size_of::<T>();
                                if bytes != expected {
                                    return Err(Mismatch { from, sent: bytes, expected }.into());
                                }
                                if self.has_received(elements, len) {
                                    break;
                                }
                                continue;
                            }
                        };
                        let Some(message) = message else { return Ok(Progress::Waits { from }) };
                        let elements = self.piece::<T>(len, &message);
                        let mismatch = Mismatch::check(from, message.len(), elements.len() * size_of::<T>())?;
                        for &span in spans {
                            offers.settle(memory.home(span));
                            memory.settle(span);
                        }
                        let filled = memory.take(spans, elements.clone(), &message);
                        filled.map_err(|_| mismatch)?;
                        match (carry, message) {
                            (None, _) => {}
                            (Some(_), Message::Lent(_)) => self.carried = None,
                            (Some(span), message) => self.carry(span, elements.start, message.into_bytes()),
                        }
                        if self.has_received(elements, len) {
                            break;
                        }
                    }
                    if carry.is_none() {
                        self.carried = None;
                    }
                }
                Step::RecvReduce { side, operand, into, from } => {
                    self.carried = None;
                    loop {
                        let Some(message) = receive(from)? else { return Ok(Progress::Waits { from }) };
                        let elements = self.piece::<T>(into.len, &message);
                        let mismatch = Mismatch::check(from, message.len(), elements.len() * size_of::<T>())?;
                        let (operand, part) = (operand.part(elements.clone()), into.part(elements.clone()));
                        offers.settle(memory.home(part));
                        memory.settle(part);
                        message.read(|bytes| {
                            with_received(bytes, mismatch, |received| {
                                memory.combine(operator, side, received, operand, part);
                            })
                        })?;
                        if self.has_received(elements, into.len) {
                            break;
                        }
                    }
                }
                // In place there may be nothing to copy, and then nobody's reading to wait for.
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

    /// Copies a span, and does the next step, too, if that is to receive what another thread has lent meanwhile: it helps, so both
    /// begin as soon as they can.
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

    // A message is as long for its sender as for its receiver, its pieces are not: how many bytes came says how long a piece is.

    /// How many elements a piece has.
    fn piece_len<T>(&self) -> usize {
        (self.piece / size_of::<T>().max(1)).max(1)
    }

    /// The same on the way to a rank.
    fn piece_to<T, W: Wire>(&self, wire: &W, to: usize) -> usize {
        self.piece_len::<T>().max(wire.piece(to).min(LONG_PIECE) / size_of::<T>().max(1))
    }

    /// Which elements of a message of `len` elements a piece has that has come.
    fn piece<T>(&self, len: usize, message: &Message) -> Range<usize> {
        match message {
            Message::Lent(_) => self.received..len,
            _ => self.elements::<T>(len, message.len()),
        }
    }

    /// The same of one of so many bytes: what was offered is longer than other pieces are.
    fn elements<T>(&self, len: usize, bytes: usize) -> Range<usize> {
        let most = self.piece_len::<T>().max(bytes.min(LONG_PIECE) / size_of::<T>().max(1));
        self.received..len.min(self.received.saturating_add(most))
    }

    /// Receives the next piece of a message where it belongs, if its elements may have any bytes.
    fn land<T: Element, W: Wire>(
        &self,
        wire: &W,
        memory: &mut Memory<'_, T>,
        span: Span,
        from: usize,
    ) -> Result<Option<Landing>, W::Error> {
        if element::bytes_of_mut::<T>(&mut []).is_none() {
            return Ok(None);
        }
        let place = memory.write(span.part(self.received..span.len));
        element::bytes_of_mut(place).map_or(Ok(None), |out| wire.receive_into(from, self.tag, out))
    }

    /// Whether the next step, which sends this or a part of it, does so by offering it.
    fn next_offers<T, W: Wire>(&self, offers: &Offers<'_, W>, span: Span) -> bool {
        matches!(self.plan.step(self.next + 1), Some(Step::Send { to, .. })
            if offers.waits && offers.wire.offers(to, span.len * size_of::<T>()))
    }

    /// Notes that these elements have come. True: they were the last of `len`.
    fn has_received(&mut self, elements: Range<usize>, len: usize) -> bool {
        self.received = if elements.end == len { 0 } else { elements.end };
        self.received == 0
    }

    /// Whether the next step sends this or a part of it.
    fn next_sends_of(&self, span: Span) -> bool {
        let Some(Step::Send { what, .. }) = self.plan.step(self.next + 1) else { return false };
        matches!(*self.plan.spans(what), [next] if span.contains(next) && next.len > 0)
    }

    fn carry(&mut self, span: Span, start: usize, piece: Bytes) {
        if start == 0 {
            self.carried = Some(Carried { span, pieces: SmallVec::new() });
        }
        if let Some(carried) = &mut self.carried {
            carried.pieces.push(piece);
        }
    }

    fn send<T: Element, W: Wire>(
        &mut self,
        offers: &mut Offers<'_, W>,
        memory: &mut Memory<'_, T>,
        span: Span,
        to: usize,
    ) -> Result<(), W::Error> {
        let (wire, size) = (offers.wire, size_of::<T>());
        if offers.waits && wire.offers(to, span.len * size) {
            self.carried = None;
            let step = (LONG_PIECE / size.max(1)).max(1);
            for start in (0..span.len).step_by(step) {
                let part = span.part(start..span.len.min(start + step));
                let offer = wire.offer(to, self.tag, element::bytes_of(memory.read(part)))?;
                offers.add(memory.home(part), offer);
            }
            return Ok(());
        }
        if wire.lends_from(to).is_some_and(|least| span.len * size >= least) {
            self.carried = None;
            return wire.lend(to, self.tag, memory.lend(span));
        }
        if span.len * size < SHARE {
            return wire.send(to, self.tag, element::bytes_of(memory.read(span)));
        }
        if let Some(Carried { span: known, pieces }) = &self.carried {
            if *known == span {
                return pieces.iter().try_for_each(|piece| wire.send_shared(to, self.tag, piece.clone()));
            }
            if let [piece] = &pieces[..]
                && known.contains(span)
            {
                let start = (span.start - known.start) * size;
                return wire.send_shared(to, self.tag, piece.slice(start..start + span.len * size));
            }
        }
        self.carried = None;
        let (carry, piece) = (self.next_sends_of(span), self.piece_to::<T, W>(wire, to));
        for start in (0..span.len).step_by(piece) {
            let elements = start..span.len.min(start + piece);
            let bytes = element::bytes_of(memory.read(span.part(elements)));
            if carry {
                let piece = Bytes::copy_from_slice(bytes);
                self.carry(span, start, piece.clone());
                wire.send_shared(to, self.tag, piece)?;
            } else {
                wire.send(to, self.tag, bytes)?;
            }
        }
        Ok(())
    }

    fn send_gathered<T: Element, W: Wire>(
        &mut self,
        wire: &W,
        memory: &Memory<'_, T>,
        spans: &[Span],
        to: usize,
    ) -> Result<(), W::Error> {
        self.carried = None;
        let room = self.piece_to::<T, W>(wire, to);
        let mut left: usize = spans.iter().map(|span| span.len).sum();
        let mut message = Vec::with_capacity(left.min(room) * size_of::<T>());
        if left == 0 {
            return wire.send(to, self.tag, &[]);
        }
        for &span in spans {
            let mut rest = span;
            while rest.len > 0 {
                let fits = rest.len.min(room - message.len() / size_of::<T>());
                message.extend_from_slice(element::bytes_of(memory.read(rest.part(0..fits))));
                rest = rest.part(fits..rest.len);
                left -= fits;
                if left == 0 || message.len() == room * size_of::<T>() {
                    wire.send(to, self.tag, &message)?;
                    message.clear();
                }
            }
        }
        Ok(())
    }
}

/// Does something with the elements that a message is made of.
pub(super) fn with_received<T: Element>(
    bytes: &[u8],
    mismatch: Mismatch,
    then: impl FnOnce(&[T]),
) -> Result<(), Mismatch> {
    match bytemuck::checked::try_cast_slice(bytes) {
        Ok(received) => then(received),
        // It came unaligned, or it is not of this type.
        Err(_) => then(&element::elements(bytes).map_err(|_| mismatch)?),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
