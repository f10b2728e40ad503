//! Executes plans whose messages are all at most [`SHORT`](super::SHORT) bytes long, in blocking operations: it is
//! [`Execution`](super::Execution) without everything that pays only for longer messages. Nothing is lent, forwarded or sent
//! in pieces.
//!
//! The shortest of these operations take little more time than writing one cache line, so even building and copying small
//! structures would show.

use std::cell::Cell;
use std::ops::Range;

use river_core::aliasing;
use smallvec::SmallVec;

use super::execute::{Mismatch, with_received};
use super::memory::Input;
use super::plan::{Plan, Side, Step};
use super::span::{Buffer, Span};
use super::wire::{INLINE, Landed, Wire};
use crate::element::{self, Element};
use crate::op::Operator;

/// The buffers of an operation.
pub(crate) struct Buffers<'a, T> {
    pub(crate) input: &'a Input<&'a [T]>,
    pub(crate) output: &'a mut [T],
    pub(crate) scratch: &'a mut [T],
    /// Holds a received message that is to be combined with something. It never shrinks.
    pub(crate) room: &'a Cell<Vec<u64>>,
}

/// Does all steps of a plan, which must have passed [`Plan::check`] for these buffers.
pub(crate) fn run_short<T: Element, W: Wire>(
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
                let expected = spans.iter().map(|span| span.len).sum::<usize>() * size_of::<T>();
                let place = match *spans {
                    [span] => element::bytes_of_mut(memory.write(span)),
                    _ => None,
                };
                match place {
                    Some(place) => {
                        let landing = wire.receive_short(from, tag, place)?;
                        let mismatch = Mismatch::check(from, landing.len(), expected)?;
                        if let Landed::Elsewhere(message) = landing {
                            message.read(|bytes| memory.fill(spans, bytes).map_err(|_| mismatch))?;
                        }
                    }
                    None => {
                        let mut short = [0_u8; INLINE];
                        let landing = wire.receive_short(from, tag, &mut short)?;
                        let mismatch = Mismatch::check(from, landing.len(), expected)?;
                        let fill = |bytes: &[u8]| memory.fill(spans, bytes).map_err(|_| mismatch);
                        match landing {
                            Landed::Here(len) => fill(&short[..len])?,
                            Landed::Elsewhere(message) => message.read(fill)?,
                        }
                    }
                }
            }
            Step::RecvReduce { side, operand, into, from } => {
                let expected = into.len * size_of::<T>();
                let mut room = memory.room.take();
                room.resize(room.len().max(expected.div_ceil(size_of::<u64>())), 0);
                let bytes = &mut bytemuck::cast_slice_mut(&mut room)[..expected];
                let landing = wire.receive_short(from, tag, bytes)?;
                let mismatch = Mismatch::check(from, landing.len(), expected)?;
                let combine = |bytes: &[u8]| {
                    with_received(bytes, mismatch, |received| {
                        memory.combine(operator, side, received, operand, into);
                    })
                };
                match landing {
                    Landed::Here(_) => combine(bytes)?,
                    Landed::Elsewhere(message) => message.read(combine)?,
                }
                memory.room.set(room);
            }
            Step::Copy { from, into } => {
                if memory.input.home(from) != into {
                    let (from, into) = memory.pair(from, into);
                    aliasing::copy(from, into);
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
        match (span.buffer, self.input) {
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

    /// Returns one span for reading, and another, which does not overlap it, for writing.
    fn pair(&mut self, from: Span, into: Span) -> (&[T], &mut [T]) {
        let from = self.input.home(from);
        if from.len == 0 || into.len == 0 {
            return (&[], &mut []);
        }
        let (read, write) = (from.range(), into.range());
        match (from.buffer, into.buffer, self.input) {
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

/// Returns two ranges of a slice that do not overlap, one of them for writing.
fn parts<T>(slice: &mut [T], read: Range<usize>, write: Range<usize>) -> (&[T], &mut [T]) {
    if read.end <= write.start {
        let (before, after) = slice.split_at_mut(write.start);
        (&before[read], &mut after[..write.len()])
    } else {
        let (before, after) = slice.split_at_mut(read.start);
        (&after[..read.len()], &mut before[write])
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::coll::simulate::{Cost, simulate};
    use crate::coll::{
        Allgather, Allreduce, Alltoall, Barrier, Bcast, Exscan, Gather, Hosts, Landed, Message, Operation,
        Reduce, ReduceScatter, Scan, Scatter, Shape, plan_of,
    };
    use crate::op::{BXOR, LXOR};

    /// One rank's channels to all other ranks.
    struct Channels {
        rank: usize,
        to: Vec<Sender<Vec<u8>>>,
        from: Vec<Receiver<Vec<u8>>>,
    }

    impl Wire for Channels {
        type Error = Mismatch;

        fn send(&self, to: usize, _: i32, bytes: &[u8]) -> Result<(), Mismatch> {
            self.to[to].send(bytes.to_vec()).unwrap();
            Ok(())
        }

        fn send_shared(&self, to: usize, tag: i32, bytes: bytes::Bytes) -> Result<(), Mismatch> {
            self.send(to, tag, &bytes)
        }

        /// Messages from even ranks may be received into the given memory, others never are.
        fn receive_short(&self, from: usize, _: i32, out: &mut [u8]) -> Result<Landed, Mismatch> {
            let bytes = self.from[from].recv().unwrap();
            match out.get_mut(..bytes.len()) {
                Some(out) if from.is_multiple_of(2) => {
                    out.copy_from_slice(&bytes);
                    Ok(Landed::Here(out.len()))
                }
                _ => Ok(Message::Whole(bytes.into()).into()),
            }
        }

        fn try_receive(&self, _: usize, _: i32) -> Result<Option<Message>, Mismatch> {
            unreachable!("rank {} waits", self.rank)
        }

        fn receive(&self, _: usize, _: i32) -> Result<Message, Mismatch> {
            unreachable!("rank {} says where to", self.rank)
        }
    }

    fn channels(size: usize) -> Vec<Channels> {
        let mut all: Vec<Channels> =
            (0..size).map(|rank| Channels { rank, to: Vec::new(), from: Vec::new() }).collect();
        for from in 0..size {
            for to in 0..size {
                let (sender, receiver) = channel();
                all[from].to.push(sender);
                all[to].from.push(receiver);
            }
        }
        all
    }

    /// Checks that each algorithm gives the same result here as with `Execution`.
    fn agrees<O: Operation, T: Element + PartialEq + std::fmt::Debug>(
        value: impl Fn(usize) -> T,
        operator: &(dyn Operator<T> + Sync),
    ) {
        for (size, count) in [(1, 2), (2, 1), (3, 0), (4, 3), (5, 2), (6, 7)] {
            let hosts = std::sync::Arc::new(Hosts::new((0..size as u32).map(|rank| rank / 2)));
            for root in [0, size - 1] {
                let shape = Shape::new(size, count, size_of::<T>()).with_root(root).with_hosts(hosts.clone());
                for algorithm in O::algorithms().iter().filter(|it| it.supports(&shape).is_ok()) {
                    let of = |rank: usize, len: usize, salt: usize| -> Vec<T> {
                        (0..len).map(|at| value(rank * 31 + at * 7 + salt)).collect()
                    };
                    let buffers: Vec<_> = (0..size).map(|rank| O::buffers(rank, &shape)).collect();
                    let inputs: Vec<_> =
                        buffers.iter().enumerate().map(|(rank, b)| of(rank, b.0, 0)).collect();
                    let before: Vec<_> =
                        buffers.iter().enumerate().map(|(rank, b)| of(rank, b.1, 5)).collect();
                    let mut expected = before.clone();
                    let shapes = vec![shape.clone(); size];
                    let piece = usize::MAX;
                    simulate(*algorithm, &shapes, &inputs, &mut expected, operator, Cost::ROUNDS, piece)
                        .unwrap();
                    let (shape, inputs) = (&shape, &inputs);
                    let got: Vec<Vec<T>> = std::thread::scope(|scope| {
                        let run = |(wire, mut output): (Channels, Vec<T>)| {
                            scope.spawn(move || {
                                let plan = plan_of(*algorithm, wire.rank, shape);
                                let input = &inputs[wire.rank][..];
                                let filler = input.first().or(output.first()).copied();
                                let mut scratch =
                                    filler.map_or_else(Vec::new, |filler| vec![filler; plan.scratch_len()]);
                                let mut memory = Buffers {
                                    input: &Input::Apart(input),
                                    output: &mut output,
                                    scratch: &mut scratch,
                                    room: &Cell::default(),
                                };
                                run_short(&plan, 0, &wire, &mut memory, operator).unwrap();
                                output
                            })
                        };
                        let ranks: Vec<_> = channels(size).into_iter().zip(before).map(run).collect();
                        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
                    });
                    assert_eq!(got, expected, "{} {algorithm:?} {shape:?}", O::NAME);
                }
            }
        }
    }

    fn all_agree<T: Element + PartialEq + std::fmt::Debug>(
        value: impl Fn(usize) -> T + Copy,
        operator: &(dyn Operator<T> + Sync),
    ) {
        agrees::<Barrier, T>(value, operator);
        agrees::<Bcast, T>(value, operator);
        agrees::<Gather, T>(value, operator);
        agrees::<Scatter, T>(value, operator);
        agrees::<Allgather, T>(value, operator);
        agrees::<Alltoall, T>(value, operator);
        agrees::<Reduce, T>(value, operator);
        agrees::<Allreduce, T>(value, operator);
        agrees::<ReduceScatter, T>(value, operator);
        agrees::<Scan, T>(value, operator);
        agrees::<Exscan, T>(value, operator);
    }

    #[test]
    fn a_plan_means_the_same_as_to_the_other_executor() {
        all_agree(|at| at as u8, &BXOR);
        all_agree(|at| at as u128 * 0x1_0000_0001_0000_0001, &BXOR);
        // Not every byte is a valid `bool`.
        all_agree(|at| at % 3 == 0, &LXOR);
    }

    #[test]
    fn what_has_another_length_or_is_no_value_of_the_type_is_an_error() {
        for (sent, is_error) in [(&[1, 0][..], false), (&[1], true), (&[1, 0, 1], true), (&[1, 7], true)] {
            for from_even in [true, false] {
                let mut wires = channels(2);
                let (wire, from) = (wires.pop().unwrap(), usize::from(!from_even));
                let mut plan = Plan::new();
                plan.recv(crate::coll::output(0..2), from);
                let other = if from_even { &wires[0] } else { &wire };
                other.send(1, 0, sent).unwrap();
                let mut output = [false; 2];
                let mut memory = Buffers {
                    input: &Input::Apart(&[]),
                    output: &mut output,
                    scratch: &mut [],
                    room: &Cell::default(),
                };
                assert_eq!(run_short(&plan, 0, &wire, &mut memory, &LXOR).is_err(), is_error, "{sent:?}");
            }
        }
    }
}
