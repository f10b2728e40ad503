//! The requests of a VR to its program, and the answers.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Place, bytes_body};
use crate::code::CodePtr;
use crate::discovery::{Query, VmInfo};
use crate::down::Why;
use crate::error::{DeployError, MigrateError, StateError};
use crate::id::{HostId, VmId, VrId};

/// A VR to be created.
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

/// Where checkpoints are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeepIn {
    /// In a directory of the initiator's machine.
    Directory(PathBuf),
    /// In the memory of the program's VMs, twice: each part of a checkpoint is kept by two of them.
    Memory,
    /// In the store that the program was given: see [`Launch::store`](crate::Launch::store).
    Store,
}

/// A request of a VR to its program. The initiator's process answers all of them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Locate(VrId),
    /// The connection to a host failed. Asks whether the host is dead, and how it died.
    Verdict {
        host: HostId,
        error: String,
    },
    Discover(Query),
    Allocate {
        vms: Vec<VmInfo>,
        count: Count,
        /// For how long to retry while other programs hold too many of them.
        patience: Duration,
    },
    StartLocal(usize),
    Release(Vec<VmId>),
    Deploy(Vec<(VmId, NewVr)>),
    /// Returns the VR with this name on this VM, or creates it from `new`.
    Service {
        vm: VmId,
        name: String,
        new: NewVr,
    },
    /// Checkpoints the program; `keep` checkpoints are kept.
    Checkpoint {
        to: KeepIn,
        keep: usize,
    },
    Migrate {
        vr: VrId,
        vm: VmInfo,
    },
    /// Gives the VR a twin on this VM.
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

/// The result of moving VRs to another VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Migrated {
    /// How many VRs have moved; 0 if the VR was there already.
    pub vrs: usize,
    /// How many bytes were transferred.
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
    /// Whether the program has been restored from it: this is the same call, returning again in another process.
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
    /// Returns the smallest number that is accepted.
    #[must_use]
    pub fn minimum(self) -> usize {
        match self {
            Count::Exactly(n) | Count::AtLeast(n) => n,
        }
    }

    /// Returns the largest number that is of use, if there is one.
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
