//! Operations that are started and completed later (MPI 3.1, section 5.12).
//!
//! A started operation owns its buffers, so that it goes on whenever this rank is in any operation, whatever
//! became of its request; the caller's buffer is written when the request completes. It is carried out by the
//! same plan as the blocking one.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;

use crate::coll::{Execution, Input, Memory, NoOperator, Progress};
use crate::communicator::Communicator;
use crate::element::Element;
use crate::engine::{Background, Engine};
use crate::error::Result;
use crate::op::Operator;
use crate::request::{Pending, Request};

use super::port::{Port, Seat};
use super::prepare::{Blocks, Lengths, Prepared};
use super::root::Root;

/// An operation under way. The engine has it until it is done.
struct Started<T> {
    seat: Seat,
    operator: Box<dyn Operator<T>>,
    buffers: RefCell<Owned<T>>,
    /// The rank of the world whose message it waits for.
    waits_for: Cell<u32>,
    result: RefCell<Option<Result>>,
}

struct Owned<T> {
    execution: Execution,
    /// `None`: it lies in the output, from the start of this place on.
    input: Option<Vec<T>>,
    start: usize,
    output: Vec<T>,
    scratch: Vec<T>,
}

impl<T: Element> Background for Started<T> {
    fn advance(&self, engine: &Engine<'_>) {
        // While it advances, the engine may be asked to let everything advance.
        let Ok(mut buffers) = self.buffers.try_borrow_mut() else { return };
        if self.is_done() {
            return;
        }
        let Owned { execution, input, start, output, scratch } = &mut *buffers;
        let input = input.as_deref().map_or(Input::InOutput(*start), Input::Apart);
        let mut memory = Memory { input, output, scratch };
        let port = Port { seat: &self.seat, engine };
        match execution.advance(&port, &mut memory, &*self.operator) {
            Ok(Progress::Waits { from }) => self.waits_for.set(self.seat.world_rank(from)),
            Ok(Progress::Done) => *self.result.borrow_mut() = Some(Ok(())),
            Err(error) => *self.result.borrow_mut() = Some(Err(error)),
        }
    }

    fn is_done(&self) -> bool {
        self.result.borrow().is_some()
    }

    fn waits_for(&self) -> u32 {
        self.waits_for.get()
    }
}

/// The request's side: where the result is to go.
struct Awaited<'a, T> {
    started: Rc<Started<T>>,
    output: &'a mut [T],
}

impl<T: Element> Pending for Awaited<'_, T> {
    fn test(&mut self, engine: &Engine<'_>) -> Result<bool> {
        self.started.advance(engine);
        let Some(result) = self.started.result.borrow().clone() else { return Ok(false) };
        let buffers = self.started.buffers.borrow();
        let len = self.output.len().min(buffers.output.len());
        self.output[..len].copy_from_slice(&buffers.output[..len]);
        result.map(|()| true)
    }

    fn waits_for(&self) -> u32 {
        self.started.waits_for.get()
    }
}

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
        let Prepared { seat, tag, plan, place, in_place } = self.guard(call)?;
        let mut output = recv.to_vec();
        let lies_in_output = in_place && place.len() == send.len() && place.end <= output.len();
        if lies_in_output {
            output[place.clone()].copy_from_slice(send);
        }
        let filler = send.first().or(output.first()).copied();
        let scratch = filler.map_or_else(Vec::new, |filler| vec![filler; plan.scratch_len()]);
        let buffers = Owned {
            execution: Execution::new(plan, tag),
            input: (!lies_in_output).then(|| send.to_vec()),
            start: place.start,
            output,
            scratch,
        };
        let started = Rc::new(Started {
            waits_for: Cell::new(self.engine().me()),
            seat,
            operator: Box::new(operator),
            buffers: RefCell::new(buffers),
            result: RefCell::new(None),
        });
        started.advance(self.engine());
        if !started.is_done() {
            self.engine().go_on_with(started.clone());
        }
        Ok(Request::of_pending(self, Box::new(Awaited { started, output: recv })))
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
        let len = Lengths { send: send.len(), recv: recv.len() };
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
        let len = Lengths { send: send.len(), recv: recv.len() };
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
        let len = Lengths { send: send.len(), recv: recv.len() };
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
        let len = Lengths { send: send.len(), recv: recv.len() };
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
        let len = Lengths { send: send.len(), recv: recv.len() };
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
        let len = Lengths { send: send.len(), recv: recv.len() };
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
        let len = Lengths { send: send.len(), recv: recv.len() };
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
        let len = Lengths { send: send.len(), recv: recv.len() };
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
        let len = Lengths { send: send.len(), recv: recv.len() };
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
        let len = Lengths { send: send.len(), recv: recv.len() };
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
        let len = Lengths { send: send.len(), recv: recv.len() };
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
        let len = Lengths { send: send.len(), recv: recv.len() };
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
        let len = Lengths { send: send.len(), recv: recv.len() };
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
        let len = Lengths { send: send.len(), recv: recv.len() };
        let call = self.prepare_scan::<T>(len, operator.is_commutative(), true);
        self.start(call, send, recv, operator)
    }
}
