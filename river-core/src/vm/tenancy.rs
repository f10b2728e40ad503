//! Which program has a VM, what runs there for it, and how either ends.

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
/// What a program is told when its VM stops.
pub(super) const STOPPED: &str = "the VM was stopped by its owner";

/// A VM without its handle and its tasks, which share it.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) id: VmId,
    pub(super) name: String,
    /// The address at which programs on this machine reach it.
    pub(super) address: SocketAddr,
    pub(super) listening: Vec<SocketAddr>,
    pub(super) labels: Vec<String>,
    /// The machine's number of cores. Cached, since determining it reads several files, and searches are frequent.
    pub(super) cores: u32,
    pub(super) limits: HostLimits,
    pub(super) key: ClusterKey,
    pub(super) cache: Arc<ImageCache>,
    pub(super) started: Instant,
    pub(super) state: Mutex<State>,
    /// The checkpoints that it keeps.
    pub(super) shelf: Mutex<Shelf>,
    /// Notified when the VM was stopped or a lease has ended.
    pub(super) changed: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) lease: Lease,
    /// When the lease was last checked.
    looked: Option<Instant>,
    pub(super) host: Option<HostProcess>,
    /// The initiator's address, as seen from this machine.
    pub(super) initiator: Option<SocketAddr>,
    /// Sends to the program that has the lease.
    pub(super) to_tenant: Option<rt::Sender<FromVm>>,
    pub(super) draining: bool,
    pub(super) stopped: bool,
}

impl State {
    /// Ends the lease if it was not renewed in time. Returns its holder and the host, which must end before another program
    /// can start one.
    fn expire(&mut self, now: Instant) -> Option<(Tenant, Option<HostProcess>)> {
        // This process may have been suspended itself, or its machine asleep.
        let last = self.looked.replace(now).unwrap_or(now);
        self.lease.forgive(now.saturating_duration_since(last).saturating_sub(2 * TICK));
        let tenant = self.lease.expire(now)?;
        (self.to_tenant, self.initiator) = (None, None);
        Some((tenant, self.host.take()))
    }
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
            // The conversation ends when the host has ended.
            (Some(host), _) => host.kill_because(STOPPED),
            // What was sent before still reaches the program; nothing more will.
            (None, Some(tenant)) => {
                let _ = tenant.try_send(FromVm::Exited { how: STOPPED.into(), last_lines: Vec::new() });
                tenant.close();
            }
            (None, None) => {}
        }
    }

    /// Ends the lease if it was not renewed in time, and with it what runs for its holder.
    pub(super) fn expire(&self, now: Instant) {
        let Some((tenant, host)) = self.state().expire(now) else { return };
        self.changed.notify_all();
        if let Some(host) = host {
            host.kill();
        }
        tracing::warn!(vm = self.name, program = tenant.name, "the program stopped renewing its lease");
        self.stop_if_drained();
    }

    /// Ends what a tenant runs here. Does nothing if its lease is over, since the host is another tenant's then.
    pub(super) fn end_host(&self, tenant: &Tenant) {
        let host = {
            let mut state = self.state();
            if state.lease.is_held_by(tenant.program) { state.host.take() } else { None }
        };
        if let Some(host) = host {
            host.kill();
        }
    }

    /// Ends a tenant's lease, and what it runs here.
    pub(super) fn release(&self, tenant: &Tenant) {
        let host = {
            let mut state = self.state();
            if !state.lease.is_held_by(tenant.program) {
                return;
            }
            state.lease.release(tenant);
            (state.to_tenant, state.initiator) = (None, None);
            state.host.take()
        };
        self.changed.notify_all();
        if let Some(host) = host {
            host.kill();
        }
        self.stop_if_drained();
    }

    /// Lets the VM stop as soon as no program has it, and asks the current holder to give it back.
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

/// Periodically ends the lease if it is not renewed, with what runs for its holder, and drops checkpoints that are too old.
pub(super) async fn expire_leases(shared: Arc<Shared>) {
    loop {
        rt::sleep(TICK).await;
        let now = Instant::now();
        shared.expire(now);
        let holder = shared.state().lease.holder().map(|tenant| tenant.program);
        shared.shelf().expire(holder, now);
    }
}
