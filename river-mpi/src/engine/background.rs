//! Operations that advance in the background while their rank is in another one: non-blocking collectives.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use super::describe::WaitReason;
use super::{Engine, OpId};
use crate::error::Result;

/// An operation of many messages that advances whenever its rank is in any operation.
pub(crate) trait Background {
    /// Does everything that can be done without waiting.
    fn advance(&self, engine: &Engine<'_>);

    /// Whether there is nothing left to do.
    fn is_done(&self) -> bool;

    /// The rank of the world whose message it waits for.
    fn waits_for(&self) -> u32;

    /// Describes what it waits for.
    fn describe(&self, engine: &Engine<'_>) -> String;
}

/// All background operations under way.
#[derive(Default)]
pub(super) struct Tasks {
    tasks: RefCell<Vec<Rc<dyn Background>>>,
    advancing: Cell<bool>,
}

/// Marks that background operations are advancing, until it is dropped: an operator of the program may panic meanwhile.
struct Advancing<'a>(&'a Cell<bool>);

impl Drop for Advancing<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tasks({})", self.tasks.borrow().len())
    }
}

impl Engine<'_> {
    /// Has an operation advance in the background until it is done.
    pub(crate) fn go_on_with(&self, task: Rc<dyn Background>) {
        self.background.tasks.borrow_mut().push(task);
    }

    /// Advances all background operations. Returns `true` if messages have arrived or an operation is done: a caller that
    /// waits should then check again before it waits for another envelope.
    pub(super) fn advance_background(&self) -> bool {
        if self.background.tasks.borrow().is_empty() || self.background.advancing.replace(true) {
            return false;
        }
        let _advancing = Advancing(&self.background.advancing);
        let mut news = false;
        loop {
            let before = self.state.borrow().arrivals;
            let tasks = self.background.tasks.borrow().clone();
            tasks.iter().for_each(|task| task.advance(self));
            self.background.tasks.borrow_mut().retain(|task| !task.is_done());
            news |= self.background.tasks.borrow().len() < tasks.len();
            // One operation may have taken in what another one waits for.
            if self.state.borrow().arrivals == before {
                break;
            }
            news = true;
        }
        news
    }

    /// Waits until something happens, on behalf of a background operation that waits for these ranks.
    pub(crate) fn idle(&self, whom: &[u32]) -> Result {
        self.block(WaitReason::Started(&[]), whom, None, None)
    }

    /// Like [`idle`](Self::idle), but also waits for `ops`.
    pub(crate) fn idle_for(&self, ops: &[OpId], whom: &[u32]) -> Result {
        ops.iter().try_for_each(|&op| self.failure(op))?;
        let mut all = self.needed_by(ops);
        all.extend_from_slice(whom);
        self.block(WaitReason::Started(ops), &all, None, None)
    }

    /// Waits until no background operation is under way.
    pub(super) fn finish_background(&self) -> Result {
        loop {
            self.advance_background();
            let first = self.background.tasks.borrow().first().cloned();
            match first {
                Some(task) => self.idle(&[task.waits_for()])?,
                None => return Ok(()),
            }
        }
    }

    /// Describes what the background operations wait for, if there are any.
    pub(super) fn describe_background(&self) -> Option<String> {
        let tasks = self.background.tasks.borrow();
        let texts: Vec<String> = tasks.iter().map(|task| task.describe(self)).collect();
        (!texts.is_empty()).then(|| texts.join(", and "))
    }

    pub(crate) fn has_background(&self) -> bool {
        !self.background.tasks.borrow().is_empty()
    }
}
