//! A reduction to rank 0, then a broadcast, both in a binomial tree.
//!
//! Cost: `2 ceil(log2 p)` rounds of `n` bytes, `2 (p - 1)` messages: as few as possible. The result is computed once, so it
//! is the same on all ranks to the last bit even if the operator is not exactly associative.
//!
//! In Open MPI: `nonoverlapping`.

use crate::coll::algorithm::{Algorithm, plan_of};
use crate::coll::bcast;
use crate::coll::plan::Plan;
use crate::coll::reduce;
use crate::coll::shape::Shape;
use crate::coll::span::{NOTHING, input, output};

use super::Allreduce;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct ReduceBcast;

impl Algorithm<Allreduce> for ReduceBcast {
    fn name(&self) -> &str {
        "reduce_bcast"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let ranks: Vec<usize> = (0..shape.size()).collect();
        let (given, result) = (input(0..shape.count()), output(0..shape.count()));
        let to_zero = shape.clone().with_root(0);
        plan.embed(&plan_of(&reduce::Binomial, rank, &to_zero), &ranks, given, result);
        plan.embed(&plan_of(&bcast::Binomial, rank, &to_zero), &ranks, NOTHING, result);
    }
}
