//! The messages of master, workers and depots. A message is a small head, followed by the records that it carries, if
//! any, unchanged.

use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use river_core::{Channel, Payload, SendError, Vr, VrId, Why};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::counters::Counters;
use crate::failure::Failure;
use crate::input::Split;
use crate::sort::Part;
use crate::spec::JobSpec;
use crate::task::{MapTotals, ReduceTotals};

/// Only this crate receives on this channel.
pub(crate) const CHANNEL: Channel = Channel::named("river-mapreduce");

/// How long a sender waits for room in a mailbox before it tries again.
const PAUSE: Duration = Duration::from_millis(10);
/// How long a message waits for room in a full mailbox, whose owner may never read what fills it.
const ROOM: Duration = Duration::from_secs(60);

/// A message to a worker.
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
    /// The result of this attempt is no longer needed.
    Cancel {
        attempt: u64,
    },
    /// For a reduce task: a map task was run again, and these are its segments now.
    Moved {
        attempt: u64,
        map: u32,
        segments: Vec<Segment>,
    },
    /// A job has ended.
    Forget {
        job: u64,
    },
    /// From a depot, with the requested bytes. If they are packed: their unpacked length.
    Chunk {
        ticket: Ticket,
        unpacked: Option<u64>,
    },
    /// From a depot: it does not have the requested bytes, and why.
    Missing {
        ticket: Ticket,
        why: String,
    },
}

/// A message to the master.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToMaster {
    /// The progress of a map task, for the progress bar.
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
    /// With the bytes: output of a reduce task that is returned to the caller.
    Output {
        attempt: u64,
    },
    Reduced {
        attempt: u64,
        totals: ReduceTotals,
        counters: Counters,
    },
    /// A reduce task waits for a map task to be run again, because that depot cannot be read from.
    Blocked {
        attempt: u64,
        depot: VrId,
        /// Why not, if the depot may be alive. `None`: it has ended, as the master is told as well.
        unreached: Option<String>,
    },
    Failed {
        attempt: u64,
        failure: Failure,
    },
    /// From a depot: that worker, which may be alive, waits for an answer that cannot be sent, and why.
    Unanswered {
        worker: VrId,
        why: String,
    },
}

/// A message to a depot, which keeps the output of a VM's map tasks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToDepot {
    Read { job: u64, attempt: u64, run: u32, part: u32, offset: u64, len: u64, pack: bool, ticket: Ticket },
}

/// Identifies the request to which an answer belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ticket {
    /// The attempt at a reduce task.
    pub(crate) attempt: u64,
    pub(crate) stream: u32,
    /// Increases when the stream's source changes: answers from the former source are stale.
    pub(crate) generation: u32,
    /// The offset of the bytes in the part.
    pub(crate) offset: u64,
}

/// One reducer's part of a sorted run, and its location.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Segment {
    pub(crate) map: u32,
    pub(crate) run: u32,
    pub(crate) part: Part,
    pub(crate) depot: VrId,
    /// Whether it may be compressed.
    pub(crate) pack: bool,
    /// The attempt at the map task that made it.
    pub(crate) attempt: u64,
}

/// Encodes a message with the bytes that it carries.
pub(crate) fn encode(message: &impl Serialize, body: Bytes) -> postcard::Result<Payload> {
    let head = postcard::to_stdvec(message)?;
    let mut bytes = Vec::with_capacity(4 + head.len());
    bytes.extend_from_slice(&(head.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&head);
    let mut payload = Payload::from(bytes);
    payload.push(body);
    Ok(payload)
}

/// Sends a message as soon as there is room for it in the receiver's mailbox, for which it waits up to [`ROOM`].
pub(crate) fn send_patiently(vr: &Vr, to: VrId, message: &Payload) -> Result<(), SendError> {
    let start = Instant::now();
    loop {
        match vr.send_bytes(to, CHANNEL, 0, message.clone()) {
            // There is no notification of room.
            Err(SendError::Full(_)) if start.elapsed() < ROOM => thread::sleep(PAUSE),
            sent => return sent,
        }
    }
}

/// Whether an end is announced to the whole program. A VR that is merely out of reach from here may be alive.
pub(crate) fn is_announced(why: &Why) -> bool {
    !matches!(why, Why::LostLink { .. })
}

/// Decodes a message and the bytes that it carries, without copying them. `None` if it is not a message of this kind.
pub(crate) fn decode<T: DeserializeOwned>(payload: &Payload) -> Option<(T, Bytes)> {
    let length = payload.slice(0, 4)?;
    let length = u32::from_le_bytes(length[..].try_into().ok()?) as usize;
    let head = payload.slice(4, length.checked_add(4)?)?;
    let body = payload.slice(4 + length, payload.len())?;
    Some((postcard::from_bytes(&head).ok()?, body))
}
