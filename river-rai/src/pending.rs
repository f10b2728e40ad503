//! Calls in progress.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use river_core::{RecvError, Vr, VrId};

use crate::body::{self, Body};
use crate::calls::Answer;
use crate::connection::{self, Connection};
use crate::data::RemoteSend;
use crate::error::CallError;
use crate::packed::Packed;
use crate::post::{Open, Post};
use crate::protocol::{Op, Order, Ticket};
use crate::wire;

/// The result of a call in progress, as returned by [`Rai::call_async`](crate::Rai::call_async) and similar methods.
///
/// Any number of calls may be outstanding, to one server or to many, and they may be waited for in any order. Dropping
/// a `Pending` discards the result: the function still runs, and its result is dropped on arrival.
/// [`cancel`](Self::cancel) prevents the function from running, if it is not too late.
#[must_use = "nobody will see the result, or the error, of a call that is dropped"]
pub struct Pending<'a, R> {
    vr: &'a Vr,
    server: VrId,
    ticket: Ticket,
    function: Cow<'static, str>,
    deadline: Option<Instant>,
    result: PhantomData<fn() -> R>,
}

/// Encodes arguments, `()` for a request without any, and sends a request that will be answered.
pub(crate) fn call<'a, R, Args: RemoteSend>(
    connection: &Connection<'a>,
    function: impl Into<Cow<'static, str>>,
    args: Args,
    op: Op,
) -> Result<Pending<'a, R>, CallError> {
    let function = function.into();
    let args = Packed::for_function(args, &function)?.body;
    send(connection, function, args, op)
}

/// Encodes arguments and sends a request that has no answer.
pub(crate) fn cast<Args: RemoteSend>(
    connection: &Connection<'_>,
    function: &str,
    args: Args,
    op: Op,
) -> Result<(), CallError> {
    let args = Packed::for_function(args, function)?.body;
    let order = Order { ticket: None, op };
    Post::of(connection.vr).tell_again(connection.vr);
    wire::send_request(connection.vr, connection.server, &order, args).map_err(CallError::sending)
}

/// Sends a request that will be answered.
pub(crate) fn send<'a, R>(
    connection: &Connection<'a>,
    function: Cow<'static, str>,
    args: Body,
    op: Op,
) -> Result<Pending<'a, R>, CallError> {
    let &Connection { vr, server, .. } = connection;
    let post = Post::of(vr);
    if post.with(|calls| calls.has_abandoned()) {
        // Otherwise a VR that drops every result would keep all of them in its queue.
        Open::of(vr).collect().map_err(|error| CallError::receiving(&error, &function))?;
    }
    post.tell_again(vr);
    let ticket = Ticket(vr.fresh_number());
    let order = Order { ticket: Some(ticket), op };
    wire::send_request(vr, server, &order, args).map_err(CallError::sending)?;
    post.with(|calls| calls.open(ticket, server));
    Ok(Pending { vr, server, ticket, function, deadline: connection.deadline(), result: PhantomData })
}

impl<R> Pending<'_, R> {
    /// The identifier of this call, different from those of all other calls of this VR.
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
    pub fn function(&self) -> &str {
        &self.function
    }

    /// When waiting for it ends with [`CallError::Timeout`], if its connection had a
    /// [time limit](crate::Rai::timeout).
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether an earlier wait, for this or another call, has received the answer. Receives nothing itself, so an answer
    /// that has arrived since is not found.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        Post::of(self.vr).with(|calls| calls.is_open(self.ticket) && calls.waits_for(self.ticket).is_none())
    }

    /// Tells the server that the result is no longer wanted. A call that has not begun never will; one that has begun
    /// can check [`is_cancelled`](crate::current::is_cancelled). Does not wait for either, and waiting may still return
    /// a result, as the cancellation may come too late.
    pub fn cancel(&self) {
        self.tell(Op::Cancel(self.ticket));
    }

    /// Tells the server not to begin the call. Unlike [`cancel`](Self::cancel) it has no effect on a call that has
    /// begun, so waiting returns either the result of an undisturbed call or [`CallError::Cancelled`]: for schedulers that
    /// want to have the work done elsewhere. The server answers when it gets to the call.
    pub fn withdraw(&self) {
        self.tell(Op::Withdraw(self.ticket));
    }

    fn tell(&self, op: Op) {
        let post = Post::of(self.vr);
        if post.with(|calls| calls.waits_for(self.ticket)).is_some() {
            post.tell(self.vr, self.server, op);
        }
    }

    fn take(&self) -> Option<Answer> {
        Post::of(self.vr).with(|calls| calls.take(self.ticket))
    }
}

impl<R: RemoteSend> Pending<'_, R> {
    /// Waits for the result.
    ///
    /// # Errors
    /// [`CallError`] if the function panicked, the server is gone, the values cannot be encoded or decoded, the
    /// deadline of the connection ([`Rai::timeout`](crate::Rai::timeout)) has passed, or the program ends.
    ///
    /// # Blocking
    /// Until the function has returned, its server is gone, or the deadline has passed.
    pub fn wait(mut self) -> Result<R, CallError> {
        match self.wait_until(self.deadline)? {
            Some(result) => Ok(result),
            None => {
                self.cancel();
                Err(CallError::Timeout { function: self.function.clone().into() })
            }
        }
    }

    /// Waits for the result, at most for `timeout`; returns `None` if it has not arrived. The call goes on, and can be
    /// waited for again.
    ///
    /// # Errors
    /// As [`try_wait`](Self::try_wait).
    ///
    /// # Blocking
    /// As [`wait`](Self::wait), or until the timeout expires.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<Option<R>, CallError> {
        self.wait_until(connection::from_now(timeout))
    }

    fn wait_until(&mut self, deadline: Option<Instant>) -> Result<Option<R>, CallError> {
        if let Some(result) = self.try_wait()? {
            return Ok(Some(result));
        }
        if self.server == self.vr.id() {
            self.cancel();
            return Err(CallError::Itself(self.function.clone().into()));
        }
        let mut post = Open::of(self.vr);
        loop {
            if let Some(answer) = self.take() {
                return self.result(answer).map(Some);
            }
            match post.wait(Some(self.server), deadline) {
                Ok(_) => {}
                // A handler that ran until the deadline may have filed the answer.
                Err(RecvError::Timeout { .. }) => {
                    return self.take().map(|answer| self.result(answer)).transpose();
                }
                Err(error) => return Err(CallError::receiving(&error, &self.function)),
            }
        }
    }

    /// Returns the result if it has arrived. Does not block.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), and [`CallError::Taken`] if the result or the error has already been returned.
    pub fn try_wait(&mut self) -> Result<Option<R>, CallError> {
        if self.is_waiting()? {
            let mut post = Open::of(self.vr);
            post.collect().map_err(|error| CallError::receiving(&error, &self.function))?;
        }
        self.take().map(|answer| self.result(answer)).transpose()
    }

    /// Whether the answer has yet to arrive; an error if it has been taken.
    fn is_waiting(&self) -> Result<bool, CallError> {
        Post::of(self.vr).with(|calls| {
            if calls.is_open(self.ticket) {
                Ok(calls.waits_for(self.ticket).is_some())
            } else {
                Err(CallError::Taken(self.function.clone().into()))
            }
        })
    }

    fn result(&self, answer: Answer) -> Result<R, CallError> {
        match answer {
            Answer::Result(body) => body::decode(&body).map_err(|error| {
                let (function, error) = (self.function.clone().into(), error.to_string());
                CallError::Decode { what: "the result", function, error }
            }),
            Answer::Failure(failure) => Err(CallError::remote(failure, &self.function)),
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
