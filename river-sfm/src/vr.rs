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
/// Receives take a pattern or a reference to one. What does not match stays in the queue, in its order, for a later
/// receive. Bytes on this layer's channel that are no message match the empty pattern only, and are then an error
/// ([`RecvError::Malformed`]) and gone: none can block the queue, none is lost in silence.
pub trait Sfm {
    /// Sends a message. `Ok` means accepted, not received.
    ///
    /// # Errors
    /// [`SendError::Core`] if the destination is gone, or has limited its mailbox ([`Vr::limit_queue`]) and it is full;
    /// [`SendError::Encode`], [`SendError::Reserved`] or
    /// [`SendError::Duplicate`] if something was wrong with an attribute.
    ///
    /// # Blocking
    /// As [`Vr::send_bytes`]: the first time for a destination, and while much waits for a process that does not read.
    fn send(&self, dest: VrId, message: Message) -> Result<(), SendError>;

    /// Sends a message to each of the destinations. It is encoded once and its memory is shared.
    ///
    /// # Errors
    /// As [`send`](Self::send). If a destination is gone the others are sent the message all the same; the error is
    /// that of the first one that is gone.
    fn multicast(&self, dests: &[VrId], message: Message) -> Result<(), SendError>;

    /// Sends a message that was received on to another VR, for which this VR becomes its source. Nothing is decoded or
    /// copied.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    fn forward(&self, dest: VrId, message: &Message) -> Result<(), SendError>;

    /// Sends a struct field by field: each of its fields is an attribute. See [`Message::of_fields`].
    ///
    /// # Errors
    /// As [`send`](Self::send) and [`Message::of_fields`].
    fn send_fields<T: Serialize + ?Sized>(&self, dest: VrId, value: &T) -> Result<(), SendError>;

    /// Sends a message and waits for the reply, which the other side sends by [`reply`](Self::reply). Replies answer their
    /// own question only, and no other receive gets them.
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
    /// [`AskError::Send`] as [`send`](Self::send). [`AskError::Recv`] if there will be no reply as `dest` is gone, whatever
    /// its end was, or as [`recv`](Self::recv).
    ///
    /// # Blocking
    /// Until the reply or such news arrives.
    fn ask(&self, dest: VrId, question: Message) -> Result<Message, AskError>;

    /// Like [`ask`](Self::ask), but waits no longer than that. A reply that comes later is dropped.
    ///
    /// # Errors
    /// As [`ask`](Self::ask), and [`RecvError::Timeout`].
    fn ask_timeout(&self, dest: VrId, question: Message, timeout: Duration) -> Result<Message, AskError>;

    /// Like [`ask`](Self::ask), but waits no longer than until then. A reply that comes later is dropped.
    ///
    /// # Errors
    /// As [`ask`](Self::ask), and [`RecvError::Timeout`].
    fn ask_deadline(&self, dest: VrId, question: Message, deadline: Instant) -> Result<Message, AskError>;

    /// Replies to a message that was sent by [`ask`](Self::ask), to whoever asked, also if it was forwarded on the way.
    ///
    /// # Errors
    /// [`SendError::NotAsked`] if it was not; else as [`send`](Self::send).
    fn reply(&self, question: &Message, reply: Message) -> Result<(), SendError>;

    /// Takes the earliest message that matches, waiting for it if need be.
    ///
    /// # Errors
    /// [`RecvError::Down`] if the pattern names a source that is gone and has left nothing that matches, or if a child
    /// or a watched VR is gone; [`RecvError::Stopped`] when the program ends; [`RecvError::Pattern`] if the pattern
    /// makes no sense.
    ///
    /// # Blocking
    /// Until such a message or such news arrives.
    fn recv<'p>(&self, pattern: impl Borrow<Pattern<'p>>) -> Result<Message, RecvError>;

    /// Takes the earliest message that matches if there is one now. Does not block.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    fn try_recv<'p>(&self, pattern: impl Borrow<Pattern<'p>>) -> Result<Option<Message>, RecvError>;

    /// Like [`recv`](Self::recv), but waits no longer than that.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`RecvError::Timeout`], which says what was in the queue and why it did not match.
    fn recv_timeout<'p>(
        &self,
        pattern: impl Borrow<Pattern<'p>>,
        timeout: Duration,
    ) -> Result<Message, RecvError>;

    /// Like [`recv`](Self::recv), but waits no longer than until then.
    ///
    /// # Errors
    /// As [`recv_timeout`](Self::recv_timeout).
    fn recv_deadline<'p>(
        &self,
        pattern: impl Borrow<Pattern<'p>>,
        deadline: Instant,
    ) -> Result<Message, RecvError>;

    /// Takes the earliest message that matches and that can be read as a `T`, field by field, waiting for it if need be. See
    /// [`Message::fields`].
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    fn recv_fields<'p, T: DeserializeOwned>(&self, pattern: impl Borrow<Pattern<'p>>)
    -> Result<T, RecvError>;

    /// Takes all messages that match, one by one, and waits for more: it ends after the first error.
    fn iter<'v, 'p>(&'v self, pattern: Pattern<'p>) -> Iter<'v, 'p>;

    /// Takes all messages that match and are there, one by one. Does not block; ends when there is none, or after an error.
    fn try_iter<'v, 'p>(&'v self, pattern: Pattern<'p>) -> TryIter<'v, 'p>;

    /// Posts a receive, to be completed later: from now on the earliest message that matches, and that no receive posted before
    /// wants, belongs to it. Does not block.
    ///
    /// # Errors
    /// [`RecvError::Pattern`] if the pattern makes no sense.
    fn post_recv(&self, pattern: Pattern<'static>) -> Result<PostedRecv<'_>, RecvError>;

    /// Has an action run for every message that matches, from now on and for those that wait already, in order of arrival. No
    /// receive gets them.
    ///
    /// It runs on this VR's thread, inside whatever receive this VR is in when the message has arrived, or goes into next, and
    /// before that returns; so a long computation is not interrupted. It may send and receive, and is not called again while
    /// it runs.
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
    /// [`RecvError::Pattern`] if the pattern makes no sense.
    fn on(
        &self,
        pattern: Pattern<'static>,
        action: impl FnMut(&Vr, Message) + 'static,
    ) -> Result<Handler<'_>, RecvError>;

    /// The earliest message that matches, if there is one now. It stays in the queue. Does not block.
    ///
    /// # Errors
    /// [`RecvError::Pattern`] and [`RecvError::Malformed`] as [`recv`](Self::recv), but what is malformed stays.
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
        // A time beyond what the clock can say is no limit.
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
        // Found is what there is a value of.
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
        // What is no message is left to a receive, which can say so.
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
