//! Plans between two groups (MPI 2.0, section 7.3): what one group gives, the other gets.
//!
//! The ranks of both groups are numbered together, those of one after those of the other. Reductions are done
//! within a group, whose first rank speaks for it; everything else is sent directly.

use std::ops::Range;

use super::algorithm::plan_of;
use super::plan::{NOTHING, Plan, Span, input, output};
use super::shape::Shape;
use super::{barrier, bcast, reduce, scatter};

/// The two groups as one rank sees them.
#[derive(Clone, Debug)]
pub(crate) struct Inter {
    /// The numbers of this rank's group.
    pub(crate) local: Range<usize>,
    /// The numbers of the other group.
    pub(crate) remote: Range<usize>,
    /// This rank in its own group.
    pub(crate) rank: usize,
}

/// Who the root is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InterRoot {
    /// That rank of the other group.
    There(usize),
    /// This rank.
    Here,
    /// Another rank of this group: this one has nothing to do.
    Elsewhere,
}

impl Inter {
    pub(crate) fn barrier(&self) -> Plan {
        let all = Shape::new(self.local.len() + self.remote.len(), 0, 1);
        plan_of(&barrier::Dissemination, self.local.start + self.rank, &all)
    }

    pub(crate) fn bcast(&self, count: usize, root: InterRoot) -> Plan {
        let (root, receivers, place) = match root {
            InterRoot::There(root) => (self.remote.start + root, self.local.clone(), self.rank + 1),
            InterRoot::Here => (self.local.start + self.rank, self.remote.clone(), 0),
            InterRoot::Elsewhere => return Plan::new(),
        };
        let ranks: Vec<usize> = std::iter::once(root).chain(receivers).collect();
        let mut plan = Plan::new();
        let shape = Shape::new(ranks.len(), count, 1);
        plan.embed(&plan_of(&bcast::Binomial, place, &shape), &ranks, NOTHING, output(0..count));
        plan
    }

    /// Each rank of the other group gives its block to the root here, or this one gives `count` elements to
    /// the root there.
    pub(crate) fn gather(&self, count: usize, blocks: &[Range<usize>], root: InterRoot) -> Plan {
        let mut plan = Plan::new();
        match root {
            InterRoot::There(root) => plan.send(input(0..count), self.remote.start + root),
            InterRoot::Here => {
                for (other, block) in self.remote.clone().zip(blocks) {
                    plan.recv(output(block.clone()), other);
                }
            }
            InterRoot::Elsewhere => {}
        }
        plan
    }

    /// The root here gives each rank of the other group its block, or this one gets `count` elements from the
    /// root there.
    pub(crate) fn scatter(&self, count: usize, blocks: &[Range<usize>], root: InterRoot) -> Plan {
        let mut plan = Plan::new();
        match root {
            InterRoot::There(root) => plan.recv(output(0..count), self.remote.start + root),
            InterRoot::Here => {
                for (other, block) in self.remote.clone().zip(blocks) {
                    plan.send(input(block.clone()), other);
                }
            }
            InterRoot::Elsewhere => {}
        }
        plan
    }

    /// Sends a block to each rank of the other group and receives one from it. Nobody is first everywhere.
    pub(crate) fn exchange(&self, outgoing: &[Span], incoming: &[Range<usize>]) -> Plan {
        let mut plan = Plan::new();
        let others = self.remote.len();
        for other in (0..others).map(|step| (self.rank + step) % others) {
            if outgoing[other].len > 0 {
                plan.send(outgoing[other], self.remote.start + other);
            }
        }
        for other in (0..others).map(|step| (self.rank + step) % others) {
            if !incoming[other].is_empty() {
                plan.recv(output(incoming[other].clone()), self.remote.start + other);
            }
        }
        plan
    }

    /// This group's vectors, combined, to the root there; or those of the other group to the root here.
    pub(crate) fn reduce(&self, count: usize, commutative: bool, root: InterRoot) -> Plan {
        let mut plan = Plan::new();
        match root {
            InterRoot::There(root) => {
                let combined = self.combine(&mut plan, count, commutative);
                if self.rank == 0 {
                    plan.send(combined, self.remote.start + root);
                }
            }
            InterRoot::Here => plan.recv(output(0..count), self.remote.start),
            InterRoot::Elsewhere => {}
        }
        plan
    }

    /// The vectors of the other group, combined, to all.
    pub(crate) fn allreduce(&self, count: usize, commutative: bool) -> Plan {
        let mut plan = Plan::new();
        let combined = self.combine(&mut plan, count, commutative);
        if self.rank == 0 {
            plan.send(combined, self.remote.start);
            plan.recv(output(0..count), self.remote.start);
        }
        let shape = Shape::new(self.local.len(), count, 1);
        let ranks: Vec<usize> = self.local.clone().collect();
        plan.embed(&plan_of(&bcast::Binomial, self.rank, &shape), &ranks, NOTHING, output(0..count));
        plan
    }

    /// The vectors of the other group, combined, a block to each rank of this one.
    pub(crate) fn reduce_scatter(&self, blocks: &[Range<usize>], commutative: bool) -> Plan {
        let count = blocks.last().map_or(0, |block| block.end);
        let mut plan = Plan::new();
        let combined = self.combine(&mut plan, count, commutative);
        let mut theirs = NOTHING;
        if self.rank == 0 {
            theirs = plan.scratch(count);
            plan.send(combined, self.remote.start);
            plan.recv(theirs, self.remote.start);
        }
        let shape = Shape::new(self.local.len(), 0, 1).with_blocks(blocks.iter().cloned());
        let ranks: Vec<usize> = self.local.clone().collect();
        let scattered = plan_of::<scatter::Scatterv>(&scatter::Linear, self.rank, &shape);
        plan.embed(&scattered, &ranks, theirs, output(0..blocks[self.rank].len()));
        plan
    }

    /// The vectors of this group, combined at its first rank, and where they are there.
    fn combine(&self, plan: &mut Plan, count: usize, commutative: bool) -> Span {
        let combined = if self.rank == 0 { plan.scratch(count) } else { NOTHING };
        let shape = Shape::new(self.local.len(), count, 1).with_commutative(commutative);
        let ranks: Vec<usize> = self.local.clone().collect();
        plan.embed(&plan_of(&reduce::Binomial, self.rank, &shape), &ranks, input(0..count), combined);
        combined
    }
}
