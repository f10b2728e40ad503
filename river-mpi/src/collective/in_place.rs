//! Collective operations with one buffer for input and output (`MPI_IN_PLACE`).

use std::ops::Range;

use crate::coll::NoOperator;
use crate::communicator::Communicator;
use crate::element::Element;
use crate::error::{MpiError, Result};
use crate::op::Operator;

use super::prepare::{Blocks, Lengths, Prepared};
use super::root::Root;
use super::run::is_there;

/// # In place
///
/// The result replaces the contents of the only buffer (`MPI_IN_PLACE`, MPI 2.2, section 5.2.1). Nothing is copied if the
/// algorithm allows it. Errors and blocking are those of the operations with two buffers. Not available between two groups.
impl Communicator<'_> {
    /// Like [`allreduce`](Self::allreduce).
    ///
    /// ```
    /// # river_mpi::testing::world(4, |world| {
    /// use river_mpi::MAX;
    ///
    /// let mut largest = [world.rank()];
    /// world.allreduce_in_place(&mut largest, &MAX)?;
    /// assert_eq!(largest, [3]);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// Those of [`allreduce`](Self::allreduce).
    pub fn allreduce_in_place<T: Element>(&self, buffer: &mut [T], operator: &impl Operator<T>) -> Result {
        let len = Lengths::both(buffer);
        self.in_place(self.prepare_allreduce::<T>(len, operator.is_commutative()), buffer, operator)
    }

    /// Like [`reduce`](Self::reduce). On ranks other than the root the buffer is unchanged.
    ///
    /// # Errors
    /// Those of [`reduce`](Self::reduce).
    pub fn reduce_in_place<T: Element>(
        &self,
        buffer: &mut [T],
        operator: &impl Operator<T>,
        root: impl Into<Root>,
    ) -> Result {
        let len = Lengths::both(buffer);
        let root = root.into();
        let call = self.prepare_reduce::<T>(len, operator.is_commutative(), root);
        // Between two groups this is an error, which `in_place` returns.
        if self.is_inter() || root == Root::Rank(self.rank()) {
            return self.in_place(call, buffer, operator);
        }
        self.reduce_with(call, buffer, &mut [], operator)
    }

    /// Like [`gather`](Self::gather), called by the root only, whose own elements are already in their place in `buffer`.
    /// Other ranks call `gather`.
    ///
    /// # Errors
    /// Those of [`gather`](Self::gather).
    pub fn gather_in_place<T: Element>(&self, buffer: &mut [T], root: impl Into<Root>) -> Result {
        let len = Lengths { send: buffer.len() / self.size(), recv: buffer.len() };
        self.in_place(self.prepare_gather::<T>(len, root.into()), buffer, &NoOperator)
    }

    /// Like [`gatherv`](Self::gatherv), called by the root only, whose own elements are already in their place in `buffer`.
    /// Other ranks call `gatherv`.
    ///
    /// # Errors
    /// Those of [`gatherv`](Self::gatherv).
    pub fn gatherv_in_place<T: Element>(
        &self,
        buffer: &mut [T],
        blocks: &[Range<usize>],
        root: impl Into<Root>,
    ) -> Result {
        let len = Lengths { send: blocks.get(self.rank()).map_or(0, Range::len), recv: buffer.len() };
        self.in_place(self.prepare_gatherv::<T>(len, blocks, root.into()), buffer, &NoOperator)
    }

    /// Like [`scatter`](Self::scatter), called by the root only, whose own elements stay where they are in `buffer`. Other
    /// ranks call `scatter`.
    ///
    /// ```
    /// # river_mpi::testing::world(2, |world| {
    /// let mut mine = [0; 2];
    /// if world.rank() == 0 {
    ///     world.scatter_in_place(&[1, 2, 3, 4], 0)?;
    /// } else {
    ///     world.scatter(&[], &mut mine, 0)?;
    ///     assert_eq!(mine, [3, 4]);
    /// }
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// Those of [`scatter`](Self::scatter).
    pub fn scatter_in_place<T: Element>(&self, buffer: &[T], root: impl Into<Root>) -> Result {
        let len = Lengths { send: buffer.len(), recv: buffer.len() / self.size() };
        let own = self.rank() * len.recv..(self.rank() + 1) * len.recv;
        self.leave_own(self.prepare_scatter::<T>(len, root.into()), buffer, own)
    }

    /// Like [`scatterv`](Self::scatterv), called by the root only, whose own elements stay where they are in `buffer`. Other
    /// ranks call `scatterv`.
    ///
    /// # Errors
    /// Those of [`scatterv`](Self::scatterv).
    pub fn scatterv_in_place<T: Element>(
        &self,
        buffer: &[T],
        blocks: &[Range<usize>],
        root: impl Into<Root>,
    ) -> Result {
        let own = blocks.get(self.rank()).cloned().unwrap_or_default();
        let len = Lengths { send: buffer.len(), recv: own.len() };
        self.leave_own(self.prepare_scatterv::<T>(len, blocks, root.into()), buffer, own)
    }

    /// Sends elements to other ranks. The part that the plan copies to this rank itself goes to a temporary buffer.
    fn leave_own<T: Element>(&self, call: Result<Prepared>, buffer: &[T], own: Range<usize>) -> Result {
        let call = call.and_then(|call| {
            if self.is_inter() {
                return Err(MpiError::Comm("nothing is in place between two groups".into()));
            }
            is_there(&own, buffer)?;
            Ok(call)
        });
        let mut own = buffer.get(own).unwrap_or_default().to_vec();
        self.transfer(call, buffer, &mut own)
    }

    /// Like [`allgather`](Self::allgather). This rank's elements are already in their place in `buffer`.
    ///
    /// # Errors
    /// Those of [`allgather`](Self::allgather).
    pub fn allgather_in_place<T: Element>(&self, buffer: &mut [T]) -> Result {
        let len = Lengths { send: buffer.len() / self.size(), recv: buffer.len() };
        self.in_place(self.prepare_allgather::<T>(len), buffer, &NoOperator)
    }

    /// Like [`allgatherv`](Self::allgatherv). This rank's elements are already in their place in `buffer`.
    ///
    /// # Errors
    /// Those of [`allgatherv`](Self::allgatherv).
    pub fn allgatherv_in_place<T: Element>(&self, buffer: &mut [T], blocks: &[Range<usize>]) -> Result {
        let len = Lengths { send: blocks.get(self.rank()).map_or(0, Range::len), recv: buffer.len() };
        self.in_place(self.prepare_allgatherv::<T>(len, blocks), buffer, &NoOperator)
    }

    /// Like [`alltoall`](Self::alltoall).
    ///
    /// # Errors
    /// Those of [`alltoall`](Self::alltoall).
    pub fn alltoall_in_place<T: Element>(&self, buffer: &mut [T]) -> Result {
        let len = Lengths::both(buffer);
        self.in_place(self.prepare_alltoall::<T>(len), buffer, &NoOperator)
    }

    /// Like [`reduce_scatter`](Self::reduce_scatter). This rank's results replace the beginning of `buffer`; the rest is
    /// unchanged.
    ///
    /// # Errors
    /// Those of [`reduce_scatter`](Self::reduce_scatter).
    pub fn reduce_scatter_in_place<T: Element>(
        &self,
        buffer: &mut [T],
        counts: &[usize],
        operator: &impl Operator<T>,
    ) -> Result {
        let len = Lengths { send: buffer.len(), recv: counts.get(self.rank()).copied().unwrap_or(0) };
        let blocks = Blocks::Counts(counts);
        let call = self.prepare_reduce_scatter::<T>(len, blocks, operator.is_commutative());
        self.in_place(call, buffer, operator)
    }

    /// Like [`scan`](Self::scan).
    ///
    /// # Errors
    /// Those of [`scan`](Self::scan).
    pub fn scan_in_place<T: Element>(&self, buffer: &mut [T], operator: &impl Operator<T>) -> Result {
        let len = Lengths::both(buffer);
        self.in_place(self.prepare_scan::<T>(len, operator.is_commutative(), false), buffer, operator)
    }

    /// Like [`exscan`](Self::exscan). On rank 0 the buffer is unchanged.
    ///
    /// # Errors
    /// Those of [`scan`](Self::scan).
    pub fn exscan_in_place<T: Element>(&self, buffer: &mut [T], operator: &impl Operator<T>) -> Result {
        let len = Lengths::both(buffer);
        self.in_place(self.prepare_scan::<T>(len, operator.is_commutative(), true), buffer, operator)
    }
}
