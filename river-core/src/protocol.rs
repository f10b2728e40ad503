//! The messages that processes send to each other on control connections, and the requests of VRs to their program.
//!
//! Every message is a variant of an enum, encoded by postcard behind a length. The protocol version is part of the handshake
//! ([`crate::noise`]): peers of different versions never get here.

mod host;
mod request;
mod vm;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::discovery::VmInfo;
use crate::error::{MigrateError, StateError};
use crate::id::{HostId, ProgramId, VmId, VrId};
use crate::status::ProgramStatus;

pub(crate) use crate::image::pieces;
pub(crate) use host::{FromHost, Report, Step, ToHost};
pub use request::{Checkpoint, Count, KeepIn, Migrated};
pub(crate) use request::{NewVr, Reply, Request};
pub(crate) use vm::{FromVm, HostSpec, KeptImage, Tenant, ToVm};

/// The purpose of a connection, stated by the dialler inside the encrypted handshake.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Hello {
    /// A program contacts a VM about a lease and a host; or anybody contacts it to end it.
    Lease { program: ProgramId },
    /// A host that a VM has started for a program reports to the initiator.
    Join { program: ProgramId, host: HostId, port: u16 },
    /// A process of a program is going to send envelopes, through this ring if the listener can open it, which the listener
    /// confirms by one byte.
    Data { program: ProgramId, from: HostId, port: u16, ring: Option<MemoryName> },
    /// Somebody makes a request to a program, through its initiator.
    Operate { program: ProgramId },
    /// A process of another program wants to exchange messages with VRs that this one has published.
    Visit(Visitor),
}

/// A process that visits one of another program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Visitor {
    pub(crate) program: ProgramId,
    pub(crate) host: HostId,
    /// The port on which it listens; its address is the one that it comes from.
    pub(crate) port: u16,
    /// The executable's file name, its process id and its machine, for people.
    pub(crate) process: String,
}

/// The messages between processes of two programs, in both directions, while one visits the other.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Visiting {
    /// The visit begins.
    Admitted,
    /// The visit is refused; this is the reason.
    Refused(String),
    /// Sent every second.
    Alive,
    /// The process ends regularly.
    Ended,
}

/// The process that accepted the connection. Sent inside the encrypted handshake.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Welcome {
    Vm(VmId),
    /// A process of a program, and the bell by which it is woken if it reads from rings.
    Host(HostId, Option<MemoryName>),
}

/// The name by which another process of the same user finds a piece of this process's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemoryName {
    pub(crate) process: u32,
    pub(crate) descriptor: i32,
    pub(crate) length: u64,
    /// Also stored at the beginning of the memory: another process namespace may have a different process with this id.
    pub(crate) token: [u8; 16],
}

/// From anybody who has the key to an initiator.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToProgram {
    /// Take a checkpoint, and keep this many there.
    Checkpoint { to: KeepIn, keep: usize },
    /// Move the VR whose id begins with `vr` to this VM.
    Migrate { vr: String, vm: Box<VmInfo> },
    /// Report the program's status.
    Inspect,
}

/// From an initiator to anybody who has the key.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromProgram {
    Checkpoint(Result<Checkpoint, StateError>),
    Migrated(Result<Migrated, MigrateError>),
    Inspected(ProgramStatus),
}

/// Numbers of envelopes: (to, from, how many).
pub(crate) type Counts = Vec<(VrId, VrId, u64)>;

/// Where a mirrored VR and its twin are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pair {
    pub(crate) main: Place,
    pub(crate) twin: Place,
}

/// Where VRs live: the process and the address at which it accepts connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) host: HostId,
    pub(crate) address: SocketAddr,
}

/// Encodes byte strings by one memory copy instead of element by element.
mod bytes_body {
    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    pub(crate) fn serialize<S: Serializer>(
        bytes: &impl AsRef<[u8]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes.as_ref())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>, B: From<Vec<u8>>>(
        deserializer: D,
    ) -> Result<B, D::Error> {
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
        deserializer.deserialize_bytes(Body).map(B::from)
    }
}
