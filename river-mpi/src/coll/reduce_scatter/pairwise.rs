//! Each rank sends every other rank the block that is due to that rank, and combines what it receives outwards from its own.
//!
//! Cost: `p - 1` rounds of `n / p` bytes, which do not wait for one another. For long vectors: no algorithm
//! sends less.
//!
//! R. Thakur, R. Rabenseifner, W. Gropp: Optimization of Collective Communication Operations in MPICH (2005).

use crate::coll::algorithm::Algorithm;
use crate::coll::plan::{Plan, Side};
use crate::coll::shape::Shape;
use crate::coll::span::{input, output};

use super::ReduceScatter;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct Pairwise;

impl Algorithm<ReduceScatter> for Pairwise {
    fn name(&self) -> &str {
        "pairwise"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let p = shape.size();
        for to in (1..p).map(|step| (rank + step) % p) {
            plan.send(input(shape.block(to)), to);
        }
        let mine = output(0..shape.block(rank).len());
        let mut data = input(shape.block(rank));
        for from in (0..rank).rev().chain(rank + 1..p) {
            plan.recv_reduce(Side::of(from, rank), data, mine, from);
            data = mine;
        }
        plan.copy(data, mine);
    }
}
