//! One method for each operation. It returns when this rank's part is done.

use std::ops::Range;

use crate::communicator::Communicator;
use crate::element::Element;
use crate::error::Result;
use crate::op::Operator;

use super::prepare::{Blocks, Lengths};
use super::root::Root;

/// # Collective operations
///
/// All ranks call them, in the same order, with the same counts, root and operator. Buffers that are significant only at
/// the root are ignored on the other ranks: pass `&mut []`.
///
/// Every one of them returns [`MpiError::ProcFailed`] if a rank is gone that it needs, [`MpiError::Count`] if
/// a buffer does not have the length that it must have, [`MpiError::Root`] if there is no such root, and
/// [`MpiError::Arg`] if what arrives is not what was expected, since another rank has made another call, or
/// if the algorithm that was chosen cannot do it.
///
/// [`MpiError::ProcFailed`]: crate::MpiError::ProcFailed
/// [`MpiError::Count`]: crate::MpiError::Count
/// [`MpiError::Root`]: crate::MpiError::Root
/// [`MpiError::Arg`]: crate::MpiError::Arg
///
/// On an intercommunicator each group receives what the other group sends (MPI 2.0, section 7.3); there are no scans.
impl Communicator<'_> {
    /// Returns when all ranks have called it.
    ///
    /// # Errors
    /// [Those of all](#collective-operations).
    ///
    /// # Blocking
    /// Until all ranks have called it.
    ///
    /// # Standard section
    /// MPI 1.3, 4.3
    pub fn barrier(&self) -> Result {
        let _span = self.engine().span("barrier");
        self.transfer::<u8>(self.prepare_barrier(), &[], &mut [])
    }

    /// Sends the root's elements to all ranks.
    ///
    /// ```
    /// # river_mpi::testing::world(3, |world| {
    /// let mut answer = [if world.rank() == 1 { 42 } else { 0 }];
    /// world.bcast(&mut answer, 1)?;
    /// assert_eq!(answer, [42]);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [Those of all](#collective-operations).
    ///
    /// # Blocking
    /// Until the elements are there; the root, until they have left.
    ///
    /// # Standard section
    /// MPI 1.3, 4.4
    pub fn bcast<T: Element>(&self, buffer: &mut [T], root: impl Into<Root>) -> Result {
        self.transfer(self.prepare_bcast::<T>(buffer.len(), root.into()), &[], buffer)
    }

    /// Gathers the elements of all ranks at the root, in rank order.
    ///
    /// ```
    /// # river_mpi::testing::world(3, |world| {
    /// let mut all = [0; 3];
    /// let receive = if world.rank() == 0 { &mut all[..] } else { &mut [] };
    /// world.gather(&[world.rank()], receive, 0)?;
    /// if world.rank() == 0 {
    ///     assert_eq!(all, [0, 1, 2]);
    /// }
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [Those of all](#collective-operations).
    ///
    /// # Blocking
    /// The root, until all have come; the others, until theirs and those that they pass on have left.
    ///
    /// # Standard section
    /// MPI 1.3, 4.5
    pub fn gather<T: Element>(&self, send: &[T], recv: &mut [T], root: impl Into<Root>) -> Result {
        let len = Lengths::of(send, recv);
        self.transfer(self.prepare_gather::<T>(len, root.into()), send, recv)
    }

    /// As [`gather`](Self::gather), but each rank may send any number of elements: those of rank `i` go to
    /// `recv[blocks[i]]`. `blocks` is significant only at the root.
    ///
    /// ```
    /// # river_mpi::testing::world(3, |world| {
    /// use river_mpi::coll::consecutive;
    ///
    /// let mine = vec![world.rank(); world.rank()];
    /// let mut all = [9; 3];
    /// world.gatherv(&mine, &mut all, &consecutive(&[0, 1, 2]), 0)?;
    /// if world.rank() == 0 {
    ///     assert_eq!(all, [1, 2, 2]);
    /// }
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [Those of all](#collective-operations).
    ///
    /// # Blocking
    /// As [`gather`](Self::gather).
    ///
    /// # Standard section
    /// MPI 1.3, 4.5
    pub fn gatherv<T: Element>(
        &self,
        send: &[T],
        recv: &mut [T],
        blocks: &[Range<usize>],
        root: impl Into<Root>,
    ) -> Result {
        let len = Lengths::of(send, recv);
        self.transfer(self.prepare_gatherv::<T>(len, blocks, root.into()), send, recv)
    }

    /// Distributes the root's elements over all ranks, in rank order; each rank gets as many as fit into its `recv`.
    ///
    /// ```
    /// # river_mpi::testing::world(2, |world| {
    /// let mut mine = [0; 2];
    /// world.scatter(if world.rank() == 0 { &[1, 2, 3, 4] } else { &[] }, &mut mine, 0)?;
    /// assert_eq!(mine, if world.rank() == 0 { [1, 2] } else { [3, 4] });
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [Those of all](#collective-operations).
    ///
    /// # Blocking
    /// Until this rank's elements are there; the root, until all have left.
    ///
    /// # Standard section
    /// MPI 1.3, 4.6
    pub fn scatter<T: Element>(&self, send: &[T], recv: &mut [T], root: impl Into<Root>) -> Result {
        let len = Lengths::of(send, recv);
        self.transfer(self.prepare_scatter::<T>(len, root.into()), send, recv)
    }

    /// As [`scatter`](Self::scatter), but the root may send any number of elements to each rank: `send[blocks[i]]`
    /// goes to rank `i`, whose `recv` has that length. `blocks` is significant only at the root.
    ///
    /// # Errors
    /// [Those of all](#collective-operations).
    ///
    /// # Blocking
    /// As [`scatter`](Self::scatter).
    ///
    /// # Standard section
    /// MPI 1.3, 4.6
    pub fn scatterv<T: Element>(
        &self,
        send: &[T],
        blocks: &[Range<usize>],
        recv: &mut [T],
        root: impl Into<Root>,
    ) -> Result {
        let len = Lengths::of(send, recv);
        self.transfer(self.prepare_scatterv::<T>(len, blocks, root.into()), send, recv)
    }

    /// Gathers the elements of all ranks on every rank, in rank order.
    ///
    /// ```
    /// # river_mpi::testing::world(3, |world| {
    /// let mut all = [0; 3];
    /// world.allgather(&[world.rank() * 10], &mut all)?;
    /// assert_eq!(all, [0, 10, 20]);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [Those of all](#collective-operations).
    ///
    /// # Blocking
    /// Until all are there.
    ///
    /// # Standard section
    /// MPI 1.3, 4.7
    pub fn allgather<T: Element>(&self, send: &[T], recv: &mut [T]) -> Result {
        let len = Lengths::of(send, recv);
        self.transfer(self.prepare_allgather::<T>(len), send, recv)
    }

    /// As [`allgather`](Self::allgather), but each rank may send any number of elements: those of rank `i`
    /// go to `recv[blocks[i]]`. All ranks pass the same lengths.
    ///
    /// # Errors
    /// [Those of all](#collective-operations).
    ///
    /// # Blocking
    /// As [`allgather`](Self::allgather).
    ///
    /// # Standard section
    /// MPI 1.3, 4.7
    pub fn allgatherv<T: Element>(&self, send: &[T], recv: &mut [T], blocks: &[Range<usize>]) -> Result {
        let len = Lengths::of(send, recv);
        self.transfer(self.prepare_allgatherv::<T>(len, blocks), send, recv)
    }

    /// Exchanges one block between every pair of ranks: of the equal blocks of `send`, the `i`-th goes to rank `i`, and the
    /// `i`-th block of `recv` comes from it.
    ///
    /// ```
    /// # river_mpi::testing::world(3, |world| {
    /// let me = world.rank();
    /// let mut column = [0; 3];
    /// world.alltoall(&[10 * me, 10 * me + 1, 10 * me + 2], &mut column)?;
    /// assert_eq!(column, [me, 10 + me, 20 + me]);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [Those of all](#collective-operations).
    ///
    /// # Blocking
    /// Until all are there.
    ///
    /// # Standard section
    /// MPI 1.3, 4.8
    pub fn alltoall<T: Element>(&self, send: &[T], recv: &mut [T]) -> Result {
        let len = Lengths::of(send, recv);
        self.transfer(self.prepare_alltoall::<T>(len), send, recv)
    }

    /// As [`alltoall`](Self::alltoall), with a length for each pair: `send[outgoing[i]]` goes to rank `i`,
    /// `recv[incoming[i]]` comes from it.
    ///
    /// # Errors
    /// [Those of all](#collective-operations).
    ///
    /// # Blocking
    /// Until all are there.
    ///
    /// # Standard section
    /// MPI 1.3, 4.8
    pub fn alltoallv<T: Element>(
        &self,
        send: &[T],
        outgoing: &[Range<usize>],
        recv: &mut [T],
        incoming: &[Range<usize>],
    ) -> Result {
        let len = Lengths::of(send, recv);
        self.transfer(self.prepare_alltoallv::<T>(len, outgoing, incoming), send, recv)
    }

    /// Combines the vectors of all ranks element by element; the root gets the result.
    ///
    /// ```
    /// # river_mpi::testing::world(4, |world| {
    /// use river_mpi::{Located, MAXLOC};
    ///
    /// let mine = [Located { value: [3.0, 8.0, 1.0, 8.0][world.rank()], index: world.rank() as u32 }];
    /// let mut best = mine;
    /// world.reduce(&mine, &mut best, &MAXLOC, 0)?;
    /// if world.rank() == 0 {
    ///     assert_eq!(best, [Located { value: 8.0, index: 1 }]);
    /// }
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [Those of all](#collective-operations).
    ///
    /// # Blocking
    /// The root, until the result is there; the others, until their part has left.
    ///
    /// # Standard section
    /// MPI 1.3, 4.9.1
    pub fn reduce<T: Element>(
        &self,
        send: &[T],
        recv: &mut [T],
        operator: &impl Operator<T>,
        root: impl Into<Root>,
    ) -> Result {
        let len = Lengths::of(send, recv);
        let call = self.prepare_reduce::<T>(len, operator.is_commutative(), root.into());
        self.reduce_with(call, send, recv, operator)
    }

    /// Combines the vectors of all ranks element by element; every rank gets the result.
    ///
    /// ```
    /// # river_mpi::testing::world(4, |world| {
    /// use river_mpi::SUM;
    ///
    /// let mut sums = [0.0; 2];
    /// world.allreduce(&[world.rank() as f64, 0.5], &mut sums, &SUM)?;
    /// assert_eq!(sums, [6.0, 2.0]);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [Those of all](#collective-operations).
    ///
    /// # Blocking
    /// Until the result is there.
    ///
    /// # Standard section
    /// MPI 1.3, 4.9.5
    pub fn allreduce<T: Element>(&self, send: &[T], recv: &mut [T], operator: &impl Operator<T>) -> Result {
        let len = Lengths::of(send, recv);
        self.reduce_with(self.prepare_allreduce::<T>(len, operator.is_commutative()), send, recv, operator)
    }

    /// Combines the vectors of all ranks element by element: rank 0 gets the first `counts[0]` results, rank 1 the next
    /// `counts[1]`, and so on.
    ///
    /// # Errors
    /// [Those of all](#collective-operations).
    ///
    /// # Blocking
    /// Until this rank's results are there.
    ///
    /// # Standard section
    /// MPI 1.3, 4.10
    pub fn reduce_scatter<T: Element>(
        &self,
        send: &[T],
        recv: &mut [T],
        counts: &[usize],
        operator: &impl Operator<T>,
    ) -> Result {
        let len = Lengths::of(send, recv);
        let blocks = Blocks::Counts(counts);
        let call = self.prepare_reduce_scatter::<T>(len, blocks, operator.is_commutative());
        self.reduce_with(call, send, recv, operator)
    }

    /// As [`reduce_scatter`](Self::reduce_scatter), with as many results for each rank as fit into `recv`.
    ///
    /// # Errors
    /// [Those of all](#collective-operations).
    ///
    /// # Blocking
    /// Until this rank's results are there.
    ///
    /// # Standard section
    /// MPI 2.2, 5.10.1
    pub fn reduce_scatter_block<T: Element>(
        &self,
        send: &[T],
        recv: &mut [T],
        operator: &impl Operator<T>,
    ) -> Result {
        let len = Lengths::of(send, recv);
        let call = self.prepare_reduce_scatter::<T>(len, Blocks::Equal, operator.is_commutative());
        self.reduce_with(call, send, recv, operator)
    }

    /// Inclusive prefix reduction: combines the vectors of this rank and all lower ones, element by element.
    ///
    /// ```
    /// # river_mpi::testing::world(4, |world| {
    /// use river_mpi::SUM;
    ///
    /// let mut so_far = [0];
    /// world.scan(&[1], &mut so_far, &SUM)?;
    /// assert_eq!(so_far, [world.rank() + 1]);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [Those of all](#collective-operations), and [`MpiError::Comm`](crate::MpiError::Comm) between two
    /// groups.
    ///
    /// # Blocking
    /// Until the results are there.
    ///
    /// # Standard section
    /// MPI 1.3, 4.11
    pub fn scan<T: Element>(&self, send: &[T], recv: &mut [T], operator: &impl Operator<T>) -> Result {
        let len = Lengths::of(send, recv);
        self.reduce_with(self.prepare_scan::<T>(len, operator.is_commutative(), false), send, recv, operator)
    }

    /// Exclusive prefix reduction: combines the vectors of all lower ranks, element by element. On rank 0 `recv` is unchanged.
    ///
    /// # Errors
    /// As [`scan`](Self::scan).
    ///
    /// # Blocking
    /// Until the results are there.
    ///
    /// # Standard section
    /// MPI 2.2, 5.11.2
    pub fn exscan<T: Element>(&self, send: &[T], recv: &mut [T], operator: &impl Operator<T>) -> Result {
        let len = Lengths::of(send, recv);
        self.reduce_with(self.prepare_scan::<T>(len, operator.is_commutative(), true), send, recv, operator)
    }
}
