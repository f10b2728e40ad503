//! Status reports about the processes of a program, for monitoring.

use std::fs;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{HostId, ProgramId, VmId, VrId};

/// The resources that a process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Usage {
    /// Its process id.
    pub process: u32,
    /// The processor time that all its threads have used.
    pub cpu: Duration,
    /// The memory that it occupies, in bytes.
    pub memory: u64,
}

/// The status of a VM, as it reports itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VmStatus {
    /// The usage of its process. VMs that were started together share one.
    pub usage: Usage,
    /// The lease, if a program has one.
    pub lease: Option<LeaseStatus>,
}

/// A lease of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LeaseStatus {
    /// The program that holds it.
    pub program: ProgramId,
    /// The program's executable and process.
    pub name: String,
    /// How long ago it was renewed; it ends after four seconds.
    pub renewed: Duration,
    /// The program's host there, if one runs.
    pub host: Option<Usage>,
    /// Whether the VM ends when the program gives it back.
    pub draining: bool,
}

/// A program, as its initiator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProgramStatus {
    /// The program.
    pub id: ProgramId,
    /// Its executable and process.
    pub name: String,
    /// How long it has been running.
    pub age: Duration,
    /// The VMs that it has leased.
    pub vms: Vec<LeasedStatus>,
    /// Its processes, the initiator's first.
    pub processes: Vec<ProcessStatus>,
}

/// A VM that a program has leased, as the program sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LeasedStatus {
    /// The VM.
    pub id: VmId,
    /// Its name.
    pub name: String,
    /// How long ago it was last heard from.
    pub silent: Duration,
    /// Whether that is long enough to suspect that it is dead, stopped, or cut off.
    pub suspected: bool,
}

/// A process of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProcessStatus {
    /// Its id in the program.
    pub host: HostId,
    /// The VM that it is on; for the initiator's process, the machine.
    pub vm: String,
    /// How long ago it was last heard from.
    pub silent: Duration,
    /// Whether that is long enough to suspect that it is dead, stopped, or cut off.
    pub suspected: bool,
    /// Its report; `None` if it has not answered in time.
    pub report: Option<ProcessReport>,
}

/// What a process reports about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProcessReport {
    /// The resources that it uses.
    pub usage: Usage,
    /// The VRs that live there.
    pub vrs: Vec<VrStatus>,
    /// The links on which it sends.
    pub links: Vec<LinkStatus>,
}

/// The status of a VR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VrStatus {
    /// Its id.
    pub id: VrId,
    /// [Its own label](crate::VirtualResource::label), if it has one; otherwise the name of its type, which contains `::`.
    pub name: String,
    /// Envelopes that wait in its mailbox.
    pub queued: u64,
    /// For how long the mailbox has not been empty, accurate to a few milliseconds; `None` if it is empty.
    pub waiting: Option<Duration>,
    /// Envelopes that have arrived since it began.
    pub arrived: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
}

/// The status of a link from one process to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LinkStatus {
    /// The process to which it leads.
    pub to: HostId,
    /// Its kind: `shm` or `tcp`.
    pub kind: String,
    /// Envelopes that were sent on it.
    pub messages: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
}

impl Usage {
    /// Returns the usage of a process of this machine; zeros if the system does not report it.
    pub(crate) fn of(process: u32) -> Self {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // The executable's name, in parentheses, may contain anything.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let field = |number: usize| -> u64 {
            fields.get(number - 3).and_then(|field| field.parse().ok()).unwrap_or(0)
        };
        let ticks = rustix::param::clock_ticks_per_second().max(1);
        let micros = (field(14) + field(15)).saturating_mul(1_000_000) / ticks;
        let pages = field(24);
        Self {
            process,
            cpu: Duration::from_micros(micros),
            memory: pages.saturating_mul(rustix::param::page_size() as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something_and_none_uses_nothing() {
        let usage = Usage::of(std::process::id());
        assert!(usage.memory > 100_000, "{usage:?}");
        assert_eq!(Usage::of(u32::MAX), Usage { process: u32::MAX, ..Usage::default() });
    }
}
