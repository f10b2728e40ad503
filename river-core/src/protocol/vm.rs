//! What is said between a VM and the program that leases it.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::bytes_body;
use crate::id::{HostId, ImageHash, ProgramId};
use crate::status::VmStatus;

/// Bytes of an image that travel at once.
const PIECE: usize = 256 << 10;

/// An image in pieces, none of which is copied.
pub(crate) fn pieces(image: &Bytes) -> impl Iterator<Item = Bytes> {
    (0..image.len()).step_by(PIECE).map(|start| image.slice(start..image.len().min(start + PIECE)))
}

/// From a program to a VM.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToVm {
    Acquire(Tenant),
    /// Prolongs the lease; the VM answers that it is alive.
    Renew,
    Start(HostSpec),
    /// A piece of the image that the VM asked for, in order; empty: that was all.
    Image(#[serde(with = "bytes_body")] Bytes),
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
    /// The program that took it: another one of the run, which has begun anew, may have taken one of the same number.
    pub(crate) program: ProgramId,
    pub(crate) number: u64,
    pub(crate) part: u32,
    /// How many parts make the checkpoint.
    pub(crate) parts: u32,
    pub(crate) length: u64,
}

impl KeptImage {
    pub(crate) fn key(&self) -> (ProgramId, u64, ProgramId, u32) {
        (self.run, self.number, self.program, self.part)
    }
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
    Piece(#[serde(with = "bytes_body")] Bytes),
    /// What was to be fetched is not there.
    NotThere,
}
