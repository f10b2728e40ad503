//! The lines of a record: a VR's calls and sends, and its inputs.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3Default;

use super::codec;
use crate::down::Down;
use crate::envelope::{Channel, Payload};
use crate::id::VrId;
use crate::mailbox::Selector;

/// A call of a VR: as much of it as distinguishes it from other calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Call {
    Receive(Selector),
    TryReceive(Selector),
    Peek(Selector),
    Post(Selector),
    /// A test of a posted receive.
    Test,
    /// A wait for a posted receive.
    Complete,
    Wait,
    /// A look at the queue.
    Queue,
    LimitQueue,
    Now,
    Effect,
    VmName,
    Discover,
    Allocate,
    StartLocal,
    Leaving,
    Release,
    /// With a hash of the VRs to be deployed.
    Deploy(u64),
    Service(u64),
    Checkpoint,
    Migrate,
    Mirror,
}

/// One line of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Line {
    Call(Call),
    /// This many of the events arrived during the call above.
    Arrived(u32),
    /// The call above found nothing in time.
    TimedOut(Duration),
    Sent(Sent),
    /// The send above was not accepted.
    Refused(Refusal),
    /// The call above, which waits, has checked once more: handlers may have run.
    Again,
    /// The VR asked how long it has been running; this was the answer.
    Uptime(Duration),
    /// What the call above returned.
    Answer(#[serde(with = "codec::octets")] Bytes),
}

/// Why a send was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refusal {
    Down(Box<Down>),
    /// The destination's queue is full.
    Full,
}

/// A send: as much of it as distinguishes it from other sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sent {
    pub(super) to: VrId,
    channel: Channel,
    lane: u64,
    len: u64,
    hash: u64,
}

impl Sent {
    pub(crate) fn new(to: VrId, channel: Channel, lane: u64, payload: &Payload) -> Self {
        Self { to, channel, lane, len: payload.len() as u64, hash: hash(payload) }
    }

    /// Whether the two can differ only in the bytes of their payloads.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        Self { hash: other.hash, ..*self } == *other
    }
}

/// Payloads up to this length are hashed whole.
const WHOLE: usize = 4 << 10;
/// Of longer payloads, this many blocks of this many bytes are hashed, spread evenly from the first byte to the last:
/// recording must not make a send more expensive.
const BLOCKS: usize = 32;
const BLOCK: usize = 128;

/// Hashes a payload, independently of how it is cut into parts.
fn hash(payload: &Payload) -> u64 {
    let mut hasher = Xxh3Default::new();
    let len = payload.len();
    if len <= WHOLE {
        payload.parts().for_each(|part| hasher.update(part));
        return hasher.digest();
    }
    for block in 0..BLOCKS {
        let start = (len - BLOCK) * block / (BLOCKS - 1);
        hasher.update(&payload.slice(start, start + BLOCK).unwrap_or_default());
    }
    hasher.digest()
}

impl Line {
    /// Whether another run of the VR could not come to this line by itself. Calls that do not wait count, since they may
    /// have found nothing.
    pub(super) fn is_told(&self) -> bool {
        match self {
            Line::Call(Call::Receive(_) | Call::Wait | Call::Complete) | Line::Sent(_) => false,
            Line::Call(_)
            | Line::Arrived(_)
            | Line::TimedOut(_)
            | Line::Refused(_)
            | Line::Again
            | Line::Uptime(_)
            | Line::Answer(_) => true,
        }
    }
}

impl Call {
    /// Whether others can observe the call.
    pub(crate) fn reaches_out(&self) -> bool {
        self.is_done_once() || matches!(self, Call::Migrate | Call::Mirror)
    }

    /// Whether the call may have side effects before it is answered.
    pub(super) fn is_done_once(&self) -> bool {
        matches!(
            self,
            Call::Effect
                | Call::Discover
                | Call::Allocate
                | Call::StartLocal
                | Call::Release
                | Call::Deploy(_)
                | Call::Service(_)
                | Call::Checkpoint
        )
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Call::Receive(what) => write!(f, "a receive of {what}"),
            Call::TryReceive(what) => write!(f, "a receive without waiting of {what}"),
            Call::Peek(what) => write!(f, "a look for {what}"),
            Call::Post(what) => write!(f, "a posted receive of {what}"),
            Call::Test => f.write_str("a look at a posted receive"),
            Call::Complete => f.write_str("a wait for a posted receive"),
            Call::Wait => f.write_str("a wait for anything"),
            Call::Queue => f.write_str("a look at the queue"),
            Call::LimitQueue => f.write_str("a limit for the queue"),
            Call::Now => f.write_str("a question for the time"),
            Call::Effect => f.write_str("an effect"),
            Call::VmName => f.write_str("a question for the VM"),
            Call::Discover => f.write_str("a search for VMs"),
            Call::Allocate => f.write_str("an allocation of VMs"),
            Call::Leaving => f.write_str("a question for VMs that want to go"),
            Call::StartLocal => f.write_str("a start of local VMs"),
            Call::Release => f.write_str("a release of VMs"),
            Call::Deploy(_) => f.write_str("a deployment"),
            Call::Service(_) => f.write_str("a question for a service"),
            Call::Checkpoint => f.write_str("a checkpoint"),
            Call::Migrate => f.write_str("a migration"),
            Call::Mirror => f.write_str("a question for a twin"),
        }
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a send of {} bytes to {} (lane {:x})", self.len, self.to.short(), self.lane)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Call(call) => call.fmt(f),
            Line::Arrived(count) => write!(f, "the arrival of {count} envelopes and notices"),
            Line::TimedOut(waited) => write!(f, "a receive that gave up after {waited:?}"),
            Line::Sent(sent) => sent.fmt(f),
            Line::Refused(Refusal::Down(down)) => write!(f, "a send that failed, as {down}"),
            Line::Refused(Refusal::Full) => f.write_str("a send that found a full queue"),
            Line::Again => f.write_str("a receive that waits"),
            Line::Uptime(_) => f.write_str("a question for how long it has been running"),
            Line::Answer(_) => f.write_str("the answer to a question"),
        }
    }
}
