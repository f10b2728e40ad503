//! Where a record begins: a VR at a safepoint, or before its first call.

use std::time::Duration;

use bytes::Bytes;
use rand_core::SeedableRng;
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::codec;
use crate::code::CodePtr;
use crate::id::{ProgramId, VrId};
use crate::mailbox::Queue;

/// All of a VR but its thread.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Base {
    /// The VR's value, or what it gave to its last safepoint.
    #[serde(with = "codec::octets")]
    pub(crate) state: Bytes,
    /// How many safepoints there were; 0: the VR starts from its beginning.
    pub(crate) safepoints: u64,
    /// What has arrived and was not received.
    #[serde(with = "codec::QueueBody")]
    pub(crate) queue: Queue,
    /// The numbers of the next envelopes to and from each VR.
    pub(crate) sent: Vec<(VrId, u64)>,
    pub(crate) received: Vec<(VrId, u64)>,
    /// Whose end is to be reported to it.
    pub(crate) observed: Vec<VrId>,
    pub(crate) fresh_number: u64,
    /// How many names it has given to others.
    pub(crate) names: u64,
    pub(crate) random: Pcg64Mcg,
    /// For how long it has been running.
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

/// What a VR is, whatever it has done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Origin {
    pub(crate) id: VrId,
    /// None: the initiator.
    pub(crate) parent: Option<VrId>,
    /// What makes it of its state; none: the initiator's is in the program.
    pub(crate) code: Option<CodePtr>,
    /// Its type, for people.
    pub(crate) name: String,
    /// What the program was called when the VR began.
    pub(crate) program: ProgramId,
}
