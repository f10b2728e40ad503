//! The program's part: it gives VRs twins, hears of deaths, and has twins take over.

use std::collections::{BTreeMap, BTreeSet};

use super::{Answer, HOSTS, MIRRORED, Order, VRS, World};
use crate::id::{HostId, VrId};
use crate::protocol::Pair;
use crate::sim::place;
use crate::state::takeover::Action;
use crate::state::{Saved, Takeover};

impl World {
    fn living(&self) -> Vec<usize> {
        (0..HOSTS).filter(|host| !self.dead[*host]).collect()
    }

    pub(super) fn learn_of_a_death(&mut self) {
        if self.unheard.is_empty() {
            return;
        }
        let index = self.rng.below(self.unheard.len());
        let (host, why) = self.unheard.swap_remove(index);
        if std::mem::replace(&mut self.dead[host], true) {
            return;
        }
        let mut heirs = BTreeMap::new();
        for vr in (0..VRS).filter(|vr| self.home[*vr] == host) {
            if self.takeovers.values().any(|(takeover, _)| takeover.concerns(self.ids[vr])) {
                continue;
            }
            match self.twin[vr].filter(|twin| !self.dead[*twin]) {
                Some(twin) => drop(heirs.insert(self.ids[vr], self.hosts[twin])),
                None => self.lost[vr] = true,
            }
        }
        for other in self.living() {
            self.orders[other].push_back(Order::HostDown(host, why.clone()));
        }
        for other in self.takeovers.keys().copied().collect::<Vec<_>>() {
            let gone = self.hosts[host];
            let actions = self.takeovers.get_mut(&other).map(|(takeover, _)| takeover.gone(gone));
            self.act(other, actions.unwrap_or_default());
        }
        let others: BTreeSet<HostId> = self.living().into_iter().map(|other| self.hosts[other]).collect();
        let (takeover, actions) = Takeover::begin(heirs, others);
        self.takeovers.insert(host, (takeover, why));
        self.act(host, actions);
        self.twin.iter_mut().for_each(|twin| *twin = twin.filter(|twin| *twin != host));
    }

    pub(super) fn hear(&mut self, host: usize) {
        let Some(answer) = self.answers[host].pop_front() else { return };
        // The program does not listen to dead processes.
        if self.dead[host] {
            return;
        }
        let from = self.hosts[host];
        let (dead, actions) = match answer {
            Answer::Mourned(dead, counts) => {
                (dead, self.takeovers.get_mut(&dead).map(|(takeover, _)| takeover.mourned(from, counts)))
            }
            Answer::Lives { dead, vr } => {
                let vr = self.ids[vr];
                (dead, self.takeovers.get_mut(&dead).map(|(takeover, _)| takeover.lives(vr)))
            }
        };
        self.act(dead, actions.unwrap_or_default());
    }

    fn act(&mut self, dead: usize, actions: Vec<Action>) {
        let host_index = |host: HostId, hosts: &[HostId]| hosts.iter().position(|other| *other == host);
        let vr_index =
            |vr: VrId, ids: &[VrId]| ids.iter().position(|other| *other == vr).expect("a known VR");
        for action in actions {
            match action {
                Action::Mourn(host) => {
                    let vrs = self.takeovers[&dead].0.heirs();
                    let host = host_index(host, &self.hosts).expect("a known host");
                    self.orders[host].push_back(Order::Mourn(dead, vrs));
                }
                Action::TakeOver { vr, by, arrived } => {
                    let by = host_index(by, &self.hosts).expect("a known host");
                    let vr = vr_index(vr, &self.ids);
                    self.orders[by].push_back(Order::TakeOver { dead, vr, arrived });
                }
                Action::Redirect(vr, by) => {
                    let by = host_index(by, &self.hosts).expect("a known host");
                    let vr = vr_index(vr, &self.ids);
                    (self.home[vr], self.twin[vr]) = (by, None);
                    for other in self.living() {
                        self.orders[other].push_back(Order::Moved(vr, by));
                    }
                }
                Action::Lost(vr) => {
                    let vr = vr_index(vr, &self.ids);
                    self.lost[vr] = true;
                    let why = self.takeovers[&dead].1.clone();
                    for other in self.living() {
                        self.orders[other].push_back(Order::Unmirrored(vr, why.clone()));
                    }
                }
            }
        }
        if self.takeovers.get(&dead).is_some_and(|(takeover, _)| takeover.is_over()) {
            self.takeovers.remove(&dead);
        }
    }

    /// Gives twins to the VRs that have none, while all are stopped: what is in transit arrives first.
    pub(super) fn mirror(&mut self) {
        if !self.takeovers.is_empty() || !self.unheard.is_empty() {
            return;
        }
        self.settle();
        if !self.takeovers.is_empty() || self.running.iter().any(|(_, running)| running.bound.is_some()) {
            return;
        }
        for vr in 0..MIRRORED {
            let targets: Vec<usize> =
                self.living().into_iter().filter(|host| *host != self.home[vr]).collect();
            let Some(to) = self.rng.pick(&targets) else { continue };
            if self.lost[vr] || self.twin[vr].is_some() {
                continue;
            }
            let home = self.home[vr];
            let Some((_, running)) =
                self.running.iter().find(|(other, running)| *other == vr && running.host == home)
            else {
                continue;
            };
            let record = running.recorder.give(|_, _| Ok::<_, ()>(())).expect("it is given");
            let bytes =
                Saved { origin: running.recorder.origin.clone(), record, pending: running.inbox.waiting() };
            let saved = Saved::decode(&bytes.encode().expect("it is encoded")).expect("it is decoded");
            self.nodes[to].keep_twin(saved);
            self.twin[vr] = Some(to);
            let pair = Pair { main: place(self.hosts[home]), twin: place(self.hosts[to]) };
            for host in self.living() {
                self.nodes[host].mirrored(&[(self.ids[vr], pair)]);
            }
        }
    }
}
