//! [`Sfm`]: sending and receiving messages, added to the core's [`Vr`].

use std::borrow::Borrow;
use std::time::{Duration, Instant};

use river_core::{Envelope, Handler, Vr, VrId};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ask;
use crate::error::{AskError, RecvError, SendError};
use crate::iter::{Iter, TryIter};
use crate::message::{Message, SFM, Sealed};
use crate::pattern::Pattern;
use crate::posted::PostedRecv;
use crate::receive::{open, try_take, until};
use crate::traced;

/// Super flexible messaging, for every [`Vr`].
///
/// Receives take a pattern or a reference to one. Messages that do not match stay in the queue, in order, for a later
/// receive. Malformed bytes on this layer's channel match only the empty pattern; that receive takes them and returns
/// an error ([`RecvError::Malformed`]). So malformed input cannot block the queue, nor is it dropped silently.
pub trait Sfm {
    /// Sends a message. `Ok` means accepted, not received.
    ///
    /// # Errors
    /// [`SendError::Core`] if the destination is gone, or has limited its mailbox ([`Vr::limit_queue`]) and it is full;
    /// [`SendError::Encode`], [`SendError::Reserved`] or [`SendError::Duplicate`] if an attribute is invalid.
    ///
    /// # Blocking
    /// As [`Vr::send_bytes`]: on the first send to a destination, and while too much is queued for a process that does
    /// not read.
    fn send(&self, dest: VrId, message: Message) -> Result<(), SendError>;

    /// Sends a message to each of the destinations. It is encoded once, and its memory is shared.
    ///
    /// # Errors
    /// As [`send`](Self::send). If a destination is gone, the message is still sent to the others; the error is that of
    /// the first destination that is gone.
    fn multicast(&self, dests: &[VrId], message: Message) -> Result<(), SendError>;

    /// Sends a received message on to another VR, with this VR as its source. Nothing is decoded or copied.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    fn forward(&self, dest: VrId, message: &Message) -> Result<(), SendError>;

    /// Sends a struct as a message, with an attribute for each field. See [`Message::of_fields`].
    ///
    /// # Errors
    /// As [`send`](Self::send) and [`Message::of_fields`].
    fn send_fields<T: Serialize + ?Sized>(&self, dest: VrId, value: &T) -> Result<(), SendError>;

    /// Sends a message and waits for the reply, which the other side sends by [`reply`](Self::reply). A reply answers
    /// only its own question, and no other receive gets it.
    ///
    /// ```
    /// # use river_sfm::{ANY, Sfm, msg, pat};
    /// # river_core::testing::threads(2, |vr, index, ids| -> river_core::Result {
    /// # let server = ids[0];
    /// # if index == 0 {
    /// let question = vr.recv(pat! { tag: "square", ask: ANY })?;
    /// let n: i64 = question.get("n")?;
    /// vr.reply(&question, msg! { n: n * n })?;
    /// # } else {
    /// // And on the other side:
    /// let answer = vr.ask(server, msg! { tag: "square", n: 5 })?;
    /// assert_eq!(answer.get::<i64>("n")?, 25);
    /// # }
    /// # Ok(())
    /// # }).into_iter().collect::<river_core::Result<Vec<()>>>().unwrap();
    /// ```
    ///
    /// # Errors
    /// [`AskError::Send`] as [`send`](Self::send). [`AskError::Recv`] if there will be no reply because `dest` has
    /// ended, normally or not, or as [`recv`](Self::recv).
    ///
    /// # Blocking
    /// Until the reply, or such an error, arrives.
    fn ask(&self, dest: VrId, question: Message) -> Result<Message, AskError>;

    /// Like [`ask`](Self::ask), but waits at most `timeout`. A later reply is dropped.
    ///
    /// # Errors
    /// As [`ask`](Self::ask), and [`RecvError::Timeout`].
    fn ask_timeout(&self, dest: VrId, question: Message, timeout: Duration) -> Result<Message, AskError>;

    /// Like [`ask`](Self::ask), but waits at most until `deadline`. A later reply is dropped.
    ///
    /// # Errors
    /// As [`ask`](Self::ask), and [`RecvError::Timeout`].
    fn ask_deadline(&self, dest: VrId, question: Message, deadline: Instant) -> Result<Message, AskError>;

    /// Replies to a message that was sent by [`ask`](Self::ask). The reply goes to the VR that asked, even if the
    /// question was forwarded.
    ///
    /// # Errors
    /// [`SendError::NotAsked`] if `question` was not sent by `ask`; otherwise as [`send`](Self::send).
    fn reply(&self, question: &Message, reply: Message) -> Result<(), SendError>;

    /// Takes the earliest message that matches, waiting for one if necessary.
    ///
    /// # Errors
    /// [`RecvError::Down`] if the pattern names a source that is gone and has left no message that matches, or if a
    /// child or a watched VR is gone; [`RecvError::Stopped`] when the program ends; [`RecvError::Pattern`] if the
    /// pattern is invalid.
    ///
    /// # Blocking
    /// Until such a message, or such an error, arrives.
    fn recv<'p>(&self, pattern: impl Borrow<Pattern<'p>>) -> Result<Message, RecvError>;

    /// Takes the earliest message that matches, if one has arrived. Does not block.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    fn try_recv<'p>(&self, pattern: impl Borrow<Pattern<'p>>) -> Result<Option<Message>, RecvError>;

    /// Like [`recv`](Self::recv), but waits at most `timeout`.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`RecvError::Timeout`], which shows what was in the queue and why it did not match.
    fn recv_timeout<'p>(
        &self,
        pattern: impl Borrow<Pattern<'p>>,
        timeout: Duration,
    ) -> Result<Message, RecvError>;

    /// Like [`recv`](Self::recv), but waits at most until `deadline`.
    ///
    /// # Errors
    /// As [`recv_timeout`](Self::recv_timeout).
    fn recv_deadline<'p>(
        &self,
        pattern: impl Borrow<Pattern<'p>>,
        deadline: Instant,
    ) -> Result<Message, RecvError>;

    /// Takes the earliest message that matches and that can be read as a `T`, field by field, waiting for one if
    /// necessary. See [`Message::fields`].
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    fn recv_fields<'p, T: DeserializeOwned>(&self, pattern: impl Borrow<Pattern<'p>>)
    -> Result<T, RecvError>;

    /// Returns an iterator that takes the messages that match, and waits for more. It ends after the first error.
    fn iter<'v, 'p>(&'v self, pattern: Pattern<'p>) -> Iter<'v, 'p>;

    /// Returns an iterator that takes the messages that match and have arrived. It does not block, and ends when there
    /// are no more or after an error.
    fn try_iter<'v, 'p>(&'v self, pattern: Pattern<'p>) -> TryIter<'v, 'p>;

    /// Posts a receive, to be completed later: from now on, the earliest message that matches it, and that no receive
    /// posted before it matches, is reserved for it. Does not block.
    ///
    /// # Errors
    /// [`RecvError::Pattern`] if the pattern is invalid.
    fn post_recv(&self, pattern: Pattern<'static>) -> Result<PostedRecv<'_>, RecvError>;

    /// Registers an action that runs for every message that matches, both those already queued and those that arrive
    /// later, in order of arrival. No receive gets these messages.
    ///
    /// It runs on this VR's thread, inside the receive that this VR is in when the message arrives, or enters next,
    /// before that receive returns; it never interrupts a computation. It may send and receive, and is not called again
    /// while it runs.
    ///
    /// ```
    /// # use river_sfm::{Sfm, msg, pat};
    /// # river_core::testing::threads(1, |vr, _, ids| -> river_core::Result {
    /// # let me = ids[0];
    /// let _echo = vr.on(pat! { tag: "ping" }, |vr, m| {
    ///     let _ = vr.send(m.src(), msg! { tag: "pong" });
    /// })?;
    /// vr.send(me, msg! { tag: "ping" })?;
    /// vr.recv(pat! { tag: "pong" })?;
    /// # Ok(())
    /// # }).into_iter().collect::<river_core::Result<Vec<()>>>().unwrap();
    /// ```
    ///
    /// # Errors
    /// [`RecvError::Pattern`] if the pattern is invalid.
    fn on(
        &self,
        pattern: Pattern<'static>,
        action: impl FnMut(&Vr, Message) + 'static,
    ) -> Result<Handler<'_>, RecvError>;

    /// Returns a copy of the earliest message that matches, if one has arrived. It stays in the queue. Does not block.
    ///
    /// # Errors
    /// [`RecvError::Pattern`] and [`RecvError::Malformed`] as [`recv`](Self::recv), but a malformed envelope stays in
    /// the queue.
    fn peek<'p>(&self, pattern: impl Borrow<Pattern<'p>>) -> Result<Option<Message>, RecvError>;
}

impl Sfm for Vr {
    fn send(&self, dest: VrId, message: Message) -> Result<(), SendError> {
        traced::describe(self);
        let Sealed { payload, lane } = message.seal()?;
        Ok(self.send_bytes(dest, SFM, lane, payload)?)
    }

    fn multicast(&self, dests: &[VrId], message: Message) -> Result<(), SendError> {
        traced::describe(self);
        let Sealed { payload, lane } = message.seal()?;
        let mut result = Ok(());
        for &dest in dests {
            result = result.and(self.send_bytes(dest, SFM, lane, payload.clone()));
        }
        Ok(result?)
    }

    fn forward(&self, dest: VrId, message: &Message) -> Result<(), SendError> {
        self.send(dest, message.clone())
    }

    fn send_fields<T: Serialize + ?Sized>(&self, dest: VrId, value: &T) -> Result<(), SendError> {
        self.send(dest, Message::of_fields(value)?)
    }

    fn ask(&self, dest: VrId, question: Message) -> Result<Message, AskError> {
        ask::ask(self, dest, question, None)
    }

    fn ask_timeout(&self, dest: VrId, question: Message, timeout: Duration) -> Result<Message, AskError> {
        ask::ask(self, dest, question, Instant::now().checked_add(timeout))
    }

    fn ask_deadline(&self, dest: VrId, question: Message, deadline: Instant) -> Result<Message, AskError> {
        ask::ask(self, dest, question, Some(deadline))
    }

    fn reply(&self, question: &Message, reply: Message) -> Result<(), SendError> {
        ask::reply(self, question, reply)
    }

    fn recv<'p>(&self, pattern: impl Borrow<Pattern<'p>>) -> Result<Message, RecvError> {
        until(self, pattern.borrow(), None)
    }

    fn try_recv<'p>(&self, pattern: impl Borrow<Pattern<'p>>) -> Result<Option<Message>, RecvError> {
        try_take(self, pattern.borrow())
    }

    fn recv_timeout<'p>(
        &self,
        pattern: impl Borrow<Pattern<'p>>,
        timeout: Duration,
    ) -> Result<Message, RecvError> {
        // A time that the clock cannot represent means no limit.
        until(self, pattern.borrow(), Instant::now().checked_add(timeout))
    }

    fn recv_deadline<'p>(
        &self,
        pattern: impl Borrow<Pattern<'p>>,
        deadline: Instant,
    ) -> Result<Message, RecvError> {
        until(self, pattern.borrow(), Some(deadline))
    }

    fn recv_fields<'p, T: DeserializeOwned>(
        &self,
        pattern: impl Borrow<Pattern<'p>>,
    ) -> Result<T, RecvError> {
        let pattern = pattern.borrow();
        let mut value = None;
        let found = self.receive_where(pattern.selector()?, |envelope| {
            if pattern.accepts(envelope) {
                let message = Message::received(envelope.src, envelope.payload.clone());
                value = message.and_then(|message| message.fields().ok());
            }
            value.is_some()
        })?;
        // `receive_where` returns an envelope only if `value` was set.
        value.ok_or(RecvError::Malformed { src: found.src, bytes: found.payload.len() })
    }

    fn iter<'v, 'p>(&'v self, pattern: Pattern<'p>) -> Iter<'v, 'p> {
        Iter::new(self, pattern)
    }

    fn try_iter<'v, 'p>(&'v self, pattern: Pattern<'p>) -> TryIter<'v, 'p> {
        TryIter::new(self, pattern)
    }

    fn post_recv(&self, pattern: Pattern<'static>) -> Result<PostedRecv<'_>, RecvError> {
        PostedRecv::new(self, pattern)
    }

    fn on(
        &self,
        pattern: Pattern<'static>,
        mut action: impl FnMut(&Vr, Message) + 'static,
    ) -> Result<Handler<'_>, RecvError> {
        let selector = pattern.selector()?;
        // Malformed envelopes are left to a receive, which can report them.
        let accept = move |envelope: &Envelope| pattern.accepts(envelope) && open(envelope.clone()).is_ok();
        Ok(self.handle(selector, accept, move |vr, envelope| {
            if let Ok(message) = open(envelope) {
                action(vr, message);
            }
        }))
    }

    fn peek<'p>(&self, pattern: impl Borrow<Pattern<'p>>) -> Result<Option<Message>, RecvError> {
        let pattern = pattern.borrow();
        let look = |envelope: &Envelope| pattern.accepts(envelope).then(|| open(envelope.clone()));
        self.peek_where(pattern.selector()?, look).transpose()
    }
}
