//! Mirrored VRs on the simulated network: processes die, or are taken to be dead, at every step, and nothing of a VR that is
//! taken over is lost, doubled, overtaken or said in two ways.
//!
//! The nodes, records, twins and takeovers are the real ones; VRs, the program's connections and its freezing are made here.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use crossbeam_channel::Receiver;
use serde::{Deserialize, Serialize};

use super::{Rng, place};
use crate::down::Why;
use crate::envelope::{Channel, Envelope, Payload};
use crate::id::{HostId, ProgramId, VrId};
use crate::inbox::{Event, Inbox};
use crate::link::SimNet;
use crate::mailbox::Selector;
use crate::node::{Node, Notice};
use crate::protocol::{Counts, Pair, Reply, Request};
use crate::state::takeover::Action;
use crate::state::{Base, Call, Origin, Record, Recorder, Saved, Sending, Sent, Takeover};

const SEEDS: u64 = 2_000;
const STEPS: usize = 500;
const HOSTS: usize = 5;
const VRS: usize = 5;
/// The first ones are mirrored.
const MIRRORED: usize = 3;
const CHANNEL: Channel = Channel::named("sim");

/// All of a VR's value.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Value {
    hash: u64,
    rounds: u64,
    sent: [u64; VRS],
    taken: [u64; VRS],
    /// What has arrived and was not looked at: (sender, number, value).
    queue: VecDeque<(usize, u64, u64)>,
    /// What it has yet to send: (receiver, value).
    outbox: VecDeque<(usize, u64)>,
}

/// A VR that runs.
struct Running {
    host: usize,
    value: Value,
    recorder: Arc<Recorder>,
    inbox: Arc<Inbox>,
    /// What leaves as soon as the twin has confirmed the log.
    bound: Option<((HostId, u64), Envelope)>,
}

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
    /// Those that still run somewhere, by process: one that is taken to be dead runs on.
    running: Vec<(usize, Running)>,
    killed: [bool; HOSTS],
    /// Deaths that the program has yet to hear of, and how.
    unheard: Vec<(usize, Why)>,
    orders: Vec<VecDeque<Order>>,
    answers: Vec<VecDeque<Answer>>,
    // What the program knows.
    home: [usize; VRS],
    twin: [Option<usize>; VRS],
    lost: [bool; VRS],
    dead: [bool; HOSTS],
    takeovers: BTreeMap<usize, (Takeover, Why)>,
    /// What was ever sent with a number: (sender, receiver, number).
    said: HashMap<(VrId, VrId, u64), Bytes>,
}

fn mix(a: u64, b: u64) -> u64 {
    (a ^ b).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23)
}

fn begin(host: usize, node: &Node, saved: Saved) -> Running {
    let Saved { origin, record, pending } = saved;
    let (id, value) = (origin.id, postcard::from_bytes(&record.base().state).expect("a value"));
    let recorder = node.states.add(origin, record);
    let inbox = node.add(id);
    pending.into_iter().for_each(|event| drop(inbox.push(event)));
    Running { host, value, recorder, inbox, bound: None }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let net = Arc::new(SimNet::default());
        let hosts: Vec<HostId> = (0..HOSTS).map(|_| HostId::from_uuid(rng.uuid())).collect();
        let ids: Vec<VrId> = (0..VRS).map(|_| VrId::from_uuid(rng.uuid())).collect();
        // Who is dead is told by the program alone.
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

    // ---- VRs ----

    /// Some calls of a VR, up to where it has to wait.
    fn run(&mut self, index: usize) {
        let (vr, mut running) = self.running.remove(index);
        if let Some(((to, number), envelope)) = running.bound.take() {
            if !running.recorder.is_logged(to, number) {
                running.bound = Some(((to, number), envelope));
                self.running.push((vr, running));
                return;
            }
            self.dispatch(running.host, &envelope);
        }
        for _ in 0..=self.rng.below(3) {
            if !self.call(vr, &mut running) {
                break;
            }
        }
        self.running.push((vr, running));
    }

    /// The next call of a VR. False: it has to wait.
    fn call(&mut self, vr: usize, running: &mut Running) -> bool {
        let Running { value, recorder, inbox, host, .. } = running;
        let node = self.nodes[*host].clone();
        if let Some((to, what)) = value.outbox.pop_front() {
            let number = value.sent[to];
            value.sent[to] += 1;
            let payload: Payload = [number.to_le_bytes(), what.to_le_bytes()].concat().into();
            let (src, dst, channel, lane) = (self.ids[vr], self.ids[to], CHANNEL, 0);
            let sending =
                recorder.send(Sent::new(dst, channel, lane, &payload)).expect("it is deterministic");
            let envelope = |seq| Envelope { src, dst, seq, channel, lane, payload };
            let seq = match sending {
                Sending::Made(_) => return true,
                Sending::Again(seq) | Sending::Due(seq) => seq,
            };
            assert_eq!(seq, number);
            let envelope = envelope(seq);
            if let Sending::Again(_) = sending {
                self.note(&envelope);
                node.send_again(&envelope);
            } else if let Some(bond) = node.ship(recorder) {
                running.bound = Some((bond, envelope));
                return false;
            } else {
                self.dispatch(*host, &envelope);
            }
            return true;
        }
        if value.rounds % 7 == 6 {
            let state: Bytes = postcard::to_stdvec(value).expect("a value").into();
            recorder.restart(Base { state, ..Base::new(self.ids[vr], Bytes::new()) }).expect("deterministic");
        }
        value.rounds += 1;
        if value.rounds.is_multiple_of(5) {
            // Something that nobody could know.
            recorder.call(Call::Effect).expect("it is deterministic");
            let answer = recorder.recorded_answer().expect("it is deterministic");
            let answer = answer.unwrap_or_else(|| {
                let new = Bytes::from((self.rng.below(1000) as u64).to_le_bytes().to_vec());
                recorder.answer(new.clone());
                new
            });
            value.hash = mix(value.hash, u64::from_le_bytes(answer[..].try_into().expect("eight bytes")));
        }
        recorder.call(Call::TryReceive(Selector::on(CHANNEL))).expect("it is deterministic");
        if value.queue.is_empty() {
            let mut events = Vec::new();
            recorder.arrivals(&mut events, inbox);
            for event in events {
                let Event::Envelope(envelope) = event else { continue };
                let from = self.ids.iter().position(|id| *id == envelope.src).expect("a known sender");
                let bytes = envelope.payload.to_bytes();
                let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
                value.queue.push_back((from, word(0), word(8)));
            }
        }
        let Some((from, number, what)) = value.queue.pop_front() else {
            // That nothing was there shows.
            value.hash = mix(value.hash, 1);
            if value.hash.is_multiple_of(3) && value.rounds < 60 {
                let to = (value.hash >> 8) as usize % VRS;
                value.outbox.push_back((to, value.hash));
            }
            return true;
        };
        assert_eq!(number, value.taken[from], "in order, no gap, none twice: from {from} to {vr}");
        value.taken[from] += 1;
        value.hash = mix(mix(value.hash, from as u64), what);
        if value.rounds < 60 {
            for part in 0..value.hash % 3 {
                let to = (value.hash >> (8 * (part + 1))) as usize % VRS;
                value.outbox.push_back((to, mix(value.hash, part)));
            }
        }
        true
    }

    /// Something is seen of a VR.
    fn note(&mut self, envelope: &Envelope) {
        let Envelope { src, dst, seq, .. } = *envelope;
        let what = envelope.payload.to_bytes();
        assert_eq!(
            *self.said.entry((src, dst, seq)).or_insert_with(|| what.clone()),
            what,
            "it says two things"
        );
    }

    fn dispatch(&mut self, host: usize, envelope: &Envelope) {
        self.note(envelope);
        let node = &self.nodes[host];
        if node.send_mirrored(envelope).is_none()
            && let Ok(link) = node.route(envelope.dst)
        {
            let _ = link.send(envelope.clone());
        }
    }

    // ---- processes ----

    /// A process dies; or is taken to be dead.
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

    // ---- the program ----

    fn living(&self) -> Vec<usize> {
        (0..HOSTS).filter(|host| !self.dead[*host]).collect()
    }

    fn learn_of_a_death(&mut self) {
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

    fn hear(&mut self, host: usize) {
        let Some(answer) = self.answers[host].pop_front() else { return };
        // The program does not listen to the dead.
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

    /// Gives twins to those that have none, all standing still: what is under way arrives first.
    fn mirror(&mut self) {
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

    /// Lets everything arrive that is under way.
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

    /// Everybody takes what has arrived.
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
