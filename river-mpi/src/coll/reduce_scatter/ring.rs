//! Each block goes around the ring, is combined at each rank, and ends at the rank that it belongs to.
//!
//! Cost: `p - 1` rounds of `n / p` bytes. For long vectors; each rank communicates only with its neighbours. The operator
//! must commute.
//!
//! E. Chan et al.: Collective Communication: Theory, Practice, and Experience (2007), there as bucket
//! algorithm.

use crate::coll::algorithm::{Algorithm, needs};
use crate::coll::plan::{Plan, Side};
use crate::coll::shape::Shape;
use crate::coll::span::{input, output};

use super::ReduceScatter;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct Ring;

impl Algorithm<ReduceScatter> for Ring {
    fn name(&self) -> &str {
        "ring"
    }

    fn supports(&self, shape: &Shape) -> Result<(), &'static str> {
        needs::commutative(shape)
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let p = shape.size();
        let mine = output(0..shape.block(rank).len());
        if p == 1 {
            plan.copy(input(shape.block(rank)), mine);
            return;
        }
        let (before, after) = ((rank + p - 1) % p, (rank + 1) % p);
        let longest = (0..p).map(|rank| shape.block(rank).len()).max().unwrap_or(0);
        let passing = plan.scratch(longest);
        plan.send(input(shape.block(before)), after);
        for step in 2..=p {
            let block = shape.block((rank + p - step % p) % p);
            let into = if step == p { mine } else { passing.part(0..block.len()) };
            plan.recv_reduce(Side::Left, input(block), into, before);
            if step < p {
                plan.send(into, after);
            }
        }
    }
}
