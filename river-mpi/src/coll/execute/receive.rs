//! The steps that receive: messages and their pieces.

use std::ops::Range;

use super::{Execution, LONG_PIECE, Mismatch};
use crate::coll::memory::Memory;
use crate::coll::offers::Offers;
use crate::coll::span::Span;
use crate::coll::wire::{Landed, Message, Wire};
use crate::element::{self, Element};

impl Execution {
    /// Receives a message into these spans. Returns `false` if the message has not arrived, or only a part of it.
    pub(super) fn receive<T: Element, W: Wire>(
        &mut self,
        offers: &mut Offers<'_, W>,
        memory: &mut Memory<'_, T>,
        spans: &[Span],
        from: usize,
        receive: &impl Fn(usize) -> Result<Option<Message>, W::Error>,
    ) -> Result<bool, W::Error> {
        let len = spans.iter().map(|span| span.len).sum();
        let carry = match *spans {
            [span] if self.next_sends_of(span) && !self.next_offers::<T, _>(offers, span) => Some(span),
            _ => None,
        };
        loop {
            let landed = match *spans {
                // Spans that others may still read are settled only once the message has arrived: until then these ranks may
                // be waiting for this one.
                [span] if carry.is_none() && offers.waits && !offers.hit(memory.home(span)) => {
                    self.land(offers.wire, memory, span, from)?
                }
                _ => None,
            };
            let message = match landed {
                None if self.early.is_some() => self.early.take(),
                None => receive(from)?,
                Some(Landed::Elsewhere(message)) => Some(*message),
                Some(Landed::Here(bytes)) => {
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
            let Some(message) = message else { return Ok(false) };
            let elements = self.piece::<T>(len, &message);
            let mismatch = Mismatch::check(from, message.len(), elements.len() * size_of::<T>())?;
            for &span in spans {
                offers.settle(memory.home(span));
                memory.settle(span);
            }
            memory.take(spans, elements.clone(), &message).map_err(|_| mismatch)?;
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
        Ok(true)
    }

    /// Receives a message piece by piece into a span; `reduce` combines each piece with something. Returns `false` if the
    /// message has not arrived, or only a part of it.
    pub(super) fn receive_reduced<T: Element, W: Wire>(
        &mut self,
        offers: &mut Offers<'_, W>,
        memory: &mut Memory<'_, T>,
        into: Span,
        from: usize,
        receive: &impl Fn(usize) -> Result<Option<Message>, W::Error>,
        reduce: impl Fn(&mut Memory<'_, T>, Range<usize>, &[T]),
    ) -> Result<bool, W::Error> {
        self.carried = None;
        loop {
            let Some(message) = receive(from)? else { return Ok(false) };
            let elements = self.piece::<T>(into.len, &message);
            let mismatch = Mismatch::check(from, message.len(), elements.len() * size_of::<T>())?;
            let part = into.part(elements.clone());
            offers.settle(memory.home(part));
            memory.settle(part);
            message.read(|bytes| {
                with_received(bytes, mismatch, |received| reduce(memory, elements.clone(), received))
            })?;
            if self.has_received(elements, into.len) {
                return Ok(true);
            }
        }
    }

    /// The elements that a received piece contains, of a message of `len` elements.
    fn piece<T>(&self, len: usize, message: &Message) -> Range<usize> {
        match message {
            Message::Lent(_) => self.received..len,
            _ => self.elements::<T>(len, message.len()),
        }
    }

    /// [`piece`](Self::piece) for a piece of this many bytes. Offered pieces are longer than others.
    fn elements<T>(&self, len: usize, bytes: usize) -> Range<usize> {
        let most = self.piece_len::<T>().max(bytes.min(LONG_PIECE) / size_of::<T>().max(1));
        self.received..len.min(self.received.saturating_add(most))
    }

    /// Receives the next piece of a message directly in its final place, if any bytes are valid elements.
    fn land<T: Element, W: Wire>(
        &self,
        wire: &W,
        memory: &mut Memory<'_, T>,
        span: Span,
        from: usize,
    ) -> Result<Option<Landed>, W::Error> {
        if element::bytes_of_mut::<T>(&mut []).is_none() {
            return Ok(None);
        }
        let place = memory.write(span.part(self.received..span.len));
        element::bytes_of_mut(place).map_or(Ok(None), |out| wire.receive_into(from, self.tag, out))
    }

    /// Records that these elements were received. Returns `true` if they were the last of `len`.
    fn has_received(&mut self, elements: Range<usize>, len: usize) -> bool {
        self.received = if elements.end == len { 0 } else { elements.end };
        self.received == 0
    }
}

/// Calls `then` with the elements that a message contains.
pub(in crate::coll) fn with_received<T: Element>(
    bytes: &[u8],
    mismatch: Mismatch,
    then: impl FnOnce(&[T]),
) -> Result<(), Mismatch> {
    match bytemuck::checked::try_cast_slice(bytes) {
        Ok(received) => then(received),
        // The bytes are unaligned, or no values of this type.
        Err(_) => then(&element::elements(bytes).map_err(|_| mismatch)?),
    }
    Ok(())
}
