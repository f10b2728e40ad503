//! In round `k` each rank signals the rank `2^k` ahead, and has then heard, directly or indirectly, from `2^(k+1)` ranks.
//!
//! Cost: `ceil(log2 p)` rounds for any `p`, `p ceil(log2 p)` messages.
//!
//! D. Hensgen, R. Finkel, U. Manber: Two Algorithms for Barrier Synchronization (1988).

use crate::coll::algorithm::Algorithm;
use crate::coll::plan::Plan;
use crate::coll::shape::{Shape, log2_ceil};
use crate::coll::span::NOTHING;

use super::Barrier;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct Dissemination;

impl Algorithm<Barrier> for Dissemination {
    fn name(&self) -> &str {
        "dissemination"
    }

    fn plan(&self, i: usize, shape: &Shape, plan: &mut Plan) {
        let p = shape.size();
        for k in 0..log2_ceil(p) {
            let dest = (i + (1 << k)) % p;
            let src = (i + p - (1 << k)) % p;
            plan.send(NOTHING, dest);
            plan.recv(NOTHING, src);
        }
    }
}
