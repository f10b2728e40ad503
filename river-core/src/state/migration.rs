//! The coordination of a migration: VRs change their processes while all others stand still for a moment, so that no
//! envelope is lost, doubled or overtaken.
//!
//! 1. *Freeze* and *settle*, as for a checkpoint: every process stops its VRs at their next call, and waits until all that was
//!    sent to them has arrived. Then nothing is under way to the VRs that move, and nothing of theirs either.
//! 2. *Give*: their processes encode them, and keep them, frozen.
//! 3. *Take*: their new processes take them up, frozen.
//! 4. *Commit*: if they are all there, and nobody of those who give and take has died. From here on they live there.
//! 5. *Redirect*, and *thaw*: every process learns where they are before its VRs go on, and the old ones end unseen.
//!
//! Before the commit anything that goes wrong is undone: the copies end unseen, and the VRs go on where they were. A state
//! machine without sockets or clocks.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::MigrateError;
use crate::id::{HostId, VrId};
use crate::protocol::{Counts, Report, Step};

/// A VR that changes its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) vr: VrId,
    pub(crate) from: HostId,
    pub(crate) to: HostId,
}

/// What it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The VRs live there from then on.
    Move,
    /// They get twins there, and stay: nothing differs until the commit.
    Mirror,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Tell(HostId, Step),
    /// That process is to take up the VR as it was given, and [`taken`](Migration::taken) is to be called then.
    Take(HostId, VrId),
    /// Whether all who give and take are alive is to be looked up and [`decided`](Migration::decided), with nothing in
    /// between.
    Commit,
    /// That process is to learn where the VRs are now.
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
    /// Whose answer is missing.
    missing: BTreeSet<HostId>,
    /// What has not been taken up yet.
    untaken: BTreeSet<VrId>,
    sent: Counts,
    unrecorded: Vec<(VrId, String, HostId)>,
}

impl Migration {
    /// If nobody moves, all that was sent arrives.
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

    /// A process has done what it was told. `home` says where a VR is, if it lives.
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
            // What was sent to those who have ended need not arrive.
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

    /// A VR was taken up, or could not be: why.
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

    /// The answer to [`Action::Commit`].
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

    /// A process is gone.
    pub(crate) fn gone(&mut self, host: HostId, why: &str) -> Vec<Action> {
        match self.hosts.remove(&host) {
            Some(name) if self.phase < Phase::Over => {
                self.fail(MigrateError::GivenUp(format!("{name} {why}")))
            }
            _ => Vec::new(),
        }
    }

    /// It takes too long.
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
