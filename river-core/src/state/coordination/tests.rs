//! Checkpoints of a small world under thousands of schedules: VRs send, receive and end while the cut is made, lanes are
//! slow, processes die. The result is either a consistent cut, or no checkpoint and VRs that go on. Every schedule is a
//! seed.

use std::collections::{HashMap, VecDeque};

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::*;

const SEEDS: u64 = 10_000;
const HOSTS: usize = 3;
const VRS: usize = 6;

#[derive(Clone, Debug, Default)]
struct Member {
    host: usize,
    ended: bool,
    /// Per other member: sent, taken out of the queue, waiting in the queue.
    sent: [u64; VRS],
    taken: [u64; VRS],
    waiting: [u64; VRS],
}

#[derive(Clone, Debug, Default)]
struct Process {
    dead: bool,
    frozen: bool,
    /// What it was asked to wait for.
    settling: Option<Counts>,
    copies: Option<Vec<(usize, Member)>>,
}

struct World {
    rng: Pcg64Mcg,
    members: Vec<Member>,
    processes: Vec<Process>,
    /// Envelopes in flight from host to host, in order: (from, to) members.
    lanes: HashMap<(usize, usize), VecDeque<(usize, usize)>>,
    /// Steps in flight to each process, and reports from each.
    steps: Vec<VecDeque<Step>>,
    reports: Vec<VecDeque<Report>>,
    coordination: Coordination,
    over: Option<Result<(), StateError>>,
}

fn host(index: usize) -> HostId {
    HostId::from_uuid(uuid::Uuid::from_u128(index as u128 + 1))
}

fn vr(index: usize) -> VrId {
    VrId::from_uuid(uuid::Uuid::from_u128(index as u128 + 100))
}

fn index_of(vr: VrId) -> usize {
    (vr.as_uuid().as_u128() - 100) as usize
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let members =
            (0..VRS).map(|_| Member { host: rng.next_u32() as usize % HOSTS, ..Member::default() }).collect();
        let names = (0..HOSTS).map(|index| (host(index), format!("host {index}"))).collect();
        let (coordination, actions) = Coordination::begin(names);
        let mut world = Self {
            rng,
            members,
            processes: vec![Process::default(); HOSTS],
            lanes: HashMap::new(),
            steps: vec![VecDeque::new(); HOSTS],
            reports: vec![VecDeque::new(); HOSTS],
            coordination,
            over: None,
        };
        for _ in 0..world.below(60) {
            world.live();
        }
        world.act(actions);
        world
    }

    fn below(&mut self, n: usize) -> usize {
        self.rng.next_u32() as usize % n
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Tell(to, step) => {
                    let index = (0..HOSTS).find(|index| host(*index) == to).expect("a known host");
                    self.steps[index].push_back(step);
                }
                Action::Made => {
                    self.check_cut();
                    self.over = Some(Ok(()));
                }
                Action::Failed(error) => self.over = Some(Err(error)),
            }
        }
    }

    /// Does something unrelated to checkpoints.
    fn live(&mut self) {
        let from = self.below(VRS);
        let member = &self.members[from];
        let process = &self.processes[member.host];
        if process.frozen || process.dead || member.ended {
            return;
        }
        match self.below(10) {
            0..5 => {
                let to = self.below(VRS);
                let at = self.members[from].host;
                let there = self.members[to].host;
                self.members[from].sent[to] += 1;
                if there == at {
                    self.arrive(from, to);
                } else {
                    self.lanes.entry((at, there)).or_default().push_back((from, to));
                }
            }
            5..9 => {
                let sender = self.below(VRS);
                let member = &mut self.members[from];
                if member.waiting[sender] > 0 {
                    member.waiting[sender] -= 1;
                    member.taken[sender] += 1;
                }
            }
            _ if self.below(8) == 0 => self.members[from].ended = true,
            _ => {}
        }
    }

    fn arrive(&mut self, from: usize, to: usize) {
        let member = &mut self.members[to];
        if !self.processes[member.host].dead && !member.ended {
            member.waiting[from] += 1;
        }
    }

    fn deliver(&mut self) {
        let mut busy: Vec<(usize, usize)> =
            self.lanes.iter().filter(|(_, lane)| !lane.is_empty()).map(|(ends, _)| *ends).collect();
        busy.sort_unstable();
        if busy.is_empty() {
            return;
        }
        let lane = busy[self.below(busy.len())];
        if let Some((from, to)) = self.lanes.get_mut(&lane).and_then(VecDeque::pop_front) {
            self.arrive(from, to);
        }
    }

    /// Lets a process take a step.
    fn step(&mut self, index: usize) {
        if self.processes[index].dead {
            return;
        }
        match self.steps[index].pop_front() {
            Some(Step::Freeze) => {
                self.processes[index].frozen = true;
                let sent = |(from, member): (usize, &Member)| {
                    (0..VRS).map(|to| (vr(to), vr(from), member.sent[to])).collect::<Vec<_>>()
                };
                let here = self.members.iter().enumerate().filter(|(_, member)| member.host == index);
                let sent = here.flat_map(sent).filter(|(_, _, count)| *count > 0).collect();
                self.reports[index].push_back(Report::Frozen { sent, unrecorded: Vec::new() });
            }
            Some(Step::Settle(counts)) => self.processes[index].settling = Some(counts),
            Some(Step::Copy) => {
                let here = |(_, member): &(usize, &Member)| member.host == index && !member.ended;
                let copies = self.members.iter().enumerate().filter(here);
                self.processes[index].copies =
                    Some(copies.map(|(number, member)| (number, member.clone())).collect());
                self.reports[index].push_back(Report::Copied { ended: Vec::new() });
            }
            Some(Step::Thaw { .. }) => {
                self.processes[index].frozen = false;
                self.processes[index].settling = None;
            }
            Some(other) => panic!("{other:?} is no step of a checkpoint"),
            None => {}
        }
    }

    fn settle(&mut self, index: usize) {
        let Some(counts) = &self.processes[index].settling else { return };
        let there = |(to, from, count): &(VrId, VrId, u64)| {
            let member = &self.members[index_of(*to)];
            let from = index_of(*from);
            member.ended || member.taken[from] + member.waiting[from] >= *count
        };
        if !self.processes[index].dead && counts.iter().all(there) {
            self.processes[index].settling = None;
            self.reports[index].push_back(Report::Settled);
        }
    }

    fn hear(&mut self, index: usize) {
        let Some(report) = self.reports[index].pop_front() else { return };
        let members = &self.members;
        let home = |vr: VrId| {
            let member = &members[index_of(vr)];
            (!member.ended).then(|| host(member.host))
        };
        let actions = self.coordination.report(host(index), report, home);
        self.act(actions);
    }

    fn kill(&mut self, index: usize) {
        if self.processes[index].dead {
            return;
        }
        self.processes[index].dead = true;
        self.reports[index].clear();
        self.members.iter_mut().filter(|member| member.host == index).for_each(|member| member.ended = true);
        let actions = self.coordination.gone(host(index), "died");
        self.act(actions);
    }

    /// Everything sent between VRs of the cut has been received or is waiting, and nothing else.
    fn check_cut(&self) {
        let copies: HashMap<usize, &Member> = self
            .processes
            .iter()
            .flat_map(|process| process.copies.iter().flatten())
            .map(|(n, m)| (*n, m))
            .collect();
        for (from, sender) in self.members.iter().enumerate() {
            for (to, receiver) in &copies {
                // A VR that has ended has sent all that it will.
                let sent = copies.get(&from).map_or(sender.sent[*to], |copy| copy.sent[*to]);
                let got = receiver.taken[from] + receiver.waiting[from];
                assert_eq!(sent, got, "from {from} to {to}");
            }
        }
        let alive = self.members.iter().filter(|member| !member.ended).count();
        assert_eq!(copies.len(), alive, "everybody who lives is part of it");
    }

    fn run(&mut self, deadly: bool) {
        for _ in 0..2_000 {
            let index = self.below(HOSTS);
            match self.below(20) {
                0..6 => self.live(),
                6..11 => self.deliver(),
                11..14 => self.step(index),
                14..17 => self.settle(index),
                17..19 => self.hear(index),
                _ if deadly && self.below(40) == 0 => self.kill(index),
                _ => {}
            }
            if self.over.is_some() && self.steps.iter().all(VecDeque::is_empty) {
                break;
            }
        }
        if self.over.is_none() {
            // A process whose death is not reported no longer answers, so the step times out.
            let actions = self.coordination.timed_out();
            self.act(actions);
        }
        (0..HOSTS).for_each(|index| {
            while !self.processes[index].dead && !self.steps[index].is_empty() {
                self.step(index);
            }
        });
    }
}

fn for_each_seed(deadly: bool, check: impl Fn(&World)) {
    for seed in 0..SEEDS {
        let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut world = World::new(seed);
            world.run(deadly);
            check(&world);
        }));
        assert!(run.is_ok(), "seed {seed}");
    }
}

#[test]
fn the_cut_is_consistent_under_ten_thousand_schedules() {
    for_each_seed(false, |world| {
        assert_eq!(world.over, Some(Ok(())));
        assert!(world.processes.iter().all(|process| !process.frozen));
    });
}

#[test]
fn deaths_at_any_moment_leave_a_whole_checkpoint_or_none_and_nobody_frozen() {
    for_each_seed(true, |world| {
        assert!(world.over.is_some());
        for process in world.processes.iter().filter(|process| !process.dead) {
            assert!(!process.frozen);
        }
    });
}

#[test]
fn a_vr_that_is_not_recorded_is_named() {
    let names = BTreeMap::from([(host(0), "on VM a".to_owned())]);
    let (mut coordination, _) = Coordination::begin(names);
    let report = Report::Frozen {
        sent: Vec::new(),
        unrecorded: vec![(vr(1), "Worker".into()), (vr(2), "Worker".into())],
    };
    let actions = coordination.report(host(0), report, |_| None);
    let Some(Action::Failed(error)) = actions.last() else { panic!("{actions:?}") };
    assert_eq!(actions[0], Action::Tell(host(0), Step::Thaw { settled: false }));
    assert!(error.to_string().contains("on VM a is not recoverable, nor are 1 others"), "{error}");
}

#[test]
fn who_does_not_answer_is_named() {
    let names = BTreeMap::from([(host(0), "VM a".to_owned()), (host(1), "VM b".to_owned())]);
    let (mut coordination, _) = Coordination::begin(names);
    let report = Report::Frozen { sent: Vec::new(), unrecorded: Vec::new() };
    assert_eq!(coordination.report(host(0), report, |_| None), []);
    let actions = coordination.timed_out();
    let Some(Action::Failed(error)) = actions.last() else { panic!("{actions:?}") };
    assert!(error.to_string().contains("VM b did not stop its VRs in time"), "{error}");
}
