//! Who has a VM, what runs there for them, and how either ends.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::process::HostProcess;
use super::shelf::Shelf;
use crate::host::HostLimits;
use crate::id::VmId;
use crate::image::ImageCache;
use crate::key::ClusterKey;
use crate::lease::Lease;
use crate::protocol::{FromVm, Tenant};
use crate::rt;

const TICK: Duration = Duration::from_millis(250);
/// What the program hears whose VM stops.
pub(super) const STOPPED: &str = "the VM was stopped by its owner";

/// All of a VM but its handle and its tasks, which share it.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) id: VmId,
    pub(super) name: String,
    /// Where programs of this machine reach it.
    pub(super) address: SocketAddr,
    pub(super) listening: Vec<SocketAddr>,
    pub(super) labels: Vec<String>,
    pub(super) limits: HostLimits,
    pub(super) key: ClusterKey,
    pub(super) cache: Arc<ImageCache>,
    pub(super) started: Instant,
    pub(super) state: Mutex<State>,
    /// What it keeps of checkpoints.
    pub(super) shelf: Mutex<Shelf>,
    /// Somebody may wait for this: it was stopped, or a lease is over.
    pub(super) changed: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) lease: Lease,
    pub(super) host: Option<HostProcess>,
    /// Where the host reports, as this machine sees it.
    pub(super) initiator: Option<SocketAddr>,
    /// The way to the program that has the lease.
    pub(super) to_tenant: Option<rt::Sender<FromVm>>,
    pub(super) draining: bool,
    pub(super) stopped: bool,
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stop(&self) {
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

    /// Ends what a tenant runs here. Nothing happens if its lease is over: what runs here is another one's then.
    pub(super) fn end_host(&self, tenant: &Tenant) {
        let host = {
            let mut state = self.state();
            if state.lease.is_held_by(tenant.program) { state.host.take() } else { None }
        };
        if let Some(host) = host {
            host.kill();
        }
    }

    /// Ends what a tenant has here, and its lease.
    pub(super) fn release(&self, tenant: &Tenant) {
        let host = {
            let mut state = self.state();
            if !state.lease.is_held_by(tenant.program) {
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
    pub(super) fn drain(&self) {
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
}

/// Ends leases that are not renewed, and with them what runs for their holders.
pub(super) async fn expire_leases(shared: Arc<Shared>) {
    let mut last = Instant::now();
    loop {
        rt::sleep(TICK).await;
        let now = Instant::now();
        // This process may have been stopped itself, or its machine asleep.
        let deaf = (now - last).saturating_sub(2 * TICK);
        last = now;
        let (expired, holder) = {
            let mut state = shared.state();
            state.lease.forgive(deaf);
            // Its host with it, before somebody else can have the VM and start another one.
            let expired = state.lease.expire(now).map(|tenant| (tenant, state.host.take()));
            (expired, state.lease.holder().map(|tenant| tenant.program))
        };
        shared.shelf().expire(holder, now);
        if let Some((tenant, host)) = expired {
            tracing::warn!(vm = shared.name, program = tenant.name, "the program stopped renewing its lease");
            shared.changed.notify_all();
            if let Some(host) = host {
                host.kill();
            }
            shared.stop_if_drained();
        }
    }
}
