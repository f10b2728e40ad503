//! A block whose destination is `d` ranks ahead moves `2^k` ranks in round `k` for each bit `k` that is set in `d`, in one
//! message with all other blocks that move in this round.
//!
//! Cost: `ceil(log2 p)` rounds of at most `n p / 2` bytes. As few rounds as possible: for short blocks. Blocks are sent from
//! their place in the input and received in their final place, so the two rotations of the published algorithm are not
//! needed.
//!
//! J. Bruck et al.: Efficient Algorithms for All-to-All Communications in Multiport Message-Passing Systems
//! (1997).

use crate::coll::algorithm::Algorithm;
use crate::coll::plan::Plan;
use crate::coll::shape::{Shape, log2_ceil};
use crate::coll::span::{Span, input, output};

use super::Alltoall;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct Bruck;

impl Algorithm<Alltoall> for Bruck {
    fn name(&self) -> &str {
        "bruck"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let (n, p) = (shape.count(), shape.size());
        // Indexed by the total distance of a block: where this block currently lies.
        let mut at: Vec<Span> = (0..p).map(|ahead| input(shape.block((rank + ahead) % p))).collect();
        // A block in transit has a fixed place in the scratch memory.
        let scratch = plan.scratch(n * p);
        plan.copy(at[0], output(shape.incoming(rank)));
        for k in 0..log2_ceil(p) {
            let moving: Vec<usize> = (0..p).filter(|ahead| ahead & (1 << k) != 0).collect();
            plan.send(moving.iter().map(|&ahead| at[ahead]), (rank + (1 << k)) % p);
            for &ahead in &moving {
                let arrives = ahead >> (k + 1) == 0;
                at[ahead] = if arrives {
                    output(shape.incoming((rank + p - ahead) % p))
                } else {
                    scratch.part(n * ahead..n * (ahead + 1))
                };
            }
            plan.recv(moving.iter().map(|&ahead| at[ahead]), (rank + p - (1 << k)) % p);
        }
    }
}
