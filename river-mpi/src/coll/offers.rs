//! Memory that other processes are reading while a plan is carried out.

use smallvec::SmallVec;

use super::memory::Memory;
use super::span::Span;
use super::wire::Wire;
use crate::element::{self, Element};

/// Spans that were offered to other processes, which may still read them.
pub(super) struct Offers<'w, W: Wire> {
    pub(super) wire: &'w W,
    /// Whether the caller's memory stays valid until the operation is done. If not, nothing is offered.
    pub(super) waits: bool,
    offers: SmallVec<[(Span, u64); 4]>,
    /// Whether every offer so far was read while this rank waited. A rank that has not read one offer will not read the next
    /// ones soon either.
    patient: bool,
}

impl<'w, W: Wire> Offers<'w, W> {
    pub(super) fn new(wire: &'w W, waits: bool) -> Self {
        Self { wire, waits, offers: SmallVec::new(), patient: true }
    }

    /// Records that a span was offered.
    pub(super) fn add(&mut self, span: Span, offer: u64) {
        self.offers.push((span, offer));
    }

    /// Waits until nobody reads this span, which is about to be overwritten.
    pub(super) fn settle(&mut self, span: Span) {
        let Self { wire, offers, patient, .. } = self;
        offers.retain(|(offered, offer)| {
            let hit = offered.overlaps(span);
            if hit {
                *patient &= wire.settle(*offer, *patient);
            }
            !hit
        });
    }

    /// Waits until nobody reads what is still offered, and may help those who do.
    pub(super) fn finish<T: Element>(mut self, memory: &Memory<'_, T>) {
        let offers = std::mem::take(&mut self.offers);
        let bytes = |span: &Span| element::bytes_of(memory.read(*span));
        let offers: SmallVec<[_; 4]> = offers.iter().map(|(span, offer)| (*offer, bytes(span))).collect();
        self.wire.settle_all(&offers, self.patient);
    }

    /// Whether a part of the span is offered.
    pub(super) fn hit(&self, span: Span) -> bool {
        self.offers.iter().any(|(offered, _)| offered.overlaps(span))
    }
}

impl<W: Wire> Drop for Offers<'_, W> {
    fn drop(&mut self) {
        for (_, offer) in &self.offers {
            self.patient &= self.wire.settle(*offer, self.patient);
        }
    }
}
