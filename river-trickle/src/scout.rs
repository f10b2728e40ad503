//! Finds further VMs while a farm runs: a helper VR in the initiator's process that searches, leases and deploys, so
//! that the farm need not wait.
//!
//! Its findings are in memory that both share: a message might find the initiator's mailbox full.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use river_core::{Channel, Count, DeployError, Query, RecvError, Selector, VmId, VmInfo, Vr, VrId};
use river_rai::RaiServer;

use crate::error::TrickleError;

/// Nothing is ever sent on this channel.
const NOTHING: Channel = Channel::named("trickle.nothing");
/// The pause between two searches.
const REST: Duration = Duration::from_secs(1);

/// A search that goes on until this is dropped.
#[derive(Debug)]
pub(crate) struct Scout {
    shared: Arc<Shared>,
}

/// What the scout and the initiator share.
#[derive(Debug)]
struct Shared {
    search: Mutex<Search>,
    /// Notified when no VMs are being taken any more.
    taken: Condvar,
}

#[derive(Debug, Default)]
struct Search {
    over: bool,
    /// How many VMs are in use, including those just found.
    used: usize,
    /// VMs that the initiator has not collected yet.
    found: Vec<(VmInfo, VrId)>,
    /// VMs that cannot be used.
    useless: HashSet<VmId>,
    /// Whether VMs are being leased and deployed to.
    taking: bool,
}

impl Shared {
    fn search(&self) -> MutexGuard<'_, Search> {
        self.search.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Scout {
    pub(crate) fn start(vr: &Vr, most: Option<usize>, used: usize) -> Result<Self, TrickleError> {
        let search = Mutex::new(Search { used, ..Search::default() });
        let shared = Arc::new(Shared { search, taken: Condvar::new() });
        let (initiator, share) = (vr.id(), shared.clone());
        vr.spawn("trickle scout", move |vr| scout(vr, initiator, most, &share))
            .map_err(|error| DeployError::Discovery(format!("no thread for it: {error}")))?;
        Ok(Self { shared })
    }

    /// A VM is no longer in use.
    pub(crate) fn one_less(&self) {
        let used = &mut self.shared.search().used;
        *used = used.saturating_sub(1);
    }

    /// Marks a VM that was found as useless.
    pub(crate) fn pass_over(&self, vm: VmId) {
        self.shared.search().useless.insert(vm);
    }

    /// Returns the VMs found since the last call.
    pub(crate) fn found(&self, vr: &Vr) -> Vec<(VmInfo, VrId)> {
        // Recorded for replay; a VR that diverges from its record is told so by its next operation.
        vr.effect(|| std::mem::take(&mut self.shared.search().found)).unwrap_or_default()
    }

    /// Ends the search. VMs found until then can still be [collected](Self::found); there will be no others.
    ///
    /// Waits while VMs are being taken: those not finished are given back.
    pub(crate) fn end(&self) {
        let mut search = self.shared.search();
        search.over = true;
        while search.taking {
            search = self.shared.taken.wait(search).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Scout {
    fn drop(&mut self) {
        self.shared.search().over = true;
    }
}

fn scout(vr: &Vr, initiator: VrId, most: Option<usize>, shared: &Shared) -> river_core::Result {
    loop {
        // Finding no VM now is no reason to stop.
        if let Err(error) = look(vr, initiator, most, shared) {
            tracing::debug!(%error, "no further VMs");
        }
        if shared.search().over {
            return Ok(());
        }
        // The end of the program ends the pause early, and the search.
        match vr.receive_until(Selector::on(NOTHING), Some(Instant::now() + REST), |_| true) {
            Err(RecvError::Timeout { .. } | RecvError::Down(_)) => {}
            _ => return Ok(()),
        }
    }
}

/// Searches once, if there is room.
fn look(vr: &Vr, initiator: VrId, most: Option<usize>, shared: &Shared) -> river_core::Result {
    let room = |search: &Search| most.map_or(usize::MAX, |most| most.saturating_sub(search.used));
    if room(&shared.search()) == 0 {
        return Ok(());
    }
    let mut found = vr.discover(Query { idle_only: true, ..Query::default() })?;
    let _taking = {
        let mut search = shared.search();
        found.retain(|vm| !search.useless.contains(&vm.id));
        found.truncate(room(&search));
        if search.over || found.is_empty() {
            return Ok(());
        }
        search.taking = true;
        Taking(shared)
    };
    take(vr, initiator, found, shared)
}

/// While it exists, ending the search waits.
struct Taking<'a>(&'a Shared);

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        self.0.search().taking = false;
        self.0.taken.notify_all();
    }
}

fn take(vr: &Vr, initiator: VrId, found: Vec<VmInfo>, shared: &Shared) -> river_core::Result {
    for vm in vr.allocate_within(found, Count::AtLeast(1), Duration::ZERO)? {
        if shared.search().over {
            vr.release(&[vm])?;
            continue;
        }
        let deployed =
            vr.deploy(std::slice::from_ref(&vm), |_| RaiServer::unrestricted().ends_with(initiator));
        match deployed {
            Ok(servers) => {
                let mut search = shared.search();
                search.used += 1;
                search.found.push((vm, servers[0]));
            }
            Err(error) => {
                tracing::warn!(vm = vm.name, %error, "a VM that was found cannot be used");
                vr.release(&[vm])?;
            }
        }
    }
    Ok(())
}
