//! Each rank sends an empty message to every other rank.
//!
//! Cost: 1 round, in which each rank sends `p - 1` messages. Within a host, where messages are cheap, this needs the fewest
//! context switches between ranks if there are more ranks than cores.

use crate::coll::algorithm::Algorithm;
use crate::coll::plan::Plan;
use crate::coll::shape::Shape;
use crate::coll::span::NOTHING;

use super::Barrier;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct AllToAll;

impl Algorithm<Barrier> for AllToAll {
    fn name(&self) -> &str {
        "all_to_all"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let p = shape.size();
        for step in 1..p {
            plan.send(NOTHING, (rank + step) % p);
        }
        for step in 1..p {
            plan.recv(NOTHING, (rank + p - step) % p);
        }
    }
}
