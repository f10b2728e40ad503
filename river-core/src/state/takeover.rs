//! Failover of mirrored VRs: what a program does when a host dies that had VRs with twins.
//!
//! 1. *Mourn*: every process that lives hears no more of the dead one, and says how many envelopes of those VRs have arrived in
//!    it. From then on nothing of the old VR can arrive, so nothing of the new one can be overtaken or come twice.
//! 2. *Take over*: the process of the twin runs it through its log, and makes those sends again that may not have arrived. What has
//!    arrived is known by its number, and taken once.
//! 3. *Redirect*: everybody learns where the VR is. Until then what is sent to it reaches its twin's process as it did before.
//!
//! Nobody is stopped meanwhile. A VR whose twin dies before it lives is lost. A state machine without sockets or clocks.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{HostId, IdMap, VrId};
use crate::protocol::Counts;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// That process is to say what has arrived: [`mourned`](Takeover::mourned).
    Mourn(HostId),
    /// That process is to let the twin of the VR live, knowing what has arrived: [`lives`](Takeover::lives).
    TakeOver { vr: VrId, by: HostId, arrived: Vec<(VrId, u64)> },
    /// The VR is there from now on.
    Redirect(VrId, HostId),
    /// The VR is lost with its host.
    Lost(VrId),
}

#[derive(Debug)]
pub(crate) struct Takeover {
    /// Whose word is missing.
    missing: BTreeSet<HostId>,
    /// Who does not live again yet, and where the twin is.
    heirs: BTreeMap<VrId, HostId>,
    /// Of each of them, how much has arrived at each receiver.
    arrived: BTreeMap<VrId, IdMap<VrId, u64>>,
}

impl Takeover {
    /// `heirs` are the processes of twins, `others` all that live.
    pub(crate) fn begin(heirs: BTreeMap<VrId, HostId>, others: BTreeSet<HostId>) -> (Self, Vec<Action>) {
        let mut this = Self { missing: others, heirs, arrived: BTreeMap::new() };
        let lost = this.heirs.extract_if(.., |_, heir| !this.missing.contains(heir));
        let mut actions: Vec<Action> = lost.map(|(vr, _)| Action::Lost(vr)).collect();
        if !this.heirs.is_empty() {
            actions.extend(this.missing.iter().map(|host| Action::Mourn(*host)));
        }
        (this, actions)
    }

    /// All VRs live again, or are lost.
    pub(crate) fn is_over(&self) -> bool {
        self.heirs.is_empty()
    }

    /// Whether that VR is between lives.
    pub(crate) fn concerns(&self, vr: VrId) -> bool {
        self.heirs.contains_key(&vr)
    }

    /// A process has said what has arrived.
    pub(crate) fn mourned(&mut self, host: HostId, arrived: Counts) -> Vec<Action> {
        if !self.missing.remove(&host) {
            return Vec::new();
        }
        for (to, from, count) in arrived {
            // A receiver that is mirrored itself is in two processes.
            let most = self.arrived.entry(from).or_default().entry(to).or_default();
            *most = count.max(*most);
        }
        self.take_over()
    }

    /// The twin of a VR lives now.
    pub(crate) fn lives(&mut self, vr: VrId) -> Vec<Action> {
        self.heirs.remove(&vr).map(|by| Action::Redirect(vr, by)).into_iter().collect()
    }

    /// The twin of a VR cannot live.
    pub(crate) fn fails(&mut self, vr: VrId) -> Vec<Action> {
        self.heirs.remove(&vr).map(|_| Action::Lost(vr)).into_iter().collect()
    }

    /// Who does not live again yet.
    pub(crate) fn heirs(&self) -> Vec<VrId> {
        self.heirs.keys().copied().collect()
    }

    /// Another process is gone.
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
