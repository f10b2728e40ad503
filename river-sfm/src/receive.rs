//! Receives by pattern, from the core's mailbox.

use std::time::{Duration, Instant};

use river_core::{Envelope, Selector, Vr};

use crate::error::{NearMiss, RecvError};
use crate::message::{Message, SFM};
use crate::pattern::Pattern;

/// Takes the earliest message that matches, waiting for it until the deadline.
pub(crate) fn until(vr: &Vr, pattern: &Pattern<'_>, deadline: Option<Instant>) -> Result<Message, RecvError> {
    let accept = |envelope: &Envelope| pattern.accepts(envelope);
    match vr.receive_until(pattern.selector()?, deadline, accept) {
        Ok(envelope) => open_accepted(pattern, envelope),
        Err(river_core::RecvError::Timeout { waited, .. }) => Err(timeout(vr, pattern, waited)),
        Err(error) => Err(error.into()),
    }
}

/// Takes the earliest message that matches, if there is one now.
pub(crate) fn try_take(vr: &Vr, pattern: &Pattern<'_>) -> Result<Option<Message>, RecvError> {
    let found = vr.try_receive_where(pattern.selector()?, |envelope| pattern.accepts(envelope))?;
    found.map(|envelope| open_accepted(pattern, envelope)).transpose()
}

/// The message in an envelope that the pattern has accepted.
fn open_accepted(pattern: &Pattern<'_>, envelope: Envelope) -> Result<Message, RecvError> {
    if pattern.is_any() {
        return open(envelope);
    }
    let (src, bytes) = (envelope.src, envelope.payload.len());
    Message::accepted(src, envelope.payload).ok_or(RecvError::Malformed { src, bytes })
}

/// The message in an envelope.
pub(crate) fn open(envelope: Envelope) -> Result<Message, RecvError> {
    let (src, bytes) = (envelope.src, envelope.payload.len());
    Message::received(src, envelope.payload).ok_or(RecvError::Malformed { src, bytes })
}

/// How many queued messages the error shows.
const SHOWN: usize = 5;
/// How many are compared with the pattern: a VR that receives repeatedly with a short timeout must not examine all of
/// them each time.
const COMPARED: usize = 1000;

/// The error of a receive that timed out: it shows the queued messages, those that nearly match first.
pub(crate) fn timeout(vr: &Vr, pattern: &Pattern<'_>, waited: Duration) -> RecvError {
    let mut queued = 0;
    let mut near: Vec<(usize, Envelope)> = Vec::new();
    let _: Option<()> = vr.peek_where(Selector::on(SFM), |envelope| {
        queued += 1;
        if queued > COMPARED {
            return None;
        }
        let misses = pattern.misses(envelope);
        let at = near.partition_point(|(others, _)| *others <= misses);
        if at < SHOWN {
            near.insert(at, (misses, envelope.clone()));
            near.truncate(SHOWN);
        }
        None
    });
    let near = near.iter().map(|(_, envelope)| near_miss(pattern, envelope)).collect();
    RecvError::Timeout { waited, pattern: pattern.to_string(), queued, near }
}

fn near_miss(pattern: &Pattern<'_>, envelope: &Envelope) -> NearMiss {
    let src = envelope.src.short();
    let Some(message) = Message::received(envelope.src, envelope.payload.clone()) else {
        let message = format!("{} malformed bytes from {src}", envelope.payload.len());
        return NearMiss { message, failed: vec!["a message".into()] };
    };
    let failed = pattern.failing(message.view(), envelope.src);
    let failed = failed.map(|on| format!("{}: {}", on.name, on.check)).collect();
    NearMiss { message: format!("{message} from {src}"), failed }
}
