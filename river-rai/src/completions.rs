//! Waits for whichever of many calls is answered first.

use std::fmt;
use std::time::Instant;

use river_core::{RecvError, Vr};

use crate::calls::GroupId;
use crate::error::CallError;
use crate::pending::Pending;
use crate::post::{Open, Post};
use crate::protocol::Ticket;

/// The result of waiting for any call of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// This call has been answered.
    Answered(Ticket),
    /// The set has no calls left.
    Empty,
    /// The deadline has passed.
    Timeout,
}

/// A set of calls that returns their tickets one by one as their answers arrive.
///
/// It does not hold the calls: keep them by ticket, and `wait` for the one whose ticket is returned, which does not
/// block. A call whose server dies is returned as well, and its `wait` returns the error. Schedulers are built on this.
///
/// ```no_run
/// # use river_rai::{CallError, Completions, Rai};
/// # fn two(vr: &river_core::Vr, servers: [Rai<'_>; 2]) -> Result<(), CallError> {
/// let mut calls = Vec::new();
/// let mut completions = Completions::new(vr);
/// for server in servers {
///     let call = server.call_async(|x: u64| x * x, (5,))?;
///     completions.add(&call);
///     calls.push(call);
/// }
/// while let Some(ticket) = completions.next()? {
///     let index = calls.iter().position(|call| call.ticket() == ticket).expect("we added it");
///     println!("{}", calls.swap_remove(index).wait()?);
/// }
/// # Ok(()) }
/// ```
pub struct Completions<'a> {
    vr: &'a Vr,
    id: GroupId,
}

impl<'a> Completions<'a> {
    /// An empty set.
    #[must_use]
    pub fn new(vr: &'a Vr) -> Self {
        let id = GroupId(vr.fresh_number());
        Post::of(vr).with(|calls| calls.open_group(id));
        Self { vr, id }
    }

    /// Adds a call. It leaves the set when its ticket is returned, when it is waited for or dropped, or when it is
    /// added to another set.
    pub fn add<R>(&mut self, call: &Pending<'_, R>) {
        Post::of(self.vr).with(|calls| calls.join_group(call.ticket(), self.id));
    }

    /// Returns the call that was answered first; `None` if the set is empty.
    ///
    /// # Errors
    /// [`CallError::Stopped`] if the program is ending; [`CallError::Itself`] if all remaining calls are to this VR
    /// itself. The death of a server is an error of its calls, not of this method.
    ///
    /// # Blocking
    /// Until a call of the set has been answered or its server is gone.
    #[allow(clippy::should_implement_trait)] // The set is not exhausted by a `None`: more may be added.
    pub fn next(&mut self) -> Result<Option<Ticket>, CallError> {
        match self.next_until(None)? {
            Completion::Answered(ticket) => Ok(Some(ticket)),
            Completion::Empty | Completion::Timeout => Ok(None),
        }
    }

    /// Like [`next`](Self::next), but waits at most until the deadline.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    ///
    /// # Blocking
    /// As [`next`](Self::next), or until the deadline.
    pub fn next_until(&mut self, deadline: Option<Instant>) -> Result<Completion, CallError> {
        let mut post = Open::of(self.vr);
        if let Some(ticket) = post.with(|calls| calls.next_ready(self.id)) {
            return Ok(Completion::Answered(ticket));
        }
        let stopped = |error| CallError::receiving(&error, "a call that was waited for");
        post.collect().map_err(stopped)?;
        let (mut asked, mut waits_for_itself) = (false, false);
        loop {
            if let Some(ticket) = post.with(|calls| calls.next_ready(self.id)) {
                return Ok(Completion::Answered(ticket));
            }
            if asked {
                if waits_for_itself && post.with(|calls| calls.waits_only_for(self.id, self.vr.id())) {
                    return Err(CallError::Itself("a call that was waited for".into()));
                }
                match post.wait(None, deadline) {
                    // Nobody else is told of a death that a handler has seen.
                    Ok(filed) => asked = filed,
                    // A handler that ran until the deadline may have filed an answer.
                    Err(RecvError::Timeout { .. }) => {
                        let ready = post.with(|calls| calls.next_ready(self.id));
                        return Ok(ready.map_or(Completion::Timeout, Completion::Answered));
                    }
                    Err(error) => return Err(stopped(error)),
                }
            } else {
                asked = true;
                for server in post.with(|calls| calls.servers_of(self.id)) {
                    waits_for_itself |= server == self.vr.id();
                    post.watch(server).map_err(stopped)?;
                }
            }
            if post.with(|calls| calls.is_done(self.id)) {
                return Ok(Completion::Empty);
            }
        }
    }
}

impl Drop for Completions<'_> {
    fn drop(&mut self) {
        Post::of(self.vr).with(|calls| calls.close_group(self.id));
    }
}

impl fmt::Debug for Completions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completions").finish_non_exhaustive()
    }
}
