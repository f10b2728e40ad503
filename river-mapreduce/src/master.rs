//! The master: decides which task runs where; a state machine without messages, clocks or threads. Time is an argument.
//!
//! After section 3 of the MapReduce paper: map tasks whose output died with its machine are run again while a reduce
//! task may need them; a reduce task's output is safe once it was accepted; when there is nothing else to do,
//! stragglers get a second attempt, and the first result counts.
//!
//! One case is not in the paper: a reduce task may wait for a map task while no worker is free. A worker whose reduce
//! task is blocked reports that, and runs map tasks meanwhile.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// A task of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum TaskId {
    Map(u32),
    Reduce(u32),
}

/// An attempt at a task. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AttemptId(pub(crate) u64);

/// A worker's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WorkerId(pub(crate) usize);

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Have the worker start the attempt.
    Start { worker: WorkerId, attempt: AttemptId, task: TaskId },
    /// The attempt's result is no longer needed.
    Cancel { worker: WorkerId, attempt: AttemptId },
    /// The map task was run again: tell the worker that runs this attempt at a reduce task.
    Moved { worker: WorkerId, attempt: AttemptId, map: u32 },
    /// Everything is done.
    Done,
    /// The job has failed.
    GiveUp(Defeat),
}

/// Why the job has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Defeat {
    /// All workers are gone.
    NoWorkerLeft,
    /// Too many workers died while they ran this task.
    Deadly { task: TaskId, places: Vec<usize> },
    /// Too many attempts at this task failed.
    Failed { task: TaskId, attempt: AttemptId },
}

/// How many workers may die of a task.
const DEATHS: usize = 3;
/// How many attempts at a task may fail.
const FAILURES: usize = 4;
/// A task gets a second attempt after this many times the median duration of its kind, and at least this much time.
const STRAGGLER: f64 = 1.5;
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Task {
    attempts: Vec<AttemptId>,
    /// The worker that has done it, and the attempt.
    done: Option<(WorkerId, AttemptId)>,
    /// The places where attempts have failed, one for each failure.
    failures: Vec<usize>,
    deaths: Vec<usize>,
}

#[derive(Debug)]
struct Attempt {
    task: TaskId,
    worker: WorkerId,
    since: Duration,
}

#[derive(Debug)]
struct Worker {
    /// The VM. All workers of a VM die together, and their output with them.
    place: usize,
    alive: bool,
    map: Option<AttemptId>,
    reduce: Option<AttemptId>,
    /// Whether its reduce task waits for a map task.
    blocked: bool,
}

impl Worker {
    fn is_free(&self) -> bool {
        self.alive && self.map.is_none() && self.reduce.is_none()
    }

    /// Whether its reduce task is blocked, so that it can run a map task meanwhile.
    fn waits(&self) -> bool {
        self.alive && self.map.is_none() && self.blocked
    }
}

/// The state of a job.
#[derive(Debug)]
pub(crate) struct Master {
    maps: Vec<Task>,
    reduces: Vec<Task>,
    pending_maps: BTreeSet<u32>,
    pending_reduces: BTreeSet<u32>,
    maps_left: usize,
    reduces_left: usize,
    workers: Vec<Worker>,
    attempts: BTreeMap<AttemptId, Attempt>,
    next_attempt: u64,
    /// How long tasks took: map tasks, reduce tasks.
    took: [Vec<Duration>; 2],
    queue: VecDeque<Action>,
    speculate: bool,
    reissued: u64,
}

impl Master {
    /// `places[worker]` is the VM of a worker; attempts are numbered from `first_attempt`.
    pub(crate) fn new(
        maps: usize,
        reduces: usize,
        places: &[usize],
        first_attempt: u64,
        speculate: bool,
    ) -> Self {
        let tasks = |count: usize| (0..count).map(|_| Task::default()).collect::<Vec<_>>();
        let worker = |&place| Worker { place, alive: true, map: None, reduce: None, blocked: false };
        Self {
            maps: tasks(maps),
            reduces: tasks(reduces),
            pending_maps: (0..maps as u32).collect(),
            pending_reduces: (0..reduces as u32).collect(),
            maps_left: maps,
            reduces_left: reduces,
            workers: places.iter().map(worker).collect(),
            attempts: BTreeMap::new(),
            next_attempt: first_attempt,
            took: [Vec::new(), Vec::new()],
            queue: VecDeque::new(),
            speculate,
            reissued: 0,
        }
    }

    /// Returns what to do next; `None`: wait for an event, or for time to pass.
    pub(crate) fn poll(&mut self, now: Duration) -> Option<Action> {
        while let Some(action) = self.queue.pop_front() {
            let Action::Moved { worker, attempt, map } = action else { return Some(action) };
            // Since this was queued, the map task's worker may have died, or the worker to be told.
            if self.maps[map as usize].done.is_some() && self.attempts.contains_key(&attempt) {
                // It goes on, or reports again that it is blocked.
                self.workers[worker.0].blocked = false;
                return Some(action);
            }
        }
        if self.reduces_left == 0 {
            return Some(Action::Done);
        }
        if !self.workers.iter().any(|worker| worker.alive) {
            return Some(Action::GiveUp(Defeat::NoWorkerLeft));
        }
        if !self.workers.iter().any(|worker| worker.is_free() || worker.waits()) {
            return None;
        }
        if !self.pending_maps.is_empty() {
            let mut maps = self.pending_maps.iter().map(|&map| TaskId::Map(map));
            let (worker, task) = maps.find_map(|task| Some((self.worker_for(task)?, task)))?;
            return Some(self.start(worker, task, now));
        }
        if self.maps_left == 0 {
            let mut reduces = self.pending_reduces.iter().map(|&reduce| TaskId::Reduce(reduce));
            if let Some((worker, task)) = reduces.find_map(|task| Some((self.worker_for(task)?, task))) {
                return Some(self.start(worker, task, now));
            }
        }
        let (worker, straggler) = self.straggler(now)?;
        self.reissued += 1;
        Some(self.start(worker, straggler, now))
    }

    /// An attempt has succeeded. Returns `false` if its result must not be used.
    pub(crate) fn handle_done(&mut self, attempt: AttemptId, now: Duration) -> bool {
        let Some(Attempt { task, worker, since }) = self.end(attempt) else { return false };
        if self.task(task).done.is_some() {
            // Unreachable: when a task is done, its other attempts end.
            return false;
        }
        self.took[usize::from(matches!(task, TaskId::Reduce(_)))].push(now.saturating_sub(since));
        self.task(task).done = Some((worker, attempt));
        for other in std::mem::take(&mut self.task(task).attempts) {
            if let Some(Attempt { worker, .. }) = self.end(other) {
                self.queue.push_back(Action::Cancel { worker, attempt: other });
            }
        }
        match task {
            TaskId::Reduce(_) => self.reduces_left -= 1,
            TaskId::Map(map) => {
                self.maps_left -= 1;
                for (&attempt, Attempt { task, worker, .. }) in &self.attempts {
                    if let TaskId::Reduce(_) = task {
                        self.queue.push_back(Action::Moved { worker: *worker, attempt, map });
                    }
                }
            }
        }
        true
    }

    /// An attempt has failed; `finally`: every other attempt would, too. Returns `false` if it no longer matters.
    pub(crate) fn handle_failed(&mut self, attempt: AttemptId, finally: bool) -> bool {
        let Some(Attempt { task, worker, .. }) = self.end(attempt) else { return false };
        let place = self.workers[worker.0].place;
        self.task(task).failures.push(place);
        if finally || self.task(task).failures.len() >= FAILURES {
            self.queue.push_front(Action::GiveUp(Defeat::Failed { task, attempt }));
        } else {
            self.make_pending(task);
        }
        true
    }

    /// An attempt at a reduce task waits for map tasks to be run again, as their output is gone with its place.
    pub(crate) fn handle_blocked(&mut self, attempt: AttemptId) {
        if let Some(Attempt { worker, .. }) = self.attempts.get(&attempt) {
            self.workers[worker.0].blocked = true;
        }
    }

    /// An attempt at a reduce task cannot read the map output of a place. If the place is not gone, the attempt has failed, as
    /// another VM may be able to reach the place: returns `true`.
    pub(crate) fn handle_unreached(&mut self, attempt: AttemptId, place: usize) -> bool {
        let Some(&Attempt { worker, .. }) = self.attempts.get(&attempt) else { return false };
        if self.workers.iter().any(|worker| worker.place == place && worker.alive) {
            self.handle_failed(attempt, false);
            self.queue.push_front(Action::Cancel { worker, attempt });
            return true;
        }
        self.handle_blocked(attempt);
        false
    }

    /// A VM is gone, and with it its workers and their output. Returns `false` if that was known.
    pub(crate) fn handle_down(&mut self, place: usize) -> bool {
        let gone: Vec<usize> = (0..self.workers.len())
            .filter(|&w| self.workers[w].place == place && self.workers[w].alive)
            .collect();
        for &worker in &gone {
            self.workers[worker].alive = false;
            let running = [self.workers[worker].map, self.workers[worker].reduce];
            for attempt in running.into_iter().flatten() {
                let Some(Attempt { task, .. }) = self.end(attempt) else { continue };
                self.task(task).deaths.push(place);
                if self.task(task).deaths.len() >= DEATHS {
                    let places = self.task(task).deaths.clone();
                    self.queue.push_front(Action::GiveUp(Defeat::Deadly { task, places }));
                }
                self.make_pending(task);
            }
        }
        if self.reduces_left > 0 {
            for map in 0..self.maps.len() {
                if self.maps[map].done.is_some_and(|(worker, _)| self.workers[worker.0].place == place) {
                    self.maps[map].done = None;
                    self.maps_left += 1;
                    self.make_pending(TaskId::Map(map as u32));
                }
            }
        }
        !gone.is_empty()
    }

    /// The worker that has done a map task, and the attempt.
    pub(crate) fn map_done_by(&self, map: u32) -> Option<(WorkerId, AttemptId)> {
        self.maps.get(map as usize)?.done
    }

    /// The task of a running attempt.
    pub(crate) fn task_of(&self, attempt: AttemptId) -> Option<TaskId> {
        self.attempts.get(&attempt).map(|attempt| attempt.task)
    }

    /// The numbers of map tasks and of reduce tasks that are done.
    pub(crate) fn done(&self) -> (usize, usize) {
        (self.maps.len() - self.maps_left, self.reduces.len() - self.reduces_left)
    }

    /// The number of second attempts at stragglers.
    pub(crate) fn reissued(&self) -> u64 {
        self.reissued
    }

    /// The number of live workers.
    pub(crate) fn alive(&self) -> usize {
        self.workers.iter().filter(|worker| worker.alive).count()
    }

    /// The number of the next attempt.
    pub(crate) fn next_attempt(&self) -> u64 {
        self.next_attempt
    }

    /// The running attempts, and their workers.
    pub(crate) fn running(&self) -> impl Iterator<Item = (AttemptId, WorkerId)> {
        self.attempts.iter().map(|(id, attempt)| (*id, attempt.worker))
    }

    fn task(&mut self, task: TaskId) -> &mut Task {
        match task {
            TaskId::Map(map) => &mut self.maps[map as usize],
            TaskId::Reduce(reduce) => &mut self.reduces[reduce as usize],
        }
    }

    fn state(&self, task: TaskId) -> &Task {
        match task {
            TaskId::Map(map) => &self.maps[map as usize],
            TaskId::Reduce(reduce) => &self.reduces[reduce as usize],
        }
    }

    /// A worker that may start a task now: one on a VM where no more attempts have failed than on any other living VM, even a
    /// busy one.
    fn worker_for(&self, task: TaskId) -> Option<WorkerId> {
        let failures = &self.state(task).failures;
        let failed = |worker: &Worker| failures.iter().filter(|place| **place == worker.place).count();
        let least = self.workers.iter().filter(|worker| worker.alive).map(failed).min()?;
        let find = |is_idle: fn(&Worker) -> bool| {
            self.workers.iter().position(|worker| is_idle(worker) && failed(worker) == least)
        };
        let worker = find(Worker::is_free);
        let worker = if let TaskId::Map(_) = task { worker.or_else(|| find(Worker::waits)) } else { worker };
        worker.map(WorkerId)
    }

    fn start(&mut self, worker: WorkerId, task: TaskId, now: Duration) -> Action {
        let attempt = AttemptId(self.next_attempt);
        self.next_attempt += 1;
        match task {
            TaskId::Map(map) => self.pending_maps.remove(&map),
            TaskId::Reduce(reduce) => self.pending_reduces.remove(&reduce),
        };
        self.attempts.insert(attempt, Attempt { task, worker, since: now });
        self.task(task).attempts.push(attempt);
        let busy = &mut self.workers[worker.0];
        match task {
            TaskId::Map(_) => busy.map = Some(attempt),
            TaskId::Reduce(_) => (busy.reduce, busy.blocked) = (Some(attempt), false),
        }
        Action::Start { worker, attempt, task }
    }

    /// Removes an attempt and frees its worker. `None` if it is no longer known.
    fn end(&mut self, attempt: AttemptId) -> Option<Attempt> {
        let ended = self.attempts.remove(&attempt)?;
        self.task(ended.task).attempts.retain(|other| *other != attempt);
        let worker = &mut self.workers[ended.worker.0];
        match ended.task {
            TaskId::Map(_) => worker.map = None,
            TaskId::Reduce(_) => (worker.reduce, worker.blocked) = (None, false),
        }
        Some(ended)
    }

    /// Schedules a task again, unless it is done or being run.
    fn make_pending(&mut self, task: TaskId) {
        let state = self.task(task);
        if state.done.is_none() && state.attempts.is_empty() {
            match task {
                TaskId::Map(map) => self.pending_maps.insert(map),
                TaskId::Reduce(reduce) => self.pending_reduces.insert(reduce),
            };
        }
    }

    /// The task that has run longest, if it has run much longer than usual, on one worker only, and a free worker on another
    /// VM that may run it as well.
    fn straggler(&mut self, now: Duration) -> Option<(WorkerId, TaskId)> {
        if !self.speculate {
            return None;
        }
        let phase = usize::from(self.maps_left == 0);
        let took = &mut self.took[phase];
        if took.is_empty() {
            return None;
        }
        let middle = took.len() / 2;
        let median = *took.select_nth_unstable(middle).1;
        let limit = median.mul_f64(STRAGGLER).max(PATIENCE);
        let candidate = |attempt: &&Attempt| {
            usize::from(matches!(attempt.task, TaskId::Reduce(_))) == phase
                && self.state(attempt.task).attempts.len() == 1
                && now.saturating_sub(attempt.since) > limit
        };
        let second = |attempt: &Attempt| {
            let (place, failures) =
                (self.workers[attempt.worker.0].place, &self.state(attempt.task).failures);
            let fits =
                |other: &Worker| other.is_free() && other.place != place && !failures.contains(&other.place);
            Some((attempt.since, WorkerId(self.workers.iter().position(fits)?), attempt.task))
        };
        let stragglers = self.attempts.values().filter(candidate).filter_map(second);
        let (_, worker, task) = stragglers.min_by_key(|(since, ..)| *since)?;
        Some((worker, task))
    }
}
