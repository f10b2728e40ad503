//! Requests and replies as envelopes. The only module that knows their layout: a postcard header, followed by the
//! encoded arguments or result, and the blobs in them as separate parts, which are not copied.
//!
//! They have channels of their own, so no receive of another layer can take them.

use std::time::Instant;

use river_core::trace::Label;
use river_core::{Channel, Envelope, Payload, RecvError, Selector, SendError, Vr, VrId};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::body::Body;
use crate::protocol::{Failure, Op, Order, Ticket};

const REQUESTS: Channel = Channel::named("rai.requests");
const REPLIES: Channel = Channel::named("rai.replies");
/// Nothing is ever sent on this channel.
const NOTHING: Channel = Channel::named("rai.nothing");

/// In a lane they are found at once, however many other envelopes are queued.
const LANE: u64 = 1;

/// A request as the server receives it.
pub(crate) struct Request {
    pub(crate) client: VrId,
    pub(crate) order: Order,
    pub(crate) args: Body,
}

/// The answer to a request.
pub(crate) type Outcome = Result<Body, Failure>;

/// An answer, and the call that it answers.
pub(crate) struct Reply {
    pub(crate) client: VrId,
    pub(crate) ticket: Ticket,
    pub(crate) outcome: Outcome,
}

pub(crate) fn send_request(vr: &Vr, server: VrId, order: &Order, args: Body) -> Result<(), SendError> {
    vr.describe_channel(REQUESTS, "rai request", Label::None);
    vr.send_bytes(server, REQUESTS, LANE, write(order, args))
}

/// Sends a request that has no answer.
pub(crate) fn tell(vr: &Vr, server: VrId, op: Op) -> Result<(), SendError> {
    send_request(vr, server, &Order { ticket: None, op }, Body::default())
}

/// Sends a reply. Returns it if it must be sent later because its client has no room now.
pub(crate) fn send_reply(vr: &Vr, reply: Reply) -> Option<Reply> {
    let (head, result) = match &reply.outcome {
        // Cheap: `Bytes` share their memory.
        Ok(result) => ((reply.ticket, None), result.clone()),
        Err(failure) => ((reply.ticket, Some(failure)), Body::default()),
    };
    vr.describe_channel(REPLIES, "rai reply", Label::None);
    match vr.send_bytes(reply.client, REPLIES, LANE, write(&head, result)) {
        Ok(()) => None,
        Err(SendError::Full(_)) => Some(reply),
        // A client that is gone needs no reply, and the next receive reports any other error.
        Err(error) => {
            tracing::debug!(%error, "a reply was not sent");
            None
        }
    }
}

/// Waits for a request. Malformed ones are skipped: they may come from anybody.
pub(crate) fn recv_request(vr: &Vr, deadline: Option<Instant>) -> Result<Request, RecvError> {
    loop {
        if let Some(request) =
            request(vr.receive_until(Selector::on(REQUESTS).lane(LANE), deadline, |_| true)?)
        {
            return Ok(request);
        }
    }
}

/// Takes a request that has arrived.
pub(crate) fn try_recv_request(vr: &Vr) -> Result<Option<Request>, RecvError> {
    while let Some(envelope) = vr.try_receive_where(Selector::on(REQUESTS).lane(LANE), |_| true)? {
        if let Some(request) = request(envelope) {
            return Ok(Some(request));
        }
    }
    Ok(None)
}

/// Returns an error if a client is gone. Does not block.
pub(crate) fn ask_about(vr: &Vr, client: VrId) -> Result<(), RecvError> {
    vr.try_receive_where(Selector::on(REQUESTS).lane(LANE).from(client), |_| false).map(drop)
}

/// Waits until there is news of any kind, without taking anything; if the time is up first, returns the timeout.
pub(crate) fn rest(vr: &Vr, deadline: Option<Instant>) -> RecvError {
    loop {
        if let Err(error) = vr.receive_until(Selector::on(NOTHING).lane(LANE), deadline, |_| true) {
            return error;
        }
    }
}

fn request(envelope: Envelope) -> Option<Request> {
    let (order, args) = read(&envelope)?;
    Some(Request { client: envelope.src, order, args })
}

/// Waits for a reply to any call, or for the end of one server. Returns `None` if handlers have run, which may have received the
/// awaited reply.
pub(crate) fn recv_reply(
    vr: &Vr,
    server: Option<VrId>,
    deadline: Option<Instant>,
) -> Result<Option<(Ticket, Outcome)>, RecvError> {
    let selector = Selector::on(REPLIES).lane(LANE);
    let selector = server.map_or(selector, |server| selector.awaiting(server));
    while let Some(envelope) = vr.receive_until_handled(selector, deadline, |_| true)? {
        if let Some(reply) = reply(&envelope) {
            return Ok(Some(reply));
        }
    }
    Ok(None)
}

/// Takes a reply that has arrived.
pub(crate) fn try_recv_reply(vr: &Vr) -> Result<Option<(Ticket, Outcome)>, RecvError> {
    while let Some(envelope) = vr.try_receive_where(Selector::on(REPLIES).lane(LANE), |_| true)? {
        if let Some(reply) = reply(&envelope) {
            return Ok(Some(reply));
        }
    }
    Ok(None)
}

fn reply(envelope: &Envelope) -> Option<(Ticket, Outcome)> {
    let ((ticket, failure), result) = read::<(Ticket, Option<Failure>)>(envelope)?;
    Some((ticket, failure.map_or(Ok(result), Err)))
}

fn write(head: &impl Serialize, body: Body) -> Payload {
    let mut lengths: Vec<u64> = Vec::new();
    if !body.blobs.is_empty() {
        lengths.push(body.encoded.len() as u64);
        lengths.extend(body.blobs.iter().map(|blob| blob.len() as u64));
    }
    // Tickets, code pointers and texts can always be encoded; the other side would refuse an empty head.
    let mut payload = Payload::from(postcard::to_stdvec(&(head, lengths)).unwrap_or_default());
    payload.push(body.encoded);
    body.blobs.into_iter().for_each(|blob| payload.push(blob));
    payload
}

fn read<T: DeserializeOwned>(envelope: &Envelope) -> Option<(T, Body)> {
    let payload = &envelope.payload;
    let parsed = postcard::take_from_bytes::<(T, Vec<u64>)>(payload.head()).ok();
    let read = parsed.and_then(|((head, lengths), rest)| {
        let start = payload.head().len() - rest.len();
        Some((head, read_body(payload, start, &lengths)?))
    });
    if read.is_none() {
        tracing::warn!(src = %envelope.src, "an envelope that is neither request nor reply");
    }
    read
}

/// The rest of a payload: without lengths, all of it is the encoded value.
fn read_body(payload: &Payload, start: usize, lengths: &[u64]) -> Option<Body> {
    let Some((&encoded, blobs)) = lengths.split_first() else {
        return Some(Body { encoded: payload.slice(start, payload.len())?, blobs: Vec::new() });
    };
    let mut at = start;
    let mut next = |length: u64| {
        let end = at.checked_add(usize::try_from(length).ok()?)?;
        let piece = payload.slice(at, end)?;
        at = end;
        Some(piece)
    };
    let encoded = next(encoded)?;
    let blobs = blobs.iter().map(|&length| next(length)).collect::<Option<Vec<_>>>()?;
    Some(Body { encoded, blobs })
}
