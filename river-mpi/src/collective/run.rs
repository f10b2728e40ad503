//! How a call is carried out by a rank that waits for it.

use crate::coll::{Execution, Input, Memory, NoOperator};
use crate::communicator::Communicator;
use crate::element::Element;
use crate::error::{MpiError, Result};
use crate::lend::Region;
use crate::op::Operator;

use super::port::{Port, Seat};
use super::prepare::{Given, Prepared};

impl<'v> Communicator<'v> {
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
        let result = call.and_then(|call| self.carry_out(call, Given::Apart(input), output, operator));
        self.guard(result)
    }

    /// The same with one buffer for both.
    pub(super) fn in_place<T: Element>(
        &self,
        call: Result<Prepared>,
        buffer: &mut [T],
        operator: &dyn Operator<T>,
    ) -> Result {
        let run = |call: Prepared| {
            if self.is_inter() {
                return Err(MpiError::Comm("nothing is in place between two groups".into()));
            }
            let place = call.place.clone();
            if call.in_place {
                return self.carry_out(call, Given::InOutput(place.start), buffer, operator);
            }
            let input = buffer[place].to_vec();
            self.carry_out(call, Given::Apart(&input), buffer, operator)
        };
        self.guard(call.and_then(run))
    }

    fn carry_out<T: Element>(
        &self,
        call: Prepared,
        given: Given<&[T]>,
        output: &mut [T],
        operator: &dyn Operator<T>,
    ) -> Result {
        let filler = match given {
            Given::Apart([first, ..]) => Some(*first),
            _ => output.first().copied(),
        };
        if self.engine().has_background() {
            // Where all messages come from within the process, this operation may never look at the engine.
            self.engine().pump()?;
        }
        let mut scratch = self.planner().scratch(call.plan.scratch_len(), filler);
        let input = match given {
            Given::Apart(input) => Input::Apart(Region::read_only(input)),
            Given::InOutput(start) => Input::InOutput(start),
        };
        let mut memory = Memory { input, output: Region::new(output), scratch: Region::new(&mut scratch) };
        let result = Execution::new(call.plan, call.tag).run(&self.port(&call.seat), &mut memory, operator);
        drop(memory);
        self.planner().keep_scratch(scratch);
        result
    }

    /// The wire of an operation that waits.
    pub(super) fn port<'a>(&'a self, seat: &'a Seat) -> Port<'a, 'v> {
        let near = if self.is_inter() { None } else { self.near() };
        Port { seat, engine: self.engine(), near }
    }
}
