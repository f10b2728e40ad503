//! Recursive halving leaves each rank with the result for one piece of the vector; recursive doubling gathers
//! the pieces.
//!
//! Cost: `2 log2 p` rounds, `2 n (p - 1) / p` bytes, if `p` is a power of two; otherwise two rounds of `n`
//! bytes more. For long vectors.
//!
//! R. Rabenseifner: Optimization of Collective Reduction Operations (2004).

use crate::coll::algorithm::Algorithm;
use crate::coll::fold::Fold;
use crate::coll::halving::{Halving, other_half};
use crate::coll::plan::Plan;
use crate::coll::shape::Shape;
use crate::coll::span::{input, output};

use super::Allreduce;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct Rabenseifner;

impl Algorithm<Allreduce> for Rabenseifner {
    fn name(&self) -> &str {
        "rabenseifner"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let (given, result) = (input(0..shape.count()), output(0..shape.count()));
        let fold = Fold::new(shape.size());
        if let Some((number, data)) = fold.reduce(plan, rank, given, result) {
            if fold.size == 1 {
                plan.copy(data, result);
            }
            let halving = Halving::write(plan, &fold, number, data, result);
            for bit in (0..fold.size.ilog2()).rev() {
                let peer = fold.rank(number ^ (1 << bit));
                let (whole, mine) = (&halving.held[bit as usize], &halving.held[bit as usize + 1]);
                plan.send(halving.pieces(result, mine), peer);
                plan.recv(halving.pieces(result, &other_half(whole, mine)), peer);
            }
        }
        fold.give_back(plan, rank, result);
    }
}
