//! The ranks of each host combine their vectors; the leaders of the hosts combine the results and distribute them within
//! their hosts.
//!
//! Cost: `2 log2 h` rounds and `2 n` bytes between `h` hosts, whatever the number of ranks on each; within a host of `m`
//! ranks `2 log2 m` rounds of `n` bytes. An operator that does not commute requires the ranks of each host to be consecutive.
//!
//! N. Karonis et al.: Exploiting Hierarchy in Parallel Computer Networks to Optimize Collective Operation
//! Performance (2000).

use crate::coll::algorithm::{Algorithm, needs, plan_of};
use crate::coll::bcast;
use crate::coll::plan::Plan;
use crate::coll::reduce;
use crate::coll::shape::Shape;
use crate::coll::span::{NOTHING, input, output};

use super::{Allreduce, Rabenseifner, RecursiveDoubling};

/// From this many bytes on, vectors are cut into pieces between the hosts.
const LONG: usize = 16 << 10;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct TwoLevel;

impl Algorithm<Allreduce> for TwoLevel {
    fn name(&self) -> &str {
        "two_level"
    }

    fn supports(&self, shape: &Shape) -> Result<(), &'static str> {
        needs::order_of_hosts(shape)
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let (hosts, n) = (shape.hosts(), shape.count());
        let host = hosts.of(rank);
        let members = hosts.members(host);
        let place = members.iter().position(|&member| member == rank).unwrap_or(0);
        let among =
            |ranks: usize| Shape::new(ranks, n, shape.element()).with_commutative(shape.commutative());

        let within = among(members.len());
        if place == 0 {
            let leaders: Vec<usize> = hosts.leaders().collect();
            let of_host = plan.scratch(n);
            plan.embed(&plan_of(&reduce::Binomial, place, &within), members, input(0..n), of_host);
            let of_all: &dyn Algorithm<Allreduce> =
                if shape.bytes() < LONG { &RecursiveDoubling } else { &Rabenseifner };
            let of_all = plan_of(of_all, host, &among(leaders.len()));
            // The leaders read what was combined within their host.
            plan.embed(&of_all, &leaders, of_host, output(0..n));
        } else {
            plan.embed(&plan_of(&reduce::Binomial, place, &within), members, input(0..n), NOTHING);
        }
        plan.embed(&plan_of(&bcast::Linear, place, &within), members, NOTHING, output(0..n));
    }
}
