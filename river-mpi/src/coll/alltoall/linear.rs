//! Each rank sends a block to every other rank, and receives afterwards.
//!
//! Cost: `p - 1` rounds of `n` bytes, which do not wait for one another. All messages may have to be buffered at once. A rank
//! does not send empty blocks.
//!
//! In Open MPI: `linear`.

use crate::coll::algorithm::Algorithm;
use crate::coll::plan::Plan;
use crate::coll::shape::Shape;
use crate::coll::span::{input, output};

use super::{Alltoall, Alltoallv};

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct Linear;

impl Algorithm<Alltoall> for Linear {
    fn name(&self) -> &str {
        "linear"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let p = shape.size();
        // Each rank begins with its successor, so that no rank gets all messages at once.
        for to in (1..p).map(|step| (rank + step) % p) {
            if !shape.block(to).is_empty() {
                plan.send(input(shape.block(to)), to);
            }
        }
        plan.copy(input(shape.block(rank)), output(shape.incoming(rank)));
        for from in (1..p).map(|step| (rank + p - step) % p) {
            if !shape.incoming(from).is_empty() {
                plan.recv(output(shape.incoming(from)), from);
            }
        }
    }
}

impl Algorithm<Alltoallv> for Linear {
    fn name(&self) -> &str {
        "linear"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        Algorithm::<Alltoall>::plan(self, rank, shape, plan);
    }
}
