//! What is said between the initiator and the hosts of a program.

use serde::{Deserialize, Serialize};

use super::{Counts, NewVr, Pair, Place, Reply, Request, bytes_body};
use crate::down::Why;
use crate::error::{DeployError, MigrateError, StateError};
use crate::id::{HostId, VrId};
use crate::status::ProcessReport;

/// From the initiator to a host.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToHost {
    Create {
        ticket: u64,
        vrs: Vec<NewVr>,
    },
    Reply {
        ticket: u64,
        reply: Reply,
    },
    HostDown {
        host: HostId,
        why: Why,
    },
    /// A step of the checkpoint, or migration, of that number.
    State {
        round: u64,
        step: Step,
    },
    /// Takes up a VR, encoded as [`Saved`](crate::state::Saved), which then waits to be thawed.
    Restore {
        ticket: u64,
        #[serde(with = "bytes_body")]
        vr: Vec<u8>,
    },
    /// Keeps a VR, encoded in the same way, as the twin of one that lives elsewhere.
    KeepTwin {
        ticket: u64,
        #[serde(with = "bytes_body")]
        vr: Vec<u8>,
    },
    /// Lets the twin of a VR live, of which no more than so many envelopes have arrived, by receiver. Confirmed when it has run
    /// through its log.
    TakeOver {
        ticket: u64,
        vr: VrId,
        arrived: Vec<(VrId, u64)>,
    },
    /// Asks for what is left to be written to the recordings of its VRs.
    Tape,
    /// Asks what the host's clock says, by which traces are compared. `asked`: what the initiator's said.
    Clock {
        asked: u64,
    },
    /// What does the host look like?
    Inspect {
        ticket: u64,
    },
    /// The program ends here. A host that is traced hands over what it has, and is told once more when all is there.
    Stop,
}

/// From a host to the initiator.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromHost {
    /// Sent every second, whatever the VRs do.
    Alive,
    Created {
        ticket: u64,
        result: Result<(), DeployError>,
    },
    Ended {
        vr: VrId,
        why: Why,
    },
    Request {
        ticket: u64,
        request: Request,
    },
    State {
        round: u64,
        report: Report,
    },
    /// A piece of a VR's copy, in order.
    Copy {
        round: u64,
        vr: VrId,
        last: bool,
        #[serde(with = "bytes_body")]
        piece: Vec<u8>,
    },
    /// That was all; or what went wrong.
    CopiesEnd {
        round: u64,
        result: Result<(), StateError>,
    },
    /// To be appended to the recording of a VR.
    Taped {
        vr: VrId,
        #[serde(with = "bytes_body")]
        bytes: Vec<u8>,
    },
    /// That was all that was asked for.
    TapeEnd,
    /// Answers [`ToHost::Clock`]: when the question was heard, and when this was said.
    Clock {
        asked: u64,
        heard: u64,
        answered: u64,
    },
    Inspected {
        ticket: u64,
        report: ProcessReport,
    },
    /// A [`Piece`](crate::trace::Piece) of the trace.
    Trace(#[serde(with = "bytes_body")] Vec<u8>),
    /// That was all of it.
    TraceEnd,
}

/// What a process is to do for a checkpoint or a migration: see [`Coordination`](crate::state::Coordination) and
/// [`Migration`](crate::state::Migration).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    Freeze,
    Settle(Counts),
    Copy,
    /// Copies these VRs, to be taken up elsewhere.
    Give(Vec<VrId>),
    /// Has the copies of these VRs end that it has taken up.
    Abandon(Vec<VrId>),
    /// These VRs live there from now on.
    Moved(Vec<(VrId, Place)>),
    /// These VRs have twins from now on.
    Mirrored(Vec<(VrId, Pair)>),
    /// A VR has no twin any more; if it has ended: why.
    Unmirrored(VrId, Option<Why>),
    /// A process is gone on which these VRs were: see [`Takeover`](crate::state::Takeover).
    Mourn(HostId, Vec<VrId>),
    Thaw {
        /// Whether all that had been sent when all VRs were stopped has arrived.
        settled: bool,
    },
}

/// What a process has done of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    Frozen {
        /// What its VRs have sent, and may not have arrived.
        sent: Counts,
        /// Its VRs that are not recorded, and their names.
        unrecorded: Vec<(VrId, String)>,
    },
    Settled,
    Copied {
        /// VRs that had ended.
        ended: Vec<(VrId, Why)>,
        /// Who has yet to hear that a VR is gone with its host; and which.
        unheard: Vec<(VrId, VrId)>,
    },
    /// The copies have been sent; or why there are none.
    Given(Result<(), MigrateError>),
    /// Nothing more of that process can arrive; and what has.
    Mourned(HostId, Counts),
}
