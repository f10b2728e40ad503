//! A reduction to rank 0 in a binomial tree; rank 0 then sends each rank its block.
//!
//! Cost: `ceil(log2 p)` rounds of `n` bytes and `p - 1` of `n / p`, `2 (p - 1)` messages: as few as possible.
//!
//! In Open MPI: `non-overlapping`.

use crate::coll::algorithm::{Algorithm, plan_of};
use crate::coll::plan::Plan;
use crate::coll::shape::Shape;
use crate::coll::span::{NOTHING, input, output};
use crate::coll::{reduce, scatter};

use super::ReduceScatter;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct ReduceThenScatter;

impl Algorithm<ReduceScatter> for ReduceThenScatter {
    fn name(&self) -> &str {
        "reduce_then_scatter"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let n = shape.total();
        let ranks: Vec<usize> = (0..shape.size()).collect();
        let all = if rank == 0 { plan.scratch(n) } else { NOTHING };
        let vector = Shape::new(shape.size(), n, shape.element()).with_commutative(shape.commutative());
        plan.embed(&plan_of(&reduce::Binomial, rank, &vector), &ranks, input(0..n), all);
        let blocks = shape.clone().with_root(0);
        let scattered = plan_of::<scatter::Scatterv>(&scatter::Linear, rank, &blocks);
        plan.embed(&scattered, &ranks, all, output(0..shape.block(rank).len()));
    }
}
