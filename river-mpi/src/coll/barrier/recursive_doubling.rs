//! In round `k` ranks whose numbers differ in bit `k` signal each other.
//!
//! Cost: `log2 p` rounds, two more if `p` is not a power of two. Each rank communicates only with these few partners, in both
//! directions.
//!
//! E. Brooks: The Butterfly Barrier (1986).

use crate::coll::algorithm::Algorithm;
use crate::coll::fold::Fold;
use crate::coll::plan::Plan;
use crate::coll::shape::{Shape, log2_ceil};
use crate::coll::span::NOTHING;

use super::Barrier;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct RecursiveDoubling;

impl Algorithm<Barrier> for RecursiveDoubling {
    fn name(&self) -> &str {
        "recursive_doubling"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let fold = Fold::new(shape.size());
        match (fold.number(rank), fold.partner(rank)) {
            (None, Some(partner)) => plan.send(NOTHING, partner),
            (Some(_), Some(partner)) => plan.recv(NOTHING, partner),
            _ => {}
        }
        if let Some(number) = fold.number(rank) {
            for k in 0..log2_ceil(fold.size) {
                let peer = fold.rank(number ^ (1 << k));
                plan.send(NOTHING, peer);
                plan.recv(NOTHING, peer);
            }
        }
        fold.give_back(plan, rank, NOTHING);
    }
}
