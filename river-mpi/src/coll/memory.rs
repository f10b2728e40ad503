//! The buffers of a plan while it is carried out.

use std::ops::Range;
use std::sync::Arc;

use river_core::aliasing;

use super::plan::Side;
use super::span::{Buffer, Span};
use super::wire::Message;
use crate::element::{self, Element};
use crate::lend::{Loan, Region};
use crate::op::Operator;

/// The three buffers of an operation.
pub(crate) struct Memory<'a, T> {
    pub(crate) input: Input<Region<'a, T>>,
    pub(crate) output: Region<'a, T>,
    pub(crate) scratch: Region<'a, T>,
}

/// Where the input is.
pub(crate) enum Input<B> {
    /// In a buffer of its own.
    Apart(B),
    /// In the output, from this element on.
    InOutput(usize),
}

impl<B> Input<B> {
    /// The span that holds the contents of `span`: input that lies in the output is found there.
    pub(super) fn home(&self, span: Span) -> Span {
        match (span.buffer, self) {
            (Buffer::Input, Self::InOutput(offset)) => {
                Span { buffer: Buffer::Output, start: span.start + offset, len: span.len }
            }
            _ => span,
        }
    }
}

impl<T: Element> Memory<'_, T> {
    pub(super) fn home(&self, span: Span) -> Span {
        self.input.home(span)
    }

    pub(super) fn read(&self, span: Span) -> &[T] {
        let span = self.home(span);
        if span.len == 0 {
            return &[];
        }
        match (span.buffer, &self.input) {
            (Buffer::Input, Input::Apart(input)) => input.part(span.range()),
            (Buffer::Scratch, _) => self.scratch.part(span.range()),
            _ => self.output.part(span.range()),
        }
    }

    pub(super) fn lend(&mut self, span: Span) -> Arc<Loan> {
        let span = self.home(span);
        match (span.buffer, &mut self.input) {
            (Buffer::Input, Input::Apart(input)) => input.lend(span.range()),
            (Buffer::Scratch, _) => self.scratch.lend(span.range()),
            _ => self.output.lend(span.range()),
        }
    }

    /// Waits until nobody reads this span, which is about to be overwritten.
    pub(super) fn settle(&mut self, span: Span) {
        match span.buffer {
            Buffer::Scratch => self.scratch.settle(&span.range()),
            _ => self.output.settle(&span.range()),
        }
    }

    pub(super) fn write(&mut self, span: Span) -> &mut [T] {
        if span.len == 0 {
            return &mut [];
        }
        match span.buffer {
            Buffer::Scratch => self.scratch.part_mut(span.range()),
            _ => self.output.part_mut(span.range()),
        }
    }

    /// Like [`fill`](Self::fill), but copies directly from the sender's memory if the message is a loan.
    pub(super) fn take(
        &mut self,
        spans: &[Span],
        elements: Range<usize>,
        message: &Message,
    ) -> crate::Result {
        if let (Message::Lent(loan), &[span]) = (message, spans)
            && let Some(out) = element::bytes_of_mut(self.write(span.part(elements.clone())))
        {
            loan.copy_to(out);
            return Ok(());
        }
        message.read(|bytes| self.fill(spans, elements, bytes))
    }

    /// Copies from the input to the output, and then the bytes of a loan to another part of the output; the lender may begin
    /// that second copy meanwhile. Returns `false` if the buffers are not the input and the output; nothing was done then.
    pub(super) fn copy_and_take(&mut self, from: Span, into: Span, loan: &Loan, place: Span) -> bool {
        let Input::Apart(input) = &self.input else { return false };
        if from.buffer != Buffer::Input || [into.buffer, place.buffer] != [Buffer::Output; 2] {
            return false;
        }
        let (into, place) = self.output.parts_mut(into.range(), place.range());
        let Some(out) = element::bytes_of_mut(place) else { return false };
        loan.copy_to_after(out, || aliasing::copy(input.part(from.range()), into));
        true
    }

    /// Copies a message into the spans that it is for. If it is a piece, `elements` tells which of their elements it
    /// contains.
    pub(super) fn fill(&mut self, spans: &[Span], elements: Range<usize>, mut bytes: &[u8]) -> crate::Result {
        let mut start = 0;
        for span in spans {
            let (from, to) = (elements.start.max(start), elements.end.min(start + span.len));
            if from < to {
                let (here, after) = bytes.split_at((to - from) * size_of::<T>());
                element::fill(self.write(span.part(from - start..to - start)), here)?;
                bytes = after;
            }
            start += span.len;
        }
        Ok(())
    }

    /// Returns one span for reading, and another, which does not overlap it, for writing.
    fn pair(&mut self, from: Span, into: Span) -> (&[T], &mut [T]) {
        let from = self.home(from);
        if from.len == 0 || into.len == 0 {
            return (&[], &mut []);
        }
        let Self { input, output, scratch } = self;
        let (read, write) = (from.range(), into.range());
        match (from.buffer, into.buffer, input) {
            (Buffer::Input, Buffer::Scratch, Input::Apart(input)) => {
                (input.part(read), scratch.part_mut(write))
            }
            (Buffer::Input, _, Input::Apart(input)) => (input.part(read), output.part_mut(write)),
            (Buffer::Scratch, Buffer::Scratch, _) => scratch.parts(read, write),
            (Buffer::Scratch, _, _) => (scratch.part(read), output.part_mut(write)),
            (_, Buffer::Scratch, _) => (output.part(read), scratch.part_mut(write)),
            _ => output.parts(read, write),
        }
    }

    pub(super) fn copy(&mut self, from: Span, into: Span) {
        let (from, into) = self.pair(from, into);
        aliasing::copy(from, into);
    }

    pub(super) fn fold(&mut self, operator: &dyn Operator<T>, side: Side, what: Span, into: Span) {
        let (what, into) = self.pair(what, into);
        side.fold(operator, what, into);
    }

    pub(super) fn combine(
        &mut self,
        operator: &dyn Operator<T>,
        side: Side,
        received: &[T],
        operand: Span,
        into: Span,
    ) {
        if self.home(operand) == into {
            side.fold(operator, received, self.write(into));
        } else {
            let (operand, into) = self.pair(operand, into);
            side.combine(operator, received, operand, into);
        }
    }
}

impl Side {
    /// Combines `what`, which stands on this side of the operator, with `into`, and stores the result there.
    pub(super) fn fold<T: Element>(self, operator: &dyn Operator<T>, what: &[T], into: &mut [T]) {
        match self {
            Side::Left => operator.fold_left(what, into),
            Side::Right => operator.fold_right(into, what),
        }
    }

    /// Combines `what`, which stands on this side of the operator, with the other operand, and stores the result in `into`.
    pub(super) fn combine<T: Element>(
        self,
        operator: &dyn Operator<T>,
        what: &[T],
        other: &[T],
        into: &mut [T],
    ) {
        match self {
            Side::Left => operator.combine(what, other, into),
            Side::Right => operator.combine(other, what, into),
        }
    }
}
