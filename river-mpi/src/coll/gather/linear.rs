//! Each rank sends its block to the root.
//!
//! Cost: `p - 1` rounds at the root, which receives every byte once.
//!
//! In Open MPI: `basic_linear`.

use crate::coll::algorithm::Algorithm;
use crate::coll::plan::Plan;
use crate::coll::shape::Shape;
use crate::coll::span::{input, output};

use super::{Gather, Gatherv};

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct Linear;

impl Algorithm<Gather> for Linear {
    fn name(&self) -> &str {
        "linear"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let mine = input(0..shape.block(rank).len());
        if rank != shape.root() {
            plan.send(mine, shape.root());
            return;
        }
        plan.copy(mine, output(shape.block(rank)));
        for other in (0..shape.size()).filter(|&other| other != rank) {
            plan.recv(output(shape.block(other)), other);
        }
    }
}

impl Algorithm<Gatherv> for Linear {
    fn name(&self) -> &str {
        "linear"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        Algorithm::<Gather>::plan(self, rank, shape, plan);
    }
}
