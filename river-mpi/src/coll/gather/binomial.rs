//! Blocks are collected on their way up a binomial tree.
//!
//! Cost: `ceil(log2 p)` rounds; the root receives `n (p - 1)` bytes, other ranks pass on the blocks of their
//! subtree. For short blocks.
//!
//! E. Chan et al.: Collective Communication: Theory, Practice, and Experience (2007), there as minimum
//! spanning tree.

use crate::coll::algorithm::Algorithm;
use crate::coll::plan::Plan;
use crate::coll::shape::Shape;
use crate::coll::span::{input, output};
use crate::coll::tree;

use super::Gather;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct Binomial;

impl Algorithm<Gather> for Binomial {
    fn name(&self) -> &str {
        "binomial"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let (n, p, root) = (shape.count(), shape.size(), shape.root());
        let node = tree::Binomial::new(rank, root, p);
        let mine = input(0..n);
        let Some(parent) = node.parent() else {
            plan.copy(mine, output(shape.block(rank)));
            for child in node.children() {
                let blocks = child.subtree().map(|relative| output(shape.block((relative + root) % p)));
                plan.recv(blocks, child.rank());
            }
            return;
        };
        let below = plan.scratch(n * (node.subtree().len() - 1));
        let mut filled = 0;
        for child in node.children() {
            let blocks = below.part(filled..filled + n * child.subtree().len());
            plan.recv(blocks, child.rank());
            filled += blocks.len;
        }
        plan.send([mine, below], parent);
    }
}
