//! What master, workers and depots say to each other. A message is a small head and, if it carries records, these as they
//! are.

use std::thread;
use std::time::Duration;

use bytes::Bytes;
use river_core::{Channel, Payload, SendError, Vr, VrId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::counters::Counters;
use crate::failure::Failure;
use crate::input::Split;
use crate::sort::Part;
use crate::spec::JobSpec;
use crate::task::{MapTotals, ReduceTotals};

/// Nothing but this crate receives here.
pub(crate) const CHANNEL: Channel = Channel::named("river-mapreduce");

/// How long one waits for room in a mailbox before one tries again.
const PAUSE: Duration = Duration::from_millis(10);

/// What a worker is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToWorker {
    /// A job begins.
    Job {
        job: u64,
        spec: JobSpec,
    },
    Map {
        job: u64,
        attempt: u64,
        split: Split,
    },
    Reduce {
        job: u64,
        attempt: u64,
        reducer: u32,
        segments: Vec<Segment>,
    },
    /// Nobody needs the result of this attempt.
    Cancel {
        attempt: u64,
    },
    /// For a reduce task: a map task was done again, and this is its part now.
    Moved {
        attempt: u64,
        map: u32,
        segments: Vec<Segment>,
    },
    /// A job has ended.
    Forget {
        job: u64,
    },
    /// From a depot, with the bytes: what was asked for. If they are packed, how many they are unpacked.
    Chunk {
        ticket: Ticket,
        unpacked: Option<u64>,
    },
    /// From a depot: it does not have what was asked for, and why.
    Missing {
        ticket: Ticket,
        why: String,
    },
}

/// What the master is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToMaster {
    /// How far a map task is, for the progress bar.
    Mapping {
        attempt: u64,
        records: u64,
    },
    /// A map task is done; the parts of its runs.
    Mapped {
        attempt: u64,
        runs: Vec<Vec<Part>>,
        totals: MapTotals,
        counters: Counters,
        spilled: u64,
    },
    /// With the bytes: output of a reduce task that goes to the caller.
    Output {
        attempt: u64,
    },
    Reduced {
        attempt: u64,
        totals: ReduceTotals,
        counters: Counters,
    },
    /// A reduce task waits for a map task to be done again: that depot cannot be read from, and why.
    Blocked {
        attempt: u64,
        depot: VrId,
        why: String,
    },
    Failed {
        attempt: u64,
        failure: Failure,
    },
    /// From a depot: that worker waits for an answer that cannot be sent, and why.
    Unanswered {
        worker: VrId,
        why: String,
    },
}

/// What a depot, which keeps the output of a VM's map tasks, is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToDepot {
    Read { job: u64, attempt: u64, run: u32, part: u32, offset: u64, len: u64, pack: bool, ticket: Ticket },
}

/// Which request an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ticket {
    /// The attempt at a reduce task.
    pub(crate) attempt: u64,
    pub(crate) stream: u32,
    /// Grows when the stream's source moves: answers of the former source are late.
    pub(crate) generation: u32,
    /// Where in its part the bytes begin.
    pub(crate) offset: u64,
}

/// One reducer's part of a sorted run, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Segment {
    pub(crate) map: u32,
    pub(crate) run: u32,
    pub(crate) part: Part,
    pub(crate) depot: VrId,
    /// Whether it may travel compressed.
    pub(crate) pack: bool,
    /// The attempt at the map task that has made it.
    pub(crate) attempt: u64,
}

/// A message with the bytes that it carries.
pub(crate) fn encode(message: &impl Serialize, body: Bytes) -> postcard::Result<Payload> {
    let head = postcard::to_stdvec(message)?;
    let mut bytes = Vec::with_capacity(4 + head.len());
    bytes.extend_from_slice(&(head.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&head);
    let mut payload = Payload::from(bytes);
    payload.push(body);
    Ok(payload)
}

/// Sends a message as soon as there is room for it in the receiver's mailbox.
pub(crate) fn send_patiently(vr: &Vr, to: VrId, message: &Payload) -> Result<(), SendError> {
    loop {
        match vr.send_bytes(to, CHANNEL, 0, message.clone()) {
            // Nobody says when there is some.
            Err(SendError::Full(_)) => thread::sleep(PAUSE),
            sent => return sent,
        }
    }
}

/// The message, and what it carries, uncopied. `None` if it is no message of this kind.
pub(crate) fn decode<T: DeserializeOwned>(payload: &Payload) -> Option<(T, Bytes)> {
    let length = payload.slice(0, 4)?;
    let length = u32::from_le_bytes(length[..].try_into().ok()?) as usize;
    let head = payload.slice(4, length.checked_add(4)?)?;
    let body = payload.slice(4 + length, payload.len())?;
    Some((postcard::from_bytes(&head).ok()?, body))
}
