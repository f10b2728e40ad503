//! The hosts of a program: how they join, what they report, and how they die.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::checkpoint::Heard;
use super::place::View;
use super::pulse::{Change, Pulse, SUSPECT};
use super::vm_link::Leased;
use super::{Program, State};
use crate::control::{self, Connection, Incoming};
use crate::down::Why;
use crate::error::DeployError;
use crate::host::accept_data;
use crate::id::{HostId, VmId, VrId};
use crate::protocol::{FromHost, FromProgram, Hello, Place, Report, Step, ToHost, ToProgram};
use crate::rt;
use crate::trace;

/// How long the VM of a host whose connection broke has to report how the host died. The VM itself waits a second for the
/// host's last output.
const VERDICT: Duration = Duration::from_secs(4);

/// A host that has reported.
pub(super) struct Host {
    pub(super) place: Place,
    pub(super) vm: VmId,
    pub(super) view: View,
    pub(super) to: rt::Sender<ToHost>,
    /// Deployments that the host has not confirmed, by ticket.
    pub(super) creating: HashMap<u64, rt::Sender<Result<(), DeployError>>>,
    pub(super) next_ticket: u64,
    pub(super) pulse: Pulse,
}

impl Program {
    pub(super) async fn serve(self: Arc<Self>, hello: Hello, stream: Connection) {
        match hello {
            Hello::Join { program, host, port } if program == self.tenant.program => {
                let (to, from) = control::split(stream);
                let vm = {
                    let mut state = self.state();
                    let Some(vm) = state.vms.values().find(|vm| vm.host() == Some(host)).cloned() else {
                        return;
                    };
                    // Not the address that it connects from: a machine may have several, but it listens on the VM's.
                    let place = Place { host, address: SocketAddr::new(vm.info.address.ip(), port) };
                    let view = vm.view();
                    let (creating, next_ticket) = (HashMap::new(), 0);
                    let pulse = Pulse::new(Instant::now());
                    let joined = Host { place, vm: vm.info.id, view, to, creating, next_ticket, pulse };
                    if let Some(translate) = vm.take_translation() {
                        let _ = joined.to.try_send(translate);
                    }
                    // Before anything else, so that every VR that begins there knows which VRs it must write to twice.
                    let pairs = state.all_pairs();
                    if !pairs.is_empty() {
                        let step = Step::Mirrored(pairs);
                        let _ = joined.to.try_send(joined.view.translate(ToHost::State { round: 0, step }));
                    }
                    // The others have been told already.
                    if state.ending {
                        let _ = joined.to.try_send(ToHost::Stop);
                    }
                    state.hosts.insert(host, joined);
                    vm
                };
                vm.joined();
                if let Some(collector) = &self.collector {
                    collector.joined(host, &vm.info.name);
                    self.tell_host(host, ToHost::Clock { asked: trace::now() });
                }
                self.serve_host(host, from).await;
            }
            Hello::Operate { program } if program == self.tenant.program => {
                let (to, mut from) = control::split::<FromProgram, ToProgram>(stream);
                while let Ok(Some(wanted)) = from.next().await {
                    let _ = to.try_send(match wanted {
                        ToProgram::Checkpoint { to, keep } => {
                            FromProgram::Checkpoint(self.checkpoint(to, keep).await)
                        }
                        ToProgram::Migrate { vr, vm } => {
                            FromProgram::Migrated(self.migrate_named(&vr, *vm).await)
                        }
                        ToProgram::Inspect => FromProgram::Inspected(self.inspect().await),
                    });
                }
            }
            other => accept_data(self.node.clone(), other, stream).await,
        }
    }

    async fn serve_host(self: Arc<Self>, host: HostId, mut from: Incoming<FromHost>) {
        let error = loop {
            let message = from.next().await;
            if let Some(host) = self.state().hosts.get_mut(&host) {
                host.pulse.beat(Instant::now());
            }
            match message {
                Ok(Some(FromHost::Alive)) => {}
                Ok(Some(FromHost::Created { ticket, result })) => {
                    let waiting = self.state().hosts.get_mut(&host).and_then(|h| h.creating.remove(&ticket));
                    if let Some(waiting) = waiting {
                        let _ = waiting.try_send(result);
                    }
                }
                Ok(Some(FromHost::Ended { vr, why })) => {
                    // A process that counts as dead may not be so yet, and its mirrored VRs live on in others.
                    let is_dead = self.state().directory.has_died(host);
                    if !is_dead {
                        self.state().directory.end(vr, why);
                        self.end_twin(vr);
                    }
                }
                Ok(Some(FromHost::Request { ticket, request })) => {
                    let server = self.clone();
                    rt::spawn(async move {
                        let reply = server.answer(request).await;
                        server.tell_host(host, ToHost::Reply { ticket, reply });
                    });
                }
                Ok(Some(FromHost::State { report: Report::Mourned(dead, arrived), .. })) => {
                    self.mourned(host, dead, arrived);
                }
                Ok(Some(FromHost::State { round, report })) => self.hear(host, round, Heard::Report(report)),
                Ok(Some(FromHost::Copy { round, vr, last, piece })) => {
                    self.hear(host, round, Heard::Copy { vr, last, piece });
                }
                Ok(Some(FromHost::CopiesEnd { round, result })) => {
                    self.hear(host, round, Heard::CopiesEnd(result));
                }
                Ok(Some(FromHost::Taped { vr, bytes })) => {
                    if let Some(recording) = self.recording.get() {
                        recording.append(vr, bytes);
                    }
                }
                Ok(Some(FromHost::TapeEnd)) => self.tape_ends(host),
                Ok(Some(FromHost::Clock { asked, heard, answered })) => {
                    if self.collector.as_ref().is_some_and(|c| c.compared(host, asked, heard, answered)) {
                        self.tell_host(host, ToHost::Clock { asked: trace::now() });
                    }
                }
                Ok(Some(FromHost::Inspected { ticket, report })) => self.inspected(host, ticket, report),
                Ok(Some(FromHost::Trace(piece))) => {
                    self.collector.iter().for_each(|collector| collector.take(host, &piece));
                }
                Ok(Some(FromHost::TraceEnd)) => {
                    self.collector.iter().for_each(|collector| collector.done(host));
                    self.tell_host(host, ToHost::Stop);
                }
                Ok(None) => break "the host closed its connection".to_owned(),
                Err(error) => break error.to_string(),
            }
        };
        self.verdict(host, error).await;
    }

    pub(super) fn tell_host(&self, host: HostId, message: ToHost) {
        if let Some(host) = self.state().hosts.get(&host) {
            let _ = host.to.try_send(host.view.translate(message));
        }
    }

    /// Finds out how a host died, after some connection to it failed: its VM is given time to report it; if it does not,
    /// the host counts as lost.
    pub(super) async fn verdict(self: &Arc<Self>, host: HostId, error: String) -> Why {
        let (told, verdict) = rt::unbounded();
        let vm = {
            let mut state = self.state();
            if let Some(why) = state.directory.why_died(host) {
                return why.clone();
            }
            if state.ending || host == self.node.place.host {
                return Why::ProgramEnded;
            }
            state.verdicts.entry(host).or_default().push(told);
            let vm = state.hosts.get(&host).map(|host| host.vm);
            vm.and_then(|vm| state.vms.get(&vm)).map_or_else(String::new, |vm| vm.info.name.clone())
        };
        if let Ok(Ok(why)) = rt::timeout(VERDICT, verdict.recv()).await {
            return why;
        }
        let why = Why::LostLink { vm, error };
        // It may still be running behind the broken connection, and must not come back as if nothing had happened.
        self.tell_host(host, ToHost::Stop);
        self.host_gone(host, &why);
        why
    }

    /// Declares a host dead, and tells all processes.
    pub(super) fn host_gone(self: &Arc<Self>, host: HostId, why: &Why) {
        let bare = {
            let mut state = self.state();
            if state.directory.has_died(host) {
                return;
            }
            let heirs = state.survivors(host);
            if let Some(collector) = &self.collector {
                let lost = |(vr, at): &(VrId, HostId)| *at == host && !heirs.contains_key(vr);
                let vrs: Vec<VrId> = state.directory.living().filter(lost).map(|(vr, _)| vr).collect();
                collector.gone(host, &why.cause(), &vrs);
            }
            state.directory.die(host, why, |vr| heirs.contains_key(&vr));
            state.cut_lost(host, why);
            if let Some(to) = &state.tapes {
                let _ = to.try_send(host);
            }
            for waiting in state.verdicts.remove(&host).unwrap_or_default() {
                let _ = waiting.try_send(why.clone());
            }
            let vm = if let Some(dead) = state.hosts.get_mut(&host) {
                dead.creating.clear();
                // Its connection need not be kept until the program ends.
                dead.to.close();
                Some(dead.vm)
            } else {
                None
            };
            if let Some(vm) = vm.and_then(|vm| state.vms.get(&vm)) {
                vm.host_gone(why);
            }
            if state.ending {
                Vec::new()
            } else {
                for other in state.live_hosts() {
                    let _ = other.try_send(ToHost::HostDown { host, why: why.clone() });
                }
                self.mourn(&mut state, host, why, heirs)
            }
        };
        self.node.host_down(host, why);
        bare.into_iter().for_each(|vr| self.mirror_anew(vr));
    }

    pub(super) fn dead_hosts(&self, now: Instant, deaf: Duration) -> Vec<(HostId, Arc<Leased>)> {
        let mut state = self.state();
        let State { hosts, vms, directory, .. } = &mut *state;
        let mut dead = Vec::new();
        for (id, host) in hosts.iter_mut().filter(|(id, _)| !directory.has_died(**id)) {
            let Some(vm) = vms.get(&host.vm) else { continue };
            match host.pulse.look(now, deaf) {
                Change::None => {}
                Change::Suspected => {
                    let vm = &vm.info.name;
                    tracing::warn!(
                        "the host on VM {vm} has not been heard of for {SUSPECT:?}: is it stopped?"
                    );
                }
                Change::Recovered => tracing::warn!("the host on VM {} is heard of again", vm.info.name),
                Change::Dead => dead.push((*id, vm.clone())),
            }
        }
        dead
    }
}
