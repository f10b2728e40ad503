//! The initiator's side of a program: its leases, its hosts, its directory, and the answers to its VRs' requests.
//!
//! Every request is served by its own task. The state that tasks share is locked only briefly, never while a task waits. A
//! host is declared dead here and nowhere else, so that all processes agree on it.

mod checkpoint;
mod directory;
mod drain;
mod hosts;
mod images;
mod inspect;
mod leases;
mod local;
mod memory;
mod migrate;
mod mirror;
mod output;
mod place;
mod pulse;
mod recording;
mod regularly;
mod request;
mod restore;
#[cfg(test)]
mod scripted;
mod vm_link;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::control;
use crate::cut;
use crate::discovery::{Network, Reach};
use crate::down::Why;
use crate::error::DeployError;
use crate::id::{HostId, ProgramId, VmId, VrId};
use crate::key::ClusterKey;
use crate::lease;
use crate::machine::{machine_name, process_name};
use crate::node::Node;
use crate::protocol::{KeepIn, Place, Reply, Tenant, ToHost, ToVm};
use crate::rt;
use crate::service;
use crate::state::StoreTarget;
use crate::status::ProcessReport;
use crate::trace::{self, Collector, Traces};
use crate::vm::Vm;

use checkpoint::Cut;
use directory::Directory;
use hosts::Host;
use leases::Turns;
use mirror::Mirrors;
pub(crate) use output::Output;
use pulse::DEAD;
use recording::Recording;
use regularly::Regularly;
use vm_link::Leased;

/// How long hosts may take to finish their output when the program ends.
const FAREWELL: Duration = Duration::from_secs(3);

pub(crate) struct Program {
    pub(crate) node: Arc<Node>,
    pub(crate) tenant: Tenant,
    /// Collects the trace, if the program is traced.
    collector: Option<Collector>,
    began: Instant,
    key: ClusterKey,
    reach: Reach,
    output: Output,
    /// Where the program keeps checkpoints besides directories and the memory of VMs.
    store: Option<StoreTarget>,
    state: Mutex<State>,
    /// Set if all VRs are recorded to files.
    recording: OnceLock<Recording>,
    /// The tasks that serve connections and requests. They hold this program, so `finish` cancels them.
    tasks: Mutex<Vec<rt::JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    vms: HashMap<VmId, Arc<Leased>>,
    turns: Turns,
    /// Lost VMs that the program had leased: their names, and why they were lost.
    lost: HashMap<VmId, (String, Why)>,
    hosts: HashMap<HostId, Host>,
    directory: Directory,
    /// Tasks that wait to hear how a host died.
    verdicts: HashMap<HostId, Vec<rt::Sender<Why>>>,
    local_vms: Vec<Vm>,
    services: HashMap<(VmId, String), Service>,
    ending: bool,
    initiator: Option<VrId>,
    cut: Cut,
    /// Tells the task that ends the recording which hosts have sent all of theirs.
    tapes: Option<rt::Sender<HostId>>,
    /// VMs that were replaced, when the program was restored or when they were drained, and the VM that stands for each of
    /// them.
    aliases: HashMap<VmId, VmId>,
    /// VRs that had ended before the program was restored.
    past: HashMap<VrId, Why>,
    /// VRs that a host was told to make and has not confirmed.
    making: HashSet<VrId>,
    /// VMs that want to leave, and that everything is being moved away from.
    leaving: HashSet<VmId>,
    inspections: Inspections,
    mirrors: Mirrors,
}

/// Requests for the status of all hosts that are still being answered.
#[derive(Default)]
struct Inspections {
    next: u64,
    waiting: HashMap<u64, rt::Sender<(HostId, ProcessReport)>>,
}

/// A VR that is registered under a name on its VM.
struct Service {
    vr: VrId,
    /// `None` while it is being made.
    place: Option<Place>,
    /// Closed when it has been made.
    ready: rt::Receiver<()>,
}

impl Program {
    /// Starts the control plane of a program in the process of its initiator.
    pub(crate) fn start(
        key: ClusterKey,
        reach: Reach,
        recoverable: bool,
        checkpoints: Option<(KeepIn, Duration)>,
        store: Option<StoreTarget>,
        trace: Option<(&Path, u32)>,
    ) -> io::Result<Arc<Self>> {
        let program = ProgramId::fresh();
        let listeners = listen_on(&reach)?;
        let port = listeners.first().map_or(Ok(0), |listener| listener.local_addr().map(|at| at.port()))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let place = Place { host: HostId::fresh(), address };
        let (requests, asked) = rt::unbounded();
        let at = (place, reach.listening());
        let node = Node::start(at, program, machine_name(), key.clone(), requests, recoverable)?;
        let name = process_name();
        let mut collector = None;
        if let Some((path, events)) = trace {
            collector = Some(Collector::create(path, &name, place.host, &machine_name())?);
            let _ = node.traces.set(Traces::new(events));
        }
        let this = Arc::new(Self {
            node,
            tenant: Tenant { program, name },
            collector,
            began: Instant::now(),
            key: key.clone(),
            reach,
            output: Output::start()?,
            store,
            state: Mutex::default(),
            recording: OnceLock::new(),
            tasks: Mutex::default(),
        });
        for listener in listeners {
            let acceptor = this.clone();
            let serve = move |hello, stream| acceptor.clone().serve(hello, stream);
            let listen = control::listen(listener.into(), key.clone(), this.node.welcome(), serve);
            this.tasks().push(rt::spawn(listen));
        }
        let server = this.clone();
        let answer = rt::spawn(async move {
            while let Ok((request, answer)) = asked.recv().await {
                let server = server.clone();
                rt::spawn(async move { drop(answer.try_send(server.answer(request).await)) });
            }
        });
        let renew = rt::spawn(this.clone().renew_leases());
        let arrivals = rt::spawn(cut::report_arrivals(this.node.clone()));
        this.tasks().extend([answer, renew, arrivals]);
        let regularly = Regularly::from_env()?.or_else(|| checkpoints.map(Regularly::new));
        if let Some(regularly) = regularly {
            this.tasks().push(rt::spawn(this.clone().checkpoint_regularly(regularly)));
        }
        Ok(this)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, Vec<rt::JoinHandle<()>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers the initiator's VR, which lives in this process.
    pub(crate) fn register(&self, vr: VrId) {
        let mut state = self.state();
        state.directory.enter(vr, self.node.place.host);
        state.initiator = Some(vr);
    }

    /// Renews all leases periodically, and gives up VMs and hosts that have been silent for too long.
    async fn renew_leases(self: Arc<Self>) {
        let mut last = Instant::now();
        loop {
            rt::sleep(lease::RENEWAL).await;
            let now = Instant::now();
            // This process may have been suspended itself.
            let deaf = (now - last).saturating_sub(2 * lease::RENEWAL);
            last = now;
            let vms: Vec<Arc<Leased>> = {
                let state = self.state();
                state.vms.values().chain(state.turns.leased()).cloned().collect()
            };
            for vm in vms {
                vm.send(ToVm::Renew);
                if vm.is_dead(now, deaf) {
                    vm.give_up(&self, format!("it has not been heard of for {DEAD:?}"));
                    self.state().lose(&vm);
                }
            }
            self.compare_clocks();
            for (host, vm) in self.dead_hosts(now, deaf) {
                let error = format!("its host has not been heard of for {DEAD:?}");
                self.host_gone(host, &Why::LostLink { vm: vm.info.name.clone(), error });
                vm.send(ToVm::EndHost);
            }
        }
    }

    // ---- traces ----

    /// Asks all hosts for their clock readings, if the program is traced.
    fn compare_clocks(&self) {
        if self.collector.is_some() {
            for to in self.state().live_hosts() {
                let _ = to.try_send(ToHost::Clock { asked: trace::now() });
            }
        }
    }

    /// Waits until the hosts of those VMs, which were told to stop, are gone. The wait is bounded, but does not run out
    /// while they are still handing over their traces.
    async fn wait_for_ends(&self, vms: &[Arc<Leased>]) {
        let all_gone = async {
            for vm in vms {
                vm.wait_for_end().await;
            }
        };
        let mut all_gone = std::pin::pin!(all_gone);
        while rt::timeout(FAREWELL, all_gone.as_mut()).await.is_err() {
            if self.collector.as_ref().is_none_or(|collector| collector.silence() > FAREWELL) {
                return;
            }
        }
    }

    // ---- the end ----

    /// Whether a host has died unexpectedly.
    pub(crate) fn has_lost_a_host(&self) -> bool {
        self.state().directory.lost_hosts() > 0
    }

    /// Ends everything that the program has started, and waits, for a bounded time, for the last output of its hosts.
    /// Returns an error if the trace could not be written.
    pub(crate) fn finish(&self) -> io::Result<()> {
        self.end_recording();
        let vms: Vec<Arc<Leased>> = {
            let mut state = self.state();
            state.ending = true;
            if self.collector.is_some() {
                for to in state.live_hosts() {
                    let _ = to.try_send(ToHost::Clock { asked: trace::now() });
                }
            }
            for to in state.live_hosts() {
                let _ = to.try_send(ToHost::Stop);
            }
            state.vms.values().cloned().collect()
        };
        self.node.stop();
        rt::block_on(async {
            service::farewell(&self.node).await;
            self.wait_for_ends(&vms).await;
            for vm in &vms {
                vm.send(ToVm::Release);
            }
            let all_closed = async {
                for vm in &vms {
                    vm.wait_for_close().await;
                }
            };
            let _ = rt::timeout(FAREWELL, all_closed).await;
        });
        self.tasks().drain(..).for_each(rt::cancel);
        let local_vms = std::mem::take(&mut self.state().local_vms);
        drop(local_vms);
        self.output.finish();
        match (&self.collector, self.node.traces.get()) {
            (Some(collector), Some(traces)) => collector.finish(traces),
            _ => Ok(()),
        }
    }
}

impl State {
    /// The VM that stands for this one: the VM itself, unless it was replaced.
    fn alias(&self, vm: VmId) -> VmId {
        self.aliases.get(&vm).copied().unwrap_or(vm)
    }

    fn is_leased(&self, vm: VmId) -> bool {
        self.vms.contains_key(&self.alias(vm))
    }

    fn leased(&self, vm: VmId) -> Result<Arc<Leased>, DeployError> {
        self.vms.get(&vm).cloned().ok_or_else(|| match self.lost.get(&vm) {
            Some((vm, why)) => DeployError::Vm { vm: vm.clone(), error: why.cause() },
            None => DeployError::NotLeased(vm.to_string()),
        })
    }

    /// Notes that a VM is gone, unless it was given back before.
    fn lose(&mut self, vm: &Leased) {
        // It may have refused this lease, and granted another one since.
        if !self.vms.get(&vm.info.id).is_some_and(|known| std::ptr::eq(&**known, vm)) {
            return;
        }
        self.vms.remove(&vm.info.id);
        if let Some(why) = vm.why_gone() {
            self.lost.insert(vm.info.id, (vm.info.name.clone(), why));
        }
    }

    fn vm_of(&self, host: HostId) -> Option<&Arc<Leased>> {
        self.hosts.get(&host).and_then(|host| self.vms.get(&host.vm))
    }

    fn live_hosts(&self) -> Vec<rt::Sender<ToHost>> {
        let live = self.hosts.iter().filter(|(id, _)| !self.directory.has_died(**id));
        live.map(|(_, host)| host.to.clone()).collect()
    }
}

/// Binds the listeners of this process: loopback only, unless it was told to reach further.
fn listen_on(reach: &Reach) -> io::Result<Vec<std::net::TcpListener>> {
    let network = reach.listening();
    let listeners = control::bind(&network.addresses(), 0).map_err(|error| {
        let text = format!("cannot listen where RIVER_NETWORK says ({network:?}): {error}");
        io::Error::new(error.kind(), text)
    })?;
    if network != Network::Loopback {
        tracing::info!(?listeners, "listening on the network");
    }
    Ok(listeners)
}

/// The reply to a request that failed.
fn failed(error: DeployError) -> Reply {
    Reply::Failed(error)
}
