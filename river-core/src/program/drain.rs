//! Draining: everything on a VM that wants to leave is moved elsewhere.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::leases::Turn;
use super::migrate::{AGAIN, LIMIT};
use super::vm_link::Leased;
use super::{Program, State};
use crate::discovery::Query;
use crate::error::{DeployError, MigrateError};
use crate::id::{HostId, VmId, VrId};
use crate::protocol::{Count, Migrated};
use crate::rt;
use crate::state::migration::Purpose;

impl Program {
    /// Handles a VM that wants to leave. What a recoverable program has there moves to its other VMs, or to one that is
    /// leased for that, and the VM is given back. If that fails, or if the program is not recoverable, the program is told
    /// and decides.
    pub(super) fn vm_leaves(self: &Arc<Self>, vm: &Arc<Leased>) {
        if !self.node.recoverable {
            self.ask_for(vm.info.id);
            return;
        }
        let (this, vm) = (self.clone(), vm.clone());
        rt::spawn(async move {
            let name = &vm.info.name;
            match this.drain(&vm).await {
                Ok(moved) => {
                    tracing::info!(vm = name, moved.vrs, pause = ?moved.pause, "moved VRs off a VM that is being drained");
                }
                Err(error) => {
                    tracing::warn!(vm = name, %error, "cannot move VRs off a VM that is being drained");
                    this.state().leaving.remove(&vm.info.id);
                    this.ask_for(vm.info.id);
                }
            }
        });
    }

    /// Leaves it to the program to give a VM back.
    fn ask_for(&self, vm: VmId) {
        let known = self.state().known_as(vm);
        known.into_iter().for_each(|vm| self.node.note_leaving(vm));
    }

    pub(super) async fn drain(self: &Arc<Self>, vm: &Leased) -> Result<Migrated, MigrateError> {
        self.unless_recorded()?;
        let id = vm.info.id;
        self.state().leaving.insert(id);
        let mut targets = self.state().staying();
        let is_own = !targets.is_empty();
        if !is_own {
            targets = self.lease_another(id).await?;
        }
        let mut reached = Vec::new();
        for target in &targets {
            match self.host_on(target).await {
                Ok(host) => reached.push((target.info.id, host)),
                Err(error) => tracing::warn!(vm = target.info.name, %error, "cannot move anything to a VM"),
            }
        }
        let Some(&(instead, _)) = reached.first() else {
            return Err(no_other(vm));
        };
        // From now on, deployments go elsewhere; a VR that is just being deployed moves in the next round.
        let replaced = self.state().replace(id, instead, is_own);
        let hosts = reached.iter().map(|(_, host)| *host).collect();
        let moved = match self.evacuate(vm, hosts).await {
            Ok(moved) => moved,
            Err(error) => {
                self.state().put_back(id, replaced);
                return Err(error);
            }
        };
        self.state().replace_dead(&replaced, &reached, is_own);
        let (left, _turn) = Turn::begin_return(self, &mut self.state(), vec![id]);
        // Its host has time to send what it still has to say.
        self.give_back(&left, true).await;
        self.state().leaving.remove(&id);
        Ok(moved)
    }

    /// Moves everything away from a VM, even if VRs and other hosts end meanwhile.
    async fn evacuate(
        self: &Arc<Self>,
        vm: &Leased,
        mut hosts: Vec<HostId>,
    ) -> Result<Migrated, MigrateError> {
        let mut total = Migrated { vrs: 0, bytes: 0, pause: Duration::ZERO };
        loop {
            let host = vm.host();
            let (deaths, is_being_made) = {
                let state = self.state();
                hosts.retain(|host| !state.directory.has_died(*host));
                if hosts.is_empty() {
                    return Err(no_other(vm));
                }
                (state.directory.deaths(), state.spread(host, &hosts).is_empty() && !state.is_empty(host))
            };
            if !is_being_made {
                match self.move_all(Purpose::Move, LIMIT, |state| state.spread(host, &hosts)).await {
                    Ok(moved) => {
                        total.vrs += moved.vrs;
                        total.bytes += moved.bytes;
                        total.pause += moved.pause;
                        // The last round finds nothing left there, and everything sent from there has arrived.
                        if moved.vrs == 0 && self.state().is_empty(host) {
                            return Ok(total);
                        }
                    }
                    // The next round is without the VR that has just ended, or the host that has died.
                    Err(MigrateError::Ended(_)) => {}
                    Err(MigrateError::GivenUp(_)) if self.state().directory.deaths() > deaths => {}
                    Err(error) => return Err(error),
                }
            }
            // A VR that is being made cannot move yet, so there is no need to stop anything.
            rt::sleep(AGAIN).await;
        }
    }

    /// Leases an idle VM to replace one that wants to leave.
    async fn lease_another(self: &Arc<Self>, leaving: VmId) -> Result<Vec<Arc<Leased>>, MigrateError> {
        let failed =
            |error: DeployError| MigrateError::Vm { vm: "to move to".into(), error: error.to_string() };
        let found = self.discover(Query { idle_only: true, ..Query::default() }).await.map_err(failed)?;
        for info in found.into_iter().filter(|info| info.id != leaving) {
            if let Ok(got) = self.try_allocate(vec![info], Count::Exactly(1)).await {
                let state = self.state();
                return Ok(got.iter().filter_map(|info| state.vms.get(&info.id).cloned()).collect());
            }
        }
        Ok(Vec::new())
    }
}

fn no_other(vm: &Leased) -> MigrateError {
    MigrateError::Vm { vm: vm.info.name.clone(), error: "there is no other VM".into() }
}

impl State {
    /// The VMs that do not want to leave, least loaded first.
    pub(super) fn staying(&self) -> Vec<Arc<Leased>> {
        let mut load: HashMap<HostId, usize> = HashMap::new();
        for (_, host) in self.directory.living() {
            *load.entry(host).or_default() += 1;
        }
        let mut staying: Vec<Arc<Leased>> =
            self.vms.values().filter(|vm| !self.leaving.contains(&vm.info.id)).cloned().collect();
        staying.sort_by_cached_key(|vm| {
            (vm.host().and_then(|host| load.get(&host).copied()).unwrap_or(0), vm.info.name.clone())
        });
        staying
    }

    /// Distributes the VRs of a host over other hosts in turn.
    fn spread(&self, from: Option<HostId>, to: &[HostId]) -> Vec<(VrId, HostId)> {
        let there = self.directory.living().filter(|(_, host)| Some(*host) == from).map(|(vr, _)| vr);
        let mut there: Vec<VrId> = there.filter(|vr| !self.making.contains(vr)).collect();
        there.sort_unstable();
        there.into_iter().zip(to.iter().copied().cycle()).collect()
    }

    fn is_empty(&self, host: Option<HostId>) -> bool {
        self.directory.living().all(|(_, at)| Some(at) != host)
    }

    /// By which ids the program knows a VM: those of the ones that it stands for, or its own.
    fn known_as(&self, vm: VmId) -> Vec<VmId> {
        let known = self.aliases.iter().filter(|(_, now)| **now == vm).map(|(known, _)| *known);
        let known: Vec<VmId> = known.collect();
        if known.is_empty() { vec![vm] } else { known }
    }

    /// Lets `new` stand for `old`, and for everything that `old` stands for. If `new` is one of the program's own VMs and
    /// was not leased to stand for others, the program keeps it when `old` is given back. Returns the aliases that have
    /// changed, and whether each is new.
    fn replace(&mut self, old: VmId, new: VmId, is_own: bool) -> Vec<(VmId, bool)> {
        self.keep(new, is_own);
        let stood_for = self.aliases.iter().filter(|(_, vm)| **vm == old);
        let mut replaced: Vec<(VmId, bool)> = stood_for.map(|(known, _)| (*known, false)).collect();
        if !self.aliases.contains_key(&old) {
            replaced.push((old, true));
        }
        self.aliases.extend(replaced.iter().map(|(known, _)| (*known, new)));
        replaced
    }

    fn keep(&mut self, vm: VmId, is_own: bool) {
        if is_own && !self.aliases.values().any(|other| *other == vm) {
            self.aliases.insert(vm, vm);
        }
    }

    /// If the host on the first of these VMs has died since [`replace`](Self::replace) let that VM stand for others, lets the
    /// first VM whose host is alive stand for them.
    fn replace_dead(&mut self, replaced: &[(VmId, bool)], reached: &[(VmId, HostId)], is_own: bool) {
        let alive = reached.iter().find(|(_, host)| !self.directory.has_died(*host));
        let (Some(&(dead, _)), Some(&(new, _))) = (reached.first(), alive) else { return };
        if new == dead {
            return;
        }
        self.keep(new, is_own);
        for (known, _) in replaced {
            if let Some(vm) = self.aliases.get_mut(known).filter(|vm| **vm == dead) {
                *vm = new;
            }
        }
    }

    /// Undoes [`replace`](Self::replace), except for what was given back meanwhile.
    fn put_back(&mut self, old: VmId, replaced: Vec<(VmId, bool)>) {
        for (known, is_new) in replaced {
            if is_new {
                self.aliases.remove(&known);
            } else if let Some(vm) = self.aliases.get_mut(&known) {
                *vm = old;
            }
        }
    }
}

#[cfg(test)]
mod tests;
