//! Non-blocking collective operations (MPI 3.1, section 5.12): one method for each.

use std::ops::Range;

use crate::coll::{Input, NoOperator};
use crate::communicator::Communicator;
use crate::element::Element;
use crate::error::Result;
use crate::op::Operator;
use crate::request::Request;

use super::pending::Slices;
use super::prepare::{Blocks, Lengths, Prepared};
use super::root::Root;

/// # Non-blocking collective operations
///
/// They advance whenever this rank is in any call of this crate, and are completed like any other [`Request`]. All ranks must
/// start the operation: it does not match the blocking form on another rank.
impl<'v> Communicator<'v> {
    fn start<'a, T: Element>(
        &self,
        call: Result<Prepared>,
        send: &[T],
        recv: &'a mut [T],
        operator: impl Operator<T> + 'static,
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        let (tag, Prepared { team, planned }) = self.numbered(call)?;
        let (plan, place) = (planned.plan.clone(), planned.place.clone());
        let mut output = recv.to_vec();
        // What has no output must not write what is sent there.
        let lies_in_output = planned.in_place
            && place.len() == send.len()
            && place.end <= output.len()
            && plan.writes_output();
        if lies_in_output {
            output[place.clone()].copy_from_slice(send);
        }
        let input = if lies_in_output { Input::InOutput(place.start) } else { Input::Apart(send.to_vec()) };
        let work = Slices::new(plan, tag, input, output, Box::new(operator));
        let deliver = |output: &Vec<T>| {
            recv.copy_from_slice(output);
            Ok(())
        };
        Ok(self.go(planned.operation, team, work, deliver))
    }

    /// Starts a [`barrier`](Self::barrier): its request completes when all ranks have started it.
    ///
    /// ```
    /// # river_mpi::testing::world(3, |world| {
    /// let all_are_there = world.ibarrier()?;
    /// // ... something else ...
    /// all_are_there.wait()?;
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// As [`barrier`](Self::barrier).
    pub fn ibarrier(&self) -> Result<Request<'v>> {
        self.start::<u8>(self.prepare_barrier(), &[], &mut [], NoOperator)
    }

    /// Starts a [`bcast`](Self::bcast).
    ///
    /// # Errors
    /// As [`bcast`](Self::bcast).
    pub fn ibcast<'a, T: Element>(&self, buffer: &'a mut [T], root: impl Into<Root>) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        self.start(self.prepare_bcast::<T>(buffer.len(), root.into()), &[], buffer, NoOperator)
    }

    /// Starts a [`gather`](Self::gather).
    ///
    /// # Errors
    /// As [`gather`](Self::gather).
    pub fn igather<'a, T: Element>(
        &self,
        send: &[T],
        recv: &'a mut [T],
        root: impl Into<Root>,
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        let len = Lengths::of(send, recv);
        self.start(self.prepare_gather::<T>(len, root.into()), send, recv, NoOperator)
    }

    /// Starts a [`gatherv`](Self::gatherv).
    ///
    /// # Errors
    /// As [`gatherv`](Self::gatherv).
    pub fn igatherv<'a, T: Element>(
        &self,
        send: &[T],
        recv: &'a mut [T],
        blocks: &[Range<usize>],
        root: impl Into<Root>,
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        let len = Lengths::of(send, recv);
        self.start(self.prepare_gatherv::<T>(len, blocks, root.into()), send, recv, NoOperator)
    }

    /// Starts a [`scatter`](Self::scatter).
    ///
    /// # Errors
    /// As [`scatter`](Self::scatter).
    pub fn iscatter<'a, T: Element>(
        &self,
        send: &[T],
        recv: &'a mut [T],
        root: impl Into<Root>,
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        let len = Lengths::of(send, recv);
        self.start(self.prepare_scatter::<T>(len, root.into()), send, recv, NoOperator)
    }

    /// Starts a [`scatterv`](Self::scatterv).
    ///
    /// # Errors
    /// As [`scatterv`](Self::scatterv).
    pub fn iscatterv<'a, T: Element>(
        &self,
        send: &[T],
        blocks: &[Range<usize>],
        recv: &'a mut [T],
        root: impl Into<Root>,
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        let len = Lengths::of(send, recv);
        self.start(self.prepare_scatterv::<T>(len, blocks, root.into()), send, recv, NoOperator)
    }

    /// Starts an [`allgather`](Self::allgather).
    ///
    /// # Errors
    /// As [`allgather`](Self::allgather).
    pub fn iallgather<'a, T: Element>(&self, send: &[T], recv: &'a mut [T]) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        let len = Lengths::of(send, recv);
        self.start(self.prepare_allgather::<T>(len), send, recv, NoOperator)
    }

    /// Starts an [`allgatherv`](Self::allgatherv).
    ///
    /// # Errors
    /// As [`allgatherv`](Self::allgatherv).
    pub fn iallgatherv<'a, T: Element>(
        &self,
        send: &[T],
        recv: &'a mut [T],
        blocks: &[Range<usize>],
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        let len = Lengths::of(send, recv);
        self.start(self.prepare_allgatherv::<T>(len, blocks), send, recv, NoOperator)
    }

    /// Starts an [`alltoall`](Self::alltoall).
    ///
    /// # Errors
    /// As [`alltoall`](Self::alltoall).
    pub fn ialltoall<'a, T: Element>(&self, send: &[T], recv: &'a mut [T]) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        let len = Lengths::of(send, recv);
        self.start(self.prepare_alltoall::<T>(len), send, recv, NoOperator)
    }

    /// Starts an [`alltoallv`](Self::alltoallv).
    ///
    /// # Errors
    /// As [`alltoallv`](Self::alltoallv).
    pub fn ialltoallv<'a, T: Element>(
        &self,
        send: &[T],
        outgoing: &[Range<usize>],
        recv: &'a mut [T],
        incoming: &[Range<usize>],
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        let len = Lengths::of(send, recv);
        self.start(self.prepare_alltoallv::<T>(len, outgoing, incoming), send, recv, NoOperator)
    }

    /// Starts a [`reduce`](Self::reduce).
    ///
    /// # Errors
    /// As [`reduce`](Self::reduce).
    pub fn ireduce<'a, T: Element>(
        &self,
        send: &[T],
        recv: &'a mut [T],
        operator: impl Operator<T> + 'static,
        root: impl Into<Root>,
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        let len = Lengths::of(send, recv);
        let call = self.prepare_reduce::<T>(len, operator.is_commutative(), root.into());
        self.start(call, send, recv, operator)
    }

    /// Starts an [`allreduce`](Self::allreduce).
    ///
    /// ```
    /// # river_mpi::testing::world(4, |world| {
    /// use river_mpi::SUM;
    ///
    /// let mut sum = [0];
    /// let request = world.iallreduce(&[world.rank()], &mut sum, SUM)?;
    /// // ... something that does not need the sum ...
    /// request.wait()?;
    /// assert_eq!(sum, [6]);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// As [`allreduce`](Self::allreduce).
    pub fn iallreduce<'a, T: Element>(
        &self,
        send: &[T],
        recv: &'a mut [T],
        operator: impl Operator<T> + 'static,
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        let len = Lengths::of(send, recv);
        let call = self.prepare_allreduce::<T>(len, operator.is_commutative());
        self.start(call, send, recv, operator)
    }

    /// Starts a [`reduce_scatter`](Self::reduce_scatter).
    ///
    /// # Errors
    /// As [`reduce_scatter`](Self::reduce_scatter).
    pub fn ireduce_scatter<'a, T: Element>(
        &self,
        send: &[T],
        recv: &'a mut [T],
        counts: &[usize],
        operator: impl Operator<T> + 'static,
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        let len = Lengths::of(send, recv);
        let blocks = Blocks::Counts(counts);
        let call = self.prepare_reduce_scatter::<T>(len, blocks, operator.is_commutative());
        self.start(call, send, recv, operator)
    }

    /// Starts a [`reduce_scatter_block`](Self::reduce_scatter_block).
    ///
    /// # Errors
    /// As [`reduce_scatter_block`](Self::reduce_scatter_block).
    pub fn ireduce_scatter_block<'a, T: Element>(
        &self,
        send: &[T],
        recv: &'a mut [T],
        operator: impl Operator<T> + 'static,
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        let len = Lengths::of(send, recv);
        let call = self.prepare_reduce_scatter::<T>(len, Blocks::Equal, operator.is_commutative());
        self.start(call, send, recv, operator)
    }

    /// Starts a [`scan`](Self::scan).
    ///
    /// # Errors
    /// As [`scan`](Self::scan).
    pub fn iscan<'a, T: Element>(
        &self,
        send: &[T],
        recv: &'a mut [T],
        operator: impl Operator<T> + 'static,
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        let len = Lengths::of(send, recv);
        let call = self.prepare_scan::<T>(len, operator.is_commutative(), false);
        self.start(call, send, recv, operator)
    }

    /// Starts an [`exscan`](Self::exscan).
    ///
    /// # Errors
    /// As [`scan`](Self::scan).
    pub fn iexscan<'a, T: Element>(
        &self,
        send: &[T],
        recv: &'a mut [T],
        operator: impl Operator<T> + 'static,
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        let len = Lengths::of(send, recv);
        let call = self.prepare_scan::<T>(len, operator.is_commutative(), true);
        self.start(call, send, recv, operator)
    }
}
