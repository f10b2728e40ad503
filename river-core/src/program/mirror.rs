//! Mirrored VRs over real connections: how they get twins, and how twins take over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::migrate::LIMIT;
use super::{Program, State};
use crate::discovery::VmInfo;
use crate::down::Why;
use crate::error::MigrateError;
use crate::id::{HostId, VrId};
use crate::notice::say;
use crate::protocol::{Counts, Migrated, Pair, Place, Step, ToHost};
use crate::rt;
use crate::state::Takeover;
use crate::state::migration::Purpose;
use crate::state::takeover::Action;

/// The first pause before another attempt to make a twin; doubled after each failure.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The mirrored VRs of the program.
#[derive(Default)]
pub(super) struct Mirrors {
    /// Where the twin of each mirrored VR is; `None` while it has none.
    twins: BTreeMap<VrId, Option<HostId>>,
    /// The takeovers under way, by the process that has died.
    takeovers: BTreeMap<HostId, (Takeover, Why)>,
}

impl Mirrors {
    /// Whether a VR should have a twin but has none at the moment.
    fn is_bare(&self, vr: VrId) -> bool {
        self.twins.get(&vr).is_some_and(Option::is_none)
    }

    /// Notes that a VR has lost its twin. Returns `false` if it is not mirrored.
    fn lose_twin(&mut self, vr: VrId) -> bool {
        self.twins.get_mut(&vr).map(|twin| *twin = None).is_some()
    }

    /// Removes the twins of a process that is gone, and returns the VRs that have lost theirs. A mirrored VR that has ended
    /// with the process needs no twin any more.
    fn lose_host(&mut self, host: HostId, has_ended: impl Fn(VrId) -> bool) -> Vec<VrId> {
        let mut bare = Vec::new();
        self.twins.retain(|vr, twin| {
            if *twin == Some(host) && !has_ended(*vr) {
                bare.push(*vr);
            }
            *twin = twin.filter(|twin| *twin != host);
            twin.is_some() || !has_ended(*vr)
        });
        bare
    }

    /// Whether this VR, or any VR, is being taken over by its twin.
    pub(super) fn is_being_taken_over(&self, vr: Option<VrId>) -> bool {
        let concerns = |takeover: &Takeover| vr.is_none_or(|vr| takeover.concerns(vr));
        self.takeovers.values().any(|(takeover, _)| concerns(takeover))
    }
}

impl Program {
    /// Gives a VR a twin on a VM, which is leased first if necessary.
    pub(super) async fn mirror(self: &Arc<Self>, vr: VrId, vm: VmInfo) -> Result<Migrated, MigrateError> {
        self.state().movable(vr)?;
        self.unless_recorded()?;
        let to = self.host_of_vm(vm).await?;
        let (there, name) = {
            let state = self.state();
            let name = state.vm_of(to).map_or_else(String::new, |vm| vm.info.name.clone());
            (state.mirrors.twins.get(&vr) == Some(&Some(to)), name)
        };
        if there {
            return Ok(Migrated { vrs: 0, bytes: 0, pause: Duration::ZERO });
        }
        let mirrored = self.move_all(Purpose::Mirror, LIMIT, |_| vec![(vr, to)]).await?;
        if mirrored.vrs == 0 {
            let error = "a VR's twin has to be on another VM than the VR itself".into();
            return Err(MigrateError::Vm { vm: name, error });
        }
        Ok(mirrored)
    }

    /// Sends a step to all processes, this one included. The state is locked, so all processes get such steps in the same
    /// order.
    fn tell_all(self: &Arc<Self>, state: &State, step: &Step) {
        let live = state.hosts.iter().filter(|(id, _)| !state.directory.has_died(**id));
        for host in live.map(|(_, host)| host) {
            let _ = host.to.try_send(host.view.translate(ToHost::State { round: 0, step: step.clone() }));
        }
        self.take_step_here(step.clone());
    }

    fn take_step_here(self: &Arc<Self>, step: Step) {
        self.tell_step(self.node.place.host, 0, step);
    }

    /// Enters the twins of VRs, and tells all processes. Must be called while all are frozen.
    pub(super) fn enter_twins(self: &Arc<Self>, state: &mut State, twins: &[(VrId, HostId)]) {
        for (vr, twin) in twins {
            state.mirrors.twins.insert(*vr, Some(*twin));
        }
        let pairs = state.pairs(twins.iter().copied());
        self.tell_all(state, &Step::Mirrored(pairs));
    }

    /// Removes the twin of a VR that has ended.
    pub(super) fn end_twin(self: &Arc<Self>, vr: VrId) {
        let mut state = self.state();
        if state.mirrors.twins.remove(&vr).is_some() {
            let why = state.directory.ends().find(|(ended, _)| *ended == vr).map(|(_, why)| why.clone());
            self.tell_all(&state, &Step::Unmirrored(vr, why));
        }
    }

    /// Makes new twins for mirrored VRs that have moved.
    pub(super) fn have_moved(self: &Arc<Self>, vrs: impl Iterator<Item = VrId>) {
        let bare: Vec<VrId> = {
            let mut state = self.state();
            vrs.filter(|vr| state.mirrors.lose_twin(*vr)).collect()
        };
        bare.into_iter().for_each(|vr| self.mirror_anew(vr));
    }

    /// Looks for another VM for the twin of a VR that has lost it, until it finds one: VMs come and go, and a VR may be
    /// busy for a long time.
    pub(super) fn mirror_anew(self: &Arc<Self>, vr: VrId) {
        let program = Arc::downgrade(self);
        rt::spawn(async move {
            let (mut pause, mut told) = (PAUSE, false);
            // This task alone does not keep the program alive.
            while let Some(this) = program.upgrade() {
                let why = this.find_twin(vr).await;
                let is_over = {
                    let state = this.state();
                    state.ending || !state.mirrors.is_bare(vr)
                };
                if is_over {
                    return;
                }
                if !std::mem::replace(&mut told, true) {
                    let why = why.map_or_else(|| "there is no other VM for it".into(), |why| why.to_string());
                    say!("[river: VR {} has no twin at present: {why}]", vr.short());
                }
                drop(this);
                rt::sleep(pause).await;
                pause = (2 * pause).min(LONGEST_PAUSE);
            }
        });
    }

    /// Mirrors a VR that has no twin on the first VM where that works. If none does, returns the error of the last attempt.
    async fn find_twin(self: &Arc<Self>, vr: VrId) -> Option<MigrateError> {
        let (mut why, targets) = (None, self.state().staying());
        for target in targets {
            // The program may have given it a twin meanwhile.
            if !self.state().mirrors.is_bare(vr) {
                return None;
            }
            let result = match self.host_on(&target).await {
                Ok(to) if self.state().directory.host_of(vr) == Some(to) => continue,
                Ok(to) => {
                    let choose = |state: &State| match state.mirrors.is_bare(vr) {
                        true => vec![(vr, to)],
                        false => Vec::new(),
                    };
                    self.move_all(Purpose::Mirror, Duration::ZERO, choose).await
                }
                Err(error) => Err(error),
            };
            match result {
                Ok(mirrored) if mirrored.vrs == 0 => {}
                Ok(_) | Err(MigrateError::Stopped | MigrateError::Ended(_)) => return None,
                // Every attempt stops all VRs, and a VR may be busy for a long time: give up for now.
                Err(error @ MigrateError::Busy { .. }) => return Some(error),
                Err(error) => {
                    tracing::warn!(%vr, %error, vm = target.info.name, "cannot mirror a VR there");
                    why = Some(error);
                }
            }
        }
        why
    }

    // ---- taking over ----

    /// Begins the takeovers after the death of a process, of which all others have been told; `heirs` says where the twins
    /// of its VRs are. Returns the VRs that have lost their twins.
    pub(super) fn mourn(
        self: &Arc<Self>,
        state: &mut State,
        host: HostId,
        why: &Why,
        heirs: BTreeMap<VrId, HostId>,
    ) -> Vec<VrId> {
        let others: Vec<HostId> = state.mirrors.takeovers.keys().copied().collect();
        for other in others {
            let actions = state.mirrors.takeovers.get_mut(&other).map(|(takeover, _)| takeover.gone(host));
            self.take_over(state, other, actions.unwrap_or_default());
        }
        if !heirs.is_empty() {
            let others: BTreeSet<HostId> = self.processes(state).into_keys().collect();
            let (takeover, actions) = Takeover::begin(heirs, others);
            state.mirrors.takeovers.insert(host, (takeover, why.clone()));
            self.take_over(state, host, actions);
        }
        let State { mirrors, directory, .. } = state;
        mirrors.lose_host(host, |vr| directory.has_ended(vr))
    }

    /// Takes a process's report of what has arrived from a dead one.
    pub(super) fn mourned(self: &Arc<Self>, by: HostId, host: HostId, arrived: Counts) {
        let mut state = self.state();
        let actions =
            state.mirrors.takeovers.get_mut(&host).map(|(takeover, _)| takeover.mourned(by, arrived));
        self.take_over(&mut state, host, actions.unwrap_or_default());
    }

    fn take_over(self: &Arc<Self>, state: &mut State, dead: HostId, actions: Vec<Action>) {
        let why = state.mirrors.takeovers.get(&dead).map_or(Why::Unknown, |(_, why)| why.clone());
        for action in actions {
            match action {
                Action::Mourn(host) => {
                    let vrs = state.mirrors.takeovers.get(&dead).map(|(takeover, _)| takeover.heirs());
                    let step = Step::Mourn(dead, vrs.unwrap_or_default());
                    if host == self.node.place.host {
                        self.take_step_here(step);
                    } else if let Some(host) = state.hosts.get(&host) {
                        let _ = host.to.try_send(ToHost::State { round: 0, step });
                    }
                }
                Action::TakeOver { vr, by, arrived } => {
                    let this = self.clone();
                    rt::spawn(async move {
                        let told = this.told(by, |ticket| ToHost::TakeOver { ticket, vr, arrived });
                        // If that process dies, that is noticed elsewhere.
                        let Some(told) = told else { return };
                        let Ok(lives) = told.recv().await else { return };
                        this.lives(dead, vr, &lives.map_err(|error| error.to_string()));
                    });
                }
                Action::Redirect(vr, by) => {
                    let Some(place) = state.hosts.get(&by).map(|host| host.place) else { continue };
                    if !state.directory.has_ended(vr) {
                        state.directory.enter(vr, by);
                    }
                    state.place_services(vr, place);
                    self.tell_all(state, &Step::Moved(vec![(vr, place)]));
                }
                Action::Lost(vr) => {
                    state.mirrors.twins.remove(&vr);
                    state.directory.end(vr, why.clone());
                    self.tell_all(state, &Step::Unmirrored(vr, Some(why.clone())));
                }
            }
        }
        if state.mirrors.takeovers.get(&dead).is_some_and(|(takeover, _)| takeover.is_over()) {
            state.mirrors.takeovers.remove(&dead);
        }
    }

    /// Handles the outcome of a twin's attempt to take over.
    fn lives(self: &Arc<Self>, dead: HostId, vr: VrId, result: &Result<(), String>) {
        let is_bare = {
            let mut state = self.state();
            let Some((takeover, _)) = state.mirrors.takeovers.get_mut(&dead) else { return };
            let (actions, lives) = match result {
                Ok(()) => (takeover.lives(vr), true),
                Err(error) => {
                    tracing::error!(%vr, error, "a twin cannot take over");
                    (takeover.fails(vr), false)
                }
            };
            // Done before anybody is told where it lives, so as not to drop a twin that it is given then.
            let is_bare = lives && state.mirrors.lose_twin(vr);
            self.take_over(&mut state, dead, actions);
            is_bare
        };
        if is_bare {
            self.mirror_anew(vr);
        }
    }
}

impl State {
    /// The VRs of a process that survive it, and where their twins are.
    pub(super) fn survivors(&self, host: HostId) -> BTreeMap<VrId, HostId> {
        if self.ending {
            return BTreeMap::new();
        }
        let of_it = self.directory.living().filter(|(_, at)| *at == host).map(|(vr, _)| vr);
        let heirs = of_it.filter_map(|vr| Some((vr, self.mirrors.twins.get(&vr).copied().flatten()?)));
        heirs.filter(|(_, heir)| *heir != host && !self.directory.has_died(*heir)).collect()
    }

    /// The places of mirrored VRs and of their twins.
    pub(super) fn pairs(&self, twins: impl Iterator<Item = (VrId, HostId)>) -> Vec<(VrId, Pair)> {
        let place = |host: HostId| self.hosts.get(&host).map(|host| host.place);
        let pair = |(vr, twin): (VrId, HostId)| {
            Some((vr, Pair { main: place(self.directory.host_of(vr)?)?, twin: place(twin)? }))
        };
        twins.filter_map(pair).collect()
    }

    /// All such pairs, for a new process.
    pub(super) fn all_pairs(&self) -> Vec<(VrId, Pair)> {
        let twins = self.mirrors.twins.iter().filter_map(|(vr, twin)| Some((*vr, (*twin)?)));
        self.pairs(twins.filter(|(vr, _)| !self.directory.has_ended(*vr)))
    }

    /// Updates the place of a VR that is registered as a service.
    pub(super) fn place_services(&mut self, vr: VrId, place: Place) {
        for service in self.services.values_mut().filter(|service| service.vr == vr) {
            service.place = Some(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_ended_with_its_process_is_to_have_no_twin_any_more() {
        let (vrs, hosts) =
            ([VrId::fresh(), VrId::fresh(), VrId::fresh()], [HostId::fresh(), HostId::fresh()]);
        let [ended, lives, has_twin] = vrs;
        let mut mirrors = Mirrors::default();
        mirrors.twins.extend([(ended, Some(hosts[0])), (lives, Some(hosts[0])), (has_twin, Some(hosts[1]))]);
        assert_eq!(
            BTreeSet::from_iter(mirrors.lose_host(hosts[0], |_| false)),
            BTreeSet::from([ended, lives])
        );
        assert!(mirrors.is_bare(ended) && mirrors.is_bare(lives) && !mirrors.is_bare(has_twin));
        // The first VR has ended with its process; the end of the last one is yet to be reported to its twin.
        assert!(mirrors.lose_host(HostId::fresh(), |vr| vr != lives).is_empty());
        assert!(!mirrors.is_bare(ended) && mirrors.is_bare(lives));
        assert_eq!(mirrors.twins.get(&has_twin), Some(&Some(hosts[1])));
    }
}
