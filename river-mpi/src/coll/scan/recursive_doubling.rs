//! In round `k` each rank sends the combination of the last `2^k` ranks to the rank `2^k` ahead.
//!
//! Cost: `ceil(log2 p)` rounds of `n` bytes, for any `p`.
//!
//! W. D. Hillis, G. L. Steele: Data Parallel Algorithms (1986).

use crate::coll::algorithm::Algorithm;
use crate::coll::plan::{Plan, Side};
use crate::coll::shape::{Shape, log2_ceil};
use crate::coll::span::{input, output};

use super::{Exscan, Scan};

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct RecursiveDoubling;

impl Algorithm<Scan> for RecursiveDoubling {
    fn name(&self) -> &str {
        "recursive_doubling"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let result = output(0..shape.count());
        let mut data = input(0..shape.count());
        for distance in (0..log2_ceil(shape.size())).map(|k| 1 << k) {
            if rank + distance < shape.size() {
                plan.send(data, rank + distance);
            }
            if rank >= distance {
                plan.recv_reduce(Side::Left, data, result, rank - distance);
                data = result;
            }
        }
        plan.copy(data, result);
    }
}

impl Algorithm<Exscan> for RecursiveDoubling {
    fn name(&self) -> &str {
        "recursive_doubling"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let n = shape.count();
        let result = output(0..n);
        // The combination up to this rank, which other ranks need, and a buffer for received data.
        let mut inclusive = input(0..n);
        let (sum, received) = (plan.scratch(n), plan.scratch(n));
        for distance in (0..log2_ceil(shape.size())).map(|k| 1 << k) {
            if rank + distance < shape.size() {
                plan.send(inclusive, rank + distance);
            }
            if rank < distance {
                continue;
            }
            if distance == 1 {
                plan.copy(inclusive, sum);
                plan.recv(result, rank - 1);
                plan.reduce(Side::Left, result, sum);
            } else {
                plan.recv(received, rank - distance);
                plan.reduce(Side::Left, received, result);
                plan.reduce(Side::Left, received, sum);
            }
            inclusive = sum;
        }
    }
}
