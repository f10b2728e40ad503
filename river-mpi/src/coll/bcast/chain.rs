//! A pipeline: the vector passes from rank to rank in segments, each of which is forwarded as soon as it has arrived.
//!
//! Cost: `p - 2 + s` rounds of `n / s` bytes for `s` segments. For long vectors every link carries the vector once, at its
//! full speed, and the length of the chain does not matter.
//!
//! In Open MPI: `pipeline`.

use crate::coll::algorithm::Algorithm;
use crate::coll::plan::Plan;
use crate::coll::shape::Shape;
use crate::coll::span::output;

use super::Bcast;

/// The default length of a segment: as much as fits into a ring between two processes.
pub(super) const SEGMENT: usize = 64 << 10;

/// See the [module](self).
#[derive(Clone, Copy, Debug)]
pub struct Chain {
    /// The length of a segment in bytes. Default: 64 KiB.
    pub segment: usize,
}

impl Default for Chain {
    fn default() -> Self {
        Self { segment: SEGMENT }
    }
}

impl Algorithm<Bcast> for Chain {
    fn name(&self) -> &str {
        "chain"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let p = shape.size();
        let place = (rank + p - shape.root()) % p;
        let (before, after) = ((rank + p - 1) % p, (rank + 1) % p);
        let step = (self.segment / shape.element()).max(1);
        for start in (0..shape.count()).step_by(step) {
            let segment = output(start..shape.count().min(start + step));
            if place > 0 {
                plan.recv(segment, before);
            }
            if place < p - 1 {
                plan.send(segment, after);
            }
        }
    }
}
