//! Blocks are gathered at rank 0, which broadcasts them, both in a binomial tree.
//!
//! Cost: `2 ceil(log2 p)` rounds, `2 (p - 1)` messages: as few as possible.
//!
//! E. Chan et al.: Collective Communication: Theory, Practice, and Experience (2007).

use crate::coll::algorithm::{Algorithm, plan_of};
use crate::coll::plan::Plan;
use crate::coll::shape::Shape;
use crate::coll::span::{NOTHING, input, output};
use crate::coll::{bcast, gather};

use super::Allgather;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct GatherBcast;

impl Algorithm<Allgather> for GatherBcast {
    fn name(&self) -> &str {
        "gather_bcast"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let ranks: Vec<usize> = (0..shape.size()).collect();
        let all = output(0..shape.total());
        let gathered = plan_of(&gather::Binomial, rank, &shape.clone().with_root(0));
        plan.embed(&gathered, &ranks, input(0..shape.count()), all);
        let vector = Shape::new(shape.size(), shape.total(), shape.element());
        plan.embed(&plan_of(&bcast::Binomial, rank, &vector), &ranks, NOTHING, all);
    }
}
