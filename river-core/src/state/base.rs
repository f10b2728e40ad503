//! The starting point of a record: a VR at a safepoint, or before its first call.

use std::time::Duration;

use bytes::Bytes;
use rand_core::SeedableRng;
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::codec;
use crate::code::CodePtr;
use crate::id::{ProgramId, VrId};
use crate::mailbox::Queue;

/// The whole state of a VR except its thread.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Base {
    /// The VR's value, or the value passed to its last safepoint.
    #[serde(with = "codec::octets")]
    pub(crate) state: Bytes,
    /// The number of safepoints so far; 0 if the VR starts from its beginning.
    pub(crate) safepoints: u64,
    /// What has arrived and was not received.
    #[serde(with = "codec::QueueBody")]
    pub(crate) queue: Queue,
    /// The numbers of the next envelopes to and from each VR.
    pub(crate) sent: Vec<(VrId, u64)>,
    pub(crate) received: Vec<(VrId, u64)>,
    /// VRs whose end must be reported to it.
    pub(crate) observed: Vec<VrId>,
    pub(crate) fresh_number: u64,
    /// How many ids it has generated for other VRs.
    pub(crate) names: u64,
    pub(crate) random: Pcg64Mcg,
    /// How long it has been running.
    pub(crate) uptime: Duration,
}

impl Base {
    /// A VR that has done nothing yet.
    pub(crate) fn new(id: VrId, state: Bytes) -> Self {
        Self {
            state,
            safepoints: 0,
            queue: Queue::default(),
            sent: Vec::new(),
            received: Vec::new(),
            observed: Vec::new(),
            fresh_number: 0,
            names: 0,
            random: Pcg64Mcg::from_seed(*id.as_uuid().as_bytes()),
            uptime: Duration::ZERO,
        }
    }
}

/// The identity of a VR, which does not depend on what it has done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Origin {
    pub(crate) id: VrId,
    /// `None` for the initiator.
    pub(crate) parent: Option<VrId>,
    /// The code that makes it from its state; `None` for the initiator, whose code is in the program.
    pub(crate) code: Option<CodePtr>,
    /// Its type, for people.
    pub(crate) name: String,
    /// The program's id when the VR began.
    pub(crate) program: ProgramId,
}
