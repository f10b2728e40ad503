//! A virtual machine: waits to be found, leases itself to one program at a time, and runs that program's host.
//!
//! Whatever a lease has brought is gone when it ends: the host, everything that the host has started in its process group,
//! and the connection.
//!
//! * `config`: what its owner can set before it starts
//! * `tenancy`: which program has it, and what runs on it for that program
//! * `serve`: its conversation with a program
//! * `process`: a host, as the VM sees it
//! * `shelf`: the checkpoints that it keeps in memory
//! * `info`: what it reports about itself
//! * `stop`: stopping it from outside

mod config;
mod info;
mod process;
mod serve;
mod shelf;
mod stop;
mod tenancy;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::control;
use crate::discovery::{self, Network, PortError, ResponderError, VmInfo};
use crate::id::VmId;
use crate::image::{CacheError, ImageCache};
use crate::key::{ClusterKey, KeyError};
use crate::machine::machine_name;
use crate::notice::say;
use crate::protocol::Welcome;
use crate::rt;
use crate::searches;

pub use config::VmConfig;
use info::spare_memory;
use shelf::Shelf;
pub use stop::{StopError, drain, stop};
use tenancy::{Shared, expire_leases};

/// How long to wait until the program has been told that its VM stops.
const FAREWELL: Duration = Duration::from_secs(3);

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
    /// It could not receive searches.
    #[error(transparent)]
    Responder(#[from] ResponderError),
    /// `RIVER_PORT` is not a port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The TCP port is taken, or no socket can be opened.
    #[error("cannot listen on {address}: {source} (choose another port, or none for any free one)")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
}

/// A running virtual machine. It stops when this handle is dropped, and what it runs for a program ends with it.
#[derive(Debug)]
pub struct Vm {
    shared: Arc<Shared>,
    tasks: Vec<rt::JoinHandle<()>>,
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
    /// The same as for [`start`](Self::start).
    pub fn start_many(config: &VmConfig, count: usize) -> Result<Vec<Self>, VmError> {
        let (key, cache) = (discovery::key_for(config.network.into())?, Arc::new(ImageCache::open()?));
        let base = config.name.clone().unwrap_or_else(default_name);
        (0..count)
            .map(|i| {
                let name = if count > 1 { format!("{base}-{i}") } else { base.clone() };
                // Together they lend as much as one VM would.
                let memory = config.checkpoint_memory.unwrap_or_else(|| spare_memory() / count as u64);
                let config = config.clone().name(name).checkpoint_memory(memory);
                Self::start_with(config, key.clone(), cache.clone())
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
            cores: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
            limits: config.limits,
            key: key.clone(),
            cache,
            started: Instant::now(),
            state: Mutex::default(),
            shelf: Mutex::new(Shelf::new(config.checkpoint_memory.unwrap_or_else(spare_memory))),
            changed: Condvar::new(),
        });
        let mut tasks = Vec::new();
        if !config.hidden {
            let port = config.discovery_port.map_or_else(discovery::discovery_port, Ok)?;
            tasks.push(rt::spawn(searches::start(shared.clone(), key.clone(), network, port)?));
        }
        tasks.push(rt::spawn(expire_leases(shared.clone())));
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
            say!("[river: VM {name} can be used from the network, on {}, with key {key}]", on.join(" and "));
        }
        Ok(this)
    }

    /// Waits until the VM has been told to stop, as by `river stop`, and then, for at most three seconds, until the program
    /// that is using it, if any, has been told.
    pub fn wait(&self) {
        let mut state = self.shared.state();
        while !state.stopped {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let _ =
            self.shared.changed.wait_timeout_while(state, FAREWELL, |state| state.lease.holder().is_some());
    }

    /// Stops it even while a program is using it; that program is told that the owner stopped the VM. Makes
    /// [`wait`](Self::wait) return.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// The addresses on which it listens; 0.0.0.0 stands for every interface.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.shared.listening
    }

    /// What a search would report about it now.
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

fn default_name() -> String {
    format!("{}-{}", machine_name(), std::process::id())
}
