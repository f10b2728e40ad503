//! Failover of mirrored VRs: what a program does when a host dies whose VRs had twins.
//!
//! 1. *Mourn*: every live process stops receiving from the dead one, and reports how many envelopes of those VRs have
//!    arrived. From then on, nothing from the old VR can arrive, so nothing from the new one can be overtaken or
//!    duplicated.
//! 2. *Take over*: the twin's process replays the twin's log, and repeats those sends that may not have arrived. Receivers
//!    recognize duplicates by their numbers, and drop them.
//! 3. *Redirect*: every process learns where the VR is. Until then, what is sent to it still reaches its twin's process.
//!
//! Nothing is stopped meanwhile. A VR whose twin dies before it has taken over is lost. A state machine without sockets or
//! clocks.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{HostId, IdMap, VrId};
use crate::protocol::Counts;

/// What the caller must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Ask that process what has arrived; it answers with [`mourned`](Takeover::mourned).
    Mourn(HostId),
    /// Have that process activate the twin of the VR, given what has arrived; then call [`lives`](Takeover::lives).
    TakeOver { vr: VrId, by: HostId, arrived: Vec<(VrId, u64)> },
    /// The VR is in that process from now on.
    Redirect(VrId, HostId),
    /// The VR is lost with its host.
    Lost(VrId),
}

#[derive(Debug)]
pub(crate) struct Takeover {
    /// Processes that have not reported yet.
    missing: BTreeSet<HostId>,
    /// VRs that have not been taken over yet, and the processes of their twins.
    heirs: BTreeMap<VrId, HostId>,
    /// For each of them, how much has arrived at each receiver.
    arrived: BTreeMap<VrId, IdMap<VrId, u64>>,
}

impl Takeover {
    /// Begins a takeover. `heirs` are the processes of the twins, `others` all live processes.
    pub(crate) fn begin(heirs: BTreeMap<VrId, HostId>, others: BTreeSet<HostId>) -> (Self, Vec<Action>) {
        let mut this = Self { missing: others, heirs, arrived: BTreeMap::new() };
        let lost = this.heirs.extract_if(.., |_, heir| !this.missing.contains(heir));
        let mut actions: Vec<Action> = lost.map(|(vr, _)| Action::Lost(vr)).collect();
        if !this.heirs.is_empty() {
            actions.extend(this.missing.iter().map(|host| Action::Mourn(*host)));
        }
        (this, actions)
    }

    /// Whether all VRs have been taken over or are lost.
    pub(crate) fn is_over(&self) -> bool {
        self.heirs.is_empty()
    }

    /// Whether this VR is being taken over.
    pub(crate) fn concerns(&self, vr: VrId) -> bool {
        self.heirs.contains_key(&vr)
    }

    /// Takes a process's report of what has arrived.
    pub(crate) fn mourned(&mut self, host: HostId, arrived: Counts) -> Vec<Action> {
        if !self.missing.remove(&host) {
            return Vec::new();
        }
        for (to, from, count) in arrived {
            // A receiver that is mirrored itself exists in two processes.
            let most = self.arrived.entry(from).or_default().entry(to).or_default();
            *most = count.max(*most);
        }
        self.take_over()
    }

    /// Notes that the twin of a VR has taken over.
    pub(crate) fn lives(&mut self, vr: VrId) -> Vec<Action> {
        self.heirs.remove(&vr).map(|by| Action::Redirect(vr, by)).into_iter().collect()
    }

    /// Notes that the twin of a VR cannot take over.
    pub(crate) fn fails(&mut self, vr: VrId) -> Vec<Action> {
        self.heirs.remove(&vr).map(|_| Action::Lost(vr)).into_iter().collect()
    }

    /// The VRs that have not been taken over yet.
    pub(crate) fn heirs(&self) -> Vec<VrId> {
        self.heirs.keys().copied().collect()
    }

    /// Notes that another process is gone.
    pub(crate) fn gone(&mut self, host: HostId) -> Vec<Action> {
        let lost = self.heirs.extract_if(.., |_, heir| *heir == host);
        let mut actions: Vec<Action> = lost.map(|(vr, _)| Action::Lost(vr)).collect();
        if self.missing.remove(&host) {
            actions.extend(self.take_over());
        }
        actions
    }

    fn take_over(&mut self) -> Vec<Action> {
        if !self.missing.is_empty() {
            return Vec::new();
        }
        let take = |(vr, by): (&VrId, &HostId)| {
            let arrived = self.arrived.get(vr).into_iter().flatten();
            let arrived = arrived.map(|(to, count)| (*to, *count)).collect();
            Action::TakeOver { vr: *vr, by: *by, arrived }
        };
        self.heirs.iter().map(take).collect()
    }
}
