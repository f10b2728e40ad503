//! What a process of a program looks like from outside, for who watches programs.

use std::fs;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{HostId, ProgramId, VmId, VrId};

/// A process: what it uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Usage {
    /// Its number on its machine.
    pub process: u32,
    /// The processor time that it has used, of all its threads.
    pub cpu: Duration,
    /// The memory that it occupies, in bytes.
    pub memory: u64,
}

/// A VM, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VmStatus {
    /// Its process. VMs that were started together share one.
    pub usage: Usage,
    /// The lease, if a program has one.
    pub lease: Option<LeaseStatus>,
}

/// A lease of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LeaseStatus {
    /// Who has it.
    pub program: ProgramId,
    /// The program's executable and process.
    pub name: String,
    /// How long ago it was renewed; it ends after four seconds.
    pub renewed: Duration,
    /// The program's host there, if one runs.
    pub host: Option<Usage>,
    /// The VM is to end when the program gives it back.
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
    /// How long it has not been heard of.
    pub silent: Duration,
    /// That is long enough to suspect that it is dead, stopped, or cut off.
    pub suspected: bool,
}

/// A process of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProcessStatus {
    /// Its name in the program.
    pub host: HostId,
    /// The VM that it is on; of the initiator's, the machine.
    pub vm: String,
    /// How long it has not been heard of.
    pub silent: Duration,
    /// That is long enough to suspect that it is dead, stopped, or cut off.
    pub suspected: bool,
    /// What it says of itself; `None` if it has not answered in time.
    pub report: Option<ProcessReport>,
}

/// What a process says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProcessReport {
    /// What it uses.
    pub usage: Usage,
    /// The VRs that live there.
    pub vrs: Vec<VrStatus>,
    /// Where it sends.
    pub links: Vec<LinkStatus>,
}

/// A VR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VrStatus {
    /// Its name.
    pub id: VrId,
    /// [Its own](crate::VirtualResource::label), if it has one; else that of its type, which has `::` in it.
    pub name: String,
    /// Envelopes that wait in its mailbox.
    pub queued: u64,
    /// For how long the mailbox has not been empty, to some milliseconds; `None` if it is.
    pub waiting: Option<Duration>,
    /// Envelopes that have arrived since it began.
    pub arrived: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
}

/// A link from one process to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LinkStatus {
    /// Where it leads.
    pub to: HostId,
    /// What it is: `shm` or `tcp`.
    pub kind: String,
    /// Envelopes that were sent on it.
    pub messages: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
}

impl Usage {
    /// Of a process of this machine; zeros if the system does not tell.
    pub(crate) fn of(process: u32) -> Self {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // The executable's name, in parentheses, may hold anything.
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
