//! Reports travel up a binomial tree to rank 0, and the release travels back down.
//!
//! Cost: `2 ceil(log2 p)` rounds, `2 (p - 1)` messages: as few as possible.
//!
//! In Open MPI: `tree`.

use crate::coll::algorithm::Algorithm;
use crate::coll::plan::Plan;
use crate::coll::shape::Shape;
use crate::coll::span::NOTHING;
use crate::coll::tree::Binomial;

use super::Barrier;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct Tree;

impl Algorithm<Barrier> for Tree {
    fn name(&self) -> &str {
        "tree"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let node = Binomial::new(rank, 0, shape.size());
        for child in node.children() {
            plan.recv(NOTHING, child.rank());
        }
        if let Some(parent) = node.parent() {
            plan.send(NOTHING, parent);
            plan.recv(NOTHING, parent);
        }
        for child in node.children().rev() {
            plan.send(NOTHING, child.rank());
        }
    }
}
