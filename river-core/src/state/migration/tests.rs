//! Migrations in a small world under thousands of schedules: VRs send, receive and move repeatedly, lanes and orders are
//! slow, processes die at every step. Every envelope has a number, and its receiver checks that it is the sender's next
//! one. Every schedule is a seed.

use std::collections::VecDeque;

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::*;

const SEEDS: u64 = 10_000;
const HOSTS: usize = 4;
const VRS: usize = 5;
const MIGRATIONS: usize = 4;

/// A VR within a process.
#[derive(Clone, Debug, Default)]
struct Copy {
    sent: [u64; VRS],
    taken: [u64; VRS],
    /// (sender, number)
    queue: VecDeque<(usize, u64)>,
}

#[derive(Clone, Debug)]
enum Order {
    Step(Step),
    Take(usize, Copy),
    /// Where the VRs that moved are now.
    Redirect(Vec<(usize, usize)>),
}

#[derive(Clone, Debug)]
enum Answer {
    Report(Report),
    Taken(usize),
}

#[derive(Clone, Debug, Default)]
struct Process {
    dead: bool,
    frozen: bool,
    vrs: BTreeMap<usize, Copy>,
    /// Where it believes the VRs to be.
    book: [usize; VRS],
    settling: Option<(usize, Counts)>,
}

/// Sender, receiver, number.
type Envelope = (usize, usize, u64);

struct World {
    rng: Pcg64Mcg,
    processes: Vec<Process>,
    /// Envelopes in flight from process to process.
    lanes: BTreeMap<(usize, usize), VecDeque<Envelope>>,
    /// Orders in flight to each process and answers from each, with the number of the migration.
    orders: Vec<VecDeque<(usize, Order)>>,
    answers: Vec<VecDeque<(usize, Answer)>>,
    /// Deaths that the initiator has not heard of yet.
    unheard: Vec<usize>,
    // What the initiator knows.
    home: [usize; VRS],
    ended: [bool; VRS],
    known_dead: [bool; HOSTS],
    given: BTreeMap<usize, Copy>,
    moves: Vec<(usize, usize)>,
    migration: Option<Migration>,
    round: usize,
    results: Vec<Result<(), MigrateError>>,
}

fn host(index: usize) -> HostId {
    HostId::from_uuid(uuid::Uuid::from_u128(index as u128 + 1))
}

fn host_index(host: HostId) -> usize {
    (host.as_uuid().as_u128() - 1) as usize
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
        let home = std::array::from_fn(|_| rng.next_u32() as usize % HOSTS);
        let mut processes = vec![Process { book: home, ..Process::default() }; HOSTS];
        for (number, at) in home.iter().enumerate() {
            processes[*at].vrs.insert(number, Copy::default());
        }
        Self {
            rng,
            processes,
            lanes: BTreeMap::new(),
            orders: vec![VecDeque::new(); HOSTS],
            answers: vec![VecDeque::new(); HOSTS],
            unheard: Vec::new(),
            home,
            ended: [false; VRS],
            known_dead: [false; HOSTS],
            given: BTreeMap::new(),
            moves: Vec::new(),
            migration: None,
            round: 0,
            results: Vec::new(),
        }
    }

    fn below(&mut self, n: usize) -> usize {
        self.rng.next_u32() as usize % n
    }

    /// Begins to move one or two VRs.
    fn begin(&mut self) {
        let mut movers: Vec<usize> = (0..VRS).filter(|number| !self.ended[*number]).collect();
        let hosts: Vec<usize> = (0..HOSTS).filter(|index| !self.known_dead[*index]).collect();
        let mut moves = Vec::new();
        for _ in 0..=self.below(2) {
            if movers.is_empty() {
                continue;
            }
            let mover = movers.swap_remove(self.below(movers.len()));
            let to = hosts[self.below(hosts.len())];
            if to != self.home[mover] {
                moves.push((mover, to));
            }
        }
        if moves.is_empty() {
            self.results.push(Ok(()));
            return;
        }
        self.round += 1;
        self.given.clear();
        let orders = moves.iter().map(|(mover, to)| Move {
            vr: vr(*mover),
            from: host(self.home[*mover]),
            to: host(*to),
        });
        let names = hosts.iter().map(|index| (host(*index), format!("host {index}"))).collect();
        let (migration, actions) = Migration::begin(orders.collect(), names);
        self.moves = moves;
        self.migration = Some(migration);
        self.act(actions);
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            if let Action::Tell(_, Step::Thaw { settled: true }) = action {
                self.check_that_all_has_arrived();
            }
            let round = self.round;
            let mut order = |to: HostId, order| self.orders[host_index(to)].push_back((round, order));
            match action {
                Action::Tell(to, step) => order(to, Order::Step(step)),
                Action::Take(to, vr) => {
                    let number = index_of(vr);
                    order(to, Order::Take(number, self.given[&number].clone()));
                }
                Action::Redirect(to) => order(to, Order::Redirect(self.moves.clone())),
                Action::Commit => {
                    let moves = self.moves.clone();
                    let alive = moves.iter().all(|(mover, to)| !self.ended[*mover] && !self.known_dead[*to]);
                    if alive {
                        moves.iter().for_each(|(mover, to)| self.home[*mover] = *to);
                    }
                    let actions = self.migration.as_mut().expect("one that goes on").decided(alive);
                    self.act(actions);
                }
                Action::Done => self.over(Ok(())),
                Action::Failed(error) => self.over(Err(error)),
            }
        }
    }

    fn check_that_all_has_arrived(&self) {
        for ((_, to), lane) in self.lanes.iter().filter(|((from, _), _)| !self.processes[*from].dead) {
            assert!(lane.is_empty() || self.processes[*to].dead, "{lane:?} is under way to {to}");
        }
    }

    fn over(&mut self, result: Result<(), MigrateError>) {
        self.migration = None;
        self.results.push(result);
    }

    /// Lets a VR send or receive.
    fn live(&mut self) {
        let index = self.below(HOSTS);
        let process = &self.processes[index];
        let here: Vec<usize> = process.vrs.keys().copied().collect();
        if process.frozen || process.dead || here.is_empty() {
            return;
        }
        let number = here[self.below(here.len())];
        let (to, send) = (self.below(VRS), self.below(2) == 0);
        let process = &mut self.processes[index];
        let there = process.book[to];
        let copy = process.vrs.get_mut(&number).expect("it is here");
        if send {
            let sent = copy.sent[to];
            copy.sent[to] += 1;
            if there == index {
                self.arrive(index, (number, to, sent));
            } else {
                self.lanes.entry((index, there)).or_default().push_back((number, to, sent));
            }
        } else if let Some((from, sent)) = copy.queue.pop_front() {
            assert_eq!(sent, copy.taken[from], "VR {number} gets the next envelope of {from}");
            copy.taken[from] += 1;
        }
    }

    fn arrive(&mut self, at: usize, (from, to, number): Envelope) {
        let process = &mut self.processes[at];
        if process.dead {
            return;
        }
        let copy = process.vrs.get_mut(&to);
        copy.unwrap_or_else(|| panic!("VR {to} is not on {at}")).queue.push_back((from, number));
    }

    fn deliver(&mut self) {
        let busy: Vec<(usize, usize)> =
            self.lanes.iter().filter(|(_, lane)| !lane.is_empty()).map(|(ends, _)| *ends).collect();
        if busy.is_empty() {
            return;
        }
        let lane = busy[self.below(busy.len())];
        if let Some(envelope) = self.lanes.get_mut(&lane).and_then(VecDeque::pop_front) {
            self.arrive(lane.1, envelope);
        }
    }

    /// Lets a process obey an order.
    fn obey(&mut self, index: usize) {
        if self.processes[index].dead {
            return;
        }
        let Some((round, order)) = self.orders[index].pop_front() else { return };
        let process = &mut self.processes[index];
        let answer = match order {
            Order::Step(Step::Freeze) => {
                process.frozen = true;
                let sent = |(from, copy): (&usize, &Copy)| {
                    (0..VRS).map(|to| (vr(to), vr(*from), copy.sent[to])).collect::<Vec<_>>()
                };
                let sent = process.vrs.iter().flat_map(sent).filter(|(_, _, count)| *count > 0).collect();
                Answer::Report(Report::Frozen { sent, unrecorded: Vec::new() })
            }
            Order::Step(Step::Settle(counts)) => {
                process.settling = Some((round, counts));
                return;
            }
            Order::Step(Step::Give(vrs)) => {
                assert!(process.frozen);
                for vr in vrs {
                    let number = index_of(vr);
                    self.given.insert(number, process.vrs[&number].clone());
                }
                Answer::Report(Report::Given(Ok(())))
            }
            Order::Take(number, copy) => {
                assert!(process.frozen);
                process.vrs.insert(number, copy);
                Answer::Taken(number)
            }
            Order::Step(Step::Abandon(vrs)) => {
                vrs.iter().for_each(|vr| drop(process.vrs.remove(&index_of(*vr))));
                return;
            }
            Order::Redirect(moves) => {
                assert!(process.frozen);
                for (mover, to) in moves {
                    process.book[mover] = to;
                    if to != index {
                        process.vrs.remove(&mover);
                    }
                }
                return;
            }
            Order::Step(Step::Thaw { .. }) => {
                process.frozen = false;
                process.settling = None;
                return;
            }
            Order::Step(other) => panic!("{other:?}"),
        };
        self.answers[index].push_back((round, answer));
    }

    fn settle(&mut self, index: usize) {
        let process = &mut self.processes[index];
        let Some((round, counts)) = &process.settling else { return };
        let there = |(to, from, count): &(VrId, VrId, u64)| {
            let from = index_of(*from);
            process.vrs.get(&index_of(*to)).is_none_or(|copy| {
                let waiting = copy.queue.iter().filter(|(sender, _)| *sender == from).count();
                copy.taken[from] + waiting as u64 >= *count
            })
        };
        if !process.dead && counts.iter().all(there) {
            self.answers[index].push_back((*round, Answer::Report(Report::Settled)));
            process.settling = None;
        }
    }

    fn hear(&mut self, index: usize) {
        let Some((round, answer)) = self.answers[index].pop_front() else { return };
        let (home, ended) = (self.home, self.ended);
        let Some(migration) = self.migration.as_mut().filter(|_| round == self.round) else { return };
        let home = |vr: VrId| (!ended[index_of(vr)]).then(|| host(home[index_of(vr)]));
        let actions = match answer {
            Answer::Report(report) => migration.report(host(index), report, home),
            Answer::Taken(number) => migration.taken(vr(number), Ok(())),
        };
        self.act(actions);
    }

    fn kill(&mut self, index: usize) {
        if !self.processes[index].dead && self.processes.iter().filter(|process| !process.dead).count() > 2 {
            self.processes[index].dead = true;
            self.orders[index].clear();
            self.unheard.push(index);
        }
    }

    /// The initiator hears of a death, after the last messages of the process.
    fn mourn(&mut self) {
        let Some(index) = self.unheard.pop() else { return };
        while !self.answers[index].is_empty() {
            self.hear(index);
        }
        self.known_dead[index] = true;
        for (number, home) in self.home.iter().enumerate() {
            self.ended[number] |= *home == index;
        }
        if let Some(migration) = &mut self.migration {
            let actions = migration.gone(host(index), "died");
            self.act(actions);
        }
    }

    fn run(&mut self, deadly: bool) {
        while self.results.len() < MIGRATIONS {
            if self.migration.is_none() {
                (0..self.below(30)).for_each(|_| self.live());
                self.begin();
            }
            let index = self.below(HOSTS);
            match self.below(40) {
                0..12 => self.live(),
                12..22 => self.deliver(),
                22..28 => self.obey(index),
                28..34 => self.settle(index),
                34..38 => self.hear(index),
                38 => self.mourn(),
                _ if deadly && self.below(30) == 0 => self.kill(index),
                _ if deadly && self.below(60) == 0 => {
                    let actions = self.migration.as_mut().map(Migration::timed_out);
                    self.act(actions.unwrap_or_default());
                }
                _ => {}
            }
        }
        // Deliver and receive everything in flight.
        for index in 0..HOSTS {
            while !self.processes[index].dead && !self.orders[index].is_empty() {
                self.obey(index);
            }
        }
        while self.lanes.values().any(|lane| !lane.is_empty()) {
            self.deliver();
        }
        (0..self.unheard.len()).for_each(|_| self.mourn());
        for process in self.processes.iter().filter(|process| !process.dead) {
            assert!(!process.frozen);
        }
        while self.processes.iter().any(|p| !p.dead && p.vrs.values().any(|copy| !copy.queue.is_empty())) {
            for process in self.processes.iter_mut().filter(|process| !process.dead) {
                for copy in process.vrs.values_mut() {
                    if let Some((from, number)) = copy.queue.pop_front() {
                        assert_eq!(number, copy.taken[from]);
                        copy.taken[from] += 1;
                    }
                }
            }
        }
        self.check();
    }

    /// Every live VR is where it is believed to be and nowhere else, and has received everything that live VRs have sent to
    /// it.
    fn check(&self) {
        let living: Vec<usize> = (0..VRS).filter(|number| !self.ended[*number]).collect();
        for (index, process) in self.processes.iter().enumerate().filter(|(_, process)| !process.dead) {
            for number in process.vrs.keys() {
                assert!(self.ended[*number] || self.home[*number] == index, "VR {number} is on {index}, too");
            }
        }
        let at = |number: usize| &self.processes[self.home[number]].vrs[&number];
        for to in &living {
            for from in &living {
                assert_eq!(at(*to).taken[*from], at(*from).sent[*to], "from {from} to {to}");
            }
        }
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
fn nothing_is_lost_doubled_or_overtaken_under_ten_thousand_schedules() {
    for_each_seed(false, |world| assert!(world.results.iter().all(Result::is_ok)));
}

#[test]
fn deaths_at_any_moment_lose_only_who_was_there() {
    let (mut done, mut failed) = (0, 0);
    let count = std::cell::RefCell::new((&mut done, &mut failed));
    for_each_seed(true, |world| {
        let mut count = count.borrow_mut();
        *count.0 += world.results.iter().filter(|result| result.is_ok()).count();
        *count.1 += world.results.iter().filter(|result| result.is_err()).count();
    });
    assert!(done > 1_000 && failed > 1_000, "both happen: {done} done, {failed} failed");
}

fn names() -> BTreeMap<HostId, String> {
    (0..2).map(|index| (host(index), format!("on VM {index}"))).collect()
}

fn one() -> Vec<Move> {
    vec![Move { vr: vr(0), from: host(0), to: host(1) }]
}

#[test]
fn a_vr_that_is_not_recorded_is_named() {
    let (mut migration, _) = Migration::begin(one(), names());
    let frozen = |unrecorded| Report::Frozen { sent: Vec::new(), unrecorded };
    assert_eq!(migration.report(host(0), frozen(vec![]), |_| None), []);
    let actions = migration.report(host(1), frozen(vec![(vr(3), "Worker".to_owned())]), |_| None);
    let Some(Action::Failed(error)) = actions.last() else { panic!("{actions:?}") };
    assert!(error.to_string().contains("on VM 1 is not recoverable"), "{error}");
}

#[test]
fn a_vr_that_cannot_be_given_or_taken_stays() {
    for give in [true, false] {
        let (mut migration, _) = Migration::begin(one(), names());
        for index in 0..2 {
            let frozen = Report::Frozen { sent: Vec::new(), unrecorded: Vec::new() };
            migration.report(host(index), frozen, |_| None);
        }
        migration.report(host(0), Report::Settled, |_| None);
        let actions = migration.report(host(1), Report::Settled, |_| None);
        assert_eq!(actions, [Action::Tell(host(0), Step::Give(vec![vr(0)]))]);
        let busy = MigrateError::Busy { vr: vr(0), call: "an effect".into() };
        let given = if give { Ok(()) } else { Err(busy.clone()) };
        let actions = migration.report(host(0), Report::Given(given), |_| None);
        let thaw = |index| Action::Tell(host(index), Step::Thaw { settled: true });
        if !give {
            assert_eq!(actions, [thaw(0), thaw(1), Action::Failed(busy)]);
            continue;
        }
        assert_eq!(actions, [Action::Take(host(1), vr(0))]);
        let actions = migration.taken(vr(0), Err("no thread".into()));
        assert_eq!(actions[..3], [Action::Tell(host(1), Step::Abandon(vec![vr(0)])), thaw(0), thaw(1)]);
    }
}
