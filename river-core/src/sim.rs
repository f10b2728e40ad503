//! Tests the delivery guarantees on a simulated network under thousands of schedules: VRs on several hosts send, end, and
//! die, lanes break, and notices come late. Every schedule is a seed, which a failure prints.

mod mirror;

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::Receiver;

use crate::down::Why;
use crate::envelope::Channel;
use crate::error::{RecvError, SendError};
use crate::id::{HostId, VrId};
use crate::link::SimNet;
use crate::mailbox::Selector;
use crate::node::{Node, Notice};
use crate::protocol::{Place, Reply, Request};
use crate::vr::Vr;

const SEEDS: u64 = 20_000;
const STEPS: usize = 120;
const HOSTS: usize = 3;
const VRS: usize = 5;
const CHANNEL: Channel = Channel::named("sim");

/// `SplitMix64`.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    /// Ids are part of the schedule, as lanes are ordered by them.
    fn uuid(&mut self) -> uuid::Uuid {
        let halves = [(); 2].map(|()| self.below(usize::MAX) as u64);
        uuid::Uuid::from_u64_pair(halves[0], halves[1])
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.below(from.len())])
    }
}

/// What the initiator's side of the program knows, and has yet to tell.
#[derive(Default)]
struct Directory {
    hosts: HashMap<VrId, HostId>,
    down: HashMap<HostId, Why>,
    /// (host to be told, host that is dead)
    untold: Vec<(HostId, HostId)>,
    all: Vec<HostId>,
    /// Hosts that were declared lost and must still be ended.
    condemned: Vec<HostId>,
}

fn place(host: HostId) -> Place {
    Place { host, address: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)) }
}

impl Directory {
    fn answer(&mut self, request: Request) -> Option<Reply> {
        Some(match request {
            Request::Locate(vr) => match self.hosts.get(&vr) {
                None => Reply::Gone(Why::Unknown),
                Some(&host) => match self.down.get(&host) {
                    Some(why) => Reply::Dead { host, why: why.clone() },
                    None => Reply::At(place(host)),
                },
            },
            Request::Verdict { host, error } => {
                let why = Why::LostLink { vm: "sim".into(), error };
                if self.declare(host, why) {
                    self.condemned.push(host);
                }
                Reply::Gone(self.down[&host].clone())
            }
            _ => return None,
        })
    }

    fn declare(&mut self, host: HostId, why: Why) -> bool {
        if self.down.contains_key(&host) {
            return false;
        }
        self.down.insert(host, why);
        self.untold.extend(self.all.iter().filter(|other| **other != host).map(|other| (*other, host)));
        true
    }
}

struct World {
    rng: Rng,
    net: Arc<SimNet>,
    directory: Arc<Mutex<Directory>>,
    nodes: Vec<Arc<Node>>,
    notices: Vec<Receiver<Notice>>,
    members: Vec<Member>,
    /// Lanes that the schedule broke.
    broken: HashSet<(HostId, HostId)>,
}

struct Member {
    id: VrId,
    host: usize,
    /// `None` if it has ended, or has died with its host.
    vr: Option<Vr>,
    /// How many accepted envelopes it has sent to each other one.
    sent: Vec<u64>,
    /// How many envelopes it has received from each other one.
    received: Vec<u64>,
    down: HashMap<VrId, Why>,
    /// VRs whose end a receive has reported: nothing may come from them any more.
    told: Vec<VrId>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let net = Arc::new(SimNet::default());
        let directory = Arc::new(Mutex::new(Directory::default()));
        let hosts: Vec<HostId> = (0..HOSTS).map(|_| HostId::from_uuid(rng.uuid())).collect();
        lock(&directory).all.clone_from(&hosts);
        let asked = directory.clone();
        let answer: Arc<dyn Fn(Request) -> Option<Reply> + Send + Sync> =
            Arc::new(move |request| lock(&asked).answer(request));
        let (nodes, notices): (Vec<_>, Vec<_>) =
            hosts.iter().map(|host| Node::simulated(place(*host), &net, answer.clone())).unzip();
        let mut members = Vec::new();
        for _ in 0..VRS {
            let (id, host) = (VrId::from_uuid(rng.uuid()), rng.below(HOSTS));
            lock(&directory).hosts.insert(id, hosts[host]);
            let vr = Vr::new(id, None, nodes[host].clone(), nodes[host].add(id));
            members.push(Member {
                id,
                host,
                vr: Some(vr),
                sent: vec![0; VRS],
                received: vec![0; VRS],
                down: HashMap::new(),
                told: Vec::new(),
            });
        }
        let ids: Vec<VrId> = members.iter().map(|member| member.id).collect();
        // Some begin to watch at once, some only when others may have ended or died.
        for member in &members {
            let others = ids.iter().filter(|id| **id != member.id && rng.below(2) == 0);
            others.for_each(|id| member.vr.iter().for_each(|vr| vr.watch(*id)));
        }
        Self { rng, net, directory, nodes, notices, members, broken: HashSet::new() }
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..40 => self.send(),
            40..72 => {
                let busy = self.net.busy();
                if let Some((from, to)) = self.rng.pick(&busy) {
                    self.net.deliver(from, to);
                }
            }
            72..90 => {
                let member = self.rng.below(VRS);
                self.receive(member);
            }
            90..93 => self.end_one(),
            93..95 => {
                let whole = self.net.whole();
                if let Some((from, to)) = self.rng.pick(&whole) {
                    self.net.break_lane(from, to);
                    self.broken.insert((from, to));
                }
            }
            95..96 => {
                let host = self.rng.below(HOSTS);
                self.kill(host);
            }
            96..97 => self.watch(),
            97..98 => {
                self.tell_one();
            }
            _ => {
                let node = self.rng.below(HOSTS);
                self.carry(node);
            }
        }
        self.execute();
    }

    fn send(&mut self) {
        let (from, to) = (self.rng.below(VRS), self.rng.below(VRS));
        let dest = self.members[to].id;
        let member = &mut self.members[from];
        let Some(vr) = &member.vr else { return };
        let number = member.sent[to];
        match vr.send_bytes(dest, CHANNEL, 0, number.to_le_bytes().to_vec()) {
            Ok(()) => member.sent[to] += 1,
            Err(SendError::Down(down)) => drop(member.down.insert(down.who, down.why)),
            Err(_) => {}
        }
    }

    /// Receives everything that is there, and checks that it is what must come next.
    fn receive(&mut self, index: usize) {
        let ids: Vec<VrId> = self.members.iter().map(|member| member.id).collect();
        let member = &mut self.members[index];
        let Some(vr) = &member.vr else { return };
        loop {
            match vr.try_receive_where(Selector::on(CHANNEL), |_| true) {
                Ok(Some(envelope)) => {
                    let from = ids.iter().position(|id| *id == envelope.src).expect("a known sender");
                    let number =
                        u64::from_le_bytes(envelope.payload.head()[..8].try_into().expect("eight bytes"));
                    assert_eq!(number, member.received[from], "in order, no gap, none twice");
                    assert_eq!(number, envelope.seq);
                    assert!(!member.told.contains(&envelope.src), "nothing comes after the notice");
                    member.received[from] += 1;
                }
                Ok(None) => return,
                Err(RecvError::Down(down)) => {
                    member.told.push(down.who);
                    member.down.insert(down.who, down.why);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn watch(&mut self) {
        let (from, to) = (self.rng.below(VRS), self.rng.below(VRS));
        let dest = self.members[to].id;
        if let Some(vr) = self.members[from].vr.as_ref().filter(|_| from != to) {
            vr.watch(dest);
        }
    }

    fn end_one(&mut self) {
        let index = self.rng.below(VRS);
        let member = &mut self.members[index];
        if let Some(vr) = member.vr.take() {
            drop(vr);
            self.nodes[member.host].remove(member.id, &Why::Finished);
        }
    }

    fn kill(&mut self, host: usize) {
        let id = self.nodes[host].place.host;
        for member in &mut self.members {
            if member.host == host {
                member.vr = None;
            }
        }
        let why = Why::HostDied { vm: "sim".into(), how: "killed".into(), last_lines: vec![] };
        lock(&self.directory).declare(id, why);
        self.net.kill(id);
    }

    /// Ends hosts that were declared lost.
    fn execute(&mut self) {
        let condemned = std::mem::take(&mut lock(&self.directory).condemned);
        for id in condemned {
            let host = self.nodes.iter().position(|node| node.place.host == id).expect("a known host");
            self.kill(host);
        }
    }

    /// Has the program tell one process of one death.
    fn tell_one(&mut self) -> bool {
        let (told, dead, why) = {
            let mut directory = lock(&self.directory);
            if directory.untold.is_empty() {
                return false;
            }
            let index = self.rng.below(directory.untold.len());
            let (told, dead) = directory.untold.swap_remove(index);
            (told, dead, directory.down[&dead].clone())
        };
        if let Some(node) = self.nodes.iter().find(|node| node.place.host == told) {
            node.host_down(dead, &why);
        }
        true
    }

    fn carry(&mut self, node: usize) {
        self.nodes[node].carry_now(&self.notices[node]);
    }

    /// Lets everything in transit arrive.
    fn settle(&mut self) {
        // VRs that have not yet asked about others now do, even about those that have long been gone.
        for (from, to) in (0..VRS).flat_map(|from| (0..VRS).map(move |to| (from, to))).filter(|(a, b)| a != b)
        {
            let dest = self.members[to].id;
            self.members[from].vr.iter().for_each(|vr| vr.watch(dest));
        }
        loop {
            while let Some((from, to)) = self.net.busy().first().copied() {
                self.net.deliver(from, to);
            }
            (0..HOSTS).for_each(|node| self.carry(node));
            self.execute();
            if !self.tell_one() && self.net.busy().is_empty() {
                break;
            }
        }
        (0..VRS).for_each(|member| self.receive(member));
    }

    fn check(&self) {
        let alive = |member: &&Member| member.vr.is_some();
        for receiver in self.members.iter().filter(alive) {
            for (from, sender) in self.members.iter().enumerate() {
                let to = self.members.iter().position(|member| member.id == receiver.id).expect("itself");
                let lost = sender.sent[to] - receiver.received[from];
                assert!(
                    lost == 0 || receiver.down.contains_key(&sender.id),
                    "{lost} envelopes of {:?} for {:?} were lost without a notice",
                    sender.id,
                    receiver.id
                );
                let ends = [sender, receiver].map(|member| self.nodes[member.host].place.host);
                let killed = matches!(receiver.down.get(&sender.id), Some(Why::HostDied { .. }));
                assert!(
                    lost == 0 || !killed || self.broken.contains(&(ends[0], ends[1])),
                    "{lost} envelopes of {:?} for {:?} had arrived when its host died, and were lost",
                    sender.id,
                    receiver.id
                );
                assert!(
                    sender.vr.is_some() || receiver.down.contains_key(&sender.id),
                    "{:?} does not know that {:?} is gone",
                    receiver.id,
                    sender.id
                );
            }
        }
    }
}

fn lock(directory: &Mutex<Directory>) -> MutexGuard<'_, Directory> {
    directory.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn the_guarantees_hold_under_twenty_thousand_schedules() {
    for seed in 0..SEEDS {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..STEPS {
                world.step();
            }
            world.settle();
            world.check();
        });
        assert!(run.is_ok(), "seed {seed}");
    }
}
