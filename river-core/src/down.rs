//! Why something is gone: the one vocabulary for every end that River reports.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::VrId;

/// The notice that a VR can no longer send or receive.
///
/// It is sent to every VR that watches this VR ([`Vr::watch`](crate::Vr::watch)) or waits for an envelope from it, and to its
/// deployer if it ended abnormally. It comes after every envelope that the VR had sent to the same receiver and that could
/// still be delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Down {
    /// The VR that is gone.
    pub who: VrId,
    /// Why.
    pub why: Why,
}

impl Down {
    /// Whether the VR is gone because its host is.
    pub(crate) fn is_loss(&self) -> bool {
        matches!(self.why, Why::HostDied { .. } | Why::LostLink { .. })
    }
}

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VR {} {}", self.who.short(), self.why)
    }
}

/// The reason of a [`Down`] notice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Why {
    /// Its `main` returned `Ok`.
    Finished,
    /// Its `main` returned an error: this is its text, and that of its causes.
    Failed(String),
    /// Its `main` panicked: this is the panic's message and location.
    Panicked(String),
    /// The host process that it ran in is gone.
    HostDied {
        /// The name of the VM on which the host ran.
        vm: String,
        /// How the process ended: "exit code 3", "signal 9 (SIGKILL)".
        how: String,
        /// The last lines that the host printed, oldest first.
        last_lines: Vec<String>,
    },
    /// The connection to its host or VM broke and could not be re-established.
    LostLink {
        /// The name of the VM, or the address.
        vm: String,
        /// The error of the connection.
        error: String,
    },
    /// The program knows no VR with this id.
    Unknown,
    /// The program that it belonged to has ended.
    ProgramEnded,
    /// It belongs to another program, and that program's process is gone or out of reach.
    LostProgram {
        /// The process: its executable, process id and machine.
        process: String,
        /// The error of the connection.
        error: String,
    },
}

impl Why {
    /// Returns what happened, without naming the VR: "signal 9 (SIGKILL)".
    #[must_use]
    pub fn cause(&self) -> String {
        match self {
            Why::HostDied { how, last_lines, .. } if last_lines.is_empty() => how.clone(),
            Why::HostDied { how, last_lines, .. } => {
                format!("{how}; the host's last lines were:\n    {}", last_lines.join("\n    "))
            }
            Why::LostLink { error, .. } | Why::LostProgram { error, .. } => error.clone(),
            other => other.to_string(),
        }
    }

    /// Whether the VR ended as its author intended.
    #[must_use]
    pub fn is_normal(&self) -> bool {
        matches!(self, Why::Finished | Why::ProgramEnded)
    }
}

/// Continues a sentence that begins with the VR: "VR 5f3a9c10 died with its host on VM lab-3: signal 9 (SIGKILL)".
impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Finished => f.write_str("has finished"),
            Why::Failed(text) => write!(f, "ended with an error: {text}"),
            Why::Panicked(text) => write!(f, "panicked: {text}"),
            Why::HostDied { vm, .. } => write!(f, "died with its host on VM {vm}: {}", self.cause()),
            Why::LostLink { vm, .. } => write!(f, "is out of reach on VM {vm}: {}", self.cause()),
            Why::Unknown => f.write_str("is not known to this program"),
            Why::ProgramEnded => f.write_str("ended with its program"),
            Why::LostProgram { process, error } => write!(f, "is gone with {process}: {error}"),
        }
    }
}
