//! Migrations over real connections, and the draining of VMs.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::checkpoint::Heard;
use super::request::own_image;
use super::vm_link::Leased;
use super::{FAREWELL, Program, State};
use crate::discovery::{Query, VmInfo};
use crate::down::Down;
use crate::error::{DeployError, MigrateError};
use crate::id::{HostId, VmId, VrId};
use crate::protocol::{Count, Migrated, Place, Step, ToHost, ToVm};
use crate::rt;
use crate::state::migration::{Action, Purpose};
use crate::state::{Migration, Move};

/// The longest that VRs are stopped, and the longest that a migration waits for a busy VR.
pub(super) const LIMIT: Duration = Duration::from_secs(10);
/// The first pause before a busy VR is tried again.
const AGAIN: Duration = Duration::from_millis(1);
/// How many VRs are listed in the error for an unknown VR.
const LISTED: usize = 20;

impl Program {
    /// Moves the VR whose id has this prefix.
    pub(super) async fn migrate_named(
        self: &Arc<Self>,
        name: &str,
        vm: VmInfo,
    ) -> Result<Migrated, MigrateError> {
        let vr = self.state().vr_named(name)?;
        self.migrate(vr, vm).await
    }

    /// Moves a VR to a VM, which is leased first if necessary.
    pub(super) async fn migrate(self: &Arc<Self>, vr: VrId, vm: VmInfo) -> Result<Migrated, MigrateError> {
        self.state().movable(vr)?;
        self.unless_recorded()?;
        let to = self.host_of_vm(vm).await?;
        if self.state().movable(vr)? == to {
            return Ok(Migrated { vrs: 0, bytes: 0, pause: Duration::ZERO });
        }
        self.move_all(Purpose::Move, LIMIT, |_| vec![(vr, to)]).await
    }

    /// The program's process on a VM, which is leased first if necessary.
    pub(super) async fn host_of_vm(self: &Arc<Self>, vm: VmInfo) -> Result<HostId, MigrateError> {
        let (name, id) = (vm.name.clone(), vm.id);
        let failed = |error: String| MigrateError::Vm { vm: name.clone(), error };
        // Another request may lease it first; that is fine too.
        if !self.state().is_leased(id)
            && let Err(error) = self.try_allocate(vec![vm], Count::Exactly(1)).await
            && !self.state().is_leased(id)
        {
            return Err(match error {
                DeployError::Stopped => MigrateError::Stopped,
                DeployError::TooFew { busy, .. } => failed(match busy.first() {
                    Some((_, program)) => format!("it is in use by {program}"),
                    None => "it cannot be leased".into(),
                }),
                DeployError::Vm { error, .. } => failed(error),
                other => failed(other.to_string()),
            });
        }
        let leased = {
            let state = self.state();
            state.vms.get(&state.alias(id)).cloned()
        };
        let leased = leased.ok_or_else(|| failed("it is gone".into()))?;
        self.host_on(&leased).await
    }

    /// Fails if the program is being recorded: the process in which a VR begins writes all of its recording.
    pub(super) fn unless_recorded(&self) -> Result<(), MigrateError> {
        if self.is_recorded() {
            return Err(MigrateError::GivenUp("the program is being recorded by `river record`".into()));
        }
        Ok(())
    }

    pub(super) async fn host_on(self: &Arc<Self>, vm: &Leased) -> Result<HostId, MigrateError> {
        let failed = |error: String| MigrateError::Vm { vm: vm.info.name.clone(), error };
        let image = own_image().await.map_err(|error| failed(error.to_string()))?;
        vm.ensure_host(self, image).await.map_err(failed)
    }

    /// Moves VRs, or gives them twins: those that `choose` names once no other checkpoint or migration is under way. If a
    /// VR is busy, tries again for `patience`; every attempt stops all VRs.
    pub(super) async fn move_all(
        self: &Arc<Self>,
        purpose: Purpose,
        patience: Duration,
        choose: impl Fn(&State) -> Vec<(VrId, HostId)>,
    ) -> Result<Migrated, MigrateError> {
        let start = Instant::now();
        let mut pause = AGAIN;
        loop {
            let (heard, reports) = rt::unbounded();
            let round = loop {
                match self.begin_cut(&heard) {
                    Some(round) => break round.map_err(|_| MigrateError::Stopped)?,
                    None => rt::sleep(Duration::from_millis(1)).await,
                }
            };
            let result = self.move_once((round, purpose), &choose, &heard, &reports).await;
            {
                let mut state = self.state();
                state.cut.heard = None;
                state.cut.frozen = false;
            }
            match result {
                Err(MigrateError::Busy { .. }) if start.elapsed() < patience => rt::sleep(pause).await,
                result => return result,
            }
            pause = (2 * pause).min(LIMIT / 100);
        }
    }

    async fn move_once(
        self: &Arc<Self>,
        (round, purpose): (u64, Purpose),
        choose: &impl Fn(&State) -> Vec<(VrId, HostId)>,
        heard: &rt::Sender<(HostId, Heard)>,
        reports: &rt::Receiver<(HostId, Heard)>,
    ) -> Result<Migrated, MigrateError> {
        let (moves, hosts) = {
            let mut state = self.state();
            let mut moves = Vec::new();
            for (vr, to) in choose(&state) {
                let from = state.movable(vr)?;
                if from != to {
                    moves.push(Move { vr, from, to });
                }
            }
            state.cut.frozen = true;
            (moves, self.processes(&state))
        };
        let start = Instant::now();
        let (mut migration, actions) = Migration::begin(moves.clone(), hosts);
        let mut given: HashMap<VrId, Vec<u8>> = HashMap::new();
        let mut bytes = 0;
        let mut actions = VecDeque::from(actions);
        loop {
            while let Some(action) = actions.pop_front() {
                match action {
                    Action::Tell(host, step) => self.tell_step(host, round, step),
                    Action::Take(host, vr) => {
                        let saved = given.remove(&vr).unwrap_or_default();
                        bytes += saved.len() as u64;
                        self.take((host, vr), purpose, saved, heard);
                    }
                    // Nothing can be declared dead in between, as that takes this lock.
                    Action::Commit => {
                        let mut state = self.state();
                        let committed = state.commit(&moves, purpose);
                        if committed && purpose == Purpose::Mirror {
                            let twins: Vec<(VrId, HostId)> = moves.iter().map(|m| (m.vr, m.to)).collect();
                            self.enter_twins(&mut state, &twins);
                        }
                        actions.extend(migration.decided(committed));
                    }
                    Action::Redirect(_) if purpose == Purpose::Mirror => {}
                    Action::Redirect(host) => {
                        let moves = self.state().places(&moves);
                        self.tell_step(host, round, Step::Moved(moves));
                    }
                    Action::Done => {
                        let pause = start.elapsed();
                        if purpose == Purpose::Move {
                            self.have_moved(moves.iter().map(|m| m.vr));
                        }
                        return Ok(Migrated { vrs: moves.len(), bytes, pause });
                    }
                    Action::Failed(error) => return Err(error),
                }
            }
            let left = LIMIT.saturating_sub(start.elapsed());
            let next = match rt::timeout(left, reports.recv()).await {
                Err(_) => migration.timed_out(),
                Ok(Err(_)) => return Err(MigrateError::Stopped),
                Ok(Ok((host, heard))) => match heard {
                    Heard::Gone(why) => migration.gone(host, &why),
                    Heard::Copy { vr, piece, .. } => {
                        given.entry(vr).or_default().extend_from_slice(&piece);
                        Vec::new()
                    }
                    Heard::Taken { vr, result } => migration.taken(vr, result),
                    Heard::Report(report) => {
                        let homes: HashMap<VrId, HostId> = self.state().directory.living().collect();
                        migration.report(host, report, |vr| homes.get(&vr).copied())
                    }
                    Heard::CopiesEnd(_) => Vec::new(),
                },
            };
            actions.extend(next);
        }
    }

    /// Has a host take up a VR. The outcome is reported as [`Heard::Taken`].
    fn take(
        self: &Arc<Self>,
        (host, vr): (HostId, VrId),
        purpose: Purpose,
        saved: Vec<u8>,
        heard: &rt::Sender<(HostId, Heard)>,
    ) {
        let told = self.told(host, |ticket| match purpose {
            Purpose::Move => ToHost::Restore { ticket, vr: saved },
            Purpose::Mirror => ToHost::KeepTwin { ticket, vr: saved },
        });
        let heard = heard.clone();
        rt::spawn(async move {
            let result = match &told {
                Some(told) => told.recv().await.ok(),
                None => None,
            };
            let result = result.unwrap_or_else(|| {
                Err(DeployError::Vm { vm: "of the migration".into(), error: "its host is gone".into() })
            });
            let result = result.map_err(|error| error.to_string());
            let _ = heard.try_send((host, Heard::Taken { vr, result }));
        });
    }

    // ---- drained VMs ----

    /// Handles a VM that wants to leave. What a recoverable program has there moves to its other VMs, or to one that is
    /// leased for that, and the VM is given back. If that fails, or if the program is not recoverable, the program is told
    /// and decides.
    pub(super) fn vm_leaves(self: &Arc<Self>, vm: &Arc<Leased>) {
        if !self.node.recoverable {
            self.node.note_leaving(vm.info.id);
            return;
        }
        let (this, vm) = (self.clone(), vm.clone());
        rt::spawn(async move {
            let name = &vm.info.name;
            match this.drain(&vm).await {
                Ok(moved) => {
                    tracing::info!(vm = name, moved.vrs, pause = ?moved.pause, "moved away from a VM that ends");
                }
                Err(error) => {
                    tracing::warn!(vm = name, %error, "cannot move away from a VM that wants to end");
                    this.state().leaving.remove(&vm.info.id);
                    this.node.note_leaving(vm.info.id);
                }
            }
        });
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
        let (mut hosts, mut instead) = (Vec::new(), None);
        for target in &targets {
            match self.host_on(target).await {
                Ok(host) => {
                    hosts.push(host);
                    instead = instead.or(Some(target.info.id));
                }
                Err(error) => tracing::warn!(vm = target.info.name, %error, "cannot move anything to a VM"),
            }
        }
        let Some(instead) = instead else {
            return Err(MigrateError::Vm { vm: vm.info.name.clone(), error: "there is no other VM".into() });
        };
        let mut total = Migrated { vrs: 0, bytes: 0, pause: Duration::ZERO };
        // From now on, deployments go elsewhere; a VR that is just being deployed moves in the next round.
        let replaced = self.state().replace(id, instead, is_own);
        loop {
            let host = vm.host();
            let is_being_made = {
                let state = self.state();
                state.spread(host, &hosts).is_empty() && !state.is_empty(host)
            };
            if is_being_made {
                // Nothing can move yet, so there is no need to stop anything.
                rt::sleep(AGAIN).await;
                continue;
            }
            let moved = match self.move_all(Purpose::Move, LIMIT, |state| state.spread(host, &hosts)).await {
                Ok(moved) => moved,
                Err(error) => {
                    self.state().put_back(id, replaced);
                    return Err(error);
                }
            };
            total.vrs += moved.vrs;
            total.bytes += moved.bytes;
            total.pause += moved.pause;
            // The last round finds nothing left there, and everything sent from there has arrived.
            if moved.vrs == 0 && self.state().is_empty(host) {
                break;
            }
            rt::sleep(AGAIN).await;
        }
        if let Some(host) = vm.host() {
            self.state().directory.dismiss(host);
            self.tell_host(host, ToHost::Stop);
            let _ = rt::timeout(FAREWELL, vm.wait_for_end()).await;
        }
        {
            let mut state = self.state();
            state.vms.remove(&id);
            state.leaving.remove(&id);
        }
        vm.send(ToVm::Release);
        vm.wait_for_close().await;
        Ok(total)
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

impl State {
    /// The VR whose id has this prefix.
    fn vr_named(&self, name: &str) -> Result<VrId, MigrateError> {
        let wanted = name.to_ascii_lowercase();
        let begins = |vr: &VrId| vr.to_string().starts_with(&wanted);
        let living: Vec<VrId> = self.directory.living().map(|(vr, _)| vr).filter(begins).collect();
        match living[..] {
            [vr] => Ok(vr),
            [] => {
                let ended = self.directory.ends().find(|(vr, _)| begins(vr));
                Err(match ended {
                    Some((who, why)) => MigrateError::Ended(Down { who, why: why.clone() }),
                    None => MigrateError::Unknown { vr: name.into(), known: self.known_vrs() },
                })
            }
            _ => Err(MigrateError::Ambiguous { vr: name.into(), count: living.len() }),
        }
    }

    /// The living VRs and their VMs, for an error message.
    fn known_vrs(&self) -> String {
        let on = |host: HostId| {
            let vm = self.hosts.get(&host).and_then(|host| self.vms.get(&host.vm));
            vm.map(|vm| vm.info.name.clone())
        };
        let known = self.directory.living().filter_map(|(vr, host)| Some((on(host)?, vr)));
        let mut known: Vec<String> = known.map(|(vm, vr)| format!("{} on {vm}", vr.short())).collect();
        known.sort_unstable();
        let more = known.len().saturating_sub(LISTED);
        known.truncate(LISTED);
        if more > 0 {
            known.push(format!("and {more} more"));
        }
        if known.is_empty() { "nothing that can be moved".into() } else { known.join(", ") }
    }

    /// Where a VR is, if it may be moved.
    pub(super) fn movable(&self, vr: VrId) -> Result<HostId, MigrateError> {
        if self.initiator == Some(vr) {
            return Err(MigrateError::Initiator(vr));
        }
        let ended = self.directory.ends().find(|(who, _)| *who == vr);
        if let Some((who, why)) = ended {
            return Err(MigrateError::Ended(Down { who, why: why.clone() }));
        }
        let unknown = || MigrateError::Unknown { vr: vr.short(), known: self.known_vrs() };
        self.directory.host_of(vr).ok_or_else(unknown)
    }

    /// Commits the moves if everything that takes part is still alive. Returns `false` if nothing has changed.
    fn commit(&mut self, moves: &[Move], purpose: Purpose) -> bool {
        // The end of a mirrored VR's process does not end the VR: its twin takes over.
        let has_died = |host| self.directory.has_died(host);
        let alive = |m: &Move| !self.directory.has_ended(m.vr) && !has_died(m.from) && !has_died(m.to);
        if !moves.iter().all(alive) || self.ending {
            return false;
        }
        if purpose == Purpose::Move {
            for (vr, place) in self.places(moves) {
                self.directory.enter(vr, place.host);
                self.place_services(vr, place);
            }
        }
        true
    }

    fn places(&self, moves: &[Move]) -> Vec<(VrId, Place)> {
        moves.iter().filter_map(|m| Some((m.vr, self.hosts.get(&m.to)?.place))).collect()
    }

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

    /// Lets `new` stand for `old`, and for everything that `old` stands for. If `new` is one of the program's own VMs and
    /// was not leased to stand for others, the program keeps it when `old` is given back. Returns the aliases that have
    /// changed, and whether each is new.
    fn replace(&mut self, old: VmId, new: VmId, is_own: bool) -> Vec<(VmId, bool)> {
        if is_own && !self.aliases.values().any(|vm| *vm == new) {
            self.aliases.insert(new, new);
        }
        let stood_for = self.aliases.iter().filter(|(_, vm)| **vm == old);
        let mut replaced: Vec<(VmId, bool)> = stood_for.map(|(known, _)| (*known, false)).collect();
        if !self.aliases.contains_key(&old) {
            replaced.push((old, true));
        }
        self.aliases.extend(replaced.iter().map(|(known, _)| (*known, new)));
        replaced
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
