//! Each rank sends its block to every other rank.
//!
//! Cost: `p - 1` rounds of `n` bytes, which do not wait for one another. This is the fastest algorithm for a few ranks of one
//! host, where all receivers share the memory of a message.
//!
//! In Open MPI: `linear`.

use crate::coll::algorithm::Algorithm;
use crate::coll::plan::Plan;
use crate::coll::shape::Shape;
use crate::coll::span::{input, output};

use super::{Allgather, also_for_different_lengths};

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct Linear;

impl Algorithm<Allgather> for Linear {
    fn name(&self) -> &str {
        "linear"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let p = shape.size();
        let mine = input(0..shape.block(rank).len());
        for step in 1..p {
            plan.send(mine, (rank + step) % p);
        }
        plan.copy(mine, output(shape.block(rank)));
        for step in 1..p {
            let other = (rank + p - step) % p;
            plan.recv(output(shape.block(other)), other);
        }
    }
}

also_for_different_lengths!(Linear);
