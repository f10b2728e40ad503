//! Receives that are posted now and completed later.

use std::rc::Rc;
use std::time::{Duration, Instant};

use river_core::{Posted, Vr};

use crate::error::RecvError;
use crate::message::Message;
use crate::pattern::Pattern;
use crate::receive::{open, timeout};

/// A receive that was posted by [`Sfm::post_recv`](crate::Sfm::post_recv). It gets the earliest message that matches
/// and that no receive posted before it matches, even if nobody polls it. Dropping it withdraws the receive: a message
/// that it already got returns to its place in the queue.
///
/// ```
/// # use river_sfm::{Sfm, msg, pat};
/// # river_core::testing::threads(1, |vr, _, ids| -> river_core::Result {
/// # let me = ids[0];
/// let mut answer = vr.post_recv(pat! { tag: "answer" })?;
/// assert!(answer.test()?.is_none());
/// vr.send(me, msg! { tag: "answer", n: 42 })?;
/// assert!(vr.try_recv(pat! {})?.is_none()); // it belongs to the posted receive
/// assert_eq!(answer.wait()?.get::<i32>("n")?, 42);
/// # Ok(())
/// # }).into_iter().collect::<river_core::Result<Vec<()>>>().unwrap();
/// ```
#[must_use = "a posted receive that is dropped is taken back"]
#[derive(Debug)]
pub struct PostedRecv<'v> {
    vr: &'v Vr,
    posted: Posted<'v>,
    pattern: Rc<Pattern<'static>>,
}

impl<'v> PostedRecv<'v> {
    pub(crate) fn new(vr: &'v Vr, pattern: Pattern<'static>) -> Result<Self, RecvError> {
        let (selector, pattern) = (pattern.selector()?, Rc::new(pattern));
        let accepts = pattern.clone();
        Ok(Self { vr, posted: vr.post(selector, move |envelope| accepts.accepts(envelope)), pattern })
    }

    /// Returns the message if it has arrived. Does not block. Once the message was returned, the result is `None`.
    ///
    /// # Errors
    /// As [`Sfm::recv`](crate::Sfm::recv).
    pub fn test(&mut self) -> Result<Option<Message>, RecvError> {
        self.posted.test()?.map(open).transpose()
    }

    /// Waits for the message.
    ///
    /// # Errors
    /// As [`Sfm::recv`](crate::Sfm::recv).
    pub fn wait(self) -> Result<Message, RecvError> {
        self.wait_until(None)
    }

    /// Waits for the message until the timeout expires, which withdraws the receive.
    ///
    /// # Errors
    /// As [`Sfm::recv`](crate::Sfm::recv), and [`RecvError::Timeout`].
    pub fn wait_timeout(self, timeout: Duration) -> Result<Message, RecvError> {
        self.wait_until(Instant::now().checked_add(timeout))
    }

    /// Waits for the message until the deadline, which withdraws the receive.
    ///
    /// # Errors
    /// As [`Sfm::recv`](crate::Sfm::recv), and [`RecvError::Timeout`].
    pub fn wait_deadline(self, deadline: Instant) -> Result<Message, RecvError> {
        self.wait_until(Some(deadline))
    }

    fn wait_until(self, deadline: Option<Instant>) -> Result<Message, RecvError> {
        match self.posted.wait_until(deadline) {
            Ok(envelope) => open(envelope),
            Err(river_core::RecvError::Timeout { waited, .. }) => {
                Err(timeout(self.vr, &self.pattern, waited))
            }
            Err(error) => Err(error.into()),
        }
    }
}
