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
/// What the program hears, if it wakes, that did not renew its lease.
const LAPSED: &str = "the program did not renew its lease for 4 s: was it stopped?";

/// All of a VM but its handle and its tasks, which share it.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) id: VmId,
    pub(super) name: String,
    /// Where programs of this machine reach it.
    pub(super) address: SocketAddr,
    pub(super) listening: Vec<SocketAddr>,
    pub(super) labels: Vec<String>,
    /// How many cores the machine has: to find out takes some files, and searches are frequent.
    pub(super) cores: u32,
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
    /// When it was last looked whether the lease is over.
    looked: Option<Instant>,
    pub(super) host: Option<HostProcess>,
    /// Where the host reports, as this machine sees it.
    pub(super) initiator: Option<SocketAddr>,
    /// The way to the program that has the lease.
    pub(super) to_tenant: Option<rt::Sender<FromVm>>,
    pub(super) draining: bool,
    pub(super) stopped: bool,
}

impl State {
    /// Ends a lease that was not renewed in time: whose it was, and the host, which has to end before somebody else starts another
    /// one.
    fn expire(&mut self, now: Instant) -> Option<(Tenant, Option<HostProcess>)> {
        // This process may have been stopped itself, or its machine asleep.
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
        // When it has ended, so does the conversation; unless it had ended before.
        if !host.is_some_and(|host| host.kill_because(STOPPED))
            && let Some(tenant) = to_tenant
        {
            // What has been said before still reaches it, but nothing after that.
            let _ = tenant.try_send(FromVm::Exited { how: STOPPED.into(), last_lines: Vec::new() });
            tenant.close();
        }
    }

    /// Ends the lease, and what runs for its holder, if it was not renewed in time.
    pub(super) fn expire(&self, now: Instant) {
        let Some((tenant, host)) = self.state().expire(now) else { return };
        self.changed.notify_all();
        if let Some(host) = host {
            host.kill_because(LAPSED);
        }
        tracing::warn!(vm = self.name, program = tenant.name, "the program stopped renewing its lease");
        self.stop_if_drained();
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
            (state.to_tenant, state.initiator) = (None, None);
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
    loop {
        rt::sleep(TICK).await;
        let now = Instant::now();
        shared.expire(now);
        let holder = shared.state().lease.holder().map(|tenant| tenant.program);
        shared.shelf().expire(holder, now);
    }
}
