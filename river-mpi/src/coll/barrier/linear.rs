//! Every rank reports to rank 0, which then releases all of them.
//!
//! Cost: `2 (p - 1)` rounds at rank 0, `2 (p - 1)` messages. For a handful of ranks.
//!
//! In Open MPI: `linear`.

use crate::coll::algorithm::Algorithm;
use crate::coll::plan::Plan;
use crate::coll::shape::Shape;
use crate::coll::span::NOTHING;

use super::Barrier;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct Linear;

impl Algorithm<Barrier> for Linear {
    fn name(&self) -> &str {
        "linear"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        if rank > 0 {
            plan.send(NOTHING, 0);
            plan.recv(NOTHING, 0);
            return;
        }
        for other in 1..shape.size() {
            plan.recv(NOTHING, other);
        }
        for other in 1..shape.size() {
            plan.send(NOTHING, other);
        }
    }
}
