//! Non-blocking operations in progress.
//!
//! Such an operation owns its buffers, so that it can advance whenever this rank is in any operation, whatever becomes of its
//! request; the caller's buffer is written when the request completes. It executes the same plan as the blocking form.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;

use crate::coll::{Execution, Input, Memory, Parcels, Plan, Progress};
use crate::communicator::Communicator;
use crate::element::Element;
use crate::engine::{Background, Engine};
use crate::error::{MpiError, Result};
use crate::lend::Region;
use crate::op::Operator;
use crate::request::{Pending, Request};

use super::port::{Port, Team};

/// A plan with the memory that it works on.
pub(super) trait Work {
    /// What comes out.
    type Output: ?Sized;

    /// Does what can be done without waiting.
    fn advance(&mut self, port: &Port<'_, '_>) -> Result<Progress>;

    /// What has come out, when it is done.
    fn output(&self) -> &Self::Output;
}

/// On elements.
pub(super) struct Slices<T> {
    execution: Execution,
    operator: Box<dyn Operator<T>>,
    input: Input<Vec<T>>,
    output: Vec<T>,
    scratch: Vec<T>,
}

impl<T: Element> Slices<T> {
    pub(super) fn new(
        plan: Rc<Plan>,
        tag: i32,
        input: Input<Vec<T>>,
        output: Vec<T>,
        operator: Box<dyn Operator<T>>,
    ) -> Self {
        let first = match &input {
            Input::Apart(input) => input.first().or(output.first()),
            Input::InOutput(_) => output.first(),
        };
        let scratch = first.map_or_else(Vec::new, |&filler| vec![filler; plan.scratch_len()]);
        Self { execution: Execution::new(plan, tag), operator, input, output, scratch }
    }
}

impl<T: Element> Work for Slices<T> {
    type Output = Vec<T>;

    fn advance(&mut self, port: &Port<'_, '_>) -> Result<Progress> {
        let input = match &self.input {
            Input::Apart(input) => Input::Apart(Region::read_only(input)),
            Input::InOutput(start) => Input::InOutput(*start),
        };
        let (output, scratch) = (Region::new(&mut self.output), Region::new(&mut self.scratch));
        self.execution.advance(port, &mut Memory { input, output, scratch }, &*self.operator)
    }

    fn output(&self) -> &Vec<T> {
        &self.output
    }
}

impl Work for Parcels {
    type Output = [Bytes];

    fn advance(&mut self, port: &Port<'_, '_>) -> Result<Progress> {
        Parcels::advance(self, port)
    }

    fn output(&self) -> &[Bytes] {
        Parcels::output(self)
    }
}

/// An operation under way. The engine has it until it is done.
struct Started<W> {
    operation: &'static str,
    team: Team,
    work: RefCell<W>,
    /// The rank of the world whose message it waits for.
    waits_for: Cell<u32>,
    result: RefCell<Option<Result>>,
}

impl<W: Work> Background for Started<W> {
    fn advance(&self, engine: &Engine<'_>) {
        // While it advances, the engine may be asked to let everything advance.
        let Ok(mut work) = self.work.try_borrow_mut() else { return };
        if self.is_done() {
            return;
        }
        let before = engine.enter(self.operation);
        let _unless_it_panics = Unless(self, std::thread::panicking());
        // Messages come through the engine, which lets this advance when one has come.
        let port = Port { team: &self.team, engine, local_path: None, shm_path: None, all_short: false };
        match work.advance(&port) {
            Ok(Progress::Waits { from }) => self.waits_for.set(self.team.world_rank(from)),
            Ok(Progress::Done) => *self.result.borrow_mut() = Some(Ok(())),
            Err(error) => *self.result.borrow_mut() = Some(Err(port.explain(error))),
        }
        engine.enter(before);
    }

    fn is_done(&self) -> bool {
        self.result.borrow().is_some()
    }

    fn waits_for(&self) -> u32 {
        self.waits_for.get()
    }

    fn describe(&self, engine: &Engine<'_>) -> String {
        let before = engine.enter(self.operation);
        let text = self.team.describe(engine, self.waits_for.get());
        engine.enter(before);
        text
    }
}

/// An operation whose operator has panicked is over, and what the program has caught is not thrown at it again.
/// Whether something else has panicked before.
struct Unless<'a, W>(&'a Started<W>, bool);

impl<W> Drop for Unless<'_, W> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.1 {
            let text = format!("the operator of {} has panicked", self.0.operation);
            *self.0.result.borrow_mut() = Some(Err(MpiError::Arg(text)));
        }
    }
}

/// The request's side: what becomes of the result.
struct Awaited<W, D> {
    started: Rc<Started<W>>,
    deliver: D,
}

impl<W: Work, D: FnMut(&W::Output) -> Result> Pending for Awaited<W, D> {
    fn test(&mut self, engine: &Engine<'_>) -> Result<bool> {
        self.started.advance(engine);
        let Some(result) = self.started.result.borrow().clone() else { return Ok(false) };
        result?;
        (self.deliver)(self.started.work.borrow().output()).map(|()| true)
    }

    fn is_done(&self) -> bool {
        self.started.is_done()
    }

    fn waits_for(&self) -> u32 {
        self.started.waits_for.get()
    }
}

impl<'v> Communicator<'v> {
    /// Starts it. When it is complete, `deliver` puts the result where it belongs.
    pub(super) fn go<'a, W: Work + 'static>(
        &self,
        operation: &'static str,
        team: Team,
        work: W,
        deliver: impl FnMut(&W::Output) -> Result + 'a,
    ) -> Request<'a>
    where
        'v: 'a,
    {
        let started = Rc::new(Started {
            waits_for: Cell::new(self.engine().me()),
            operation,
            team,
            work: RefCell::new(work),
            result: RefCell::new(None),
        });
        started.advance(self.engine());
        if !started.is_done() {
            self.engine().go_on_with(started.clone());
        }
        Request::of_pending(self, Box::new(Awaited { started, deliver }))
    }
}
