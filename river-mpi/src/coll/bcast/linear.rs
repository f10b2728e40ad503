//! The root sends the vector to every rank.
//!
//! Cost: `p - 1` rounds of `n` bytes at the root. This is the fastest algorithm for a few ranks of one host, where ranks
//! share the memory of the message.
//!
//! In Open MPI: `basic_linear`.

use crate::coll::algorithm::Algorithm;
use crate::coll::plan::Plan;
use crate::coll::shape::Shape;
use crate::coll::span::output;

use super::Bcast;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct Linear;

impl Algorithm<Bcast> for Linear {
    fn name(&self) -> &str {
        "linear"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let vector = output(0..shape.count());
        if rank != shape.root() {
            plan.recv(vector, shape.root());
            return;
        }
        for other in (0..shape.size()).filter(|&other| other != rank) {
            plan.send(vector, other);
        }
    }
}
