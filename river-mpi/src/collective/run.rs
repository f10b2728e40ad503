//! Executes a prepared call to its end: the blocking form.

use std::ops::Range;

use smallvec::{SmallVec, smallvec};

use crate::coll::{Buffers, Execution, Input, Memory, NoOperator, Planned, run_short};
use crate::communicator::Communicator;
use crate::element::Element;
use crate::error::{MpiError, Result};
use crate::lend::Region;
use crate::op::Operator;

use super::port::{Port, Team};
use super::prepare::Prepared;

impl<'v> Communicator<'v> {
    /// A call with its number. One that is refused here has one, too: the other ranks may carry it out.
    pub(super) fn numbered<C>(&self, call: Result<C>) -> Result<(i32, C)> {
        let tag = self.next_collective();
        let call = call.and_then(|call| self.engine().check(self.context()).map(|()| call));
        Ok((tag, self.guard(call)?))
    }

    /// Moves elements from one buffer to another.
    pub(super) fn transfer<T: Element>(
        &self,
        call: Result<Prepared>,
        input: &[T],
        output: &mut [T],
    ) -> Result {
        self.reduce_with(call, input, output, &NoOperator)
    }

    /// Moves elements from one buffer to another and combines them.
    pub(super) fn reduce_with<T: Element>(
        &self,
        call: Result<Prepared>,
        input: &[T],
        output: &mut [T],
        operator: &dyn Operator<T>,
    ) -> Result {
        let tag = self.next_collective();
        // Left where they are: to copy what was just written waits until the last message has left this core's store buffer.
        match &call {
            Ok(call) => self.guard_sent(self.carry_out(call, tag, &Input::Apart(input), output, operator)),
            Err(_) => self.guard(call.map(drop)),
        }
    }

    /// The same with one buffer for both.
    pub(super) fn in_place<T: Element>(
        &self,
        call: Result<Prepared>,
        buffer: &mut [T],
        operator: &dyn Operator<T>,
    ) -> Result {
        let tag = self.next_collective();
        let run = |call: Prepared| {
            if self.is_inter() {
                return Err(MpiError::Comm("nothing is in place between two groups".into()));
            }
            let place = call.planned.place.clone();
            is_there(&place, buffer)?;
            if call.planned.in_place {
                return self.carry_out(&call, tag, &Input::InOutput(place.start), buffer, operator);
            }
            let input = buffer[place].to_vec();
            self.carry_out(&call, tag, &Input::Apart(&input), buffer, operator)
        };
        self.guard_sent(call.and_then(run))
    }

    pub(super) fn carry_out<T: Element>(
        &self,
        call: &Prepared,
        tag: i32,
        given: &Input<&[T]>,
        output: &mut [T],
        operator: &dyn Operator<T>,
    ) -> Result {
        let filler = match given {
            Input::Apart([first, ..]) => Some(*first),
            _ => output.first().copied(),
        };
        self.engine().check(self.context())?;
        self.engine().enter(call.planned.operation);
        if self.engine().has_background() {
            // Where all messages come from within the process, this operation may never look at the engine.
            self.engine().progress()?;
        }
        let planned = &call.planned;
        let shm_path = if self.is_inter() { None } else { self.shm_path() };
        let port = Port { shm_path, all_short: planned.all_short, ..self.port(&call.team) };
        if planned.short {
            // As in `guard_sent`.
            if let Err(error) = self.carry_out_brief((planned, tag), &port, given, output, filler, operator) {
                return Err(port.explain(error));
            }
            return Ok(());
        }
        let mut scratch = self.planner().scratch(planned.plan.scratch_len(), filler);
        let input = match given {
            Input::Apart(input) => Input::Apart(Region::read_only(input)),
            Input::InOutput(start) => Input::InOutput(*start),
        };
        let mut memory = Memory { input, output: Region::new(output), scratch: Region::new(&mut scratch) };
        let result = Execution::new(planned.plan.clone(), tag).run(&port, &mut memory, operator);
        drop(memory);
        self.planner().keep_scratch(scratch);
        result.map_err(|error| port.explain(error))
    }

    // Apart from the other, as its scratch buffer is on the stack.
    #[inline(never)]
    fn carry_out_brief<T: Element>(
        &self,
        (planned, tag): (&Planned, i32),
        port: &Port<'_, '_>,
        input: &Input<&[T]>,
        output: &mut [T],
        filler: Option<T>,
        operator: &dyn Operator<T>,
    ) -> Result {
        let plan = &planned.plan;
        // As for `Planner::scratch`: if any is needed, there is something to fill it with.
        let mut scratch: SmallVec<[T; 4]> = match filler {
            Some(filler) if plan.scratch_len() > 0 => smallvec![filler; plan.scratch_len()],
            _ => SmallVec::new(),
        };
        let mut buffers = Buffers { input, output, scratch: &mut scratch, room: self.planner().room() };
        run_short(plan, tag, port, &mut buffers, operator)
    }

    /// The wire of an operation that waits.
    #[inline]
    pub(super) fn port<'a>(&'a self, team: &'a Team) -> Port<'a, 'v> {
        let local_path = if self.is_inter() { None } else { self.local_path() };
        Port { team, engine: self.engine(), local_path, shm_path: None, all_short: false }
    }
}

/// An error if a rank's own elements are not where they are when it calls an operation in place.
pub(super) fn is_there<T>(own: &Range<usize>, buffer: &[T]) -> Result {
    if own.end <= buffer.len() {
        return Ok(());
    }
    Err(MpiError::Arg(format!(
        "this rank's own elements, {own:?}, are not in a buffer of {}: where there is a root, it alone calls the operation in \
         place, and the others the one with two buffers",
        buffer.len()
    )))
}
