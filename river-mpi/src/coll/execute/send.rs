//! The steps that send: a message as a whole, in pieces, as a loan or as an offer.

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Carried, Execution, LONG_PIECE, SHARE};
use crate::coll::memory::Memory;
use crate::coll::offers::Offers;
use crate::coll::plan::Step;
use crate::coll::span::Span;
use crate::coll::wire::Wire;
use crate::element::{self, Element};

impl Execution {
    pub(super) fn send<T: Element, W: Wire>(
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

    pub(super) fn send_gathered<T: Element, W: Wire>(
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

    /// [`piece_len`](Self::piece_len) of pieces sent to a rank.
    fn piece_to<T, W: Wire>(&self, wire: &W, to: usize) -> usize {
        self.piece_len::<T>().max(wire.piece(to).min(LONG_PIECE) / size_of::<T>().max(1))
    }

    /// Whether the next step, which sends this span or a part of it, sends it as an offer.
    pub(super) fn next_offers<T, W: Wire>(&self, offers: &Offers<'_, W>, span: Span) -> bool {
        matches!(self.plan.step(self.next + 1), Some(Step::Send { to, .. })
            if offers.waits && offers.wire.offers(to, span.len * size_of::<T>()))
    }

    /// Whether the next step sends this span or a part of it.
    pub(super) fn next_sends_of(&self, span: Span) -> bool {
        let Some(Step::Send { what, .. }) = self.plan.step(self.next + 1) else { return false };
        matches!(*self.plan.spans(what), [next] if span.contains(next) && next.len > 0)
    }

    pub(super) fn carry(&mut self, span: Span, start: usize, piece: Bytes) {
        if start == 0 {
            self.carried = Some(Carried { span, pieces: SmallVec::new() });
        }
        if let Some(carried) = &mut self.carried {
            carried.pieces.push(piece);
        }
    }
}
