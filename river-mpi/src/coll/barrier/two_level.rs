//! The ranks of each host report to its leader; the leaders meet in a dissemination barrier, and then release their ranks.
//!
//! Cost: `ceil(log2 h)` rounds between `h` hosts, `2 (m - 1)` within a host of `m` ranks.
//!
//! N. Karonis et al.: Exploiting Hierarchy in Parallel Computer Networks to Optimize Collective Operation
//! Performance (2000).

use crate::coll::algorithm::{Algorithm, plan_of};
use crate::coll::plan::Plan;
use crate::coll::shape::Shape;
use crate::coll::span::NOTHING;

use super::{Barrier, Dissemination};

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct TwoLevel;

impl Algorithm<Barrier> for TwoLevel {
    fn name(&self) -> &str {
        "two_level"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let host = shape.hosts().of(rank);
        let (leader, others) = match shape.hosts().members(host) {
            [leader, others @ ..] => (*leader, others),
            [] => return,
        };
        if rank != leader {
            plan.send(NOTHING, leader);
            plan.recv(NOTHING, leader);
            return;
        }
        for &other in others {
            plan.recv(NOTHING, other);
        }
        let leaders: Vec<usize> = shape.hosts().leaders().collect();
        let among_leaders = plan_of(&Dissemination, host, &Shape::new(leaders.len(), 0, 1));
        plan.embed(&among_leaders, &leaders, NOTHING, NOTHING);
        for &other in others {
            plan.send(NOTHING, other);
        }
    }
}
