//! A call that is under way.

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use river_core::{Vr, VrId};

use crate::calls::Answer;
use crate::data::RemoteSend;
use crate::error::CallError;
use crate::post::{Open, Post};
use crate::protocol::{Op, Ticket};
use crate::wire;

/// The result of a call that is under way; of [`Rai::call_async`](crate::Rai::call_async) and its like.
///
/// Any number may be outstanding, on one server or on many, and they may be waited for in any order. Dropping one
/// means that nobody wants the result: the function still runs, its result is thrown away on arrival.
#[must_use = "nobody will see the result, or the error, of a call that is dropped"]
pub struct Pending<'a, R> {
    vr: &'a Vr,
    server: VrId,
    ticket: Ticket,
    function: &'static str,
    result: PhantomData<fn() -> R>,
}

/// Sends a request that will be answered.
pub(crate) fn send<'a, R>(
    vr: &'a Vr,
    server: VrId,
    function: &'static str,
    args: Bytes,
    op: impl FnOnce(Ticket) -> Op,
) -> Result<Pending<'a, R>, CallError> {
    let post = Post::of(vr);
    if post.with(|calls| calls.has_abandoned()) {
        // Or a VR that drops every result would keep them all in its queue.
        Open::of(vr).collect().map_err(|error| CallError::receiving(&error, function))?;
    }
    let ticket = Ticket(vr.fresh_number());
    wire::send_request(vr, server, op(ticket), args).map_err(CallError::sending)?;
    post.with(|calls| calls.open(ticket, server));
    Ok(Pending { vr, server, ticket, function, result: PhantomData })
}

impl<R> Pending<'_, R> {
    /// The name of this call, different from those of all other calls that this VR ever makes.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// The server that was called.
    #[must_use]
    pub fn server(&self) -> VrId {
        self.server
    }

    /// The Rust name of the function that was called.
    #[must_use]
    pub fn function(&self) -> &'static str {
        self.function
    }

    fn take(&self) -> Option<Answer> {
        Post::of(self.vr).with(|calls| calls.take(self.ticket))
    }
}

impl<R: RemoteSend> Pending<'_, R> {
    /// Waits for the result.
    ///
    /// # Errors
    /// [`CallError`]: the function panicked, the server is gone, the values cannot travel, or the program ends.
    ///
    /// # Blocking
    /// Until the function has returned or its server is gone.
    pub fn wait(mut self) -> Result<R, CallError> {
        if let Some(result) = self.try_wait()? {
            return Ok(result);
        }
        let mut post = Open::of(self.vr);
        post.ask_about(self.server).map_err(|error| CallError::receiving(&error, self.function))?;
        loop {
            if let Some(answer) = self.take() {
                return self.result(answer);
            }
            post.wait().map_err(|error| CallError::receiving(&error, self.function))?;
        }
    }

    /// The result if it is there already. Does not block.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), and [`CallError::Taken`] if an earlier call has returned the result or the error.
    pub fn try_wait(&mut self) -> Result<Option<R>, CallError> {
        if self.is_waiting()? {
            let mut post = Open::of(self.vr);
            post.collect().map_err(|error| CallError::receiving(&error, self.function))?;
        }
        self.take().map(|answer| self.result(answer)).transpose()
    }

    /// Whether the answer still has to come; an error if it has been taken.
    fn is_waiting(&self) -> Result<bool, CallError> {
        Post::of(self.vr).with(|calls| {
            if calls.is_open(self.ticket) {
                Ok(calls.waits_for(self.ticket).is_some())
            } else {
                Err(CallError::Taken(self.function.into()))
            }
        })
    }

    fn result(&self, answer: Answer) -> Result<R, CallError> {
        match answer {
            Answer::Result(bytes) => postcard::from_bytes(&bytes).map_err(|error| {
                let (function, error) = (self.function.to_owned(), error.to_string());
                CallError::Decode { what: "the result", function, error }
            }),
            Answer::Failure(failure) => Err(CallError::remote(failure, self.function)),
            Answer::Down(down) => Err(CallError::Down(down)),
        }
    }
}

impl<R> Drop for Pending<'_, R> {
    fn drop(&mut self) {
        Post::of(self.vr).with(|calls| calls.give_up(self.ticket));
    }
}

impl<R> fmt::Debug for Pending<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pending({} on VR {})", self.function, self.server.short())
    }
}
