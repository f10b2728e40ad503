//! Restarts a program from a checkpoint: finds or replaces its VMs, and restores its VRs.

use std::collections::HashMap;
use std::sync::Arc;

use super::request::own_image;
use super::{Program, Service};
use crate::cut;
use crate::discovery::{Query, VmInfo};
use crate::error::{DeployError, Result, VrError};
use crate::id::{HostId, VmId, VrId};
use crate::notice::say;
use crate::protocol::{Count, NewVr, Step, ToHost};
use crate::rt;
use crate::state::{Content, Saved, SavedVm};
use crate::vr::Vr;

impl Program {
    /// Restores all VRs of a checkpoint, and returns the initiator's, which the caller runs. All others wait until
    /// [`thaw`](Self::thaw) is called.
    pub(crate) fn restore(self: &Arc<Self>, content: Content) -> Result<Vr> {
        let initiator = content.header.initiator;
        let mut initiators = Vec::new();
        let mut others = Vec::new();
        for saved in content.vrs {
            if saved.origin.id == initiator { initiators.push(saved) } else { others.push(saved) }
        }
        let missing = || VrError::msg("the checkpoint does not contain the program's initiator");
        let saved = initiators.pop().ok_or_else(missing)?;
        {
            let mut state = self.state();
            state.past = content.header.ended.iter().cloned().collect();
            content.header.ended.iter().for_each(|(vr, why)| state.directory.end(*vr, why.clone()));
        }
        let places: HashMap<VrId, VmId> = content.header.places.iter().copied().collect();
        let services = content.header.services.clone();
        rt::block_on(async {
            self.replace_vms(&content.header.vms, &content.header.aliases).await?;
            self.take_up(others, &places, services).await
        })?;
        self.state().directory.enter(initiator, self.node.place.host);
        self.node.freeze();
        let (inbox, recorder) = cut::adopt(&self.node, saved);
        Ok(Vr::recorded(self.node.clone(), inbox, recorder))
    }

    /// Lets the VRs of a restored program go on. Only after that may it be checkpointed, or this would thaw what the
    /// checkpoint has frozen.
    pub(crate) fn thaw(&self, initiator: VrId) {
        self.node.thaw(false);
        let hosts: Vec<HostId> = self.state().hosts.keys().copied().collect();
        for host in hosts {
            self.tell_host(host, ToHost::State { round: 0, step: Step::Thaw { settled: false } });
        }
        self.register(initiator);
    }

    /// Finds a VM for each one that the program had: the same one, one of the same name, or any; several may share one.
    async fn replace_vms(
        self: &Arc<Self>,
        old: &[SavedVm],
        aliases: &[(VmId, VmId)],
    ) -> std::result::Result<(), DeployError> {
        let local: Vec<&VmInfo> = old.iter().filter(|vm| vm.local).map(|vm| &vm.info).collect();
        let mut remote: Vec<&VmInfo> = old.iter().filter(|vm| !vm.local).map(|vm| &vm.info).collect();
        remote.sort_by(|a, b| a.name.cmp(&b.name));
        let mut pairs = Vec::new();
        if !local.is_empty() {
            let started = self.start_local(local.len()).await?;
            pairs.extend(local.iter().map(|vm| vm.id).zip(started.iter().map(|vm| vm.id)));
        }
        if !remote.is_empty() {
            let found = self.discover(Query { idle_only: true, ..Query::default() }).await?;
            let chosen = choose(&remote, found);
            let some = !chosen.is_empty();
            let leased = if some { self.allocate_some(chosen).await } else { Vec::new() };
            let leased = if leased.is_empty() {
                let count =
                    remote.len().min(std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
                say!("[river: no idle VM was found; started {count} in this process]");
                self.start_local(count).await?
            } else {
                leased
            };
            let replaced = pair(&remote, &leased);
            if leased.len() < remote.len() {
                tracing::info!(
                    had = remote.len(),
                    has = leased.len(),
                    "fewer VMs than before: some are shared"
                );
            }
            pairs.extend(replaced);
        }
        let now: HashMap<VmId, VmId> = pairs.into_iter().collect();
        let mut state = self.state();
        // A VM that was itself a replacement when the checkpoint was taken is replaced again.
        let older = aliases.iter().filter_map(|(older, old)| Some((*older, *now.get(old)?)));
        state.aliases.extend(older);
        state.aliases.extend(now.iter().map(|(old, new)| (*old, *new)));
        Ok(())
    }

    async fn allocate_some(self: &Arc<Self>, vms: Vec<VmInfo>) -> Vec<VmInfo> {
        self.try_allocate(vms, Count::AtLeast(1)).await.unwrap_or_default()
    }

    /// Has the hosts restore the VRs. Until all are restored, no VR may be located.
    async fn take_up(
        self: &Arc<Self>,
        vrs: Vec<Saved>,
        places: &HashMap<VrId, VmId>,
        services: Vec<((VmId, String), VrId)>,
    ) -> std::result::Result<(), DeployError> {
        let image = own_image().await?;
        let mut by_vm: HashMap<VmId, Vec<Saved>> = HashMap::new();
        for saved in vrs {
            let vm = places.get(&saved.origin.id).copied().unwrap_or_else(VmId::fresh);
            by_vm.entry(self.state().alias(vm)).or_default().push(saved);
        }
        let mut told = Vec::new();
        for (vm, vrs) in by_vm {
            let leased = self.state().leased(vm)?;
            let error = |error: String| DeployError::Vm { vm: leased.info.name.clone(), error };
            let host = leased.ensure_host(self, image).await.map_err(error)?;
            for saved in vrs {
                self.state().directory.enter(saved.origin.id, host);
                told.push((host, leased.clone(), saved));
            }
        }
        {
            let mut state = self.state();
            for ((vm, name), vr) in services {
                let host = state.directory.host_of(vr).and_then(|host| state.hosts.get(&host));
                if let Some(place) = host.map(|host| host.place) {
                    let (_, ready) = rt::unbounded();
                    state.services.insert((vm, name), Service { vr, place: Some(place), ready });
                }
            }
        }
        let mut confirmed = Vec::new();
        for (host, vm, saved) in told {
            let error = |error: String| DeployError::Vm { vm: vm.info.name.clone(), error };
            let bytes = rt::blocking(move || saved.encode().map_err(|error| error.to_string())).await;
            let vr = bytes.map_err(error)?;
            let made = self.told(host, |ticket| ToHost::Restore { ticket, vr });
            confirmed.push((vm.clone(), made.ok_or_else(|| error("its host is gone".into()))?));
        }
        for (vm, confirmed) in confirmed {
            let gone = || DeployError::Vm { vm: vm.info.name.clone(), error: "its host is gone".into() };
            confirmed.recv().await.map_err(|_| gone())??;
        }
        Ok(())
    }

    /// Filters out the VRs that exist already: a restored VR repeats requests that were served before the checkpoint.
    pub(super) fn unknown(&self, vrs: Vec<(VmId, NewVr)>) -> Vec<(VmId, NewVr)> {
        let state = self.state();
        let known = |vr: &VrId| state.directory.host_of(*vr).is_some() || state.past.contains_key(vr);
        vrs.into_iter().filter(|(_, new)| !known(&new.id)).map(|(vm, new)| (state.alias(vm), new)).collect()
    }
}

/// The VMs to restart on, best first, at most as many as there were.
fn choose(old: &[&VmInfo], found: Vec<VmInfo>) -> Vec<VmInfo> {
    let rank = |vm: &VmInfo| {
        let same = old.iter().any(|old| old.id == vm.id);
        let named = old.iter().any(|old| old.name == vm.name);
        (!same, !named, vm.name.clone())
    };
    let mut found = found;
    found.sort_by_key(rank);
    found.truncate(old.len());
    found
}

/// Assigns a new VM to each old one: the same VM or one of the same name if there is one; the others are spread evenly.
fn pair(old: &[&VmInfo], new: &[VmInfo]) -> Vec<(VmId, VmId)> {
    let mut load: Vec<usize> = vec![0; new.len()];
    let mut pairs = Vec::new();
    let mut rest = Vec::new();
    for vm in old {
        let own = new.iter().position(|new| new.id == vm.id || new.name == vm.name);
        match own {
            Some(index) => {
                load[index] += 1;
                pairs.push((vm.id, new[index].id));
            }
            None => rest.push(vm.id),
        }
    }
    for vm in rest {
        let Some(index) = (0..new.len()).min_by_key(|index| load[*index]) else { continue };
        load[index] += 1;
        pairs.push((vm, new[index].id));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;

    use super::*;
    use crate::discovery::VmState;

    fn vm(name: &str) -> VmInfo {
        VmInfo {
            id: VmId::fresh(),
            name: name.into(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            cores: 1,
            memory: 0,
            triple: String::new(),
            labels: Vec::new(),
            state: VmState::Idle,
            uptime: Duration::ZERO,
            version: String::new(),
        }
    }

    fn ids(vms: &[VmInfo]) -> Vec<VmId> {
        vms.iter().map(|vm| vm.id).collect()
    }

    /// How many of the old VMs each new one stands for.
    fn loads(old: &[VmInfo], new: &[VmInfo]) -> Vec<usize> {
        let pairs = pair(&Vec::from_iter(old), new);
        assert_eq!(BTreeSet::from_iter(pairs.iter().map(|(old, _)| *old)), BTreeSet::from_iter(ids(old)));
        new.iter().map(|vm| pairs.iter().filter(|(_, new)| *new == vm.id).count()).collect()
    }

    #[test]
    fn the_same_vms_are_chosen_first_then_those_of_the_same_names_and_no_more_than_there_were() {
        let old = [vm("a"), vm("b"), vm("c")];
        let (renamed, namesake) = (VmInfo { name: "z".into(), ..old[0].clone() }, vm("b"));
        let (first, second) = (vm("d"), vm("e"));
        let found = [&second, &first, &namesake, &renamed].map(Clone::clone).to_vec();
        let chosen = choose(&Vec::from_iter(&old), found);
        assert_eq!(ids(&chosen), ids(&[renamed, namesake, first]));
        assert!(choose(&Vec::from_iter(&old), Vec::new()).is_empty());
    }

    #[test]
    fn a_vm_that_is_there_again_takes_its_own_vrs() {
        let old = [vm("a"), vm("b"), vm("c")];
        // "a" is itself, under another name; "b" was started anew.
        let (renamed, namesake) = (VmInfo { name: "z".into(), ..old[0].clone() }, vm("b"));
        let other = vm("d");
        let new = [&other, &namesake, &renamed].map(Clone::clone);
        let pairs = HashMap::from_iter(pair(&Vec::from_iter(&old), &new));
        let expected = [(old[0].id, renamed.id), (old[1].id, namesake.id), (old[2].id, other.id)];
        assert_eq!(pairs, HashMap::from(expected));
    }

    #[test]
    fn fewer_vms_share_what_there_was_evenly_and_of_more_none_has_two() {
        let old = ["a", "b", "c", "d", "e"].map(vm);
        assert_eq!(loads(&old, &[vm("x")]), [5]);
        assert_eq!(loads(&old, &[vm("x"), vm("y")]), [3, 2]);
        // One that has its own VRs gets as many of the others' as make it even.
        assert_eq!(loads(&old, &[vm("b"), vm("x")]), [3, 2]);
        assert_eq!(loads(&old, &["u", "v", "w", "x", "y", "z"].map(vm)), [1, 1, 1, 1, 1, 0]);
        assert!(pair(&Vec::from_iter(&old), &[]).is_empty());
    }
}
