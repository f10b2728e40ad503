//! Each rank receives its piece of every rank's vector, combines these pieces, and sends the result to every rank.
//!
//! Cost: 2 rounds in which each rank sends `p - 1` messages of `n / p` bytes. This is the fastest algorithm for long vectors
//! on a few ranks of one host, where sending is cheap and combining dominates.

use crate::coll::algorithm::Algorithm;
use crate::coll::plan::{Plan, Side};
use crate::coll::shape::{Shape, share};
use crate::coll::span::{input, output};

use super::Allreduce;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct Direct;

impl Algorithm<Allreduce> for Direct {
    fn name(&self) -> &str {
        "direct"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let (n, p) = (shape.count(), shape.size());
        let piece = |rank| share(n, p, rank);
        // Each rank begins with its successor, so that no rank is the first target of all others.
        let others = || (1..p).map(|step| (rank + step) % p);
        for other in others() {
            plan.send(input(piece(other)), other);
        }
        let (given, mine) = (input(piece(rank)), output(piece(rank)));
        // Outwards from this rank, so that the operator need not commute.
        let mut data = given;
        for other in (0..rank).rev() {
            plan.recv_reduce(Side::Left, data, mine, other);
            data = mine;
        }
        for other in rank + 1..p {
            plan.recv_reduce(Side::Right, data, mine, other);
            data = mine;
        }
        plan.copy(data, mine);
        for other in others() {
            plan.send(mine, other);
        }
        for other in others() {
            plan.recv(output(piece(other)), other);
        }
    }
}
