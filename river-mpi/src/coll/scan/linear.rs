//! Each rank waits for the result of the previous rank, adds its own vector, and sends the result to the next.
//!
//! Cost: `p - 1` rounds of `n` bytes, `p - 1` messages: as few as possible.
//!
//! In Open MPI: `linear`.

use crate::coll::algorithm::Algorithm;
use crate::coll::plan::{Plan, Side};
use crate::coll::shape::Shape;
use crate::coll::span::{input, output};

use super::{Exscan, Scan};

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct Linear;

impl Algorithm<Scan> for Linear {
    fn name(&self) -> &str {
        "linear"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let (given, result) = (input(0..shape.count()), output(0..shape.count()));
        let next = (rank + 1 < shape.size()).then_some(rank + 1);
        if rank == 0 {
            // Sent first, so that no rank waits for the copy.
            next.iter().for_each(|&next| plan.send(given, next));
            plan.copy(given, result);
        } else {
            plan.recv_reduce(Side::Left, given, result, rank - 1);
            next.iter().for_each(|&next| plan.send(result, next));
        }
    }
}

impl Algorithm<Exscan> for Linear {
    fn name(&self) -> &str {
        "linear"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let (given, result) = (input(0..shape.count()), output(0..shape.count()));
        let last = rank + 1 == shape.size();
        if rank == 0 {
            if !last {
                plan.send(given, 1);
            }
            return;
        }
        if last {
            plan.recv(result, rank - 1);
            return;
        }
        let inclusive = plan.scratch(shape.count());
        plan.copy(given, inclusive);
        plan.recv(result, rank - 1);
        plan.reduce(Side::Left, result, inclusive);
        plan.send(inclusive, rank + 1);
    }
}
