//! Each rank gets its piece of everybody's vector at once, combines them, and sends the result to everybody.
//!
//! Cost: 2 rounds in which each rank sends `p - 1` messages of `n / p` bytes. Within a host, where sending is
//! cheap and combining is what counts, the fastest for long vectors and few ranks.

use crate::coll::algorithm::Algorithm;
use crate::coll::plan::{Plan, Side, input, output};
use crate::coll::shape::{Shape, share};

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
        // Everybody begins with the next one, so that nobody is asked by all at once.
        let others = || (1..p).map(|step| (rank + step) % p);
        for other in others() {
            plan.send(input(piece(other)), other);
        }
        let (given, mine) = (input(piece(rank)), output(piece(rank)));
        // Outwards from the own rank, so that the operator need not commute.
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
