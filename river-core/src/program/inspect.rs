//! The status of the program, for tools that watch it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Program;
use crate::id::HostId;
use crate::protocol::ToHost;
use crate::rt;
use crate::status::{LeasedStatus, ProcessReport, ProcessStatus, ProgramStatus};

/// How long hosts may take to answer: the status also shows those that do not.
const ANSWER: Duration = Duration::from_millis(500);

impl Program {
    pub(super) async fn inspect(self: &Arc<Self>) -> ProgramStatus {
        let (answered, answers) = rt::unbounded();
        let (mut processes, ticket) = {
            let mut state = self.state();
            state.inspections.next += 1;
            let ticket = state.inspections.next;
            state.inspections.waiting.insert(ticket, answered);
            let now = Instant::now();
            let hosts = state.hosts.iter().filter(|(host, _)| !state.directory.has_died(**host));
            let hosts = hosts.map(|(id, host)| {
                let _ = host.to.try_send(ToHost::Inspect { ticket });
                let vm = state.vms.get(&host.vm).map_or_else(String::new, |vm| vm.info.name.clone());
                let (silent, suspected) = host.pulse.silence(now);
                ProcessStatus { host: *id, vm, silent, suspected, report: None }
            });
            (hosts.collect::<Vec<_>>(), ticket)
        };
        processes.sort_by(|a, b| (&a.vm, a.host).cmp(&(&b.vm, b.host)));
        let all = async {
            for _ in 0..processes.len() {
                let Ok((host, report)) = answers.recv().await else { return };
                if let Some(process) = processes.iter_mut().find(|process| process.host == host) {
                    process.report = Some(report);
                }
            }
        };
        let _ = rt::timeout(ANSWER, all).await;
        let own = ProcessStatus {
            host: self.node.place.host,
            vm: self.node.vm.clone(),
            silent: Duration::ZERO,
            suspected: false,
            report: Some(self.node.status()),
        };
        processes.insert(0, own);
        let mut state = self.state();
        state.inspections.waiting.remove(&ticket);
        let leased: Vec<_> = state.vms.values().cloned().collect();
        drop(state);
        let mut vms: Vec<LeasedStatus> = leased.iter().map(|vm| vm.status(Instant::now())).collect();
        vms.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        let (id, name) = (self.tenant.program, self.tenant.name.clone());
        ProgramStatus { id, name, age: self.began.elapsed(), vms, processes }
    }

    /// Takes a host's answer to an inspection.
    pub(super) fn inspected(&self, host: HostId, ticket: u64, report: ProcessReport) {
        if let Some(waiting) = self.state().inspections.waiting.get(&ticket) {
            let _ = waiting.try_send((host, report));
        }
    }
}
