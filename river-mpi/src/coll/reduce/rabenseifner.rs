//! Recursive halving leaves each rank with the result for one piece of the vector; a binomial tree gathers
//! them at the root.
//!
//! Cost: `2 log2 p` rounds, `2 n (p - 1) / p` bytes, if `p` is a power of two; otherwise one round of `n`
//! bytes more. For long vectors.
//!
//! R. Rabenseifner: Optimization of Collective Reduction Operations (2004).

use crate::coll::algorithm::Algorithm;
use crate::coll::fold::Fold;
use crate::coll::halving::{Halving, other_half};
use crate::coll::plan::Plan;
use crate::coll::shape::Shape;
use crate::coll::span::{input, output};

use super::Reduce;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct Rabenseifner;

impl Algorithm<Reduce> for Rabenseifner {
    fn name(&self) -> &str {
        "rabenseifner"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let (n, root) = (shape.count(), shape.root());
        let fold = Fold::keeping(shape.size(), root);
        let result = match (rank == root, fold.number(rank)) {
            (true, _) => output(0..n),
            (false, Some(_)) => plan.scratch(n),
            (false, None) => input(0..0),
        };
        let Some((number, data)) = fold.reduce(plan, rank, input(0..n), result) else { return };
        if fold.size == 1 {
            plan.copy(data, result);
            return;
        }
        let halving = Halving::write(plan, &fold, number, data, result);
        let root = fold.number(root).unwrap_or(0);
        // In each pair the rank that agrees with the root in this bit receives; the other one is done.
        for bit in (0..fold.size.ilog2()).rev() {
            let peer = fold.rank(number ^ (1 << bit));
            let (whole, mine) = (&halving.held[bit as usize], &halving.held[bit as usize + 1]);
            if (number ^ root) & (1 << bit) != 0 {
                plan.send(halving.pieces(result, mine), peer);
                return;
            }
            plan.recv(halving.pieces(result, &other_half(whole, mine)), peer);
        }
    }
}
