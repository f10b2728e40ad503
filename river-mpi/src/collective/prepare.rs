//! Checks the arguments of a call and makes its plan: the beginning of both the blocking and the non-blocking form.

use std::ops::Range;
use std::rc::Rc;

use crate::coll::{
    Allgather, Allgatherv, Allreduce, Alltoall, Alltoallv, Barrier, Bcast, Call, Exscan, Gather, Gatherv,
    Inter, InterCall, InterRoot, MakeInter, Operation, Planned, Reduce, ReduceScatter, Scan, Scatter,
    Scatterv, Shape, Sides, Tuned,
};
use crate::communicator::Communicator;
use crate::element::Element;
use crate::error::{MpiError, Result};

use super::port::Team;
use super::root::Root;

/// A call that can be carried out.
pub(super) struct Prepared {
    pub(super) team: Team,
    pub(super) planned: Rc<Planned>,
}

/// The lengths of the buffers of a call.
#[derive(Clone, Copy)]
pub(super) struct Lengths {
    pub(super) send: usize,
    pub(super) recv: usize,
}

impl Lengths {
    pub(super) fn of<S, R>(send: &[S], recv: &[R]) -> Self {
        Self { send: send.len(), recv: recv.len() }
    }

    /// Of a call with one buffer.
    pub(super) fn both<T>(buffer: &[T]) -> Self {
        Self::of(buffer, buffer)
    }
}

impl Communicator<'_> {
    pub(super) fn prepare_barrier(&self) -> Result<Prepared> {
        match self.sides() {
            Some(sides) => {
                let len = Lengths { send: 0, recv: 0 };
                self.between::<Barrier>(sides, inter_call::<u8>(len), Inter::barrier)
            }
            None => self.within::<Barrier>(call::<u8>(0)),
        }
    }

    pub(super) fn prepare_bcast<T: Element>(&self, count: usize, root: Root) -> Result<Prepared> {
        match self.sides() {
            Some(sides) => {
                let len = Lengths { send: 0, recv: count };
                let call = InterCall { root: self.inter_root(root)?, ..inter_call::<T>(len) };
                self.between::<Bcast>(sides, call, Inter::bcast)
            }
            None => self.within::<Bcast>(Call { root: self.intra_root(root)?, ..call::<T>(count) }),
        }
    }

    pub(super) fn prepare_gather<T: Element>(&self, len: Lengths, root: Root) -> Result<Prepared> {
        if let Some(sides) = self.sides() {
            let root = self.inter_root(root)?;
            let mut incoming = Vec::new();
            if root == InterRoot::Here {
                let count = divide(RECV, len.recv, self.remote_size())?;
                incoming = equal(count, self.remote_size());
            }
            let call = InterCall { root, incoming, ..inter_call::<T>(len) };
            return self.between::<Gather>(sides, call, Inter::gather);
        }
        let root = self.intra_root(root)?;
        if self.rank() == root {
            expect(RECV, len.send * self.size(), len.recv)?;
        }
        self.within::<Gather>(Call { root, ..call::<T>(len.send) })
    }

    pub(super) fn prepare_gatherv<T: Element>(
        &self,
        len: Lengths,
        blocks: &[Range<usize>],
        root: Root,
    ) -> Result<Prepared> {
        if let Some(sides) = self.sides() {
            let root = self.inter_root(root)?;
            let mut incoming = Vec::new();
            if root == InterRoot::Here {
                check_blocks(RECV, blocks, self.remote_size(), len.recv, true)?;
                incoming = blocks.to_vec();
            }
            let call = InterCall { root, incoming, ..inter_call::<T>(len) };
            return self.between::<Gatherv>(sides, call, Inter::gather);
        }
        let root = self.intra_root(root)?;
        let shape = self.rooted::<T>(len.send, blocks, root, RECV, len.recv, true)?;
        self.within_blocks::<Gatherv>(shape)
    }

    pub(super) fn prepare_scatter<T: Element>(&self, len: Lengths, root: Root) -> Result<Prepared> {
        if let Some(sides) = self.sides() {
            let root = self.inter_root(root)?;
            let mut outgoing = Vec::new();
            if root == InterRoot::Here {
                let count = divide(SEND, len.send, self.remote_size())?;
                outgoing = equal(count, self.remote_size());
            }
            let call = InterCall { root, outgoing, ..inter_call::<T>(len) };
            return self.between::<Scatter>(sides, call, Inter::scatter);
        }
        let root = self.intra_root(root)?;
        if self.rank() == root {
            expect(SEND, len.recv * self.size(), len.send)?;
        }
        self.within::<Scatter>(Call { root, ..call::<T>(len.recv) })
    }

    pub(super) fn prepare_scatterv<T: Element>(
        &self,
        len: Lengths,
        blocks: &[Range<usize>],
        root: Root,
    ) -> Result<Prepared> {
        if let Some(sides) = self.sides() {
            let root = self.inter_root(root)?;
            let mut outgoing = Vec::new();
            if root == InterRoot::Here {
                check_blocks(SEND, blocks, self.remote_size(), len.send, false)?;
                outgoing = blocks.to_vec();
            }
            let call = InterCall { root, outgoing, ..inter_call::<T>(len) };
            return self.between::<Scatterv>(sides, call, Inter::scatter);
        }
        let root = self.intra_root(root)?;
        let shape = self.rooted::<T>(len.recv, blocks, root, SEND, len.send, false)?;
        self.within_blocks::<Scatterv>(shape)
    }

    pub(super) fn prepare_allgather<T: Element>(&self, len: Lengths) -> Result<Prepared> {
        if let Some(sides) = self.sides() {
            let count = divide(RECV, len.recv, self.remote_size())?;
            let outgoing = vec![0..len.send; self.remote_size()];
            let incoming = equal(count, self.remote_size());
            let call = InterCall { outgoing, incoming, ..inter_call::<T>(len) };
            return self.between::<Allgather>(sides, call, Inter::exchange);
        }
        expect(RECV, len.send * self.size(), len.recv)?;
        self.within::<Allgather>(call::<T>(len.send))
    }

    pub(super) fn prepare_allgatherv<T: Element>(
        &self,
        len: Lengths,
        blocks: &[Range<usize>],
    ) -> Result<Prepared> {
        check_blocks(RECV, blocks, self.peers().size(), len.recv, true)?;
        if let Some(sides) = self.sides() {
            let outgoing = vec![0..len.send; self.remote_size()];
            let call = InterCall { outgoing, incoming: blocks.to_vec(), ..inter_call::<T>(len) };
            return self.between::<Allgatherv>(sides, call, Inter::exchange);
        }
        expect(SEND, blocks[self.rank()].len(), len.send)?;
        self.within_blocks::<Allgatherv>(self.shape::<T>(0).with_blocks(blocks.iter().cloned()))
    }

    pub(super) fn prepare_alltoall<T: Element>(&self, len: Lengths) -> Result<Prepared> {
        let count = divide(SEND, len.send, self.peers().size())?;
        if let Some(sides) = self.sides() {
            let back = divide(RECV, len.recv, self.remote_size())?;
            let (outgoing, incoming) = (equal(count, self.remote_size()), equal(back, self.remote_size()));
            let call = InterCall { outgoing, incoming, ..inter_call::<T>(len) };
            return self.between::<Alltoall>(sides, call, Inter::exchange);
        }
        expect(RECV, len.send, len.recv)?;
        self.within::<Alltoall>(call::<T>(count))
    }

    pub(super) fn prepare_alltoallv<T: Element>(
        &self,
        len: Lengths,
        outgoing: &[Range<usize>],
        incoming: &[Range<usize>],
    ) -> Result<Prepared> {
        check_blocks(SEND, outgoing, self.peers().size(), len.send, false)?;
        check_blocks(RECV, incoming, self.peers().size(), len.recv, true)?;
        if let Some(sides) = self.sides() {
            let (outgoing, incoming) = (outgoing.to_vec(), incoming.to_vec());
            let call = InterCall { outgoing, incoming, ..inter_call::<T>(len) };
            return self.between::<Alltoallv>(sides, call, Inter::exchange);
        }
        expect(
            "the block that a rank sends to itself",
            outgoing[self.rank()].len(),
            incoming[self.rank()].len(),
        )?;
        let shape = self.shape::<T>(0).with_blocks(outgoing.iter().cloned());
        self.within_blocks::<Alltoallv>(shape.with_incoming(incoming.iter().cloned()))
    }

    pub(super) fn prepare_reduce<T: Element>(
        &self,
        len: Lengths,
        commutative: bool,
        root: Root,
    ) -> Result<Prepared> {
        if let Some(sides) = self.sides() {
            let root = self.inter_root(root)?;
            let call = InterCall { root, commutative, ..inter_call::<T>(len) };
            return self.between::<Reduce>(sides, call, Inter::reduce);
        }
        let root = self.intra_root(root)?;
        if self.rank() == root {
            expect(RECV, len.send, len.recv)?;
        }
        self.within::<Reduce>(Call { root, commutative, ..call::<T>(len.send) })
    }

    pub(super) fn prepare_allreduce<T: Element>(&self, len: Lengths, commutative: bool) -> Result<Prepared> {
        expect(RECV, len.send, len.recv)?;
        match self.sides() {
            Some(sides) => {
                let call = InterCall { commutative, ..inter_call::<T>(len) };
                self.between::<Allreduce>(sides, call, Inter::allreduce)
            }
            None => self.within::<Allreduce>(Call { commutative, ..call::<T>(len.send) }),
        }
    }

    pub(super) fn prepare_reduce_scatter<T: Element>(
        &self,
        len: Lengths,
        blocks: Blocks<'_>,
        commutative: bool,
    ) -> Result<Prepared> {
        let shape = match blocks {
            Blocks::Equal => {
                expect(SEND, len.recv * self.size(), len.send)?;
                self.shape::<T>(len.recv)
            }
            Blocks::Counts(counts) => {
                expect("the counts", self.size(), counts.len())?;
                expect(RECV, counts[self.rank()], len.recv)?;
                self.shape::<T>(0).with_blocks(crate::coll::consecutive(counts))
            }
        };
        expect(SEND, shape.total(), len.send)?;
        match self.sides() {
            Some(sides) => {
                let incoming = (0..self.size()).map(|rank| shape.block(rank)).collect();
                let call = InterCall { commutative, incoming, ..inter_call::<T>(len) };
                self.between::<ReduceScatter>(sides, call, Inter::reduce_scatter)
            }
            None => self.within_blocks::<ReduceScatter>(shape.with_commutative(commutative)),
        }
    }

    pub(super) fn prepare_scan<T: Element>(
        &self,
        len: Lengths,
        commutative: bool,
        exclusive: bool,
    ) -> Result<Prepared> {
        if self.is_inter() {
            return Err(MpiError::Comm("there are no scans between two groups".into()));
        }
        expect(RECV, len.send, len.recv)?;
        let call = Call { commutative, ..call::<T>(len.send) };
        if exclusive { self.within::<Exscan>(call) } else { self.within::<Scan>(call) }
    }

    /// A call in this rank's only group.
    #[inline]
    fn within<O: Tuned>(&self, call: Call) -> Result<Prepared> {
        Ok(self.planned(self.planner().plan_call::<O>(self.size(), call)?))
    }

    /// The same with blocks that may differ.
    fn within_blocks<O: Tuned>(&self, shape: Shape) -> Result<Prepared> {
        Ok(self.planned(self.planner().plan::<O>(shape)?))
    }

    #[inline]
    fn planned(&self, planned: Rc<Planned>) -> Prepared {
        Prepared { team: Team::local(self), planned }
    }

    /// A call between two groups.
    fn between<'a, O: Operation>(
        &'a self,
        sides: &'a Sides,
        call: InterCall,
        make: MakeInter<'a>,
    ) -> Result<Prepared> {
        let planned = self.planner().plan_between::<O>(sides, call, make)?;
        let team = Team::among(self, sides.members.clone(), sides.local.start + self.rank());
        Ok(Prepared { team, planned })
    }

    /// The shape of an operation of this rank's group.
    fn shape<T: Element>(&self, count: usize) -> Shape {
        self.planner().shape::<T>(self.size(), count)
    }

    /// The shape of gatherv and scatterv: the root knows all blocks, the others their own.
    fn rooted<T: Element>(
        &self,
        own: usize,
        blocks: &[Range<usize>],
        root: usize,
        what: &'static str,
        len: usize,
        written: bool,
    ) -> Result<Shape> {
        let shape = self.shape::<T>(0).with_root(root);
        if self.rank() != root {
            let rank = self.rank();
            return Ok(
                shape.with_blocks((0..self.size()).map(|other| 0..if other == rank { own } else { 0 }))
            );
        }
        check_blocks(what, blocks, self.size(), len, written)?;
        expect("the root's own block", blocks[root].len(), own)?;
        Ok(shape.with_blocks(blocks.iter().cloned()))
    }

    #[inline]
    fn intra_root(&self, root: Root) -> Result<usize> {
        match root {
            Root::Rank(root) if root < self.size() => Ok(root),
            _ => Err(self.no_root(root)),
        }
    }

    #[cold]
    fn no_root(&self, root: Root) -> MpiError {
        match root {
            Root::Rank(root) => MpiError::Root { root, comm: self.name(), size: self.size() },
            Root::Here | Root::Elsewhere => {
                MpiError::Comm(format!("{} has one group only: its roots are ranks", self.name()))
            }
        }
    }

    fn inter_root(&self, root: Root) -> Result<InterRoot> {
        match root {
            Root::Rank(root) if root < self.remote_size() => Ok(InterRoot::There(root)),
            Root::Rank(root) => Err(MpiError::Root { root, comm: self.name(), size: self.remote_size() }),
            Root::Here => Ok(InterRoot::Here),
            Root::Elsewhere => Ok(InterRoot::Elsewhere),
        }
    }
}

/// A call with so many elements; its root is rank 0, and its operator commutes.
fn call<T: Element>(count: usize) -> Call {
    Call { count, element: size_of::<T>().max(1), root: 0, commutative: true }
}

/// A call between two groups with buffers of these lengths; it has no root here, and its operator commutes.
fn inter_call<T: Element>(len: Lengths) -> InterCall {
    InterCall {
        send: len.send,
        recv: len.recv,
        element: size_of::<T>().max(1),
        root: InterRoot::Elsewhere,
        commutative: true,
        outgoing: Vec::new(),
        incoming: Vec::new(),
    }
}

/// How a `reduce_scatter` divides the vector.
pub(super) enum Blocks<'a> {
    Equal,
    Counts(&'a [usize]),
}

const SEND: &str = "the send buffer";
const RECV: &str = "the receive buffer";

fn equal(count: usize, size: usize) -> Vec<Range<usize>> {
    (0..size).map(|rank| rank * count..(rank + 1) * count).collect()
}

/// An error unless a length is what it has to be.
fn expect(what: &'static str, expected: usize, found: usize) -> Result {
    if expected == found { Ok(()) } else { Err(MpiError::Count { what, expected, found }) }
}

/// The length of each of so many equal blocks.
fn divide(what: &'static str, elements: usize, ranks: usize) -> Result<usize> {
    if !elements.is_multiple_of(ranks) {
        return Err(MpiError::Blocks { what, elements, ranks });
    }
    Ok(elements / ranks)
}

/// An error unless there is a block for each rank, all of them lie in a buffer of that length, and none that
/// is written to overlaps another.
fn check_blocks(
    what: &'static str,
    blocks: &[Range<usize>],
    size: usize,
    len: usize,
    written: bool,
) -> Result {
    if blocks.len() != size {
        return Err(MpiError::Arg(format!("{what} has {} blocks for {size} ranks", blocks.len())));
    }
    if let Some(block) = blocks.iter().find(|block| block.start > block.end || block.end > len) {
        return Err(MpiError::Arg(format!("{what} has {len} elements, and no block {block:?}")));
    }
    if written {
        let mut sorted: Vec<&Range<usize>> = blocks.iter().filter(|block| !block.is_empty()).collect();
        sorted.sort_by_key(|block| block.start);
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0].end > pair[1].start) {
            return Err(MpiError::Arg(format!("{what}: blocks {:?} and {:?} overlap", pair[0], pair[1])));
        }
    }
    Ok(())
}
