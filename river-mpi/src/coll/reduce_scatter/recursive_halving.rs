//! In each round two ranks that are half the remaining ranks apart exchange halves: each sends the half of the vector that
//! the other one will keep.
//!
//! Cost: `log2 p` rounds, `n (p - 1) / p` bytes. For vectors of medium length. `p` must be a power of two and the operator
//! must commute: the first round combines vectors of distant ranks.
//!
//! R. Thakur, R. Rabenseifner, W. Gropp: Optimization of Collective Communication Operations in MPICH (2005),
//! 4.3.

use crate::coll::algorithm::{Algorithm, needs};
use crate::coll::plan::{Plan, Side};
use crate::coll::shape::{Shape, log2_ceil};
use crate::coll::span::{Span, input, output};

use super::ReduceScatter;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct RecursiveHalving;

impl Algorithm<ReduceScatter> for RecursiveHalving {
    fn name(&self) -> &str {
        "recursive_halving"
    }

    fn supports(&self, shape: &Shape) -> Result<(), &'static str> {
        needs::commutative(shape)?;
        needs::power_of_two(shape)
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let p = shape.size();
        let mine = output(0..shape.block(rank).len());
        if p == 1 {
            plan.copy(input(0..shape.total()), mine);
            return;
        }
        // At most half of the vector is ever combined here.
        let half = rank & (p / 2);
        let (half_start, half_end) = (shape.block(half).start, shape.block(half + p / 2 - 1).end);
        let work = plan.scratch(half_end - half_start);
        let in_work = |elements: std::ops::Range<usize>| -> Span {
            work.part(elements.start - half_start..elements.end - half_start)
        };
        for bit in (0..log2_ceil(p)).rev() {
            let peer = rank ^ (1 << bit);
            // The elements of the ranks that agree with `of` in all bits from this one on.
            let elements = |of: usize| {
                let first = of >> bit << bit;
                shape.block(first).start..shape.block(first + (1 << bit) - 1).end
            };
            let (keep, give) = (elements(rank), elements(peer));
            let (operand, given) = if 1 << bit == p / 2 {
                (input(keep.clone()), input(give))
            } else {
                (in_work(keep.clone()), in_work(give))
            };
            plan.send(given, peer);
            let into = if bit == 0 { mine } else { in_work(keep) };
            plan.recv_reduce(Side::of(peer, rank), operand, into, peer);
        }
    }
}
