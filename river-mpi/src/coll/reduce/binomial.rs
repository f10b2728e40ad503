//! Vectors are combined on their way up a binomial tree.
//!
//! Cost: `ceil(log2 p)` rounds of `n` bytes. For short vectors. If the operator does not commute and the root is not rank 0,
//! the tree leads to rank 0, which sends the result to the root in one more round.
//!
//! R. Thakur, R. Rabenseifner, W. Gropp: Optimization of Collective Communication Operations in MPICH (2005).

use crate::coll::algorithm::Algorithm;
use crate::coll::plan::{Plan, Side};
use crate::coll::shape::Shape;
use crate::coll::span::{input, output};
use crate::coll::tree;

use super::Reduce;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct Binomial;

impl Algorithm<Reduce> for Binomial {
    fn name(&self) -> &str {
        "binomial"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let (n, root) = (shape.count(), shape.root());
        let top = if shape.commutative() { root } else { 0 };
        let node = tree::Binomial::new(rank, top, shape.size());
        let mut data = input(0..n);
        if node.children().next().is_some() {
            let result = if rank == root { output(0..n) } else { plan.scratch(n) };
            for child in node.children() {
                // The subtree of a child consists of the ranks that follow those combined so far.
                plan.recv_reduce(Side::Right, data, result, child.rank());
                data = result;
            }
        }
        if let Some(parent) = node.parent() {
            plan.send(data, parent);
        }
        match (rank == top, rank == root) {
            (true, true) => plan.copy(data, output(0..n)),
            (true, false) => plan.send(data, root),
            (false, true) => plan.recv(output(0..n), top),
            (false, false) => {}
        }
    }
}
