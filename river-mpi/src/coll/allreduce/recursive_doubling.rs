//! In round `k` ranks whose numbers differ in bit `k` exchange their partial results: each rank then has the combination of
//! `2^(k+1)` vectors.
//!
//! Cost: `log2 p` rounds of `n` bytes, two more if `p` is not a power of two. As few rounds as possible: for short vectors.
//!
//! R. Thakur, R. Rabenseifner, W. Gropp: Optimization of Collective Communication Operations in MPICH (2005).

use crate::coll::algorithm::Algorithm;
use crate::coll::fold::Fold;
use crate::coll::plan::{Plan, Side};
use crate::coll::shape::{Shape, log2_ceil};
use crate::coll::span::{input, output};

use super::Allreduce;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct RecursiveDoubling;

impl Algorithm<Allreduce> for RecursiveDoubling {
    fn name(&self) -> &str {
        "recursive_doubling"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let (given, result) = (input(0..shape.count()), output(0..shape.count()));
        let fold = Fold::new(shape.size());
        if let Some((number, mut data)) = fold.reduce(plan, rank, given, result) {
            for k in 0..log2_ceil(fold.size) {
                let peer = number ^ (1 << k);
                plan.send(data, fold.rank(peer));
                plan.recv_reduce(Side::of(peer, number), data, result, fold.rank(peer));
                data = result;
            }
            plan.copy(data, result);
        }
        fold.give_back(plan, rank, result);
    }
}
