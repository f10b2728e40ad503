//! Each block goes around the ring.
//!
//! Cost: `p - 1` rounds of `n` bytes. For long blocks: no algorithm sends less, and each rank communicates only with its
//! neighbours.
//!
//! R. Thakur, R. Rabenseifner, W. Gropp: Optimization of Collective Communication Operations in MPICH (2005).

use crate::coll::algorithm::Algorithm;
use crate::coll::plan::Plan;
use crate::coll::shape::Shape;
use crate::coll::span::{input, output};

use super::{Allgather, also_for_different_lengths};

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct Ring;

impl Algorithm<Allgather> for Ring {
    fn name(&self) -> &str {
        "ring"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let p = shape.size();
        let (before, after) = ((rank + p - 1) % p, (rank + 1) % p);
        let mine = input(0..shape.block(rank).len());
        if p > 1 {
            plan.send(mine, after);
        }
        plan.copy(mine, output(shape.block(rank)));
        for step in 1..p {
            let block = output(shape.block((rank + p - step) % p));
            plan.recv(block, before);
            if step < p - 1 {
                plan.send(block, after);
            }
        }
    }
}

also_for_different_lengths!(Ring);
