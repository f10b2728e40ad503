//! The vector is divided into `p` pieces. Each piece goes around the ring once, being combined at each rank, and then once
//! more to distribute the result.
//!
//! Cost: `2 (p - 1)` rounds of `n / p` bytes. For long vectors: no algorithm sends less, and each rank communicates only with
//! its neighbours. The operator must commute, since each piece begins at a different rank.
//!
//! P. Patarasuk, X. Yuan: Bandwidth Optimal All-reduce Algorithms for Clusters of Workstations (2009).

use crate::coll::algorithm::{Algorithm, needs};
use crate::coll::plan::{Plan, Side};
use crate::coll::shape::{Shape, share};
use crate::coll::span::{input, output};

use super::Allreduce;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct Ring;

impl Algorithm<Allreduce> for Ring {
    fn name(&self) -> &str {
        "ring"
    }

    fn supports(&self, shape: &Shape) -> Result<(), &'static str> {
        needs::commutative(shape)
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let (n, p) = (shape.count(), shape.size());
        if p == 1 {
            plan.copy(input(0..n), output(0..n));
            return;
        }
        let piece = |offset: usize| share(n, p, (rank + p - offset) % p);
        let (before, after) = ((rank + p - 1) % p, (rank + 1) % p);

        plan.send(input(piece(0)), after);
        for step in 1..p {
            plan.recv_reduce(Side::Left, input(piece(step)), output(piece(step)), before);
            plan.send(output(piece(step)), after);
        }
        // The piece received last is complete; it now goes around again.
        for step in 0..p - 1 {
            plan.recv(output(piece(step)), before);
            if step < p - 2 {
                plan.send(output(piece(step)), after);
            }
        }
    }
}
