//! Tests the master against a model of workers that finish, fail, block and die in random order.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use proptest::prelude::*;

use super::*;

/// Workers with one slot each, in the state in which the master must believe them to be.
struct Model {
    master: Master,
    /// Running attempts: attempt, task, worker; for a reduce task also the map outputs that it has read completely.
    running: BTreeMap<u64, (TaskId, usize, HashSet<u32>)>,
    dead: BTreeSet<usize>,
    accepted: BTreeMap<TaskId, usize>,
    now: Duration,
    defeat: Option<Defeat>,
}

impl Model {
    fn new(maps: usize, reduces: usize, workers: usize) -> Self {
        let places: Vec<usize> = (0..workers).collect();
        Self {
            master: Master::new(maps, reduces, &places, 1, true),
            running: BTreeMap::new(),
            dead: BTreeSet::new(),
            accepted: BTreeMap::new(),
            now: Duration::ZERO,
            defeat: None,
        }
    }

    /// Executes the master's actions. Returns `true` if the job has ended.
    fn obey(&mut self) -> bool {
        while let Some(action) = self.master.poll(self.now) {
            match action {
                Action::Start { worker, attempt, task } => {
                    assert!(!self.dead.contains(&worker.0), "started on a dead worker");
                    if let TaskId::Reduce(_) = task {
                        assert!(!self.running.values().any(|run| run.1 == worker.0), "worker is busy");
                    }
                    assert!(self.running.insert(attempt.0, (task, worker.0, HashSet::new())).is_none());
                }
                Action::Cancel { attempt, .. } => {
                    self.running.remove(&attempt.0);
                }
                Action::Moved { worker, attempt, map } => {
                    assert_eq!(self.running[&attempt.0].1, worker.0);
                    assert!(self.master.map_done_by(map).is_some());
                }
                Action::Done => return true,
                Action::GiveUp(defeat) => {
                    self.defeat = Some(defeat);
                    return true;
                }
            }
        }
        false
    }

    /// Advances a running attempt as far as possible.
    fn progress(&mut self, choice: usize) {
        self.now += Duration::from_millis(300);
        let Some(&attempt) = self.running.keys().nth(choice % self.running.len().max(1)) else { return };
        let (task, _, read) = self.running.get_mut(&attempt).unwrap();
        let task = *task;
        if let TaskId::Reduce(_) = task {
            let maps = self.master.maps.len() as u32;
            let available = |map: &u32| {
                self.master.map_done_by(*map).is_some_and(|(worker, _)| !self.dead.contains(&worker.0))
            };
            read.extend((0..maps).filter(available));
            if (read.len() as u32) < maps {
                let dead = *self.dead.first().expect("nothing is lost unless somebody has died");
                assert!(!self.master.handle_unreached(AttemptId(attempt), dead));
                return;
            }
        }
        self.running.remove(&attempt);
        if self.master.handle_done(AttemptId(attempt), self.now) {
            *self.accepted.entry(task).or_default() += 1;
        }
    }

    fn kill(&mut self, choice: usize) {
        let worker = choice % self.master.workers.len();
        self.dead.insert(worker);
        self.running.retain(|_, run| run.1 != worker);
        self.master.handle_down(worker);
    }

    fn fail(&mut self, choice: usize) {
        let Some(&attempt) = self.running.keys().nth(choice % self.running.len().max(1)) else { return };
        self.running.remove(&attempt);
        self.master.handle_failed(AttemptId(attempt), false);
    }

    /// A reduce task cannot read from a living VM: it waits until it is cancelled.
    fn cut_off(&mut self, choice: usize) {
        let reduces: Vec<u64> = self
            .running
            .iter()
            .filter(|(_, run)| matches!(run.0, TaskId::Reduce(_)))
            .map(|(&attempt, _)| attempt)
            .collect();
        let living =
            (0..self.master.workers.len()).filter(|worker| !self.dead.contains(worker)).nth(choice % 3);
        if let (Some(&attempt), Some(place)) = (reduces.get(choice % reduces.len().max(1)), living) {
            assert!(self.master.handle_unreached(AttemptId(attempt), place));
            let cancelled =
                Action::Cancel { worker: WorkerId(self.running[&attempt].1), attempt: AttemptId(attempt) };
            assert_eq!(self.master.poll(self.now), Some(cancelled));
            self.running.remove(&attempt);
        }
    }
}

proptest! {
    #[test]
    fn every_job_ends_and_every_reduce_is_accepted_once(
        maps in 0usize..8, reduces in 1usize..5, workers in 1usize..5,
        steps in prop::collection::vec((0u8..12, any::<usize>()), 0..60),
    ) {
        let mut model = Model::new(maps, reduces, workers);
        let mut steps = steps.into_iter();
        for turn in 0.. {
            prop_assert!(turn < 2000, "the job does not end: {:?}", model.master);
            if model.obey() {
                break;
            }
            match steps.next() {
                Some((0, choice)) => model.kill(choice),
                Some((1, choice)) => model.fail(choice),
                Some((2, choice)) => {
                    // The master is told both before it is polled.
                    model.progress(choice);
                    model.kill(choice / 7);
                }
                Some((3, choice)) => model.cut_off(choice),
                Some((_, choice)) => model.progress(choice),
                None => model.progress(turn),
            }
        }
        match &model.defeat {
            None => {
                let accepted = |task: u32| model.accepted.get(&TaskId::Reduce(task)).copied();
                prop_assert!((0..reduces as u32).all(|task| accepted(task) == Some(1)));
                prop_assert_eq!(model.master.done().1, reduces);
            }
            Some(Defeat::NoWorkerLeft) => prop_assert_eq!(model.dead.len(), workers),
            Some(Defeat::Deadly { places, .. }) => prop_assert!(places.len() >= DEATHS),
            Some(Defeat::Failed { .. }) => {}
        }
    }
}

fn started(master: &mut Master, now: u64) -> Vec<(usize, TaskId, AttemptId)> {
    let mut started = Vec::new();
    while let Some(Action::Start { worker, attempt, task }) = master.poll(Duration::from_secs(now)) {
        started.push((worker.0, task, attempt));
    }
    started
}

#[test]
fn a_straggler_gets_a_second_attempt_and_the_first_result_counts() {
    let mut master = Master::new(3, 1, &[0, 1], 1, true);
    let first = started(&mut master, 0);
    assert_eq!(first.len(), 2);
    assert!(master.handle_done(first[0].2, Duration::from_secs(1)));
    let third = started(&mut master, 1);
    assert!(master.handle_done(third[0].2, Duration::from_secs(2)));
    assert!(started(&mut master, 1).is_empty());
    let second = started(&mut master, 9);
    assert_eq!((second[0].0, second[0].1), (0, first[1].1));
    assert!(master.handle_done(second[0].2, Duration::from_secs(10)));
    let cancel = Action::Cancel { worker: WorkerId(1), attempt: first[1].2 };
    assert_eq!(master.poll(Duration::from_secs(10)), Some(cancel));
    assert!(!master.handle_done(first[1].2, Duration::from_secs(11)));
    assert_eq!(master.reissued(), 1);
}

#[test]
fn what_a_dead_place_had_mapped_is_mapped_again_by_who_waits_for_it() {
    let mut master = Master::new(2, 1, &[0, 1], 1, false);
    for (_, _, attempt) in started(&mut master, 0) {
        master.handle_done(attempt, Duration::ZERO);
    }
    let reduce = started(&mut master, 0);
    assert_eq!(reduce.len(), 1);
    let (busy, _, attempt) = reduce[0];
    assert!(master.handle_down(1 - busy));
    assert!(started(&mut master, 0).is_empty(), "nobody is free, nobody waits");
    assert!(!master.handle_unreached(attempt, 1 - busy));
    let again = started(&mut master, 0);
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].0, busy);
    master.handle_done(again[0].2, Duration::ZERO);
    assert!(matches!(master.poll(Duration::ZERO), Some(Action::Moved { .. })));
    master.handle_done(attempt, Duration::ZERO);
    assert_eq!(master.poll(Duration::ZERO), Some(Action::Done));
}

#[test]
fn a_reduce_task_that_hears_of_a_death_before_the_master_goes_on_with_what_it_has() {
    let mut master = Master::new(2, 1, &[0, 1], 1, false);
    for (_, _, attempt) in started(&mut master, 0) {
        master.handle_done(attempt, Duration::ZERO);
    }
    let (busy, _, attempt) = started(&mut master, 0)[0];
    master.handle_blocked(attempt);
    assert_eq!(master.poll(Duration::ZERO), None);
    assert!(master.handle_down(1 - busy));
    let again = started(&mut master, 0);
    assert_eq!((again.len(), again[0].0), (1, busy));
    master.handle_done(again[0].2, Duration::ZERO);
    assert!(matches!(master.poll(Duration::ZERO), Some(Action::Moved { attempt: to, .. }) if to == attempt));
    assert!(master.handle_done(attempt, Duration::ZERO));
}

#[test]
fn a_reduce_task_that_goes_on_is_given_no_map_task() {
    let mut master = Master::new(3, 1, &[0, 1, 2], 1, false);
    for (_, _, attempt) in started(&mut master, 0) {
        master.handle_done(attempt, Duration::ZERO);
    }
    let reduce = started(&mut master, 0);
    let (busy, _, attempt) = reduce[0];
    master.handle_down((busy + 1) % 3);
    assert!(!master.handle_unreached(attempt, (busy + 1) % 3));
    // The third worker is free, so it runs the map task.
    let again = started(&mut master, 0);
    assert_eq!(again[0].0, (busy + 2) % 3);
    master.handle_done(again[0].2, Duration::ZERO);
    assert!(matches!(master.poll(Duration::ZERO), Some(Action::Moved { .. })));
    master.handle_down((busy + 2) % 3);
    assert!(started(&mut master, 0).is_empty(), "it does not wait");
    assert!(!master.handle_unreached(attempt, (busy + 2) % 3));
    let again = started(&mut master, 0);
    assert_eq!((again.len(), again[0].0), (1, busy));
}

#[test]
fn nobody_is_told_of_a_move_to_a_worker_that_has_died_since() {
    let mut master = Master::new(2, 1, &[0, 1, 2], 1, false);
    for (_, _, attempt) in started(&mut master, 0) {
        master.handle_done(attempt, Duration::ZERO);
    }
    let (busy, _, attempt) = started(&mut master, 0)[0];
    master.handle_down((busy + 1) % 3);
    assert!(!master.handle_unreached(attempt, (busy + 1) % 3));
    let again = started(&mut master, 0);
    assert_eq!((again.len(), again[0].0), (1, (busy + 2) % 3));
    master.handle_done(again[0].2, Duration::ZERO);
    master.handle_down((busy + 2) % 3);
    // The reduce task was not told to go on, so it does not report again that it is blocked.
    let again = started(&mut master, 0);
    assert_eq!((again.len(), again[0].0), (1, busy));
    master.handle_done(again[0].2, Duration::ZERO);
    assert!(matches!(master.poll(Duration::ZERO), Some(Action::Moved { .. })));
}

#[test]
fn a_task_that_kills_is_given_up() {
    let mut master = Master::new(1, 1, &[0, 1, 2, 3], 1, false);
    for place in 0..3 {
        assert_eq!(started(&mut master, 0)[0].0, place);
        master.handle_down(place);
    }
    let defeat = Defeat::Deadly { task: TaskId::Map(0), places: vec![0, 1, 2] };
    assert_eq!(master.poll(Duration::ZERO), Some(Action::GiveUp(defeat)));
}

#[test]
fn what_has_failed_is_tried_on_another_vm() {
    let mut master = Master::new(2, 1, &[0, 0, 1], 1, true);
    let first = started(&mut master, 0);
    assert_eq!(first.iter().map(|start| start.0).collect::<Vec<_>>(), [0, 1]);
    assert!(master.handle_failed(first[0].2, false));
    // The first VM is free, and is not asked again.
    let again = started(&mut master, 0);
    assert_eq!((again.len(), again[0].0, again[0].1), (1, 2, TaskId::Map(0)));
    assert!(master.handle_failed(again[0].2, false));
    // Now it has failed everywhere.
    let again = started(&mut master, 0);
    assert_eq!((again.len(), again[0].0), (1, 0));
    assert!(master.handle_done(again[0].2, Duration::ZERO));
    // The other one takes long.
    assert_eq!(started(&mut master, 9)[0].0, 2);
}

#[test]
fn a_straggler_is_not_given_to_where_it_has_failed() {
    let mut master = Master::new(2, 1, &[0, 1], 1, true);
    let first = started(&mut master, 0);
    assert!(master.handle_done(first[1].2, Duration::ZERO));
    assert!(master.handle_failed(first[0].2, false));
    let again = started(&mut master, 0);
    assert_eq!((again.len(), again[0].0), (1, 1));
    assert!(started(&mut master, 9).is_empty());
}

#[test]
fn a_reduce_task_that_does_not_reach_a_living_vm_is_tried_elsewhere() {
    let mut master = Master::new(2, 1, &[0, 1], 1, false);
    for (_, _, attempt) in started(&mut master, 0) {
        master.handle_done(attempt, Duration::ZERO);
    }
    for expected in [0, 1, 0, 1] {
        let reduce = started(&mut master, 0);
        assert_eq!((reduce.len(), reduce[0].0), (1, expected));
        let attempt = reduce[0].2;
        assert!(master.handle_unreached(attempt, 1 - expected));
        let cancel = Action::Cancel { worker: WorkerId(expected), attempt };
        assert_eq!(master.poll(Duration::ZERO), Some(cancel));
    }
    assert!(matches!(master.poll(Duration::ZERO), Some(Action::GiveUp(Defeat::Failed { .. }))));
}
