//! Migrations over real connections.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::checkpoint::Heard;
use super::request::own_image;
use super::vm_link::Leased;
use super::{Program, State};
use crate::discovery::VmInfo;
use crate::down::Down;
use crate::error::{DeployError, MigrateError};
use crate::id::{HostId, VrId};
use crate::protocol::{Count, Migrated, Place, Step, ToHost};
use crate::rt;
use crate::state::migration::{Action, Purpose};
use crate::state::{Migration, Move};

/// The longest that VRs are stopped, and the longest that a migration waits for a busy VR.
pub(super) const LIMIT: Duration = Duration::from_secs(10);
/// The first pause before a busy VR is tried again.
pub(super) const AGAIN: Duration = Duration::from_millis(1);
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
}
