//! Checkpoints: their coordination over real connections, and the file.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::memory::Memory;
use super::request::own_image;
use super::{Program, State};
use crate::cut;
use crate::down::Why;
use crate::error::StateError;
use crate::id::{HostId, VmId, VrId};
use crate::image::Image;
use crate::protocol::{Checkpoint, KeepIn, Report, Step, ToHost};
use crate::rt;
use crate::state::{Action, Coordination, Directory, Draft, Header, Saved, SavedVm, StoreTarget, Target};

/// The longest that VRs are stopped: a step that is not done by then will not be.
const LIMIT: Duration = Duration::from_secs(10);

/// The checkpoint that is being taken.
#[derive(Default)]
pub(super) struct Cut {
    /// Counts checkpoints and migrations, so that late answers are recognized.
    round: u64,
    /// Receives reports; `None` if no checkpoint or migration is under way.
    pub(super) heard: Option<rt::Sender<(HostId, Heard)>>,
    /// While the cut is being made: nothing new may begin.
    pub(super) frozen: bool,
    /// The number of the last checkpoint in memory.
    pub(super) kept: u64,
}

/// What a process reports during a checkpoint or a migration.
pub(super) enum Heard {
    Report(Report),
    Copy {
        vr: VrId,
        last: bool,
        piece: Vec<u8>,
    },
    CopiesEnd(Result<(), StateError>),
    /// A VR that moves was taken up, or could not be.
    Taken {
        vr: VrId,
        result: Result<(), String>,
    },
    Gone(String),
}

/// What the writer thread is given.
enum Item {
    Vr(HostId, Vec<u8>),
    /// Comes last.
    Header(Box<Header>),
}

/// What the cut holds besides the VRs.
pub(super) struct Around {
    header: Header,
    /// The VM that each process runs on; the initiator's runs on none.
    homes: HashMap<HostId, VmId>,
    /// Copies that came before all processes had made theirs.
    early: Vec<(HostId, Heard)>,
    /// VRs to which no receive has reported yet that another VR is gone with its host, each with that VR; see
    /// [`Report::Copied`](crate::protocol::Report::Copied).
    pub(super) unheard: Vec<(VrId, VrId)>,
}

impl Program {
    /// Takes a checkpoint that was asked for. Only one is taken at a time; others wait.
    pub(super) async fn checkpoint(
        self: &Arc<Self>,
        to: KeepIn,
        keep: usize,
    ) -> Result<Checkpoint, StateError> {
        self.checkpoint_if(to, keep, |_| Ok(())).await
    }

    /// Takes one if what it holds is `good`.
    pub(super) async fn checkpoint_if(
        self: &Arc<Self>,
        to: KeepIn,
        keep: usize,
        good: impl Fn(&Around) -> Result<(), StateError>,
    ) -> Result<Checkpoint, StateError> {
        let target: Box<dyn Target> = match to {
            KeepIn::Directory(directory) => Box::new(Directory::new(directory)),
            KeepIn::Memory => Box::new(Memory::new(self.clone())),
            KeepIn::Store => Box::new(self.store.clone().ok_or_else(StoreTarget::none)?),
        };
        let image = own_image().await.map_err(|error| StateError::GivenUp(error.to_string()))?;
        let (heard, reports) = rt::unbounded();
        let round = loop {
            match self.begin_cut(&heard) {
                Some(begun) => break begun?,
                None => rt::sleep(Duration::from_millis(1)).await,
            }
        };
        let result = self.take_checkpoint(round, target, (keep, good), image, &reports).await;
        let mut state = self.state();
        state.cut.heard = None;
        state.cut.frozen = false;
        result
    }

    /// Begins a new checkpoint and returns its round. Returns `None` if another one is being taken, or if the program has
    /// not begun.
    pub(super) fn begin_cut(&self, heard: &rt::Sender<(HostId, Heard)>) -> Option<Result<u64, StateError>> {
        let mut state = self.state();
        if state.ending {
            return Some(Err(StateError::Stopped));
        }
        // While a program is being restored, only the restore may freeze and thaw its VRs. Nor may VRs be frozen between
        // two lives, while their twins take over.
        if state.cut.heard.is_some() || state.initiator.is_none() || state.mirrors.is_being_taken_over(None) {
            return None;
        }
        state.cut.heard = Some(heard.clone());
        state.cut.round += 1;
        Some(Ok(state.cut.round))
    }

    async fn take_checkpoint(
        self: &Arc<Self>,
        round: u64,
        target: Box<dyn Target>,
        (keep, good): (usize, impl Fn(&Around) -> Result<(), StateError>),
        image: &Image,
        reports: &rt::Receiver<(HostId, Heard)>,
    ) -> Result<Checkpoint, StateError> {
        // Whatever can fail without stopping the VRs is done before they are stopped.
        let program = image.clone();
        let draft = rt::blocking(move || target.begin(&program)).await?;
        let number = draft.number();
        let (around, pause) = self.make_cut(round, image, reports).await?;
        if around.header.ended.iter().any(|(vr, _)| *vr == around.header.initiator) {
            return Err(StateError::Stopped);
        }
        good(&around)?;
        let Around { mut header, homes, early, .. } = around;
        let (items, writing) = crossbeam_channel::unbounded();
        let writer = rt::spawn(rt::blocking(move || write(draft, &writing, keep)));
        let mut waiting = homes.len() + 1;
        let mut parts: HashMap<VrId, Vec<u8>> = HashMap::new();
        let mut early = early.into_iter();
        while waiting > 0 {
            let next = match early.next() {
                Some(heard) => Ok(heard),
                None => reports.recv().await,
            };
            match next {
                Ok((host, Heard::Copy { vr, last, piece })) => {
                    let mut whole = parts.remove(&vr).unwrap_or_default();
                    if whole.is_empty() {
                        whole = piece;
                    } else {
                        whole.extend_from_slice(&piece);
                    }
                    if !last {
                        parts.insert(vr, whole);
                        continue;
                    }
                    if let Some(vm) = homes.get(&host) {
                        header.places.push((vr, *vm));
                    }
                    let _ = items.send(Item::Vr(host, whole));
                }
                Ok((_, Heard::CopiesEnd(result))) => {
                    result?;
                    waiting -= 1;
                }
                Ok((host, Heard::Gone(why))) if homes.contains_key(&host) => {
                    return Err(StateError::GivenUp(format!("a host {why} before it had sent its copies")));
                }
                Ok(_) => {}
                Err(_) => return Err(StateError::Stopped),
            }
        }
        let _ = items.send(Item::Header(Box::new(header)));
        let bytes = writer.await?;
        Ok(Checkpoint { number, resumed: false, bytes, pause })
    }

    /// Freezes, settles, copies and thaws all processes. Also returns how long they were frozen.
    async fn make_cut(
        self: &Arc<Self>,
        round: u64,
        image: &Image,
        reports: &rt::Receiver<(HostId, Heard)>,
    ) -> Result<(Around, Duration), StateError> {
        let hosts = {
            let mut state = self.state();
            state.cut.frozen = true;
            self.processes(&state)
        };
        let members: Vec<HostId> = hosts.keys().copied().collect();
        let start = Instant::now();
        let (mut coordination, mut actions) = Coordination::begin(hosts);
        let (mut around, mut early, mut unheard) = (None, Vec::new(), Vec::new());
        loop {
            let mut ended = None;
            for action in actions {
                match action {
                    Action::Tell(host, step) => self.tell_step(host, round, step),
                    Action::Made => {
                        around = Some(self.around(image, &members));
                        ended = Some(Ok(()));
                    }
                    Action::Failed(error) => ended = Some(Err(error)),
                }
            }
            if let Some(ended) = ended {
                let pause = start.elapsed();
                self.state().cut.frozen = false;
                ended?;
                let around: Option<Around> = around;
                let whole = |around| Around { early, unheard, ..around };
                return around.map(|around| (whole(around), pause)).ok_or(StateError::Stopped);
            }
            let left = LIMIT.saturating_sub(start.elapsed());
            actions = match rt::timeout(left, reports.recv()).await {
                Err(_) => coordination.timed_out(),
                Ok(Err(_)) => return Err(StateError::Stopped),
                Ok(Ok((host, Heard::Gone(why)))) => coordination.gone(host, &why),
                Ok(Ok((host, Heard::Report(report)))) => {
                    if let Report::Copied { ended, unheard: more } = &report {
                        unheard.extend(more);
                        let mut state = self.state();
                        ended.iter().for_each(|(vr, why)| state.directory.end(*vr, why.clone()));
                    }
                    let homes: HashMap<VrId, HostId> = self.state().directory.living().collect();
                    coordination.report(host, report, |vr| homes.get(&vr).copied())
                }
                Ok(Ok(copy)) => {
                    early.push(copy);
                    Vec::new()
                }
            };
        }
    }

    /// All processes of the program, with human-readable names.
    pub(super) fn processes(&self, state: &State) -> BTreeMap<HostId, String> {
        let name =
            |vm: &VmId| state.vms.get(vm).map_or_else(|| "a VM".into(), |vm| format!("VM {}", vm.info.name));
        let hosts = state.hosts.iter().filter(|(id, _)| !state.directory.has_died(**id));
        let mut processes: BTreeMap<HostId, String> =
            hosts.map(|(id, host)| (*id, format!("on {}", name(&host.vm)))).collect();
        processes.insert(self.node.place.host, "in the initiator's process".into());
        processes
    }

    /// Gathers what the cut holds besides the VRs. Must be called while all processes are frozen. A process that has joined
    /// the program since the cut was begun is not a member of it, runs nothing yet, and sends no copies.
    fn around(&self, image: &Image, members: &[HostId]) -> Around {
        let state = self.state();
        let local: Vec<VmId> = state.local_vms.iter().map(|vm| vm.info().id).collect();
        let vms = state
            .vms
            .values()
            .map(|vm| SavedVm { info: vm.info.clone(), local: local.contains(&vm.info.id) });
        // A service that is being made is requested again by the VR that requested it.
        let made = state.services.iter().filter(|(_, service)| service.place.is_some());
        let services = made.map(|(key, service)| (key.clone(), service.vr));
        let header = Header {
            program: self.node.program,
            name: self.tenant.name.clone(),
            image: image.hash,
            triple: image.triple.clone(),
            taken: SystemTime::now(),
            arguments: super::local::arguments(),
            environment: super::local::environment(),
            directory: super::local::directory(),
            initiator: state.initiator.unwrap_or_else(VrId::fresh),
            vms: vms.collect(),
            aliases: state.aliases.iter().map(|(old, new)| (*old, *new)).collect(),
            places: Vec::new(),
            ended: state.directory.ends().map(|(vr, why)| (vr, why.clone())).collect(),
            services: services.collect(),
        };
        let hosts = state.hosts.iter().filter(|(id, _)| members.contains(id));
        let homes = hosts.map(|(id, host)| (*id, host.vm)).collect();
        Around { header, homes, early: Vec::new(), unheard: Vec::new() }
    }

    /// Has a process take a step of a checkpoint or a migration. The initiator's process takes it directly.
    pub(super) fn tell_step(self: &Arc<Self>, host: HostId, round: u64, step: Step) {
        if host != self.node.place.host {
            self.tell_host(host, ToHost::State { round, step });
            return;
        }
        let this = self.clone();
        match step {
            Step::Freeze => {
                self.node.freeze();
                rt::spawn(async move {
                    if let Some(frozen) = cut::frozen(&this.node).await {
                        this.hear(host, round, Heard::Report(frozen));
                    }
                });
            }
            Step::Settle(expected) => drop(rt::spawn(async move {
                if cut::settled(&this.node, &expected).await {
                    this.hear(host, round, Heard::Report(Report::Settled));
                }
            })),
            Step::Copy => {
                let (vrs, copied) = cut::copy(&self.node);
                self.hear(host, round, Heard::Report(copied));
                rt::spawn(rt::blocking(move || {
                    let result = vrs.iter().try_for_each(|saved| this.hear_copy(host, round, saved));
                    this.hear(host, round, Heard::CopiesEnd(result));
                }));
            }
            Step::Moved(moves) => self.node.moved(&moves),
            Step::Mirrored(pairs) => self.node.mirrored(&pairs),
            Step::Unmirrored(vr, ended) => self.node.unmirror(vr, ended.as_ref()),
            Step::Mourn(dead, vrs) => drop(rt::spawn(async move {
                if let Report::Mourned(dead, arrived) = cut::mourned(&this.node, dead, &vrs).await {
                    this.mourned(host, dead, arrived);
                }
            })),
            Step::Thaw { settled } => self.node.thaw(settled),
            // The initiator never moves, and nothing moves to its process.
            Step::Give(_) | Step::Abandon(_) => {}
        }
    }

    fn hear_copy(&self, host: HostId, round: u64, saved: &Saved) -> Result<(), StateError> {
        let piece = saved.encode()?;
        self.hear(host, round, Heard::Copy { vr: saved.origin.id, last: true, piece });
        Ok(())
    }

    /// Passes on what a process reports for the checkpoint or migration of that round.
    pub(super) fn hear(&self, host: HostId, round: u64, heard: Heard) {
        let state = self.state();
        if state.cut.round == round
            && let Some(to) = &state.cut.heard
        {
            let _ = to.try_send((host, heard));
        }
    }

    /// Waits while a cut is being made: nothing new may be created then.
    pub(super) async fn unless_frozen(&self) {
        while self.state().cut.frozen {
            rt::sleep(Duration::from_micros(200)).await;
        }
    }
}

impl State {
    /// Tells the checkpoint or migration under way that a process is gone.
    pub(super) fn cut_lost(&self, host: HostId, why: &Why) {
        if let Some(to) = &self.cut.heard {
            let _ = to.try_send((host, Heard::Gone(why.to_string())));
        }
    }
}

/// Writes what it receives up to the header, which comes last, and publishes it. Returns the length.
fn write(
    mut draft: Box<dyn Draft>,
    items: &crossbeam_channel::Receiver<Item>,
    keep: usize,
) -> Result<u64, StateError> {
    loop {
        match items.recv() {
            Ok(Item::Vr(host, saved)) => draft.vr(host, &saved)?,
            Ok(Item::Header(header)) => return draft.publish(&header, keep),
            // The checkpoint was given up; the draft is removed.
            Err(_) => return Ok(0),
        }
    }
}
