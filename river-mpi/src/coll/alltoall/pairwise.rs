//! In round `step` each rank exchanges blocks with the rank `rank ^ step` if `p` is a power of two; otherwise it sends `step`
//! ranks ahead and receives from `step` ranks behind.
//!
//! Cost: `p - 1` rounds of `n` bytes. For long blocks: every link is used in both directions all the time, and no rank
//! receives more than one block at once.
//!
//! R. Thakur, R. Rabenseifner, W. Gropp: Optimization of Collective Communication Operations in MPICH (2005).

use crate::coll::algorithm::Algorithm;
use crate::coll::plan::Plan;
use crate::coll::shape::Shape;
use crate::coll::span::{input, output};

use super::{Alltoall, Alltoallv};

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct Pairwise;

impl Algorithm<Alltoall> for Pairwise {
    fn name(&self) -> &str {
        "pairwise"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let p = shape.size();
        plan.copy(input(shape.block(rank)), output(shape.incoming(rank)));
        for step in 1..p {
            let (to, from) = if p.is_power_of_two() {
                (rank ^ step, rank ^ step)
            } else {
                ((rank + step) % p, (rank + p - step) % p)
            };
            if !shape.block(to).is_empty() {
                plan.send(input(shape.block(to)), to);
            }
            if !shape.incoming(from).is_empty() {
                plan.recv(output(shape.incoming(from)), from);
            }
        }
    }
}

impl Algorithm<Alltoallv> for Pairwise {
    fn name(&self) -> &str {
        "pairwise"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        Algorithm::<Alltoall>::plan(self, rank, shape, plan);
    }
}
