//! In round `k` ranks whose numbers differ in bit `k` exchange all blocks that they have: `2^k` of them.
//!
//! Cost: `log2 p` rounds, `n (p - 1)` bytes. For short blocks; `p` must be a power of two.
//!
//! R. Thakur, R. Rabenseifner, W. Gropp: Optimization of Collective Communication Operations in MPICH (2005).

use crate::coll::algorithm::{Algorithm, needs};
use crate::coll::plan::Plan;
use crate::coll::shape::{Shape, log2_ceil};
use crate::coll::span::{input, output};

use super::{Allgather, also_for_different_lengths};

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct RecursiveDoubling;

impl Algorithm<Allgather> for RecursiveDoubling {
    fn name(&self) -> &str {
        "recursive_doubling"
    }

    fn supports(&self, shape: &Shape) -> Result<(), &'static str> {
        needs::power_of_two(shape)
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        plan.copy(input(0..shape.block(rank).len()), output(shape.block(rank)));
        for k in 0..log2_ceil(shape.size()) {
            let peer = rank ^ (1 << k);
            // The blocks of the ranks that agree with this one in all bits from k on.
            let blocks = |of: usize| {
                let first = of >> k << k;
                (first..first + (1 << k)).map(|rank| output(shape.block(rank)))
            };
            plan.send(blocks(rank), peer);
            plan.recv(blocks(peer), peer);
        }
    }
}

also_for_different_lengths!(RecursiveDoubling);
