//! Mirrored VRs on the simulated network: at every step processes may die, or be taken for dead, and nothing of a VR that is
//! taken over may be lost, duplicated, overtaken or contradicted.
//!
//! The nodes, records, twins and takeovers are the real ones; VRs, the program's connections and freezing are simulated.

mod program;
mod vrs;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use crossbeam_channel::Receiver;

use super::{Rng, place};
use crate::down::Why;
use crate::envelope::Channel;
use crate::id::{HostId, ProgramId, VrId};
use crate::link::SimNet;
use crate::node::{Node, Notice};
use crate::protocol::{Counts, Reply, Request};
use crate::state::{Base, Origin, Record, Saved, Takeover};

use vrs::{Running, Value, begin};

const SEEDS: u64 = 2_000;
const STEPS: usize = 500;
const HOSTS: usize = 5;
const VRS: usize = 5;
/// How many VRs are mirrored: the first ones.
const MIRRORED: usize = 3;
const CHANNEL: Channel = Channel::named("sim");

/// From the program to a process.
enum Order {
    HostDown(usize, Why),
    Mourn(usize, Vec<VrId>),
    TakeOver { dead: usize, vr: usize, arrived: Vec<(VrId, u64)> },
    Moved(usize, usize),
    Unmirrored(usize, Why),
}

/// From a process to the program.
enum Answer {
    Mourned(usize, Counts),
    Lives { dead: usize, vr: usize },
}

struct World {
    rng: Rng,
    net: Arc<SimNet>,
    hosts: Vec<HostId>,
    ids: Vec<VrId>,
    nodes: Vec<Arc<Node>>,
    notices: Vec<Receiver<Notice>>,
    /// VRs that still run, with their processes: a process that is taken for dead runs on.
    running: Vec<(usize, Running)>,
    killed: [bool; HOSTS],
    /// Deaths that the program has yet to hear of, and how they happened.
    unheard: Vec<(usize, Why)>,
    orders: Vec<VecDeque<Order>>,
    answers: Vec<VecDeque<Answer>>,
    // What the program knows.
    home: [usize; VRS],
    twin: [Option<usize>; VRS],
    lost: [bool; VRS],
    dead: [bool; HOSTS],
    takeovers: BTreeMap<usize, (Takeover, Why)>,
    /// Everything that was ever sent, by (sender, receiver, number).
    said: HashMap<(VrId, VrId, u64), Bytes>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let net = Arc::new(SimNet::default());
        let hosts: Vec<HostId> = (0..HOSTS).map(|_| HostId::from_uuid(rng.uuid())).collect();
        let ids: Vec<VrId> = (0..VRS).map(|_| VrId::from_uuid(rng.uuid())).collect();
        // Only the program decides which processes are dead.
        let answer: Arc<dyn Fn(Request) -> Option<Reply> + Send + Sync> =
            Arc::new(|_| Some(Reply::Gone(Why::ProgramEnded)));
        let (nodes, notices): (Vec<_>, Vec<_>) =
            hosts.iter().map(|host| Node::simulated(place(*host), &net, answer.clone())).unzip();
        let home = std::array::from_fn(|_| rng.below(HOSTS));
        let mut this = Self {
            rng,
            net,
            hosts,
            ids,
            nodes,
            notices,
            running: Vec::new(),
            killed: [false; HOSTS],
            unheard: Vec::new(),
            orders: (0..HOSTS).map(|_| VecDeque::new()).collect(),
            answers: (0..HOSTS).map(|_| VecDeque::new()).collect(),
            home,
            twin: [None; VRS],
            lost: [false; VRS],
            dead: [false; HOSTS],
            takeovers: BTreeMap::new(),
            said: HashMap::new(),
        };
        for (vr, host) in home.into_iter().enumerate() {
            let (id, program) = (this.ids[vr], ProgramId::from_uuid(uuid::Uuid::nil()));
            let origin = Origin { id, parent: None, code: None, name: "sim".into(), program };
            let value = Value { hash: vr as u64, ..Value::default() };
            let state = postcard::to_stdvec(&value).expect("a value");
            let record = Record::new(Base::new(id, state.into()));
            let running = begin(host, &this.nodes[host], Saved { origin, record, pending: Vec::new() });
            this.running.push((vr, running));
            this.nodes.iter().for_each(|node| node.learn(id, place(this.hosts[host])));
        }
        this.mirror();
        this
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..45 => {
                if !self.running.is_empty() {
                    let index = self.rng.below(self.running.len());
                    self.run(index);
                }
            }
            45..75 => {
                let busy = self.net.busy();
                if let Some((from, to)) = self.rng.pick(&busy) {
                    self.net.deliver(from, to);
                }
            }
            75..80 => {
                let node = self.rng.below(HOSTS);
                self.nodes[node].carry_now(&self.notices[node]);
            }
            80..88 => {
                let host = self.rng.below(HOSTS);
                self.obey(host);
            }
            88..94 => {
                let host = self.rng.below(HOSTS);
                self.hear(host);
            }
            94..96 => {
                let host = self.rng.below(HOSTS);
                if !self.killed[host] {
                    self.nodes[host].report_arrivals();
                }
            }
            96..97 => {
                let host = self.rng.below(HOSTS);
                if self.killed.iter().filter(|killed| !**killed).count() > 1 && !self.dead[host] {
                    self.strike(host);
                }
            }
            97..98 => self.mirror(),
            _ => self.learn_of_a_death(),
        }
    }

    // ---- processes ----

    /// A process dies, or is taken for dead.
    fn strike(&mut self, host: usize) {
        if self.killed[host] {
            return;
        }
        if self.rng.below(3) > 0 {
            self.killed[host] = true;
            self.net.kill(self.hosts[host]);
            self.running.retain(|(_, running)| running.host != host);
            self.orders[host].clear();
            let why = Why::HostDied { vm: "sim".into(), how: "killed".into(), last_lines: vec![] };
            self.unheard.push((host, why));
        } else {
            self.unheard.push((host, Why::LostLink { vm: "sim".into(), error: "silence".into() }));
        }
    }

    fn obey(&mut self, host: usize) {
        if self.killed[host] {
            return;
        }
        let Some(order) = self.orders[host].pop_front() else { return };
        let node = self.nodes[host].clone();
        match order {
            Order::HostDown(dead, why) => node.host_down(self.hosts[dead], &why),
            Order::Mourn(dead, vrs) if node.is_buried(self.hosts[dead]) => {
                self.answers[host].push_back(Answer::Mourned(dead, node.mourn(&vrs)));
            }
            // What can still be read of it is read first.
            Order::Mourn(..) => self.orders[host].push_front(order),
            Order::TakeOver { dead, vr, arrived } => {
                let taken = node.take_over(self.ids[vr], &arrived, |saved| begin(host, &node, saved));
                let mut running = taken.expect("its twin is here");
                while running.recorder.look(|record, _| !record.is_live()) {
                    self.call(vr, &mut running);
                }
                self.running.push((vr, running));
                self.answers[host].push_back(Answer::Lives { dead, vr });
            }
            Order::Moved(vr, to) => node.moved(&[(self.ids[vr], place(self.hosts[to]))]),
            Order::Unmirrored(vr, why) => node.unmirror(self.ids[vr], Some(&why)),
        }
    }

    /// Lets everything in transit arrive.
    fn settle(&mut self) {
        loop {
            while let Some((from, to)) = self.net.busy().first().copied() {
                self.net.deliver(from, to);
            }
            for host in (0..HOSTS).filter(|host| !self.killed[*host]) {
                self.nodes[host].carry_now(&self.notices[host]);
            }
            let bound: Vec<usize> =
                (0..self.running.len()).filter(|index| self.running[*index].1.bound.is_some()).collect();
            for index in bound {
                let (_, running) = &mut self.running[index];
                let Some(((to, number), envelope)) = running.bound.take() else { continue };
                if running.recorder.is_logged(to, number) {
                    let host = running.host;
                    self.dispatch(host, &envelope);
                } else {
                    running.bound = Some(((to, number), envelope));
                }
            }
            let idle = |world: &Self| {
                (0..HOSTS).all(|host| world.orders[host].is_empty() && world.answers[host].is_empty())
                    && world.net.busy().is_empty()
            };
            if idle(self) {
                return;
            }
            for host in 0..HOSTS {
                self.obey(host);
                self.hear(host);
                if self.dead[host] {
                    self.orders[host].clear();
                    self.answers[host].clear();
                }
            }
        }
    }

    /// All VRs take what has arrived.
    fn finish(&mut self) {
        while !self.unheard.is_empty() {
            self.learn_of_a_death();
        }
        for _ in 0..200 {
            self.settle();
            for _ in 0..self.running.len() {
                let (_, running) = &self.running[0];
                if !self.dead[running.host] {
                    self.run(0);
                } else {
                    let gone = self.running.remove(0);
                    self.running.push(gone);
                }
            }
        }
        self.settle();
    }

    fn show(&self) -> String {
        let bound = self.running.iter().map(|(vr, running)| {
            format!(
                "{vr} on {} bound {:?}",
                running.host,
                running.bound.as_ref().map(|b| (self.hosts.iter().position(|h| *h == b.0.0), b.0.1))
            )
        });
        format!(
            "dead {:?} killed {:?} lost {:?} home {:?} twin {:?} {:?}",
            self.dead,
            self.killed,
            self.lost,
            self.home,
            self.twin,
            bound.collect::<Vec<_>>()
        )
    }

    fn check(&self) {
        assert!(self.takeovers.is_empty());
        let value = |vr: usize| {
            let at = |(other, running): &&(usize, Running)| *other == vr && running.host == self.home[vr];
            self.running.iter().find(at).map(|(_, running)| &running.value)
        };
        for to in 0..VRS {
            if self.lost[to] {
                assert!(to >= MIRRORED || self.twin[to].is_none());
                continue;
            }
            let receiver = value(to).expect("it lives");
            let left = (receiver.queue.len(), receiver.outbox.len(), receiver.rounds);
            assert!(
                left.0 + left.1 == 0,
                "{to} at {} (twin {:?}) {left:?}: {}",
                self.home[to],
                self.twin[to],
                self.show()
            );
            for from in (0..VRS).filter(|from| !self.lost[*from]) {
                let sender = value(from).expect("it lives");
                assert_eq!(sender.sent[to], receiver.taken[from], "from {from} to {to}");
            }
        }
    }
}

#[test]
fn who_is_mirrored_outlives_its_processes_under_thousands_of_schedules() {
    let taken = Mutex::new((0, 0));
    for seed in 0..SEEDS {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            let before = world.home;
            for _ in 0..STEPS {
                world.step();
            }
            world.finish();
            world.check();
            let mut taken = taken.lock().unwrap();
            taken.0 += (0..MIRRORED).filter(|vr| world.home[*vr] != before[*vr]).count();
            taken.1 += world.lost.iter().filter(|lost| **lost).count();
        });
        assert!(run.is_ok(), "seed {seed}");
    }
    let taken = taken.into_inner().unwrap();
    assert!(taken.0 > SEEDS as usize / 10 && taken.1 > 0, "{taken:?}");
}
