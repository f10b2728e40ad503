//! Each rank sends its vector to the root, which combines the vectors outwards from its own.
//!
//! Cost: `p - 1` rounds of `n` bytes at the root.
//!
//! In Open MPI: `linear`.

use crate::coll::algorithm::Algorithm;
use crate::coll::plan::{Plan, Side};
use crate::coll::shape::Shape;
use crate::coll::span::{input, output};

use super::Reduce;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct Linear;

impl Algorithm<Reduce> for Linear {
    fn name(&self) -> &str {
        "linear"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let (n, root) = (shape.count(), shape.root());
        let mut data = input(0..n);
        if rank != root {
            plan.send(data, root);
            return;
        }
        let result = output(0..n);
        for other in (0..root).rev().chain(root + 1..shape.size()) {
            plan.recv_reduce(Side::of(other, root), data, result, other);
            data = result;
        }
        plan.copy(data, result);
    }
}
