//! The coordination of a migration: VRs move to other processes while all others are stopped briefly, so that no envelope
//! is lost, duplicated or overtaken.
//!
//! 1. *Freeze* and *settle*, as for a checkpoint: every process stops its VRs at their next call, and waits until
//!    everything sent to them has arrived. After that, nothing to or from the VRs that move is in flight.
//! 2. *Give*: their processes encode them, and keep them frozen.
//! 3. *Take*: their new processes restore them, frozen.
//! 4. *Commit*, if all of them have been restored and no process that gives or takes has died. From here on, they live in
//!    their new processes.
//! 5. *Redirect* and *thaw*: every process learns their new places before its VRs go on, and the old VRs end unnoticed.
//!
//! Any failure before the commit is undone: the copies end unnoticed, and the VRs go on where they were. A state machine
//! without sockets or clocks.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::MigrateError;
use crate::id::{HostId, VrId};
use crate::protocol::{Counts, Report, Step};

/// A VR that moves to another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) vr: VrId,
    pub(crate) from: HostId,
    pub(crate) to: HostId,
}

/// The purpose of copying VRs to other processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The VRs move: they live in the other processes from then on.
    Move,
    /// The VRs stay and get twins there; nothing differs until the commit.
    Mirror,
}

/// What the caller must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Tell(HostId, Step),
    /// Have that process restore the VR from its copy, then call [`taken`](Migration::taken).
    Take(HostId, VrId),
    /// Check whether all processes that give or take are alive, and call [`decided`](Migration::decided), atomically.
    Commit,
    /// Tell that process where the VRs are now.
    Redirect(HostId),
    Done,
    Failed(MigrateError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Freezing,
    Settling,
    Giving,
    Taking,
    Committing,
    Over,
}

#[derive(Debug)]
pub(crate) struct Migration {
    moves: Vec<Move>,
    /// All processes of the program, with their names for people.
    hosts: BTreeMap<HostId, String>,
    phase: Phase,
    /// Processes that have not answered yet.
    missing: BTreeSet<HostId>,
    /// VRs that have not been restored yet.
    untaken: BTreeSet<VrId>,
    sent: Counts,
    unrecorded: Vec<(VrId, String, HostId)>,
}

impl Migration {
    /// Begins a migration. With no moves, it only makes sure that everything sent has arrived.
    pub(crate) fn begin(moves: Vec<Move>, hosts: BTreeMap<HostId, String>) -> (Self, Vec<Action>) {
        let (missing, untaken) = (BTreeSet::new(), BTreeSet::new());
        let (sent, unrecorded) = (Vec::new(), Vec::new());
        let mut this = Self { moves, hosts, phase: Phase::Freezing, missing, untaken, sent, unrecorded };
        let gone =
            this.moves.iter().any(|m| !this.hosts.contains_key(&m.from) || !this.hosts.contains_key(&m.to));
        if gone {
            let actions = this.fail(MigrateError::GivenUp("a process that takes part in it is gone".into()));
            return (this, actions);
        }
        this.missing = this.hosts.keys().copied().collect();
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
        let expected = match &report {
            Report::Frozen { .. } => Phase::Freezing,
            Report::Settled => Phase::Settling,
            Report::Given(_) => Phase::Giving,
            Report::Copied { .. } | Report::Mourned(..) => return Vec::new(),
        };
        if expected != self.phase || !self.missing.remove(&from) {
            return Vec::new();
        }
        match report {
            Report::Frozen { sent, unrecorded } => {
                self.sent.extend(sent);
                self.unrecorded.extend(unrecorded.into_iter().map(|(vr, name)| (vr, name, from)));
            }
            Report::Given(Err(error)) => return self.fail(error),
            _ => {}
        }
        if !self.missing.is_empty() {
            return Vec::new();
        }
        match self.phase {
            Phase::Freezing => self.frozen(home),
            Phase::Settling => self.settled(),
            _ => self.given(),
        }
    }

    fn frozen(&mut self, home: impl Fn(VrId) -> Option<HostId>) -> Vec<Action> {
        if let Some((vr, name, host)) = self.unrecorded.first() {
            let (on, more) = (self.hosts[host].clone(), self.unrecorded.len() - 1);
            return self.fail(MigrateError::NotRecoverable { vr: *vr, name: name.clone(), on, more });
        }
        self.phase = Phase::Settling;
        self.missing = self.hosts.keys().copied().collect();
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

    fn settled(&mut self) -> Vec<Action> {
        if self.moves.is_empty() {
            self.phase = Phase::Over;
            let mut actions = self.tell_all(&Step::Thaw { settled: true });
            actions.push(Action::Done);
            return actions;
        }
        self.phase = Phase::Giving;
        self.missing = self.moves.iter().map(|m| m.from).collect();
        let of = |host| self.moves.iter().filter(move |m| m.from == host).map(|m| m.vr).collect();
        self.missing.iter().map(|host| Action::Tell(*host, Step::Give(of(*host)))).collect()
    }

    fn given(&mut self) -> Vec<Action> {
        self.phase = Phase::Taking;
        self.untaken = self.moves.iter().map(|m| m.vr).collect();
        self.moves.iter().map(|m| Action::Take(m.to, m.vr)).collect()
    }

    /// Notes that a VR was restored, or why it could not be.
    pub(crate) fn taken(&mut self, vr: VrId, result: Result<(), String>) -> Vec<Action> {
        if self.phase != Phase::Taking {
            return Vec::new();
        }
        if let Err(error) = result {
            return self.fail(MigrateError::GivenUp(format!("VR {} was not taken up: {error}", vr.short())));
        }
        self.untaken.remove(&vr);
        if !self.untaken.is_empty() {
            return Vec::new();
        }
        self.phase = Phase::Committing;
        vec![Action::Commit]
    }

    /// Takes the answer to [`Action::Commit`].
    pub(crate) fn decided(&mut self, all_alive: bool) -> Vec<Action> {
        if self.phase != Phase::Committing {
            return Vec::new();
        }
        if !all_alive {
            return self.fail(MigrateError::GivenUp("a process that takes part in it died".into()));
        }
        self.phase = Phase::Over;
        let mut actions: Vec<Action> = self.hosts.keys().map(|host| Action::Redirect(*host)).collect();
        actions.extend(self.tell_all(&Step::Thaw { settled: true }));
        actions.push(Action::Done);
        actions
    }

    /// Notes that a process is gone.
    pub(crate) fn gone(&mut self, host: HostId, why: &str) -> Vec<Action> {
        match self.hosts.remove(&host) {
            Some(name) if self.phase < Phase::Over => {
                self.fail(MigrateError::GivenUp(format!("{name} {why}")))
            }
            _ => Vec::new(),
        }
    }

    /// Gives up, since the current step takes too long.
    pub(crate) fn timed_out(&mut self) -> Vec<Action> {
        let missing: Vec<&str> =
            self.missing.iter().filter_map(|host| self.hosts.get(host)).map(String::as_str).collect();
        let missing = missing.join(", ");
        let doing = match self.phase {
            Phase::Freezing => format!("{missing} did not stop its VRs"),
            Phase::Settling => format!("{missing} did not get what was sent to it"),
            Phase::Giving => format!("{missing} did not copy its VRs"),
            Phase::Taking | Phase::Committing => "the VRs were not taken up".into(),
            Phase::Over => return Vec::new(),
        };
        self.fail(MigrateError::GivenUp(format!("{doing} in time")))
    }

    /// Undoes everything: the copies end, and the VRs go on where they were.
    fn fail(&mut self, error: MigrateError) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.phase >= Phase::Taking {
            let takers: BTreeSet<HostId> = self.moves.iter().map(|m| m.to).collect();
            for host in takers.into_iter().filter(|host| self.hosts.contains_key(host)) {
                let vrs = self.moves.iter().filter(|m| m.to == host).map(|m| m.vr).collect();
                actions.push(Action::Tell(host, Step::Abandon(vrs)));
            }
        }
        let settled = self.phase >= Phase::Giving;
        self.phase = Phase::Over;
        actions.extend(self.tell_all(&Step::Thaw { settled }));
        actions.push(Action::Failed(error));
        actions
    }

    fn tell_all(&self, step: &Step) -> Vec<Action> {
        self.hosts.keys().map(|host| Action::Tell(*host, step.clone())).collect()
    }
}

#[cfg(test)]
mod tests;
