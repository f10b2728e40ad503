//! Finding further VMs while a farm runs: a helper VR of the initiator's process that searches, leases and deploys, so that
//! the farm need not wait for that.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use river_core::{Channel, Count, DeployError, Query, RecvError, Selector, VmInfo, Vr, VrId};
use river_rai::RaiServer;

use crate::error::TrickleError;

/// The scout's findings, to the initiator.
const FOUND: Channel = Channel::named("trickle.found");
/// Nothing is ever sent on this channel.
const NOTHING: Channel = Channel::named("trickle.nothing");
/// How long it rests between two searches.
const REST: Duration = Duration::from_secs(1);

/// A search that goes on until this is dropped.
#[derive(Debug)]
pub(crate) struct Scout {
    shared: Arc<Shared>,
}

/// How many VMs are used, until the search is over.
#[derive(Debug)]
struct Shared(Mutex<Option<usize>>);

impl Shared {
    fn used(&self) -> MutexGuard<'_, Option<usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Scout {
    pub(crate) fn start(vr: &Vr, most: Option<usize>, used: usize) -> Result<Self, TrickleError> {
        let shared = Arc::new(Shared(Mutex::new(Some(used))));
        let (initiator, share) = (vr.id(), shared.clone());
        vr.spawn("trickle scout", move |vr| search(vr, initiator, most, &share))
            .map_err(|error| DeployError::Discovery(format!("no thread for it: {error}")))?;
        Ok(Self { shared })
    }

    /// A VM is not used any more.
    pub(crate) fn one_less(&self) {
        if let Some(used) = &mut *self.shared.used() {
            *used = used.saturating_sub(1);
        }
    }

    /// Ends the search: what it finds from now on it gives back itself.
    pub(crate) fn end(&self) {
        *self.shared.used() = None;
    }
}

impl Drop for Scout {
    fn drop(&mut self) {
        self.end();
    }
}

fn search(vr: &Vr, initiator: VrId, most: Option<usize>, shared: &Shared) -> river_core::Result {
    loop {
        let Some(used) = *shared.used() else { return Ok(()) };
        let room = most.map_or(usize::MAX, |most| most.saturating_sub(used));
        if room > 0 {
            // That none can be had now is no reason to stop.
            if let Err(error) = take(vr, initiator, room, shared) {
                tracing::debug!(%error, "no further VMs");
            }
        }
        // Ends early, and for good, with the program.
        match vr.receive_until(Selector::on(NOTHING), Some(Instant::now() + REST), |_| true) {
            Err(RecvError::Timeout { .. } | RecvError::Down(_)) => {}
            _ => return Ok(()),
        }
    }
}

fn take(vr: &Vr, initiator: VrId, room: usize, shared: &Shared) -> river_core::Result {
    let mut found = vr.discover(Query { idle_only: true, ..Query::default() })?;
    found.truncate(room);
    if found.is_empty() {
        return Ok(());
    }
    for vm in vr.allocate_within(found, Count::AtLeast(1), Duration::ZERO)? {
        let deployed =
            vr.deploy(std::slice::from_ref(&vm), |_| RaiServer::unrestricted().ends_with(initiator));
        match deployed {
            Ok(servers) => {
                // Who ends the search knows then of all that it has found.
                let mut used = shared.used();
                if let Some(used) = &mut *used {
                    *used += 1;
                    vr.send_bytes(initiator, FOUND, 0, postcard::to_stdvec(&(vm, servers[0]))?)?;
                } else {
                    drop(used);
                    vr.release(&[vm])?;
                }
            }
            Err(error) => {
                tracing::warn!(vm = vm.name, %error, "a VM that was found cannot be used");
                vr.release(&[vm])?;
            }
        }
    }
    Ok(())
}

/// What the scout has found since it was asked last.
pub(crate) fn found(vr: &Vr) -> Vec<(VmInfo, VrId)> {
    let mut found = Vec::new();
    // Looks before it receives: a receive that finds nothing might be told of a death that others have to hear of.
    while vr.peek_where(Selector::on(FOUND), |_| Some(())).is_some()
        && let Ok(Some(envelope)) = vr.try_receive_where(Selector::on(FOUND), |_| true)
    {
        found.extend(postcard::from_bytes(&envelope.payload.to_bytes()).ok());
    }
    found
}
