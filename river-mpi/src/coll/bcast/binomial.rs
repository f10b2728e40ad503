//! Each rank that has the vector passes it on, in a binomial tree: the number of ranks that have it doubles in each round.
//!
//! Cost: `ceil(log2 p)` rounds of `n` bytes. For short vectors.
//!
//! R. Thakur, R. Rabenseifner, W. Gropp: Optimization of Collective Communication Operations in MPICH (2005).

use crate::coll::algorithm::Algorithm;
use crate::coll::plan::Plan;
use crate::coll::shape::Shape;
use crate::coll::span::output;
use crate::coll::tree;

use super::Bcast;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct Binomial;

impl Algorithm<Bcast> for Binomial {
    fn name(&self) -> &str {
        "binomial"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let vector = output(0..shape.count());
        let node = tree::Binomial::new(rank, shape.root(), shape.size());
        if let Some(parent) = node.parent() {
            plan.recv(vector, parent);
        }
        // The child with the largest subtree comes first: its branch is the deepest.
        for child in node.children().rev() {
            plan.send(vector, child.rank());
        }
    }
}
