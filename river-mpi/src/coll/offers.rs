//! Memory that other processes are reading while a plan is carried out.

use smallvec::SmallVec;

use super::plan::Span;
use super::wire::Wire;

/// What was offered to other processes, and they may still read.
pub(super) struct Offers<'w, W: Wire> {
    pub(super) wire: &'w W,
    /// Whether the memory is there until all is done; otherwise nothing is offered.
    pub(super) waits: bool,
    offers: SmallVec<[(Span, u64); 4]>,
    /// None was waited for in vain: who has not read one will not read the next ones soon.
    patient: bool,
}

impl<'w, W: Wire> Offers<'w, W> {
    pub(super) fn new(wire: &'w W, waits: bool) -> Self {
        Self { wire, waits, offers: SmallVec::new(), patient: true }
    }

    /// Notes an offer of a span.
    pub(super) fn add(&mut self, span: Span, offer: u64) {
        self.offers.push((span, offer));
    }

    /// Waits until nobody reads a span that is about to be overwritten.
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

    /// Whether something of it is offered.
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
