//! Reduce-scatter by recursive halving of the vector, the core of Rabenseifner's algorithms.
//!
//! In round `k` ranks whose numbers differ in bit `k` each send the other half of their current range. Neighbours come first,
//! so every partial result combines consecutive ranks, and the operator need not commute.
//!
//! R. Rabenseifner: Optimization of Collective Reduction Operations (2004).

use std::ops::Range;

use super::fold::Fold;
use super::plan::{Plan, Side};
use super::shape::shares;
use super::span::Span;

/// The pieces that a rank held, before each round and at the end.
pub(super) struct Halving {
    count: usize,
    parts: usize,
    /// Ranges of the `parts` pieces into which the vector is divided.
    pub(super) held: Vec<Range<usize>>,
}

impl Halving {
    /// Writes all rounds of the rank that takes part as `number`. Its vector is in `data`; its piece of the result is in
    /// `into` at the end.
    pub(super) fn write(plan: &mut Plan, fold: &Fold, number: usize, data: Span, into: Span) -> Self {
        let mut this =
            Self { count: into.len, parts: fold.size, held: std::iter::once(0..fold.size).collect() };
        let mut data = data;
        for bit in 0..fold.size.ilog2() {
            let peer = number ^ (1 << bit);
            let (lower, upper) = halves(&this.held[bit as usize]);
            let (keep, give) = if number < peer { (lower, upper) } else { (upper, lower) };
            plan.send(this.pieces(data, &give), fold.rank(peer));
            let (operand, result) = (this.pieces(data, &keep), this.pieces(into, &keep));
            plan.recv_reduce(Side::of(peer, number), operand, result, fold.rank(peer));
            this.held.push(keep);
            data = into;
        }
        this
    }

    /// The elements of a range of pieces of a vector.
    pub(super) fn pieces(&self, vector: Span, pieces: &Range<usize>) -> Span {
        vector.part(shares(self.count, self.parts, pieces.clone()))
    }
}

/// The two halves of a range.
fn halves(range: &Range<usize>) -> (Range<usize>, Range<usize>) {
    let middle = range.start + range.len() / 2;
    (range.start..middle, middle..range.end)
}

/// The part of a range outside of one of its halves.
pub(super) fn other_half(whole: &Range<usize>, half: &Range<usize>) -> Range<usize> {
    if half.start == whole.start { half.end..whole.end } else { whole.start..half.start }
}
