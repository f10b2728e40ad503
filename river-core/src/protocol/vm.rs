//! The messages between a VM and the program that leases it.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::bytes_body;
use crate::id::{HostId, ImageHash, ProgramId};
use crate::status::VmStatus;

/// From a program to a VM.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToVm {
    Acquire(Tenant),
    /// Renews the lease; the VM answers that it is alive.
    Renew,
    Start(HostSpec),
    /// A piece of the image that the VM asked for, in order; an empty one marks the end.
    Image(#[serde(with = "bytes_body")] Bytes),
    /// The same, for an image that the VM starts, as a [`Packed`](crate::image::Packed) piece.
    Packed {
        length: u32,
        #[serde(with = "bytes_body")]
        bytes: Bytes,
    },
    /// Ends the host, if any.
    EndHost,
    /// Ends the host, if any, and the lease.
    Release,
    /// Ends the VM. Needs no lease: anybody who has the key may do it.
    Stop,
    /// Asks for the address of the initiator of the host that runs here. Needs no lease either.
    FindInitiator,
    /// Ends the VM as soon as no program holds it, and asks the program that holds it to give it back.
    Drain,
    /// Asks for the VM's status. Needs no lease either.
    Inspect,
    /// Stores an image of a checkpoint, whose pieces follow as those of an executable do. Sent on a connection of its own,
    /// for the program that has the lease.
    Keep(KeptImage),
    /// Asks which images of this run are kept. This and the following requests need no lease.
    List(ProgramId),
    /// Asks for an image, in pieces.
    Fetch(KeptImage),
    /// Asks for an executable from the cache, in pieces.
    FetchProgram(ImageHash),
    /// Drops the images of the run's checkpoints with the numbers from `from` up to, but not including, `before`.
    Forget {
        run: ProgramId,
        from: u64,
        before: u64,
    },
}

/// A part of a checkpoint in the memory of VMs: the VRs of one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptImage {
    /// The run; a program that continues from a checkpoint has the same one as the program that took it.
    pub(crate) run: ProgramId,
    /// The program that took it: another one of the run, which has begun anew, may have taken one of the same number.
    pub(crate) program: ProgramId,
    pub(crate) number: u64,
    pub(crate) part: u32,
    /// The number of parts of the checkpoint.
    pub(crate) parts: u32,
    pub(crate) length: u64,
}

impl KeptImage {
    pub(crate) fn key(&self) -> (ProgramId, u64, ProgramId, u32) {
        (self.run, self.number, self.program, self.part)
    }
}

/// The program that leases a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tenant {
    pub(crate) program: ProgramId,
    /// The executable's file name and process id, for people.
    pub(crate) name: String,
}

/// What a VM must know to start a host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct HostSpec {
    pub(crate) host: HostId,
    pub(crate) image: ImageHash,
    pub(crate) image_len: u64,
    pub(crate) triple: String,
    /// The address to which the host reports.
    pub(crate) initiator: SocketAddr,
    pub(crate) initiator_host: HostId,
    /// The addresses on which the host listens.
    pub(crate) listen: Vec<IpAddr>,
    pub(crate) args: Vec<Vec<u8>>,
    pub(crate) env: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) directory: Vec<u8>,
    /// Whether its VRs are recorded by default.
    pub(crate) recoverable: bool,
    /// Whether records are sent to the initiator, which writes them to files.
    pub(crate) taped: bool,
    /// How many events of each VR are kept, if the program is traced.
    pub(crate) trace: Option<u32>,
}

/// From a VM to the program that leases it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromVm {
    Alive,
    Acquired,
    /// Another program holds the VM; this is its name.
    Busy(String),
    /// The VM does not have the image that it has been asked to start.
    NeedImage,
    Started {
        shipped: bool,
    },
    /// The address as the VM's machine sees it; `None` if no host was started.
    Initiator(Option<SocketAddr>),
    /// The host cannot be started; this is the reason.
    Refused(String),
    /// A line that the host printed, without its newline.
    Output {
        stderr: bool,
        #[serde(with = "bytes_body")]
        line: Vec<u8>,
    },
    /// The host is gone; this is how it ended.
    Exited {
        how: String,
        last_lines: Vec<String>,
    },
    /// Somebody wants the VM to end: the program is asked to give it back when it can.
    Leaving,
    /// The VM's status.
    Inspected(VmStatus),
    /// Sent twice: there is room for an image; then, the image is stored. Or the reason why not.
    Kept(Result<(), String>),
    /// The images of a run's checkpoints that are kept.
    Images(Vec<KeptImage>),
    /// A piece of what was requested, in order; an empty one marks the end.
    Piece(#[serde(with = "bytes_body")] Bytes),
    /// What was requested is not there.
    NotThere,
}
