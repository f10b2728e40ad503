//! The root sends each rank its block.
//!
//! Cost: `p - 1` rounds at the root, which sends every byte once.
//!
//! In Open MPI: `basic_linear`.

use crate::coll::algorithm::Algorithm;
use crate::coll::plan::Plan;
use crate::coll::shape::Shape;
use crate::coll::span::{input, output};

use super::{Scatter, Scatterv};

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct Linear;

impl Algorithm<Scatter> for Linear {
    fn name(&self) -> &str {
        "linear"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let mine = output(0..shape.block(rank).len());
        if rank != shape.root() {
            plan.recv(mine, shape.root());
            return;
        }
        for other in (0..shape.size()).filter(|&other| other != rank) {
            plan.send(input(shape.block(other)), other);
        }
        plan.copy(input(shape.block(rank)), mine);
    }
}

impl Algorithm<Scatterv> for Linear {
    fn name(&self) -> &str {
        "linear"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        Algorithm::<Scatter>::plan(self, rank, shape, plan);
    }
}
