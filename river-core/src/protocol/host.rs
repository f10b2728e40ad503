//! The messages between the initiator and the hosts of a program.

use serde::{Deserialize, Serialize};

use super::{Counts, NewVr, Pair, Place, Reply, Request, bytes_body};
use crate::code::Export;
use crate::down::Why;
use crate::error::{DeployError, MigrateError, StateError};
use crate::id::{HostId, VrId};
use crate::status::ProcessReport;

/// From the initiator to a host.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToHost {
    /// The host runs another image than the initiator, which has these entry points. Comes before everything that contains
    /// code pointers. The number tells the host's image from others of the program.
    Translate {
        image: u16,
        exports: Vec<Export>,
    },
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
    /// A step of the checkpoint, or migration, with this number.
    State {
        round: u64,
        step: Step,
    },
    /// Adopts a VR, encoded as [`Saved`](crate::state::Saved), which then waits to be thawed.
    Restore {
        ticket: u64,
        #[serde(with = "bytes_body")]
        vr: Vec<u8>,
    },
    /// Stores a VR, encoded in the same way, as the twin of one that lives elsewhere.
    KeepTwin {
        ticket: u64,
        #[serde(with = "bytes_body")]
        vr: Vec<u8>,
    },
    /// Lets the twin of a VR take over. `arrived` says how many of the VR's envelopes have arrived at each receiver at most.
    /// Confirmed when the twin has replayed its log.
    TakeOver {
        ticket: u64,
        vr: VrId,
        arrived: Vec<(VrId, u64)>,
    },
    /// Asks for everything that remains to be written to the recordings of its VRs.
    Tape,
    /// Asks for the host's clock, by which traces are compared. `asked` is the initiator's clock.
    Clock {
        asked: u64,
    },
    /// Asks for the host's status.
    Inspect {
        ticket: u64,
    },
    /// Ends the program here. A host that is traced sends its trace first, and is told once more when everything has arrived.
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
    /// The end of the copies, or what went wrong.
    CopiesEnd {
        round: u64,
        result: Result<(), StateError>,
    },
    /// Bytes to be appended to the recording of a VR.
    Taped {
        vr: VrId,
        #[serde(with = "bytes_body")]
        bytes: Vec<u8>,
    },
    /// The end of what [`ToHost::Tape`] asked for.
    TapeEnd,
    /// Answers [`ToHost::Clock`]: when the question was received, and when this answer was sent.
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
    /// The end of the trace.
    TraceEnd,
}

/// What a process must do for a checkpoint or a migration: see [`Coordination`](crate::state::Coordination) and
/// [`Migration`](crate::state::Migration).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    Freeze,
    Settle(Counts),
    Copy,
    /// Copy these VRs, so that another process can adopt them.
    Give(Vec<VrId>),
    /// End the copies of these VRs that were adopted.
    Abandon(Vec<VrId>),
    /// These VRs live at these places from now on.
    Moved(Vec<(VrId, Place)>),
    /// These VRs have twins from now on.
    Mirrored(Vec<(VrId, Pair)>),
    /// A VR has no twin any more; if the VR has ended, this is why.
    Unmirrored(VrId, Option<Why>),
    /// The process of these VRs is gone: see [`Takeover`](crate::state::Takeover).
    Mourn(HostId, Vec<VrId>),
    Thaw {
        /// Whether everything that had been sent when all VRs were stopped has arrived.
        settled: bool,
    },
}

/// The result of a [`Step`] in a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    Frozen {
        /// Envelopes that its VRs have sent, and that may not have arrived.
        sent: Counts,
        /// Its VRs that are not recorded, and their names.
        unrecorded: Vec<(VrId, String)>,
    },
    Settled,
    Copied {
        /// VRs that had ended.
        ended: Vec<(VrId, Why)>,
        /// VRs that have a notice that another VR is gone with its host, and that no receive has reported it to, each with that
        /// VR. Notices that a VR had taken out of its inbox before it moved here are not included.
        unheard: Vec<(VrId, VrId)>,
    },
    /// The copies have been sent; or the reason why there are none.
    Given(Result<(), MigrateError>),
    /// Nothing more of that process can arrive; these envelopes have.
    Mourned(HostId, Counts),
}
