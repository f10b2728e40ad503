//! In round `k` each rank sends all blocks that it has, at most `2^k`, to the rank `2^k` before it.
//!
//! Cost: `ceil(log2 p)` rounds for any `p`, `n (p - 1)` bytes. For short blocks. Each block is received in its final place,
//! so the rotation at the end of the published algorithm is not needed.
//!
//! J. Bruck et al.: Efficient Algorithms for All-to-All Communications in Multiport Message-Passing Systems
//! (1997).

use crate::coll::algorithm::Algorithm;
use crate::coll::plan::Plan;
use crate::coll::shape::{Shape, log2_ceil};
use crate::coll::span::{input, output};

use super::{Allgather, also_for_different_lengths};

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct Bruck;

impl Algorithm<Allgather> for Bruck {
    fn name(&self) -> &str {
        "bruck"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let p = shape.size();
        plan.copy(input(0..shape.block(rank).len()), output(shape.block(rank)));
        for k in 0..log2_ceil(p) {
            let have = 1 << k;
            let wanted = have.min(p - have);
            let blocks = |first: usize| (first..first + wanted).map(|i| output(shape.block(i % p)));
            plan.send(blocks(rank), (rank + p - have) % p);
            plan.recv(blocks(rank + have), (rank + have) % p);
        }
    }
}

also_for_different_lengths!(Bruck);
