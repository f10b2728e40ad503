//! Blocks travel down a binomial tree: each rank keeps its own block and passes on those of the ranks below it.
//!
//! Cost: `ceil(log2 p)` rounds; the root sends `n (p - 1)` bytes. For short blocks.
//!
//! E. Chan et al.: Collective Communication: Theory, Practice, and Experience (2007), there as minimum
//! spanning tree.

use crate::coll::algorithm::Algorithm;
use crate::coll::plan::Plan;
use crate::coll::shape::Shape;
use crate::coll::span::{input, output};
use crate::coll::tree;

use super::Scatter;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct Binomial;

impl Algorithm<Scatter> for Binomial {
    fn name(&self) -> &str {
        "binomial"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let (n, p, root) = (shape.count(), shape.size(), shape.root());
        let node = tree::Binomial::new(rank, root, p);
        let mine = output(0..n);
        let Some(parent) = node.parent() else {
            for child in node.children().rev() {
                let blocks = child.subtree().map(|relative| input(shape.block((relative + root) % p)));
                plan.send(blocks, child.rank());
            }
            plan.copy(input(shape.block(rank)), mine);
            return;
        };
        let below = plan.scratch(n * (node.subtree().len() - 1));
        plan.recv([mine, below], parent);
        for child in node.children().rev() {
            let first = child.subtree().start - node.subtree().start - 1;
            plan.send(below.part(n * first..n * (first + child.subtree().len())), child.rank());
        }
    }
}
