//! Requests and replies as messages. The only module that knows how they are laid out.

use bytes::Bytes;
use river_core::{Vr, VrId};
use river_sfm::{ANY, Blob, Message, RecvError, SendError, Sfm, msg, pat};

use crate::protocol::{Failure, Op, REPLY, REQUEST, Ticket};

/// A request as its server sees it.
pub(crate) struct Request {
    pub(crate) client: VrId,
    pub(crate) op: Op,
    pub(crate) args: Bytes,
}

/// The answer to a request.
pub(crate) type Outcome = Result<Bytes, Failure>;

pub(crate) fn send_request(vr: &Vr, server: VrId, op: Op, args: Bytes) -> Result<(), SendError> {
    vr.send(server, msg! { tag: REQUEST, op: op, args: Blob::from(args) })
}

pub(crate) fn send_reply(vr: &Vr, client: VrId, ticket: Ticket, outcome: Outcome) -> Result<(), SendError> {
    match outcome {
        Ok(result) => vr.send(client, msg! { tag: REPLY, ticket: ticket.0, result: Blob::from(result) }),
        Err(failure) => vr.send(client, msg! { tag: REPLY, ticket: ticket.0, failure: failure }),
    }
}

/// Waits for a request. What is tagged as one but is none is skipped: it may come from anybody.
pub(crate) fn recv_request(vr: &Vr) -> Result<Request, RecvError> {
    loop {
        let message = vr.recv(pat! { tag: REQUEST, op: ANY, args: ANY })?;
        match (message.get::<Op>("op"), message.get::<Blob>("args")) {
            (Ok(op), Ok(args)) => return Ok(Request { client: message.src(), op, args: args.into_bytes() }),
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(src = %message.src(), %error, "a request that is none");
            }
        }
    }
}

/// Waits for a reply, whosever it is.
pub(crate) fn recv_reply(vr: &Vr) -> Result<(Ticket, Outcome), RecvError> {
    loop {
        let message = vr.recv(pat! { tag: REPLY, ticket: ANY })?;
        if let Some(reply) = reply(&message) {
            return Ok(reply);
        }
    }
}

/// Takes a reply that is there already.
pub(crate) fn try_recv_reply(vr: &Vr) -> Result<Option<(Ticket, Outcome)>, RecvError> {
    while let Some(message) = vr.try_recv(pat! { tag: REPLY, ticket: ANY })? {
        if let Some(reply) = reply(&message) {
            return Ok(Some(reply));
        }
    }
    Ok(None)
}

fn reply(message: &Message) -> Option<(Ticket, Outcome)> {
    let outcome = if message.has("failure") {
        message.get::<Failure>("failure").map(Err)
    } else {
        message.get::<Blob>("result").map(|result| Ok(result.into_bytes()))
    };
    match (message.get::<u64>("ticket"), outcome) {
        (Ok(ticket), Ok(outcome)) => Some((Ticket(ticket), outcome)),
        (Err(error), _) | (_, Err(error)) => {
            tracing::warn!(src = %message.src(), %error, "a reply that is none");
            None
        }
    }
}
