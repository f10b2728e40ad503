//! The ranks of each host combine their vectors, and one rank of each host combines the results.
//!
//! Cost: `ceil(log2 h)` rounds of `n` bytes between `h` hosts, `ceil(log2 m)` within a host of `m` ranks. An operator that
//! does not commute requires the ranks of each host to be consecutive.
//!
//! N. Karonis et al.: Exploiting Hierarchy in Parallel Computer Networks to Optimize Collective Operation
//! Performance (2000).

use crate::coll::algorithm::{Algorithm, needs, plan_of};
use crate::coll::plan::Plan;
use crate::coll::shape::Shape;
use crate::coll::span::{NOTHING, input, output};

use super::{Binomial, Reduce};

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct TwoLevel;

impl Algorithm<Reduce> for TwoLevel {
    fn name(&self) -> &str {
        "two_level"
    }

    fn supports(&self, shape: &Shape) -> Result<(), &'static str> {
        needs::order_of_hosts(shape)
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let (hosts, n) = (shape.hosts(), shape.count());
        let (host, home) = (hosts.of(rank), hosts.of(shape.root()));
        let among = |ranks: usize, root: usize| {
            Shape::new(ranks, n, shape.element()).with_root(root).with_commutative(shape.commutative())
        };
        // The root represents its host.
        let heads: Vec<usize> = hosts
            .leaders()
            .enumerate()
            .map(|(i, leader)| if i == home { shape.root() } else { leader })
            .collect();
        let members = hosts.members(host);
        let place = |rank| members.iter().position(|&member| member == rank).unwrap_or(0);

        let within = plan_of(&Binomial, place(rank), &among(members.len(), place(heads[host])));
        if rank != heads[host] {
            plan.embed(&within, members, input(0..n), NOTHING);
            return;
        }
        let of_host = plan.scratch(n);
        plan.embed(&within, members, input(0..n), of_host);
        let result = if rank == shape.root() { output(0..n) } else { NOTHING };
        plan.embed(&plan_of(&Binomial, host, &among(heads.len(), home)), &heads, of_host, result);
    }
}
