//! Operations that advance in the background while their rank is in another one: non-blocking collectives.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use super::describe::WaitReason;
use super::{Engine, OpId};
use crate::error::Result;

/// An operation of many messages that advances whenever its rank is in any operation.
pub(crate) trait Background {
    /// Does what can be done without waiting.
    fn advance(&self, engine: &Engine<'_>);

    /// Whether there is nothing left to do.
    fn is_done(&self) -> bool;

    /// The rank of the world whose message it waits for.
    fn waits_for(&self) -> u32;

    /// What it waits for, in words.
    fn describe(&self, engine: &Engine<'_>) -> String;
}

/// All that is under way.
#[derive(Default)]
pub(super) struct Tasks {
    tasks: RefCell<Vec<Rc<dyn Background>>>,
    advancing: Cell<bool>,
}

/// Operations advance, as long as it is there: that of a program may panic.
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
    /// Lets an operation advance until it is done.
    pub(crate) fn go_on_with(&self, task: Rc<dyn Background>) {
        self.background.tasks.borrow_mut().push(task);
    }

    /// Lets everything advance. True: messages have come or something is done, so who waits should look again
    /// before it waits for another envelope.
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
            // One may have brought in what another one waits for.
            if self.state.borrow().arrivals == before {
                break;
            }
            news = true;
        }
        news
    }

    /// Waits until something has happened, for an operation that waits for these ranks.
    pub(crate) fn idle(&self, whom: &[u32]) -> Result {
        self.block(WaitReason::Started(&[]), whom, None, None)
    }

    /// As [`idle`](Self::idle), for one that waits for operations as well.
    pub(crate) fn idle_for(&self, ops: &[OpId], whom: &[u32]) -> Result {
        ops.iter().try_for_each(|&op| self.failure(op))?;
        let mut all = self.needed_by(ops);
        all.extend_from_slice(whom);
        self.block(WaitReason::Started(ops), &all, None, None)
    }

    /// Waits until nothing is under way any more.
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

    /// What everything waits for, in words.
    pub(super) fn describe_background(&self) -> Option<String> {
        let tasks = self.background.tasks.borrow();
        let texts: Vec<String> = tasks.iter().map(|task| task.describe(self)).collect();
        (!texts.is_empty()).then(|| texts.join(", and "))
    }

    pub(crate) fn has_background(&self) -> bool {
        !self.background.tasks.borrow().is_empty()
    }
}
