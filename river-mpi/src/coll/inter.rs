//! Plans of operations between two groups (MPI 2.0, section 7.3): each group gets what the other gives.
//!
//! The ranks of both groups are numbered together, one group after the other. An operation is composed of operations within a
//! group, for which the tuning chooses algorithms as usual: for bcast, gatherv and scatterv the root and the other group form
//! a group; reductions are done within a group, which its first rank represents. All-to-all exchanges are sent directly.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use super::algorithm::plan_of;
use super::plan::Plan;
use super::shape::{Hosts, Shape};
use super::span::{NOTHING, Span, input, output};
use super::tuning::{Tuned, Tuning};
use super::{Barrier, Bcast, Gatherv, Reduce, Scatterv};
use crate::error::Result;

/// The two groups, in an order that is the same on all ranks.
#[derive(Debug)]
pub(crate) struct Sides {
    /// The ranks of the world, by number.
    pub(crate) members: Rc<[u32]>,
    /// The numbers of the ranks of this rank's group.
    pub(crate) local: Range<usize>,
    /// The numbers of the ranks of the other group.
    pub(crate) remote: Range<usize>,
    /// Which ranks share a host, by their numbers.
    hosts: Hosts,
}

impl Sides {
    /// Creates the groups from ranks of the world; `hosts` tells which of the given ranks share a host.
    pub(crate) fn new(ours: &[u32], theirs: &[u32], hosts: impl FnOnce(&[u32]) -> Hosts) -> Self {
        let (here, there) = (ours.len(), theirs.len());
        let is_first = ours.iter().min() < theirs.iter().min();
        let (first, second) = if is_first { (ours, theirs) } else { (theirs, ours) };
        let (local, remote) =
            if is_first { (0..here, here..here + there) } else { (there..there + here, 0..there) };
        let members: Rc<[u32]> = first.iter().chain(second).copied().collect();
        Self { hosts: hosts(&members), members, local, remote }
    }
}

/// The two groups from the perspective of one rank.
#[derive(Clone, Debug)]
pub(crate) struct Inter<'a> {
    pub(super) sides: &'a Sides,
    /// The number of this rank in its own group.
    pub(super) rank: usize,
    pub(super) tuning: &'a Tuning,
}

/// A call as one rank makes it: everything that its plan depends on. It is the key under which the plan is cached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InterCall {
    /// The lengths of the buffers.
    pub(crate) send: usize,
    pub(crate) recv: usize,
    /// The size of an element in bytes.
    pub(crate) element: usize,
    pub(crate) root: InterRoot,
    pub(crate) commutative: bool,
    /// The elements sent to each rank of the other group, if each gets its own block.
    pub(crate) outgoing: Vec<Range<usize>>,
    /// The elements received from each rank of the other group, if each gives its own block; in a reduce-scatter, the
    /// elements of the combined vector for each rank of this group.
    pub(crate) incoming: Vec<Range<usize>>,
}

/// A method of [`Inter`] that makes a plan.
pub(crate) type MakeInter<'a> = fn(&Inter<'a>, &InterCall) -> Result<Plan>;

/// The position of the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InterRoot {
    /// This rank of the other group.
    There(usize),
    /// This rank.
    Here,
    /// Another rank of this group: this rank has nothing to do.
    Elsewhere,
}

impl InterCall {
    /// The shape of gatherv and scatterv with a root without a block of its own. The root knows all blocks, other ranks know
    /// their own.
    fn rooted(&self, own: usize, blocks: &[Range<usize>], place: usize, size: usize) -> Shape {
        let shape = self.shape(size, 0);
        if place == 0 {
            return shape.with_blocks(std::iter::once(0..0).chain(blocks.iter().cloned()));
        }
        shape.with_blocks((0..size).map(|other| 0..if other == place { own } else { 0 }))
    }

    fn shape(&self, size: usize, count: usize) -> Shape {
        Shape::new(size, count, self.element)
    }
}

impl Inter<'_> {
    pub(crate) fn barrier(&self, call: &InterCall) -> Result<Plan> {
        let all: Vec<usize> = (0..self.sides.local.len() + self.sides.remote.len()).collect();
        self.among::<Barrier>(&all, self.sides.local.start + self.rank, call.shape(all.len(), 0))
    }

    pub(crate) fn bcast(&self, call: &InterCall) -> Result<Plan> {
        let mut plan = Plan::new();
        if let Some((ranks, place)) = self.with_root(call.root) {
            let inner = self.among::<Bcast>(&ranks, place, call.shape(ranks.len(), call.recv))?;
            plan.embed(&inner, &ranks, NOTHING, output(0..call.recv));
        }
        Ok(plan)
    }

    /// If the root is this rank: receives a block from each rank of the other group. Otherwise sends this rank's elements to
    /// the root.
    pub(crate) fn gather(&self, call: &InterCall) -> Result<Plan> {
        let mut plan = Plan::new();
        if let Some((ranks, place)) = self.with_root(call.root) {
            let shape = call.rooted(call.send, &call.incoming, place, ranks.len());
            let total = shape.total();
            let inner = self.among::<Gatherv>(&ranks, place, shape)?;
            let (given, got) = if place == 0 { (0, total) } else { (call.send, 0) };
            plan.embed(&inner, &ranks, input(0..given), output(0..got));
        }
        Ok(plan)
    }

    /// If the root is this rank: sends each rank of the other group its block. Otherwise receives this rank's elements from
    /// the root.
    pub(crate) fn scatter(&self, call: &InterCall) -> Result<Plan> {
        let mut plan = Plan::new();
        if let Some((ranks, place)) = self.with_root(call.root) {
            let shape = call.rooted(call.recv, &call.outgoing, place, ranks.len());
            let total = shape.total();
            let inner = self.among::<Scatterv>(&ranks, place, shape)?;
            let (given, got) = if place == 0 { (total, 0) } else { (0, call.recv) };
            plan.embed(&inner, &ranks, input(0..given), output(0..got));
        }
        Ok(plan)
    }

    /// Sends a block to each rank of the other group and receives one from it. Ranks start at different positions, so that no
    /// rank is the first target of all.
    pub(crate) fn exchange(&self, InterCall { outgoing, incoming, .. }: &InterCall) -> Result<Plan> {
        let mut plan = Plan::new();
        let others = self.sides.remote.len();
        for other in (0..others).map(|step| (self.rank + step) % others) {
            if !outgoing[other].is_empty() {
                plan.send(input(outgoing[other].clone()), self.sides.remote.start + other);
            }
        }
        for other in (0..others).map(|step| (self.rank + step) % others) {
            if !incoming[other].is_empty() {
                plan.recv(output(incoming[other].clone()), self.sides.remote.start + other);
            }
        }
        Ok(plan)
    }

    /// Combines the vectors of the group that does not contain the root, and gives the result to the root.
    pub(crate) fn reduce(&self, call: &InterCall) -> Result<Plan> {
        let mut plan = Plan::new();
        match call.root {
            InterRoot::There(root) => {
                let combined = self.combine(&mut plan, call, call.send)?;
                if self.rank == 0 {
                    plan.send(combined, self.sides.remote.start + root);
                }
            }
            InterRoot::Here => plan.recv(output(0..call.recv), self.sides.remote.start),
            InterRoot::Elsewhere => {}
        }
        Ok(plan)
    }

    /// Combines the vectors of the other group, and gives the result to every rank of this group.
    pub(crate) fn allreduce(&self, call: &InterCall) -> Result<Plan> {
        let count = call.send;
        let mut plan = Plan::new();
        let combined = self.combine(&mut plan, call, count)?;
        if self.rank == 0 {
            plan.send(combined, self.sides.remote.start);
            plan.recv(output(0..count), self.sides.remote.start);
        }
        let ranks: Vec<usize> = self.sides.local.clone().collect();
        let inner = self.among::<Bcast>(&ranks, self.rank, call.shape(ranks.len(), count))?;
        plan.embed(&inner, &ranks, NOTHING, output(0..count));
        Ok(plan)
    }

    /// Combines the vectors of the other group, and gives a block of the result to each rank of this group.
    pub(crate) fn reduce_scatter(&self, call: &InterCall) -> Result<Plan> {
        let blocks = &call.incoming;
        let count = blocks.last().map_or(0, |block| block.end);
        let mut plan = Plan::new();
        let combined = self.combine(&mut plan, call, count)?;
        let mut theirs = NOTHING;
        if self.rank == 0 {
            theirs = plan.scratch(count);
            plan.send(combined, self.sides.remote.start);
            plan.recv(theirs, self.sides.remote.start);
        }
        let shape = call.shape(self.sides.local.len(), 0).with_blocks(blocks.iter().cloned());
        let ranks: Vec<usize> = self.sides.local.clone().collect();
        let inner = self.among::<Scatterv>(&ranks, self.rank, shape)?;
        plan.embed(&inner, &ranks, theirs, output(0..blocks[self.rank].len()));
        Ok(plan)
    }

    /// Combines the vectors of this group at its first rank. Returns where the result lies on that rank.
    fn combine(&self, plan: &mut Plan, call: &InterCall, count: usize) -> Result<Span> {
        let combined = if self.rank == 0 { plan.scratch(count) } else { NOTHING };
        let shape = call.shape(self.sides.local.len(), count).with_commutative(call.commutative);
        let ranks: Vec<usize> = self.sides.local.clone().collect();
        plan.embed(&self.among::<Reduce>(&ranks, self.rank, shape)?, &ranks, input(0..count), combined);
        Ok(combined)
    }

    /// The root followed by the ranks of the other group, and this rank's index among them. `None` if this rank does not take
    /// part.
    fn with_root(&self, root: InterRoot) -> Option<(Vec<usize>, usize)> {
        let (root, others, place) = match root {
            InterRoot::There(root) => {
                (self.sides.remote.start + root, self.sides.local.clone(), self.rank + 1)
            }
            InterRoot::Here => (self.sides.local.start + self.rank, self.sides.remote.clone(), 0),
            InterRoot::Elsewhere => return None,
        };
        Some((std::iter::once(root).chain(others).collect(), place))
    }

    /// The plan of rank `place` of these ranks, by the algorithm that the tuning chooses for them.
    fn among<O: Tuned>(&self, ranks: &[usize], place: usize, shape: Shape) -> Result<Plan> {
        let hosts = Hosts::new(ranks.iter().map(|&rank| self.sides.hosts.of(rank)))
            .on_one_machine(self.sides.hosts.is_one_machine());
        let shape = shape.with_hosts(Arc::new(hosts));
        Ok(plan_of(O::choose(self.tuning, &shape)?, place, &shape))
    }
}
