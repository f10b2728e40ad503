//! A virtual machine: waits to be found, leases itself to one program at a time, and runs that program's host.
//!
//! Everything that a lease has brought is gone with it: the host, whatever the host has started in its process
//! group, and the connection.

mod process;
mod serve;
mod shelf;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::control;
use crate::discovery::{self, Announcement, Network, PortError, ResponderError, VmInfo, VmState};
use crate::host::HostLimits;
use crate::id::{ProgramId, VmId};
use crate::image::{self, CacheError, ImageCache};
use crate::key::{ClusterKey, KeyError};
use crate::lease::Lease;
use crate::machine::machine_name;
use crate::protocol::{FromVm, Hello, Tenant, ToVm, Welcome};
use crate::rt;
use crate::searches::{self, Answers};
use crate::status::{LeaseStatus, Usage, VmStatus};

use process::HostProcess;
use shelf::Shelf;

const TICK: Duration = Duration::from_millis(250);
/// How long a VM may take to stop.
const STOP_TIME: Duration = Duration::from_secs(5);
/// How long a program may take to hear that its VM stops.
const FAREWELL: Duration = Duration::from_secs(3);
/// What it hears then.
const STOPPED: &str = "the VM was stopped by its owner";

/// How a VM is to be.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VmConfig {
    /// The name that people see. Default: the machine's name and the process id.
    pub name: Option<String>,
    /// Words by which programs may choose it.
    pub labels: Vec<String>,
    /// The TCP port on which programs talk to it. Default: any free one.
    pub listen: Option<u16>,
    /// The UDP port on which it is searched for. Default: [`DISCOVERY_PORT`](crate::DISCOVERY_PORT), or `RIVER_PORT`.
    pub discovery_port: Option<u16>,
    /// Whether it is hidden from searches. Default: no.
    pub hidden: bool,
    /// The network interface on which other machines can find and use it, by its IPv4 address; 0.0.0.0 stands for all of
    /// them. Default: none, the VM is for its own machine.
    pub network: Option<Ipv4Addr>,
    /// What a program's host may use. Default: as much as this process may.
    pub limits: HostLimits,
    /// How many bytes of its memory it lends for checkpoints of programs that use it. Default: an eighth of the machine's.
    pub checkpoint_memory: Option<u64>,
}

impl VmConfig {
    /// The same with this name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The same with one more label.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.labels.push(label.into());
        self
    }

    /// The same, listening on this TCP port.
    #[must_use]
    pub fn listen(mut self, port: u16) -> Self {
        self.listen = Some(port);
        self
    }

    /// The same, searched for on this UDP port.
    #[must_use]
    pub fn discovery_port(mut self, port: u16) -> Self {
        self.discovery_port = Some(port);
        self
    }

    /// The same, with these limits for hosts.
    #[must_use]
    pub fn limits(mut self, limits: HostLimits) -> Self {
        self.limits = limits;
        self
    }

    /// The same, lending at most so many bytes of its memory for checkpoints.
    #[must_use]
    pub fn checkpoint_memory(mut self, bytes: u64) -> Self {
        self.checkpoint_memory = Some(bytes);
        self
    }

    /// The same, for other machines too: they can find and use it on the network interface with this IPv4 address, or on
    /// all of them if it is `Ipv4Addr::UNSPECIFIED`.
    ///
    /// That takes a cluster key which is there already, as the machines have to have the same one. Whoever has it can run
    /// programs on the VM, with the rights of its user; nobody else can, nor read or change what they say.
    #[must_use]
    pub fn network(mut self, address: Ipv4Addr) -> Self {
        self.network = Some(address);
        self
    }

    /// The same, found by nobody: only who is told its address can use it.
    #[must_use]
    pub fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }
}

/// Why a VM cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VmError {
    /// There is no usable key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The image cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// It could not be found by others.
    #[error(transparent)]
    Responder(#[from] ResponderError),
    /// `RIVER_PORT` is not a port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The TCP port is taken, or no socket can be had.
    #[error("cannot listen on {address}: {source} (choose another port, or none for any free one)")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// A running virtual machine. It stops when this handle is dropped; what it runs for a program ends with it.
#[derive(Debug)]
pub struct Vm {
    shared: Arc<Shared>,
    tasks: Vec<rt::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    id: VmId,
    name: String,
    /// Where programs of this machine reach it.
    address: SocketAddr,
    listening: Vec<SocketAddr>,
    labels: Vec<String>,
    limits: HostLimits,
    key: ClusterKey,
    cache: Arc<ImageCache>,
    started: Instant,
    state: Mutex<State>,
    /// What it keeps of checkpoints.
    shelf: Mutex<Shelf>,
    /// Somebody may wait for this: it was stopped, or a lease is over.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lease: Lease,
    host: Option<HostProcess>,
    /// Where the host reports, as this machine sees it.
    initiator: Option<SocketAddr>,
    /// The way to the program that has the lease.
    to_tenant: Option<rt::Sender<FromVm>>,
    draining: bool,
    stopped: bool,
}

impl Vm {
    /// Starts a VM in this process, with the key and the image cache of this user.
    ///
    /// # Errors
    /// [`VmError`] says what is missing or taken.
    pub fn start(config: VmConfig) -> Result<Self, VmError> {
        let key = discovery::key_for(config.network.into())?;
        Self::start_with(config, key, Arc::new(ImageCache::open()?))
    }

    /// Starts `count` VMs that share a cache; their names are numbered if there are several.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_many(config: &VmConfig, count: usize) -> Result<Vec<Self>, VmError> {
        let (key, cache) = (discovery::key_for(config.network.into())?, Arc::new(ImageCache::open()?));
        let base = config.name.clone().unwrap_or_else(default_name);
        (0..count)
            .map(|i| {
                let name = if count > 1 { format!("{base}-{i}") } else { base.clone() };
                Self::start_with(config.clone().name(name), key.clone(), cache.clone())
            })
            .collect()
    }

    pub(crate) fn start_with(
        config: VmConfig,
        key: ClusterKey,
        cache: Arc<ImageCache>,
    ) -> Result<Self, VmError> {
        let network = Network::from(config.network);
        let wanted =
            SocketAddr::from((config.network.unwrap_or(Ipv4Addr::LOCALHOST), config.listen.unwrap_or(0)));
        let bind_error = |source| VmError::Listen { address: wanted, source };
        let listeners = control::bind(&network.addresses(), wanted.port()).map_err(bind_error)?;
        let listening: Vec<SocketAddr> = listeners
            .iter()
            .map(std::net::TcpListener::local_addr)
            .collect::<io::Result<_>>()
            .map_err(bind_error)?;
        let port = listening.first().map_or(0, SocketAddr::port);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let shared = Arc::new(Shared {
            id: VmId::fresh(),
            name: config.name.unwrap_or_else(default_name),
            address,
            listening,
            labels: config.labels,
            limits: config.limits,
            key: key.clone(),
            cache,
            started: Instant::now(),
            state: Mutex::default(),
            shelf: Mutex::new(Shelf::new(config.checkpoint_memory.unwrap_or_else(|| total_memory() / 8))),
            changed: Condvar::new(),
        });
        let mut tasks = vec![rt::spawn(expire_leases(shared.clone()))];
        if !config.hidden {
            let port = config.discovery_port.map_or_else(discovery::discovery_port, Ok)?;
            tasks.push(rt::spawn(searches::start(shared.clone(), key.clone(), network, port)?));
        }
        for listener in listeners {
            let server = shared.clone();
            let serve = move |hello, stream| serve::conversation(server.clone(), hello, stream);
            tasks.push(rt::spawn(control::listen(
                listener.into(),
                key.clone(),
                Welcome::Vm(shared.id),
                serve,
            )));
        }
        let this = Self { shared, tasks };
        if network != Network::Loopback {
            let on: Vec<String> = this.addresses().iter().map(ToString::to_string).collect();
            let (name, key) = (&this.shared.name, key.fingerprint());
            eprintln!(
                "[river: VM {name} can be used from the network, on {}, with key {key}]",
                on.join(" and ")
            );
        }
        Ok(this)
    }

    /// Waits until somebody has told the VM to stop, as `river stop` does, and until the program that used it, if there is
    /// one, knows; for that, three seconds at most.
    pub fn wait(&self) {
        let mut state = self.shared.state();
        while !state.stopped {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let _ =
            self.shared.changed.wait_timeout_while(state, FAREWELL, |state| state.lease.holder().is_some());
    }

    /// Stops it, whoever uses it: its program is told that its owner wants it so. [`wait`](Self::wait) returns then.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// The addresses on which it listens; 0.0.0.0 stands for every interface.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.shared.listening
    }

    /// What a search would say of it now.
    #[must_use]
    pub fn info(&self) -> VmInfo {
        self.shared.info()
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.shared.stop();
        for task in self.tasks.drain(..) {
            rt::cancel(task);
        }
    }
}

impl Answers for Shared {
    fn answer(&self, probe: &[u8]) -> Option<Vec<u8>> {
        discovery::answer(&self.key, &self.announcement(), probe)
    }

    fn is_over(&self) -> bool {
        self.state().stopped
    }

    fn stands_for_machine(&self) -> bool {
        true
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        let (host, to_tenant) = {
            let mut state = self.state();
            state.stopped = true;
            (state.host.take(), state.to_tenant.take())
        };
        self.changed.notify_all();
        match (host, to_tenant) {
            // When it has ended, so does the conversation.
            (Some(host), _) => host.kill_because(STOPPED),
            // What has been said before still reaches it, but nothing after that.
            (None, Some(tenant)) => {
                let _ = tenant.try_send(FromVm::Exited { how: STOPPED.into(), last_lines: Vec::new() });
                tenant.close();
            }
            (None, None) => {}
        }
    }

    fn end_host(&self) {
        let host = self.state().host.take();
        if let Some(host) = host {
            host.kill();
        }
    }

    /// Ends what a tenant has here, and its lease.
    fn release(&self, tenant: &Tenant) {
        let host = {
            let mut state = self.state();
            if state.lease.holder().is_none_or(|holder| holder.program != tenant.program) {
                return;
            }
            state.lease.release(tenant);
            state.to_tenant = None;
            state.host.take()
        };
        self.changed.notify_all();
        if let Some(host) = host {
            host.kill();
        }
        self.stop_if_drained();
    }

    /// The VM is to end when nobody has it, and whoever has it is asked to give it back.
    fn drain(&self) {
        {
            let mut state = self.state();
            state.draining = true;
            if let Some(tenant) = &state.to_tenant {
                let _ = tenant.try_send(FromVm::Leaving);
            }
        }
        self.stop_if_drained();
    }

    fn stop_if_drained(&self) {
        let drained = {
            let state = self.state();
            state.draining && state.lease.holder().is_none()
        };
        if drained {
            self.stop();
        }
    }

    fn status(&self) -> VmStatus {
        let state = self.state();
        let lease = state.lease.holder().map(|tenant| LeaseStatus {
            program: tenant.program,
            name: tenant.name.clone(),
            renewed: state.lease.age(Instant::now()).unwrap_or_default(),
            host: state.host.as_ref().map(HostProcess::usage),
            draining: state.draining,
        });
        VmStatus { usage: Usage::of(std::process::id()), lease }
    }

    fn announcement(&self) -> Announcement {
        let state = match self.state().lease.holder() {
            None => VmState::Idle,
            Some(tenant) => VmState::Leased { program: tenant.program, name: tenant.name.clone() },
        };
        Announcement {
            id: self.id,
            name: self.name.clone(),
            port: self.address.port(),
            cores: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
            memory: total_memory(),
            triple: image::host_triple(),
            labels: self.labels.clone(),
            state,
            uptime: self.started.elapsed(),
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    fn info(&self) -> VmInfo {
        self.announcement().at(self.address.ip())
    }
}

/// Why a VM could not be told to stop.
#[derive(Debug, thiserror::Error)]
#[error("cannot stop VM {vm}: {error}")]
pub struct StopError {
    vm: String,
    error: String,
}

/// Tells a VM to stop, whoever uses it, and waits until it has closed the connection. Its program learns that it is gone.
///
/// # Errors
/// [`StopError`] if there is no key, or the VM cannot be reached.
pub fn stop(vm: &VmInfo) -> Result<(), StopError> {
    tell(vm, ToVm::Stop)
}

/// Tells a VM to end as soon as no program has it: at once if it is idle; otherwise its program is asked to give it back
/// ([`Vr::leaving`](crate::Vr::leaving)), and nothing of the program is disturbed. Waits only until the VM knows.
///
/// # Errors
/// As [`stop`].
pub fn drain(vm: &VmInfo) -> Result<(), StopError> {
    tell(vm, ToVm::Drain)
}

/// Says something to a VM that needs no lease, and waits until it has closed the connection.
fn tell(vm: &VmInfo, message: ToVm) -> Result<(), StopError> {
    let failed = |error: &dyn std::fmt::Display| StopError { vm: vm.name.clone(), error: error.to_string() };
    let key = ClusterKey::load_or_create().map_err(|error| failed(&error))?;
    rt::block_on(async {
        let hello = Hello::Lease { program: ProgramId::fresh() };
        let (_, stream) = control::dial(vm.address, &key, &hello).await.map_err(|error| failed(&error))?;
        let (to, mut from) = control::split::<ToVm, FromVm>(stream);
        let _ = to.try_send(message);
        let closed = rt::timeout(STOP_TIME, async { while let Ok(Some(_)) = from.next().await {} }).await;
        closed.map_err(|_| failed(&format_args!("it did not stop within {STOP_TIME:?}")))
    })
}

async fn expire_leases(shared: Arc<Shared>) {
    let mut last = Instant::now();
    loop {
        rt::sleep(TICK).await;
        let now = Instant::now();
        // This process may have been stopped itself, or its machine asleep.
        let deaf = (now - last).saturating_sub(2 * TICK);
        last = now;
        let expired = {
            let mut state = shared.state();
            state.lease.forgive(deaf);
            state.lease.expire(now)
        };
        let tenant = shared.state().lease.holder().map(|tenant| tenant.program);
        shared.shelf().expire(tenant, now);
        if let Some(tenant) = expired {
            tracing::warn!(vm = shared.name, program = tenant.name, "the program stopped renewing its lease");
            shared.end_host();
            shared.stop_if_drained();
        }
    }
}

fn default_name() -> String {
    format!("{}-{}", machine_name(), std::process::id())
}

fn total_memory() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit.max(1)))
}
