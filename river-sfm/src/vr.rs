//! [`Sfm`]: sending and receiving messages, added to the core's [`Vr`].

use std::borrow::Borrow;
use std::time::{Duration, Instant};

use river_core::{Envelope, Selector, Vr, VrId};

use crate::error::{NearMiss, RecvError, SendError};
use crate::message::{Message, Sealed};
use crate::pattern::{Pattern, SFM};

/// Super flexible messaging, for every [`Vr`].
///
/// Receives take a pattern or a reference to one. What does not match stays in the queue, in its order, for a later
/// receive. Bytes on this layer's channel that are no message match the empty pattern only, and are then an error
/// ([`RecvError::Malformed`]) and gone: none can block the queue, none is lost in silence.
pub trait Sfm {
    /// Sends a message. `Ok` means accepted, not received.
    ///
    /// # Errors
    /// [`SendError::Core`] if the destination is gone; [`SendError::Encode`], [`SendError::Reserved`] or
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

    /// The earliest message that matches, if there is one now. It stays in the queue. Does not block.
    ///
    /// # Errors
    /// [`RecvError::Pattern`] and [`RecvError::Malformed`] as [`recv`](Self::recv), but what is malformed stays.
    fn peek<'p>(&self, pattern: impl Borrow<Pattern<'p>>) -> Result<Option<Message>, RecvError>;
}

impl Sfm for Vr {
    fn send(&self, dest: VrId, message: Message) -> Result<(), SendError> {
        let Sealed { payload, lane } = message.seal()?;
        Ok(self.send_bytes(dest, SFM, lane, payload)?)
    }

    fn multicast(&self, dests: &[VrId], message: Message) -> Result<(), SendError> {
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

    fn recv<'p>(&self, pattern: impl Borrow<Pattern<'p>>) -> Result<Message, RecvError> {
        until(self, pattern.borrow(), None)
    }

    fn try_recv<'p>(&self, pattern: impl Borrow<Pattern<'p>>) -> Result<Option<Message>, RecvError> {
        let pattern = pattern.borrow();
        let found = self.try_receive_where(pattern.selector()?, |envelope| pattern.accepts(envelope))?;
        found.map(open).transpose()
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

    fn peek<'p>(&self, pattern: impl Borrow<Pattern<'p>>) -> Result<Option<Message>, RecvError> {
        let pattern = pattern.borrow();
        let look = |envelope: &Envelope| pattern.accepts(envelope).then(|| open(envelope.clone()));
        self.peek_where(pattern.selector()?, look).transpose()
    }
}

fn until(vr: &Vr, pattern: &Pattern<'_>, deadline: Option<Instant>) -> Result<Message, RecvError> {
    let accept = |envelope: &Envelope| pattern.accepts(envelope);
    match vr.receive_until(pattern.selector()?, deadline, accept) {
        Ok(envelope) => open(envelope),
        Err(river_core::RecvError::Timeout { waited, .. }) => Err(timeout(vr, pattern, waited)),
        Err(error) => Err(error.into()),
    }
}

fn open(envelope: Envelope) -> Result<Message, RecvError> {
    let (src, bytes) = (envelope.src, envelope.payload.len());
    Message::received(src, envelope.payload).ok_or(RecvError::Malformed { src, bytes })
}

/// So many messages of the queue are shown.
const SHOWN: usize = 5;

fn timeout(vr: &Vr, pattern: &Pattern<'_>, waited: Duration) -> RecvError {
    let (mut queued, mut near) = (0, Vec::new());
    let _: Option<()> = vr.peek_where(Selector::on(SFM), |envelope| {
        queued += 1;
        if near.len() < SHOWN {
            near.push(near_miss(pattern, envelope));
        }
        None
    });
    RecvError::Timeout { waited, pattern: pattern.to_string(), queued, near }
}

fn near_miss(pattern: &Pattern<'_>, envelope: &Envelope) -> NearMiss {
    let src = envelope.src.short();
    let Some(message) = Message::received(envelope.src, envelope.payload.clone()) else {
        let message = format!("{} malformed bytes from {src}", envelope.payload.len());
        return NearMiss { message, failed: vec!["a message".into()] };
    };
    let failed = pattern.failing(message.view(), envelope.src);
    let failed = failed.map(|(name, check)| format!("{name}: {check}")).collect();
    NearMiss { message: format!("{message} from {src}"), failed }
}
