//! Carries out plans whose messages all have [`BRIEF`](super::BRIEF) bytes at most, in operations that wait: what
//! [`Execution`](super::Execution) does without anything that only pays for longer ones. Nothing is lent, passed on or sent in
//! pieces.
//!
//! The shortest of these operations take little more time than the stores of one cache line: so the fewer others are made
//! beside them, in structures that are built and copied, the better.

use std::ops::Range;

use smallvec::SmallVec;

use super::execute::{Mismatch, with_received};
use super::memory::Input;
use super::plan::{Buffer, Plan, Side, Span, Step};
use super::wire::{Landing, Wire};
use crate::element::{self, Element};
use crate::op::Operator;

/// The buffers of an operation.
pub(crate) struct Buffers<'a, T> {
    pub(crate) input: Input<&'a [T]>,
    pub(crate) output: &'a mut [T],
    pub(crate) scratch: &'a mut [T],
    /// For what is received and combined with something; as long as it was ever needed.
    pub(crate) room: &'a mut Vec<u64>,
}

/// Does all steps of a plan, which must have passed [`Plan::check`] for these buffers.
pub(crate) fn run_brief<T: Element, W: Wire>(
    plan: &Plan,
    tag: i32,
    wire: &W,
    memory: &mut Buffers<'_, T>,
    operator: &dyn Operator<T>,
) -> Result<(), W::Error> {
    for step in plan.steps() {
        match *step {
            Step::Send { what, to } => match *plan.spans(what) {
                [span] => wire.send(to, tag, element::bytes_of(memory.read(span)))?,
                ref spans => {
                    let mut message = SmallVec::<[u8; 64]>::new();
                    for &span in spans {
                        message.extend_from_slice(element::bytes_of(memory.read(span)));
                    }
                    wire.send(to, tag, &message)?;
                }
            },
            Step::Recv { into, from } => {
                let spans = plan.spans(into);
                let place = match *spans {
                    [span] => element::bytes_of_mut(memory.write(span)),
                    _ => None,
                };
                let expected = spans.iter().map(|span| span.len).sum::<usize>() * size_of::<T>();
                let landing = wire.receive_brief(from, tag, place.unwrap_or_default())?;
                let mismatch = Mismatch::check(from, landing.len(), expected)?;
                if let Landing::Message(message) = landing {
                    message.read(|bytes| memory.fill(spans, bytes).map_err(|_| mismatch))?;
                }
            }
            Step::RecvReduce { side, operand, into, from } => {
                let expected = into.len * size_of::<T>();
                let mut room = std::mem::take(memory.room);
                room.resize(room.len().max(expected.div_ceil(size_of::<u64>())), 0);
                let bytes = &mut bytemuck::cast_slice_mut(&mut room)[..expected];
                let landing = wire.receive_brief(from, tag, bytes)?;
                let mismatch = Mismatch::check(from, landing.len(), expected)?;
                let combine = |bytes: &[u8]| {
                    with_received(bytes, mismatch, |received| {
                        memory.combine(operator, side, received, operand, into);
                    })
                };
                match landing {
                    Landing::Landed(_) => combine(bytes)?,
                    Landing::Message(message) => message.read(combine)?,
                }
                *memory.room = room;
            }
            Step::Copy { from, into } => {
                if memory.input.home(from) != into {
                    let (from, into) = memory.pair(from, into);
                    into.copy_from_slice(from);
                }
            }
            Step::Reduce { side, what, into } => {
                let (what, into) = memory.pair(what, into);
                side.fold(operator, what, into);
            }
        }
    }
    Ok(())
}

impl<T: Element> Buffers<'_, T> {
    fn read(&self, span: Span) -> &[T] {
        let span = self.input.home(span);
        if span.len == 0 {
            return &[];
        }
        match (span.buffer, &self.input) {
            (Buffer::Input, Input::Apart(input)) => &input[span.range()],
            (Buffer::Scratch, _) => &self.scratch[span.range()],
            _ => &self.output[span.range()],
        }
    }

    fn write(&mut self, span: Span) -> &mut [T] {
        match span.buffer {
            _ if span.len == 0 => &mut [],
            Buffer::Scratch => &mut self.scratch[span.range()],
            _ => &mut self.output[span.range()],
        }
    }

    fn fill(&mut self, spans: &[Span], mut bytes: &[u8]) -> crate::Result {
        for &span in spans {
            let (here, after) = bytes.split_at(span.len * size_of::<T>());
            element::fill(self.write(span), here)?;
            bytes = after;
        }
        Ok(())
    }

    /// One span to read, and another, which does not overlap it, to write.
    fn pair(&mut self, from: Span, into: Span) -> (&[T], &mut [T]) {
        let from = self.input.home(from);
        if from.len == 0 || into.len == 0 {
            return (&[], &mut []);
        }
        let (read, write) = (from.range(), into.range());
        match (from.buffer, into.buffer, &self.input) {
            (Buffer::Input, Buffer::Scratch, Input::Apart(input)) => (&input[read], &mut self.scratch[write]),
            (Buffer::Input, _, Input::Apart(input)) => (&input[read], &mut self.output[write]),
            (Buffer::Scratch, Buffer::Scratch, _) => parts(self.scratch, read, write),
            (Buffer::Scratch, ..) => (&self.scratch[read], &mut self.output[write]),
            (_, Buffer::Scratch, _) => (&self.output[read], &mut self.scratch[write]),
            _ => parts(self.output, read, write),
        }
    }

    fn combine(&mut self, operator: &dyn Operator<T>, side: Side, received: &[T], operand: Span, into: Span) {
        if self.input.home(operand) == into {
            side.fold(operator, received, self.write(into));
        } else {
            let (operand, into) = self.pair(operand, into);
            side.combine(operator, received, operand, into);
        }
    }
}

/// Two ranges of a slice that do not overlap, one of them to be written.
fn parts<T>(slice: &mut [T], read: Range<usize>, write: Range<usize>) -> (&[T], &mut [T]) {
    if read.end <= write.start {
        let (before, after) = slice.split_at_mut(write.start);
        (&before[read], &mut after[..write.len()])
    } else {
        let (before, after) = slice.split_at_mut(read.start);
        (&after[..read.len()], &mut before[write])
    }
}
