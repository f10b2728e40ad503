//! The leases of a program: how it gets them, and gives them back.
//!
//! A VM grants a further lease to the program that already holds it, and ends everything that runs there when the program
//! releases it, whichever of its requests does so. So no two requests may concern the same VM at the same time: a request
//! for a VM that another request is leasing or releasing waits for the outcome. A request takes its turn for all of its VMs
//! at once, so requests cannot deadlock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::request::own_image;
use super::vm_link::{Leased, Refusal};
use super::{Program, State};
use crate::discovery::VmInfo;
use crate::down::Why;
use crate::error::DeployError;
use crate::id::{VmId, VrId};
use crate::image::ImageCache;
use crate::protocol::{Count, Reply, ToHost, ToVm};
use crate::rt;
use crate::vm::{Vm, VmConfig};

/// The requests that are being served.
#[derive(Default)]
pub(super) struct Turns {
    next: u64,
    by_number: HashMap<u64, Entry>,
}

struct Entry {
    vms: Vec<VmId>,
    /// The VMs that it has leased so far and has not handed over yet.
    got: Vec<Arc<Leased>>,
    /// Closed when it is over.
    over: rt::Receiver<()>,
}

impl Turns {
    fn enter(&mut self, vms: Vec<VmId>) -> (u64, rt::Sender<()>) {
        let (ends, over) = rt::unbounded();
        self.next += 1;
        self.by_number.insert(self.next, Entry { vms, got: Vec::new(), over });
        (self.next, ends)
    }

    /// The end of a request that concerns one of these VMs, if there is such a request.
    fn about(&self, vms: &[VmId]) -> Option<rt::Receiver<()>> {
        let entry = self.by_number.values().find(|entry| entry.vms.iter().any(|vm| vms.contains(vm)));
        entry.map(|entry| entry.over.clone())
    }

    /// The VMs that all requests have leased so far, which must be renewed.
    pub(super) fn leased(&self) -> impl Iterator<Item = &Arc<Leased>> {
        self.by_number.values().flat_map(|entry| &entry.got)
    }
}

/// The turn of a request, until it is dropped.
struct Turn {
    program: Arc<Program>,
    number: u64,
    ends: rt::Sender<()>,
}

impl Turn {
    /// Begins a turn, even if others concern the same VMs.
    fn begin(program: &Arc<Program>, state: &mut State, vms: Vec<VmId>) -> Self {
        let (number, ends) = state.turns.enter(vms);
        Self { program: program.clone(), number, ends }
    }

    /// Begins a turn as soon as no other one concerns any of these VMs.
    async fn wait(program: &Arc<Program>, vms: Vec<VmId>) -> Self {
        loop {
            let other = {
                let mut state = program.state();
                match state.turns.about(&vms) {
                    None => return Self::begin(program, &mut state, vms),
                    Some(other) => other,
                }
            };
            let _ = other.recv().await;
        }
    }

    /// Notes that a VM has been leased; its lease is renewed from now on.
    fn leased(&self, vm: &Arc<Leased>) {
        if let Some(entry) = self.program.state().turns.by_number.get_mut(&self.number) {
            entry.got.push(vm.clone());
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.program.state().turns.by_number.remove(&self.number);
        self.ends.close();
    }
}

impl Program {
    /// Leases VMs, retrying for a while if other programs hold too many of them.
    ///
    /// Two programs that want most of the same VMs at the same time might each get some and be stuck. So a program that
    /// gets too few gives all of them back, and retries after a random pause.
    pub(super) async fn allocate(
        self: &Arc<Self>,
        vms: Vec<VmInfo>,
        count: Count,
        patience: Duration,
    ) -> Result<Vec<VmInfo>, DeployError> {
        let deadline = Instant::now().checked_add(patience);
        let time_left = || deadline.map_or(patience, |at| at.saturating_duration_since(Instant::now()));
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.try_allocate(vms.clone(), count).await {
                Err(DeployError::TooFew { busy, .. })
                    if vms.len() >= count.minimum() && !busy.is_empty() && !time_left().is_zero() =>
                {
                    let random = VrId::fresh().as_uuid().as_u128() % 64;
                    let pause = Duration::from_millis(5 * attempt.min(40) + random as u64);
                    rt::sleep(pause.min(time_left())).await;
                }
                result => return result,
            }
        }
    }

    pub(super) async fn try_allocate(
        self: &Arc<Self>,
        vms: Vec<VmInfo>,
        count: Count,
    ) -> Result<Vec<VmInfo>, DeployError> {
        let wanted = count.minimum();
        let turn = Turn::wait(self, vms.iter().map(|vm| vm.id).collect()).await;
        let mut got: Vec<Arc<Leased>> = Vec::new();
        let (mut busy, mut errors) = (Vec::new(), Vec::new());
        for vm in vms {
            if count.maximum().is_some_and(|most| got.len() >= most) {
                break;
            }
            if self.state().is_leased(vm.id) || got.iter().any(|leased| leased.info.id == vm.id) {
                continue;
            }
            let name = vm.name.clone();
            match Leased::acquire(self, vm).await {
                Ok(leased) => {
                    turn.leased(&leased);
                    got.push(leased);
                }
                Err(Refusal::Busy(holder)) => busy.push((name, holder)),
                Err(Refusal::Error(error)) => {
                    tracing::warn!(vm = name, error, "cannot lease");
                    errors.push(DeployError::Vm { vm: name, error });
                }
            }
        }
        {
            let mut state = self.state();
            // A VM may have been lost while others were being leased.
            got.retain(|leased| {
                let why = leased.why_gone();
                let lost = |why: &Why| DeployError::Vm { vm: leased.info.name.clone(), error: why.cause() };
                errors.extend(why.as_ref().map(lost));
                why.is_none()
            });
            if got.len() >= wanted {
                if state.ending {
                    got.iter().for_each(|leased| leased.release());
                    return Err(DeployError::Stopped);
                }
                state.vms.extend(got.iter().map(|leased| (leased.info.id, leased.clone())));
                return Ok(got.iter().map(|leased| leased.info.clone()).collect());
            }
        }
        got.iter().for_each(|leased| leased.release());
        for leased in &got {
            leased.wait_for_close().await;
        }
        if let (true, true, Some(error)) = (got.is_empty(), busy.is_empty(), errors.pop()) {
            return Err(error);
        }
        let got = got.iter().map(|leased| leased.info.name.clone()).collect();
        Err(DeployError::TooFew { wanted, got, busy })
    }

    pub(super) async fn start_local(self: &Arc<Self>, count: usize) -> Result<Vec<VmInfo>, DeployError> {
        let key = self.key.clone();
        let first = self.state().local_vms.len();
        let cache = Arc::new(ImageCache::of_own_image(own_image().await?.hash));
        let start = rt::blocking(move || {
            (first..first + count)
                .map(|i| {
                    let config = VmConfig::default().hidden().name(format!("local-{i}"));
                    Vm::start_with(config, key.clone(), cache.clone()).map_err(|error| error.to_string())
                })
                .collect::<Result<Vec<_>, _>>()
        });
        let started = start.await.map_err(|error| DeployError::Vm { vm: "local".into(), error })?;
        let infos: Vec<VmInfo> = started.iter().map(Vm::info).collect();
        self.state().local_vms.extend(started);
        self.try_allocate(infos, Count::Exactly(count)).await
    }

    pub(super) async fn release(self: &Arc<Self>, ids: &[VmId]) -> Reply {
        let (released, _turn) = {
            let mut state = self.state();
            let release = |id: &VmId| {
                let vm = state.aliases.remove(id).unwrap_or(*id);
                // It may stand for another VM as well.
                let shared = state.aliases.values().any(|other| *other == vm);
                (!shared).then_some(vm)
            };
            let vms: Vec<VmId> = ids.iter().filter_map(release).collect();
            self.node.note_released(&vms);
            let released: Vec<Arc<Leased>> = vms.iter().filter_map(|vm| state.vms.remove(vm)).collect();
            // Their end is intended, not a loss.
            released.iter().filter_map(|vm| vm.host()).for_each(|host| state.directory.dismiss(host));
            (released, Turn::begin(self, &mut state, vms))
        };
        if self.collector.is_some() {
            // First collect the traces that they have recorded.
            for host in released.iter().filter_map(|vm| vm.host()) {
                self.tell_host(host, ToHost::Stop);
            }
            self.wait_for_ends(&released).await;
        }
        for vm in &released {
            vm.send(ToVm::Release);
        }
        for vm in &released {
            if !vm.wait_for_close().await {
                // It is no longer monitored, and somebody may be waiting for the ends of its VRs.
                vm.give_up(self, "it did not answer when it was given back".into());
            }
        }
        Reply::Done
    }
}

#[cfg(test)]
mod tests;
