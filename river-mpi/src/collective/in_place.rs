//! One buffer for what is given and what is got (`MPI_IN_PLACE`).

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
/// One buffer, which the result replaces (`MPI_IN_PLACE`, MPI 2.2, section 5.2.1). Where the algorithm allows
/// it nothing is copied. Errors and blocking are those of the operations with two buffers. Not between two
/// groups.
impl Communicator<'_> {
    /// As [`allreduce`](Self::allreduce).
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
    /// As [`allreduce`](Self::allreduce).
    pub fn allreduce_in_place<T: Element>(&self, buffer: &mut [T], operator: &impl Operator<T>) -> Result {
        let len = Lengths::both(buffer);
        self.in_place(self.prepare_allreduce::<T>(len, operator.is_commutative()), buffer, operator)
    }

    /// As [`reduce`](Self::reduce). On ranks that are not the root the buffer stays as it is.
    ///
    /// # Errors
    /// As [`reduce`](Self::reduce).
    pub fn reduce_in_place<T: Element>(
        &self,
        buffer: &mut [T],
        operator: &impl Operator<T>,
        root: impl Into<Root>,
    ) -> Result {
        let len = Lengths::both(buffer);
        let root = root.into();
        let call = self.prepare_reduce::<T>(len, operator.is_commutative(), root);
        if root == Root::Rank(self.rank()) {
            return self.in_place(call, buffer, operator);
        }
        self.reduce_with(call, buffer, &mut [], operator)
    }

    /// As [`gather`](Self::gather) on the root: its own elements are in their place in `buffer` already. The
    /// others call `gather`.
    ///
    /// # Errors
    /// As [`gather`](Self::gather).
    pub fn gather_in_place<T: Element>(&self, buffer: &mut [T], root: impl Into<Root>) -> Result {
        let len = Lengths { send: buffer.len() / self.size(), recv: buffer.len() };
        self.in_place(self.prepare_gather::<T>(len, root.into()), buffer, &NoOperator)
    }

    /// As [`gatherv`](Self::gatherv) on the root: its own elements are in their place in `buffer` already. The others call
    /// `gatherv`.
    ///
    /// # Errors
    /// As [`gatherv`](Self::gatherv).
    pub fn gatherv_in_place<T: Element>(
        &self,
        buffer: &mut [T],
        blocks: &[Range<usize>],
        root: impl Into<Root>,
    ) -> Result {
        let len = Lengths { send: blocks.get(self.rank()).map_or(0, Range::len), recv: buffer.len() };
        self.in_place(self.prepare_gatherv::<T>(len, blocks, root.into()), buffer, &NoOperator)
    }

    /// As [`scatter`](Self::scatter) on the root: its own elements stay where they are in `buffer`. The others call
    /// `scatter`.
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
    /// As [`scatter`](Self::scatter).
    pub fn scatter_in_place<T: Element>(&self, buffer: &[T], root: impl Into<Root>) -> Result {
        let len = Lengths { send: buffer.len(), recv: buffer.len() / self.size() };
        let own = self.rank() * len.recv..(self.rank() + 1) * len.recv;
        self.leave_own(self.prepare_scatter::<T>(len, root.into()), buffer, own)
    }

    /// As [`scatterv`](Self::scatterv) on the root: its own elements stay where they are in `buffer`. The others call
    /// `scatterv`.
    ///
    /// # Errors
    /// As [`scatterv`](Self::scatterv).
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

    /// Gives elements away. What the plan would hand to this rank itself it has already.
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

    /// As [`allgather`](Self::allgather): this rank's elements are in their place in `buffer` already.
    ///
    /// # Errors
    /// As [`allgather`](Self::allgather).
    pub fn allgather_in_place<T: Element>(&self, buffer: &mut [T]) -> Result {
        let len = Lengths { send: buffer.len() / self.size(), recv: buffer.len() };
        self.in_place(self.prepare_allgather::<T>(len), buffer, &NoOperator)
    }

    /// As [`allgatherv`](Self::allgatherv): this rank's elements are in their place in `buffer` already.
    ///
    /// # Errors
    /// As [`allgatherv`](Self::allgatherv).
    pub fn allgatherv_in_place<T: Element>(&self, buffer: &mut [T], blocks: &[Range<usize>]) -> Result {
        let len = Lengths { send: blocks.get(self.rank()).map_or(0, Range::len), recv: buffer.len() };
        self.in_place(self.prepare_allgatherv::<T>(len, blocks), buffer, &NoOperator)
    }

    /// As [`alltoall`](Self::alltoall).
    ///
    /// # Errors
    /// As [`alltoall`](Self::alltoall).
    pub fn alltoall_in_place<T: Element>(&self, buffer: &mut [T]) -> Result {
        let len = Lengths::both(buffer);
        self.in_place(self.prepare_alltoall::<T>(len), buffer, &NoOperator)
    }

    /// As [`reduce_scatter`](Self::reduce_scatter): this rank's results are at the beginning of `buffer`
    /// afterwards, and the rest stays as it is.
    ///
    /// # Errors
    /// As [`reduce_scatter`](Self::reduce_scatter).
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

    /// As [`scan`](Self::scan).
    ///
    /// # Errors
    /// As [`scan`](Self::scan).
    pub fn scan_in_place<T: Element>(&self, buffer: &mut [T], operator: &impl Operator<T>) -> Result {
        let len = Lengths::both(buffer);
        self.in_place(self.prepare_scan::<T>(len, operator.is_commutative(), false), buffer, operator)
    }

    /// As [`exscan`](Self::exscan). On rank 0 the buffer stays as it is.
    ///
    /// # Errors
    /// As [`scan`](Self::scan).
    pub fn exscan_in_place<T: Element>(&self, buffer: &mut [T], operator: &impl Operator<T>) -> Result {
        let len = Lengths::both(buffer);
        self.in_place(self.prepare_scan::<T>(len, operator.is_commutative(), true), buffer, operator)
    }
}
