//! Each rank sends its vector to every other rank, and combines all vectors in the order of the ranks.
//!
//! Cost: 1 round, in which each rank sends `p - 1` messages of `n` bytes and combines `p` vectors. For a few bytes on a few
//! ranks of one host: no rank waits for more than one message from each of the others, so this needs the fewest context
//! switches between ranks if there are more ranks than cores.

use crate::coll::algorithm::Algorithm;
use crate::coll::plan::{Plan, Side};
use crate::coll::shape::Shape;
use crate::coll::span::{input, output};

use super::Allreduce;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct AllToAll;

impl Algorithm<Allreduce> for AllToAll {
    fn name(&self) -> &str {
        "all_to_all"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let (n, p) = (shape.count(), shape.size());
        let (given, all) = (input(0..n), output(0..n));
        for step in 1..p {
            plan.send(given, (rank + step) % p);
        }
        if rank == 0 {
            let mut data = given;
            for other in 1..p {
                plan.recv_reduce(Side::Right, data, all, other);
                data = all;
            }
            plan.copy(data, all);
            return;
        }
        // Starting at rank 0, so that all ranks get the same bits; not in the output, because the input may lie there.
        let so_far = plan.scratch(n);
        plan.recv([so_far], 0);
        for other in 1..p {
            if other == rank {
                plan.reduce(Side::Right, given, so_far);
            } else {
                plan.recv_reduce(Side::Right, so_far, so_far, other);
            }
        }
        plan.copy(so_far, all);
    }
}
