//! The coordination of a checkpoint: a consistent cut through all VRs of a program, in which nothing is received that was
//! not sent, and nothing that was sent is lost.
//!
//! 1. *Freeze*: every process stops its VRs at their next call, and reports how many envelopes each VR has sent to each
//!    other one. What a VR computes until then is invisible, so it counts as stopped at once.
//! 2. *Settle*: every process waits until everything sent to its VRs has arrived in their queues.
//! 3. *Copy*: every process copies the records and queues. That is the cut.
//! 4. *Thaw*: the VRs go on, while the copies are encoded and written.
//!
//! If a process dies or does not answer in time, all others are thawed and there is no checkpoint. A state machine without
//! sockets or clocks.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::StateError;
use crate::id::{HostId, VrId};
use crate::protocol::{Counts, Report, Step};

/// What the caller must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Tell(HostId, Step),
    /// The cut is complete and nothing has changed since; the copies are on their way.
    Made,
    Failed(StateError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Freezing,
    Settling,
    Copying,
    Over,
}

#[derive(Debug)]
pub(crate) struct Coordination {
    /// All processes of the program, with their names for people.
    hosts: BTreeMap<HostId, String>,
    phase: Phase,
    /// Processes that have not answered yet.
    missing: BTreeSet<HostId>,
    sent: Counts,
    unrecorded: Vec<(VrId, String, HostId)>,
}

impl Coordination {
    pub(crate) fn begin(hosts: BTreeMap<HostId, String>) -> (Self, Vec<Action>) {
        let missing = hosts.keys().copied().collect();
        let (sent, unrecorded) = (Vec::new(), Vec::new());
        let this = Self { hosts, phase: Phase::Freezing, missing, sent, unrecorded };
        let actions = this.tell_all(&Step::Freeze);
        (this, actions)
    }

    /// Takes a process's report that it has done a step. `home` says where a VR is, if it is alive.
    pub(crate) fn report(
        &mut self,
        from: HostId,
        report: Report,
        home: impl Fn(VrId) -> Option<HostId>,
    ) -> Vec<Action> {
        let expected = match report {
            Report::Frozen { .. } => Phase::Freezing,
            Report::Settled => Phase::Settling,
            Report::Copied { .. } => Phase::Copying,
            Report::Given(_) | Report::Mourned(..) => return Vec::new(),
        };
        if expected != self.phase || !self.missing.remove(&from) {
            return Vec::new();
        }
        if let Report::Frozen { sent, unrecorded } = report {
            self.sent.extend(sent);
            self.unrecorded.extend(unrecorded.into_iter().map(|(vr, name)| (vr, name, from)));
        }
        if !self.missing.is_empty() {
            return Vec::new();
        }
        self.missing = self.hosts.keys().copied().collect();
        match self.phase {
            Phase::Freezing => self.frozen(home),
            Phase::Settling => {
                self.phase = Phase::Copying;
                self.tell_all(&Step::Copy)
            }
            Phase::Copying => {
                self.phase = Phase::Over;
                let mut actions = vec![Action::Made];
                actions.extend(self.tell_all(&Step::Thaw { settled: true }));
                actions
            }
            Phase::Over => Vec::new(),
        }
    }

    fn frozen(&mut self, home: impl Fn(VrId) -> Option<HostId>) -> Vec<Action> {
        if let Some((vr, name, host)) = self.unrecorded.first() {
            let (on, more) = (self.hosts[host].clone(), self.unrecorded.len() - 1);
            return self.fail(StateError::NotRecoverable { vr: *vr, name: name.clone(), on, more });
        }
        self.phase = Phase::Settling;
        let mut expected: BTreeMap<HostId, Counts> = BTreeMap::new();
        for (to, from, count) in std::mem::take(&mut self.sent) {
            // Envelopes to VRs that have ended need not arrive.
            if let Some(host) = home(to) {
                expected.entry(host).or_default().push((to, from, count));
            }
        }
        let settle =
            |host: &HostId| Action::Tell(*host, Step::Settle(expected.remove(host).unwrap_or_default()));
        self.hosts.keys().map(settle).collect()
    }

    /// Notes that a process is gone.
    pub(crate) fn gone(&mut self, host: HostId, why: &str) -> Vec<Action> {
        match self.hosts.remove(&host) {
            Some(name) if self.phase < Phase::Over => self.fail(StateError::GivenUp(format!("{name} {why}"))),
            _ => Vec::new(),
        }
    }

    /// Gives up, since the current step takes too long.
    pub(crate) fn timed_out(&mut self) -> Vec<Action> {
        let missing: Vec<&str> =
            self.missing.iter().filter_map(|host| self.hosts.get(host)).map(String::as_str).collect();
        let doing = match self.phase {
            Phase::Freezing => "stop its VRs",
            Phase::Settling => "get what was sent to it",
            Phase::Copying => "copy its VRs",
            Phase::Over => return Vec::new(),
        };
        self.fail(StateError::GivenUp(format!("{} did not {doing} in time", missing.join(", "))))
    }

    fn fail(&mut self, error: StateError) -> Vec<Action> {
        let settled = self.phase == Phase::Copying;
        self.phase = Phase::Over;
        let mut actions = self.tell_all(&Step::Thaw { settled });
        actions.push(Action::Failed(error));
        actions
    }

    fn tell_all(&self, step: &Step) -> Vec<Action> {
        self.hosts.keys().map(|host| Action::Tell(*host, step.clone())).collect()
    }
}

#[cfg(test)]
mod tests;
