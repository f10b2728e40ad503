//! Asks all VMs and programs for their status.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use river::core::{
    Found, InspectError, ProgramId, ProgramStatus, Query, VmInfo, VmState, VmStatus, find, program_status,
    vm_status,
};
use serde_json::{Value, json};

use crate::command::other_versions;

/// The answers of all of them, from about the same time.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) at: Instant,
    /// The VMs and their answers.
    pub(crate) vms: Vec<(VmInfo, Option<VmStatus>)>,
    pub(crate) programs: Vec<ProgramStatus>,
    /// Errors of VMs and programs that did not answer.
    pub(crate) errors: Vec<String>,
}

impl Snapshot {
    /// Searches, and asks everything that is found in parallel. Prints nothing, since the screen may be in use.
    pub(crate) fn take() -> river::Result<Self> {
        Ok(Self::ask(find(&Query::default())?))
    }

    fn ask(found: Found) -> Self {
        let errors = other_versions(&found).collect();
        let mut found = found.vms;
        found.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        let mut used: BTreeMap<ProgramId, Vec<&VmInfo>> = BTreeMap::new();
        for vm in &found {
            if let VmState::Leased { program, .. } = vm.state {
                used.entry(program).or_default().push(vm);
            }
        }
        let (vms, programs) = thread::scope(|scope| {
            let vms: Vec<_> = found.iter().map(|vm| scope.spawn(move || vm_status(vm))).collect();
            let programs: Vec<_> =
                used.into_values().map(|vms| scope.spawn(move || ask_program(&vms))).collect();
            let vms: Vec<_> = vms.into_iter().map(thread::ScopedJoinHandle::join).collect();
            (vms, programs.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>())
        });
        let mut snapshot = Self { at: Instant::now(), vms: Vec::new(), programs: Vec::new(), errors };
        for (vm, status) in found.into_iter().zip(vms) {
            let status = status.map_err(|_| "a thread panicked".to_owned());
            let status = status.and_then(|status| status.map_err(|error| error.to_string()));
            snapshot.errors.extend(status.as_ref().err().cloned());
            snapshot.vms.push((vm, status.ok()));
        }
        for status in programs.into_iter().flatten().flatten() {
            match status {
                Ok(status) => snapshot.programs.push(status),
                Err(error) => snapshot.errors.push(error.to_string()),
            }
        }
        snapshot
    }

    /// JSON for scripts: times in seconds, sums since the beginning.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "vms": self.vms.iter().map(|(vm, status)| vm_json(vm, status.as_ref())).collect::<Vec<_>>(),
            "programs": self.programs.iter().map(program_json).collect::<Vec<_>>(),
            "errors": self.errors,
        })
    }
}

/// Asks the program that uses these VMs, through one VM after the other: a VM without a host of the program does not know
/// where the program is.
fn ask_program(vms: &[&VmInfo]) -> Option<Result<ProgramStatus, InspectError>> {
    let mut last = None;
    for vm in vms {
        last = Some(program_status(vm));
        if let Some(Ok(_)) = last {
            break;
        }
    }
    last
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

fn vm_json(vm: &VmInfo, status: Option<&VmStatus>) -> Value {
    let lease = status.and_then(|status| status.lease.as_ref()).map(|lease| {
        json!({
            "program": lease.program, "name": lease.name, "renewed": seconds(lease.renewed),
            "draining": lease.draining,
            "host": lease.host.map(|host| {
                json!({"process": host.process, "cpu": seconds(host.cpu), "memory": host.memory})
            }),
        })
    });
    json!({
        "id": vm.id, "name": vm.name, "address": vm.address, "uptime": seconds(vm.uptime), "lease": lease,
        "answered": status.is_some(),
    })
}

fn program_json(program: &ProgramStatus) -> Value {
    let vms: Vec<Value> = program
        .vms
        .iter()
        .map(|vm| {
            json!({"id": vm.id, "name": vm.name, "silent": seconds(vm.silent), "suspected": vm.suspected})
        })
        .collect();
    let process = |process: &river::core::ProcessStatus| {
        let report = process.report.as_ref();
        json!({
            "host": process.host, "vm": process.vm, "silent": seconds(process.silent),
            "suspected": process.suspected, "answered": report.is_some(),
            "process": report.map(|report| report.usage.process),
            "cpu": report.map(|report| seconds(report.usage.cpu)),
            "memory": report.map(|report| report.usage.memory),
            "vrs": report.map(|report| report.vrs.iter().map(|vr| json!({
                "id": vr.id, "name": vr.name, "queued": vr.queued, "waiting": vr.waiting.map(seconds),
                "arrived": vr.arrived, "bytes": vr.bytes,
            })).collect::<Vec<_>>()),
            "links": report.map(|report| report.links.iter().map(|link| json!({
                "to": link.to, "kind": link.kind, "messages": link.messages, "bytes": link.bytes,
            })).collect::<Vec<_>>()),
        })
    };
    json!({
        "id": program.id, "name": program.name, "age": seconds(program.age), "vms": vms,
        "processes": program.processes.iter().map(process).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vms_of_another_version_are_an_error_to_show_and_not_printed_over_the_screen() {
        let mut found = Found::default();
        found.other_versions.insert(1, 2);
        let snapshot = Snapshot::ask(found);
        let [error] = &snapshot.errors[..] else { panic!("{:?}", snapshot.errors) };
        assert!(
            error.starts_with("2 VMs speak protocol version 1, and this command speaks version"),
            "{error}"
        );
        assert!(error.contains("install the same version"), "{error}");
    }
}
