//! The root's vector goes to one rank of each host in a binomial tree; each of these ranks passes it to the other ranks of
//! its host.
//!
//! Cost: `ceil(log2 h)` rounds of `n` bytes between `h` hosts; within a host the memory is shared.
//!
//! N. Karonis et al.: Exploiting Hierarchy in Parallel Computer Networks to Optimize Collective Operation
//! Performance (2000).

use crate::coll::algorithm::{Algorithm, plan_of};
use crate::coll::plan::Plan;
use crate::coll::shape::Shape;
use crate::coll::span::{NOTHING, output};

use super::{Bcast, Binomial, Linear};

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct TwoLevel;

impl Algorithm<Bcast> for TwoLevel {
    fn name(&self) -> &str {
        "two_level"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let hosts = shape.hosts();
        let (host, home) = (hosts.of(rank), hosts.of(shape.root()));
        let vector = output(0..shape.count());
        // The root represents its host.
        let heads: Vec<usize> = hosts
            .leaders()
            .enumerate()
            .map(|(i, leader)| if i == home { shape.root() } else { leader })
            .collect();
        if rank == heads[host] {
            let among = Shape::new(heads.len(), shape.count(), shape.element()).with_root(home);
            plan.embed(&plan_of(&Binomial, host, &among), &heads, NOTHING, vector);
        }
        let members = hosts.members(host);
        let place = |rank| members.iter().position(|&member| member == rank).unwrap_or(0);
        let within = Shape::new(members.len(), shape.count(), shape.element()).with_root(place(heads[host]));
        plan.embed(&plan_of(&Linear, place(rank), &within), members, NOTHING, vector);
    }
}
