//! Carries out plans whose elements are values of any length: each element is the encoding of one value.
//!
//! So values need neither algorithms of their own nor a message that announces lengths: a message with a single value is just
//! its bytes, and one with several values contains the length of each.

use std::rc::Rc;

use bytes::{Buf, Bytes};

use super::execute::{Mismatch, Progress};
use super::plan::{Plan, Step};
use super::span::{Buffer, Span};
use super::wire::{Message, Wire};

/// One rank's part of one operation on values, under way.
pub(crate) struct Parcels {
    plan: Rc<Plan>,
    tag: i32,
    next: usize,
    input: Vec<Bytes>,
    output: Vec<Bytes>,
    scratch: Vec<Bytes>,
}

impl Parcels {
    /// Creates an execution. The plan must have passed [`Plan::check`] for buffers of these lengths, and must not reduce.
    pub(crate) fn new(plan: Rc<Plan>, tag: i32, input: Vec<Bytes>, output: Vec<Bytes>) -> Self {
        let scratch = vec![Bytes::new(); plan.scratch_len()];
        Self { plan, tag, next: 0, input, output, scratch }
    }

    /// Does all steps, waiting for messages.
    pub(crate) fn run<W: Wire>(&mut self, wire: &W) -> Result<(), W::Error> {
        let tag = self.tag;
        self.steps(wire, |from| wire.receive(from, tag).map(Some)).map(drop)
    }

    /// Does the steps that need no waiting.
    pub(crate) fn advance<W: Wire>(&mut self, wire: &W) -> Result<Progress, W::Error> {
        let tag = self.tag;
        self.steps(wire, |from| wire.try_receive(from, tag))
    }

    /// The values received so far.
    pub(crate) fn output(&self) -> &[Bytes] {
        &self.output
    }

    fn steps<W: Wire>(
        &mut self,
        wire: &W,
        receive: impl Fn(usize) -> Result<Option<Message>, W::Error>,
    ) -> Result<Progress, W::Error> {
        let plan = Rc::clone(&self.plan);
        while let Some(step) = plan.step(self.next) {
            match step {
                Step::Send { what, to } => {
                    let values = plan.spans(what).iter().flat_map(|&span| self.read(span));
                    wire.send_shared(to, self.tag, join(values))?;
                }
                Step::Recv { into, from } => {
                    let Some(message) = receive(from)? else { return Ok(Progress::Waits { from }) };
                    let (bytes, spans) = (message.into_bytes(), plan.spans(into));
                    let count = spans.iter().map(|span| span.len).sum();
                    let mismatch = Mismatch { from, sent: bytes.len(), expected: 8 * count };
                    let mut values = split(bytes, count).ok_or(mismatch)?.into_iter();
                    for &span in spans {
                        self.write(span).iter_mut().zip(&mut values).for_each(|(home, value)| *home = value);
                    }
                }
                Step::Copy { from, into } => {
                    let values = self.read(from).to_vec();
                    self.write(into).clone_from_slice(&values);
                }
                // Plans of operations without an operator have no such step: they are checked.
                Step::RecvReduce { .. } | Step::Reduce { .. } => {}
            }
            self.next += 1;
        }
        Ok(Progress::Done)
    }

    fn read(&self, span: Span) -> &[Bytes] {
        let buffer = match span.buffer {
            Buffer::Input => &self.input,
            Buffer::Output => &self.output,
            Buffer::Scratch => &self.scratch,
        };
        buffer.get(span.range()).unwrap_or_default()
    }

    fn write(&mut self, span: Span) -> &mut [Bytes] {
        let buffer = if span.buffer == Buffer::Scratch { &mut self.scratch } else { &mut self.output };
        buffer.get_mut(span.range()).unwrap_or_default()
    }
}

/// Joins values into one message.
fn join<'a>(mut values: impl Iterator<Item = &'a Bytes> + Clone) -> Bytes {
    let count = values.clone().count();
    if count < 2 {
        return values.next().cloned().unwrap_or_default();
    }
    let mut message = Vec::with_capacity(values.clone().map(|value| 8 + value.len()).sum());
    values.clone().for_each(|value| message.extend_from_slice(&(value.len() as u64).to_le_bytes()));
    values.for_each(|value| message.extend_from_slice(value));
    message.into()
}

/// Splits a message of this many values; returns `None` if it cannot be one.
fn split(mut message: Bytes, count: usize) -> Option<Vec<Bytes>> {
    match count {
        0 => return message.is_empty().then(Vec::new),
        1 => return Some(vec![message]),
        _ => {}
    }
    if message.len() / 8 < count {
        return None;
    }
    let lengths = message.split_to(8 * count);
    let mut values = Vec::with_capacity(count);
    for length in lengths.chunks_exact(8) {
        let length = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
        values.push((length <= message.remaining()).then(|| message.split_to(length))?);
    }
    message.is_empty().then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_told_apart_and_nonsense_is_refused() {
        for lengths in [&[][..], &[0], &[3], &[0, 0], &[5, 0, 7], &[1, 2, 3, 4]] {
            let values: Vec<Bytes> = lengths.iter().map(|&len| Bytes::from(vec![len as u8; len])).collect();
            let message = join(values.iter());
            assert_eq!(split(message.clone(), values.len()), Some(values.clone()));
            if values.len() > 1 {
                assert_eq!(split(message.slice(..message.len() - 1), values.len()), None);
                assert_eq!(split([&message[..], &[0]].concat().into(), values.len()), None);
            }
        }
        assert_eq!(split(Bytes::from_static(&[255; 16]), 2), None);
        assert_eq!(split(Bytes::from_static(b"x"), usize::MAX), None);
    }
}
