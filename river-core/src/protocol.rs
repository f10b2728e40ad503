//! What processes say to each other on control connections, and what a VR may ask of its program.
//!
//! Every message is a variant of an enum, encoded by postcard behind a length. The version of all of this is part of
//! the handshake ([`crate::noise`]): peers of different versions never get here.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::code::CodePtr;
use crate::discovery::{Query, VmInfo};
use crate::down::Why;
use crate::error::{DeployError, MigrateError, StateError};
use crate::id::{HostId, ImageHash, ProgramId, VmId, VrId};
use crate::status::{ProcessReport, ProgramStatus, VmStatus};

/// What the dialling side of a connection wants. Travels inside the encrypted handshake.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Hello {
    /// A program wants to talk to a VM about a lease and a host; or somebody wants to end it.
    Lease { program: ProgramId },
    /// A host that a VM has started for a program reports to the initiator.
    Join { program: ProgramId, host: HostId, port: u16 },
    /// A process of a program wants to send envelopes, through that ring if the listener can open it: then the listener
    /// says so in one byte.
    Data { program: ProgramId, from: HostId, port: u16, ring: Option<MemoryName> },
    /// Somebody wants something of a program, and talks to its initiator.
    Operate { program: ProgramId },
    /// A process of another program wants to talk to VRs that this one has published.
    Visit(Visitor),
}

/// A process that visits one of another program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Visitor {
    pub(crate) program: ProgramId,
    pub(crate) host: HostId,
    /// Where it listens; its address is the one that it comes from.
    pub(crate) port: u16,
    /// The executable's file name, its process id and its machine, for people.
    pub(crate) process: String,
}

/// What processes of two programs say to each other, both ways, as long as one visits the other.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Visiting {
    /// The visit begins.
    Admitted,
    /// It does not: why.
    Refused(String),
    /// Sent every second.
    Alive,
    /// The process ends as it was meant to.
    Ended,
}

/// Who accepted the connection. Travels inside the encrypted handshake.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Welcome {
    Vm(VmId),
    /// A process of a program, and the bell by which it is woken if it reads from rings.
    Host(HostId, Option<MemoryName>),
}

/// How another process of the same user finds a piece of this process's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemoryName {
    pub(crate) process: u32,
    pub(crate) descriptor: i32,
    pub(crate) length: u64,
    /// Stands at the beginning of the memory: another process namespace may have another process of this number.
    pub(crate) token: [u8; 16],
}

/// From a program to a VM.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToVm {
    Acquire(Tenant),
    /// Prolongs the lease; the VM answers that it is alive.
    Renew,
    Start(HostSpec),
    /// A piece of the image that the VM asked for, in order; empty: that was all.
    Image(#[serde(with = "bytes_body")] Vec<u8>),
    /// Ends the host, if any.
    EndHost,
    /// Ends the host, if any, and the lease.
    Release,
    /// Ends the VM. Needs no lease: who has the key may.
    Stop,
    /// Asks for the address of the initiator whose host runs here. Needs no lease either.
    FindInitiator,
    /// Ends the VM as soon as no program has it any more, and asks the program that has it to give it back.
    Drain,
    /// Asks what it looks like. Needs no lease either.
    Inspect,
    /// Keep an image of a checkpoint, whose pieces follow as those of an executable do. On a connection of its own, for the
    /// program that has the lease.
    Keep(KeptImage),
    /// Which images of that run are kept? Needs no lease, and neither do the next ones.
    List(ProgramId),
    /// Asks for an image, in pieces.
    Fetch(KeptImage),
    /// Asks for an executable from the cache, in pieces.
    FetchProgram(ImageHash),
    /// Drops the images of the run's checkpoints from that number on, up to before this one.
    Forget {
        run: ProgramId,
        from: u64,
        before: u64,
    },
}

/// A part of a checkpoint in the memory of VMs: the VRs of one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptImage {
    /// Whose: the same one for a program that goes on from a checkpoint as for the one that took it.
    pub(crate) run: ProgramId,
    pub(crate) number: u64,
    pub(crate) part: u32,
    /// How many parts make the checkpoint.
    pub(crate) parts: u32,
    pub(crate) length: u64,
}

impl KeptImage {
    pub(crate) fn key(&self) -> (ProgramId, u64, u32) {
        (self.run, self.number, self.part)
    }
}

/// Where checkpoints are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeepIn {
    /// In a directory of the initiator's machine.
    Directory(PathBuf),
    /// In the memory of the program's VMs, twice: what one of them has of a checkpoint another one has as well.
    Memory,
}

/// Who leases a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tenant {
    pub(crate) program: ProgramId,
    /// The executable's file name and process id, for people.
    pub(crate) name: String,
}

/// What a VM needs to know to start a host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct HostSpec {
    pub(crate) host: HostId,
    pub(crate) image: ImageHash,
    pub(crate) image_len: u64,
    pub(crate) triple: String,
    /// Where the host is to report.
    pub(crate) initiator: SocketAddr,
    pub(crate) initiator_host: HostId,
    /// Where the host is to listen.
    pub(crate) listen: Vec<IpAddr>,
    pub(crate) args: Vec<Vec<u8>>,
    pub(crate) env: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) directory: Vec<u8>,
    /// Whether its VRs are recorded if nothing else is said.
    pub(crate) recoverable: bool,
    /// Whether what is recorded is sent to the initiator, who writes it to files.
    pub(crate) taped: bool,
    /// If they are traced, how many events of each are kept.
    pub(crate) trace: Option<u32>,
}

/// From a VM to the program that leases it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromVm {
    Alive,
    Acquired,
    /// Another program holds the VM: its name.
    Busy(String),
    /// The VM does not have the image that it is to start.
    NeedImage,
    Started {
        shipped: bool,
    },
    /// As the VM's machine sees it; none, if no host was started.
    Initiator(Option<SocketAddr>),
    /// The host cannot be started: why.
    Refused(String),
    /// A line that the host printed, without its end.
    Output {
        stderr: bool,
        #[serde(with = "bytes_body")]
        line: Vec<u8>,
    },
    /// The host is gone, and how.
    Exited {
        how: String,
        last_lines: Vec<String>,
    },
    /// The VM wants to go: the program is asked to give it back when it can.
    Leaving,
    /// What the VM looks like.
    Inspected(VmStatus),
    /// There is room for an image; then: it is kept. Or why not.
    Kept(Result<(), String>),
    /// What is kept of a run's checkpoints.
    Images(Vec<KeptImage>),
    /// A piece of what was fetched, in order; empty: that was all.
    Piece(#[serde(with = "bytes_body")] Vec<u8>),
    /// What was to be fetched is not there.
    NotThere,
}

/// From somebody who has the key to an initiator.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToProgram {
    /// Take a checkpoint, and keep so many there.
    Checkpoint { to: KeepIn, keep: usize },
    /// Move the VR whose id begins like this to that VM.
    Migrate { vr: String, vm: Box<VmInfo> },
    /// What does the program look like?
    Inspect,
}

/// From an initiator to somebody who has the key.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromProgram {
    Checkpoint(Result<Checkpoint, StateError>),
    Migrated(Result<Migrated, MigrateError>),
    Inspected(ProgramStatus),
}

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

/// Envelopes: (to, from, how many).
pub(crate) type Counts = Vec<(VrId, VrId, u64)>;

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
    Thaw,
}

/// Where a mirrored VR is, and where its twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pair {
    pub(crate) main: Place,
    pub(crate) twin: Place,
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
    },
    /// The copies have been sent; or why there are none.
    Given(Result<(), MigrateError>),
    /// Nothing more of that process can arrive; and what has.
    Mourned(HostId, Counts),
}

/// A VR that is to be made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NewVr {
    pub(crate) id: VrId,
    pub(crate) code: CodePtr,
    pub(crate) name: String,
    #[serde(with = "bytes_body")]
    pub(crate) state: Vec<u8>,
    pub(crate) parent: VrId,
    pub(crate) parent_at: Place,
    /// Whether it is recorded.
    pub(crate) recoverable: bool,
}

/// Where VRs live: the process and the address at which it accepts connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) host: HostId,
    pub(crate) address: SocketAddr,
}

/// What a VR asks of its program. The initiator's process answers all of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Locate(VrId),
    /// The connection to a host failed: is the host dead, and how did it die?
    Verdict {
        host: HostId,
        error: String,
    },
    Discover(Query),
    Allocate {
        vms: Vec<VmInfo>,
        count: Count,
        /// For how long to try again while others hold too many of them.
        patience: Duration,
    },
    StartLocal(usize),
    Release(Vec<VmId>),
    Deploy(Vec<(VmId, NewVr)>),
    /// The VR of that name on that VM, or else this one.
    Service {
        vm: VmId,
        name: String,
        new: NewVr,
    },
    /// Checkpoints the program; so many are kept.
    Checkpoint {
        to: KeepIn,
        keep: usize,
    },
    Migrate {
        vr: VrId,
        vm: VmInfo,
    },
    /// Gives the VR a twin on that VM.
    Mirror {
        vr: VrId,
        vm: VmInfo,
    },
}

/// The answer to a [`Request`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The VR lived on a host that is dead.
    Dead {
        host: HostId,
        why: Why,
    },
    At(Place),
    Gone(Why),
    Vms(Vec<VmInfo>),
    Deployed(Vec<(VrId, Place)>),
    Done,
    Failed(DeployError),
    Checkpoint(Result<Checkpoint, StateError>),
    Migrated(Result<Migrated, MigrateError>),
}

/// VRs that have moved to another VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Migrated {
    /// How many; 0 if the VR was there already.
    pub vrs: usize,
    /// What had to travel, in bytes.
    pub bytes: u64,
    /// For how long the program's VRs were stopped.
    pub pause: Duration,
}

/// A checkpoint that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Checkpoint {
    /// Its number in its directory, from 1; 0 if the program has just been restored from it.
    pub number: u64,
    /// The program was restored from it: this is the same call, returning once more in another process.
    pub resumed: bool,
    /// Its size in bytes, without the image of the program.
    pub bytes: u64,
    /// For how long the VRs were stopped.
    pub pause: Duration,
}

/// How many VMs are wanted: `4` (exactly), `2..` (at least two, all that can be had) or `..` (all, at least one).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Count {
    /// This many, neither more nor fewer.
    Exactly(usize),
    /// All that can be had, but at least this many.
    AtLeast(usize),
}

impl Count {
    /// The smallest number that will do.
    #[must_use]
    pub fn minimum(self) -> usize {
        match self {
            Count::Exactly(n) | Count::AtLeast(n) => n,
        }
    }

    /// The largest number that is of use, if there is one.
    #[must_use]
    pub fn maximum(self) -> Option<usize> {
        match self {
            Count::Exactly(n) => Some(n),
            Count::AtLeast(_) => None,
        }
    }
}

impl From<usize> for Count {
    fn from(n: usize) -> Self {
        Count::Exactly(n)
    }
}

impl From<std::ops::RangeFrom<usize>> for Count {
    fn from(range: std::ops::RangeFrom<usize>) -> Self {
        Count::AtLeast(range.start)
    }
}

impl From<std::ops::RangeFull> for Count {
    fn from(_: std::ops::RangeFull) -> Self {
        Count::AtLeast(1)
    }
}

/// Byte strings as one memory copy instead of element by element.
mod bytes_body {
    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Body;
        impl Visitor<'_> for Body {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a byte string")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        deserializer.deserialize_bytes(Body)
    }
}
