//! The driver of the master: executes the actions of the state machine, and reports events to it.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use river_core::trace::Label;
use river_core::{RecvError, Selector, VrId};

use crate::cluster::Cluster;
use crate::counters::Counters;
use crate::error::{Death, JobError};
use crate::failure::Failure;
use crate::input::Split;
use crate::master::{Action, AttemptId, Defeat, Master, TaskId, WorkerId};
use crate::output::Directory;
use crate::progress::{Bar, Stage};
use crate::protocol::{CHANNEL, Segment, ToMaster, ToWorker, decode, encode};
use crate::sort::Part;
use crate::spec::JobSpec;
use crate::task::{MapTotals, ReduceTotals};

/// How long to wait for a message before checking for stragglers.
const TICK: Duration = Duration::from_millis(100);

/// The result of a job on a cluster.
pub(crate) struct Done {
    pub(crate) maps: Vec<Mapped>,
    /// Including collected output.
    pub(crate) reduces: Vec<Reduced>,
    pub(crate) map_time: Duration,
    pub(crate) reissued: u64,
    pub(crate) lost: Vec<Death>,
}

#[derive(Debug, Default)]
pub(crate) struct Mapped {
    runs: Vec<Vec<Part>>,
    pub(crate) totals: MapTotals,
    pub(crate) counters: Counters,
    pub(crate) spilled: u64,
}

impl Mapped {
    /// Bytes that the reducers receive.
    pub(crate) fn shuffled_bytes(&self) -> u64 {
        self.runs.iter().flatten().map(|part| part.len).sum()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Reduced {
    pub(crate) totals: ReduceTotals,
    pub(crate) counters: Counters,
    pub(crate) collected: Vec<Bytes>,
}

/// How to run a job.
pub(crate) struct Run<'a> {
    pub(crate) spec: JobSpec,
    pub(crate) splits: &'a [Split],
    pub(crate) directory: Option<&'a Directory>,
    pub(crate) speculate: bool,
    /// Whether to compress shuffled data; `None`: only between machines.
    pub(crate) compress: Option<bool>,
    pub(crate) bar: Bar,
}

/// Runs a job. Blocks until it is done or has failed.
pub(crate) fn run(cluster: &Cluster<'_>, run: Run<'_>) -> Result<Done, JobError> {
    let mut driver = Driver::new(cluster, run);
    let result = driver.run();
    driver.end();
    cluster.next_attempt.set(driver.master.next_attempt());
    result?;
    Ok(Done {
        maps: driver.maps,
        reduces: driver.reduces,
        map_time: driver.map_time.unwrap_or_default(),
        reissued: driver.master.reissued(),
        lost: driver.lost,
    })
}

struct Driver<'a, 'v> {
    cluster: &'a Cluster<'v>,
    job: u64,
    master: Master,
    maps: Vec<Mapped>,
    reduces: Vec<Reduced>,
    /// How many records each map task has read, as far as it has reported.
    read: Vec<u64>,
    /// Output that is returned to the caller, by attempt.
    outputs: HashMap<u64, Vec<Bytes>>,
    /// The last failure, and the VM on which it happened.
    failure: Option<(Failure, String)>,
    start: Instant,
    map_time: Option<Duration>,
    lost: Vec<Death>,
    /// Deaths that must be reported to the program.
    foreign: Vec<VrId>,
    run: Run<'a>,
}

impl<'a, 'v> Driver<'a, 'v> {
    fn new(cluster: &'a Cluster<'v>, run: Run<'a>) -> Self {
        let places: Vec<usize> = cluster.workers.iter().map(|worker| worker.place).collect();
        let (maps, reducers) = (run.splits.len(), run.spec.settings.reducers);
        Self {
            cluster,
            job: cluster.vr.fresh_number(),
            master: Master::new(maps, reducers, &places, cluster.next_attempt.get(), run.speculate),
            maps: std::iter::repeat_with(Mapped::default).take(maps).collect(),
            reduces: std::iter::repeat_with(Reduced::default).take(reducers).collect(),
            read: vec![0; maps],
            outputs: HashMap::new(),
            failure: None,
            start: Instant::now(),
            map_time: None,
            lost: Vec::new(),
            foreign: Vec::new(),
            run,
        }
    }

    fn run(&mut self) -> Result<(), JobError> {
        for &place in self.cluster.deaths.borrow().keys() {
            self.master.handle_down(place);
        }
        for worker in 0..self.cluster.workers.len() {
            let message = ToWorker::Job { job: self.job, spec: self.run.spec.clone() };
            self.tell(WorkerId(worker), &message)?;
        }
        loop {
            if self.map_time.is_none() && self.master.done().0 == self.maps.len() {
                self.map_time = Some(self.start.elapsed());
            }
            while let Some(action) = self.master.poll(self.start.elapsed()) {
                match action {
                    Action::Start { worker, attempt, task } => self.start_task(worker, attempt, task)?,
                    Action::Cancel { worker, attempt } => {
                        self.outputs.remove(&attempt.0);
                        self.tell(worker, &ToWorker::Cancel { attempt: attempt.0 })?;
                    }
                    Action::Moved { worker, attempt, map } => {
                        if let Some(TaskId::Reduce(reducer)) = self.master.task_of(attempt) {
                            let segments = self.segments(map, reducer, worker);
                            self.tell(worker, &ToWorker::Moved { attempt: attempt.0, map, segments })?;
                        }
                    }
                    Action::Done => return Ok(()),
                    Action::GiveUp(defeat) => return Err(self.defeat(&defeat)),
                }
            }
            self.show();
            self.wait()?;
        }
    }

    /// Waits for an event, at most for a tick.
    fn wait(&mut self) -> Result<(), JobError> {
        let deadline = Some(Instant::now() + TICK);
        match self.cluster.vr.receive_until(Selector::on(CHANNEL), deadline, |_| true) {
            Ok(envelope) => match decode(&envelope.payload) {
                Some((message, body)) => self.handle(envelope.src, message, body),
                None => Ok(()),
            },
            Err(RecvError::Timeout { .. }) => Ok(()),
            Err(RecvError::Down(down)) => {
                match self.cluster.place_of.get(&down.who) {
                    Some(&place) => self.down(place, down.why.cause()),
                    None => self.foreign.push(down.who),
                }
                Ok(())
            }
            Err(_) => Err(JobError::Stopped),
        }
    }

    fn handle(&mut self, from: VrId, message: ToMaster, body: Bytes) -> Result<(), JobError> {
        // Other clusters of this VR use the same attempt numbers, and late messages of their workers may still arrive.
        let Some(&place) = self.cluster.place_of.get(&from) else { return Ok(()) };
        let now = self.start.elapsed();
        match message {
            ToMaster::Mapping { attempt, records } => {
                if let Some(TaskId::Map(map)) = self.master.task_of(AttemptId(attempt)) {
                    self.read[map as usize] = records;
                }
            }
            ToMaster::Mapped { attempt, runs, totals, counters, spilled } => {
                let task = self.master.task_of(AttemptId(attempt));
                if let Some(TaskId::Map(map)) = task
                    && self.master.handle_done(AttemptId(attempt), now)
                {
                    let skips = !totals.spoiled.is_empty();
                    self.read[map as usize] = totals.records;
                    self.maps[map as usize] = Mapped { runs, totals, counters, spilled };
                    if skips {
                        self.check_skipped()?;
                    }
                }
            }
            ToMaster::Output { attempt } => {
                if self.master.task_of(AttemptId(attempt)).is_some() {
                    self.outputs.entry(attempt).or_default().push(body);
                }
            }
            ToMaster::Reduced { attempt, totals, counters } => {
                if let Some(TaskId::Reduce(reducer)) = self.master.task_of(AttemptId(attempt)) {
                    // The file gets its name before the task counts as done.
                    if let Some(directory) = self.run.directory {
                        directory.commit_part(reducer, attempt).map_err(|error| JobError::Output {
                            path: directory.path().to_owned(),
                            error: error.into(),
                        })?;
                    }
                    if self.master.handle_done(AttemptId(attempt), now) {
                        let collected = self.outputs.remove(&attempt).unwrap_or_default();
                        self.reduces[reducer as usize] = Reduced { totals, counters, collected };
                    }
                }
            }
            // What was there is run again when this VR hears of the depot's end.
            ToMaster::Blocked { attempt, unreached: None, .. } => {
                self.master.handle_blocked(AttemptId(attempt));
            }
            ToMaster::Blocked { attempt, depot, unreached: Some(why) } => {
                let Some(&there) = self.cluster.place_of.get(&depot) else { return Ok(()) };
                if self.master.handle_unreached(AttemptId(attempt), there) {
                    let vm = self.cluster.places[there].name.clone();
                    self.note_failure(attempt, place, Failure::Unreached { vm, why });
                }
            }
            ToMaster::Failed { attempt, failure } => {
                let finally = failure.is_final();
                if self.master.handle_failed(AttemptId(attempt), finally) {
                    self.note_failure(attempt, place, failure);
                }
            }
            ToMaster::Unanswered { worker, why } => {
                let asked_by = self.cluster.place_of.get(&worker);
                // The map output of this place is out of reach then.
                if asked_by.is_some_and(|there| !self.cluster.deaths.borrow().contains_key(there)) {
                    self.down(place, why);
                }
            }
        }
        Ok(())
    }

    fn note_failure(&mut self, attempt: u64, place: usize, failure: Failure) {
        self.outputs.remove(&attempt);
        let vm = self.cluster.places[place].name.clone();
        tracing::debug!("an attempt failed on VM {vm}: {failure}");
        self.failure = Some((failure, vm));
    }

    fn start_task(&mut self, worker: WorkerId, attempt: AttemptId, task: TaskId) -> Result<(), JobError> {
        let (job, attempt) = (self.job, attempt.0);
        let message = match task {
            TaskId::Map(map) => ToWorker::Map { job, attempt, split: self.run.splits[map as usize].clone() },
            TaskId::Reduce(reducer) => {
                let segments =
                    (0..self.maps.len() as u32).flat_map(|map| self.segments(map, reducer, worker));
                ToWorker::Reduce { job, attempt, reducer, segments: segments.collect() }
            }
        };
        self.tell(worker, &message)
    }

    /// A reducer's part of a map task's output, without empty parts: one segment per run, in the form for this reader.
    fn segments(&self, map: u32, reducer: u32, reader: WorkerId) -> Vec<Segment> {
        let Some((mapper, attempt)) = self.master.map_done_by(map) else { return Vec::new() };
        let place = |worker: WorkerId| &self.cluster.places[self.cluster.workers[worker.0].place];
        let depot = place(mapper).depot;
        let pack = self.run.compress.unwrap_or(place(mapper).machine != place(reader).machine);
        let runs = (0..).zip(&self.maps[map as usize].runs);
        runs.filter_map(|(run, parts)| {
            let part = *parts.get(reducer as usize).filter(|part| part.len > 0)?;
            Some(Segment { map, run, part, depot, pack, attempt: attempt.0 })
        })
        .collect()
    }

    /// Sends a message to a worker, or records that it is gone.
    fn tell(&mut self, worker: WorkerId, message: &ToWorker) -> Result<(), JobError> {
        let info = self.cluster.workers[worker.0];
        self.cluster.vr.describe_channel(CHANNEL, "mapreduce", Label::None);
        let payload = encode(message, Bytes::new())
            .map_err(|error| JobError::Settings(format!("the job cannot travel to a worker: {error}")))?;
        if let Err(error) = self.cluster.vr.send_bytes(info.id, CHANNEL, 0, payload) {
            self.down(info.place, error.to_string());
        }
        Ok(())
    }

    fn down(&mut self, place: usize, why: String) {
        let vm = self.cluster.places[place].name.clone();
        let death = Death { vm, why };
        let new = self.cluster.deaths.borrow_mut().insert(place, death.clone()).is_none();
        let known = !self.master.handle_down(place);
        // Drops the output of attempts that ended with it.
        self.outputs.retain(|attempt, _| self.master.task_of(AttemptId(*attempt)).is_some());
        if !known && new {
            tracing::warn!("VM {} is lost, its work is done again: {}", death.vm, death.why);
            self.lost.push(death);
        }
    }

    fn check_skipped(&self) -> Result<(), JobError> {
        let allowed = self.run.spec.settings.skippable;
        let mut spoiled = self.maps.iter().flat_map(|map| &map.totals.spoiled);
        let skipped = spoiled.clone().count() as u64;
        match spoiled.next() {
            Some(first) if skipped > allowed => {
                let first = format!("at {}: {}", first.place, first.why);
                Err(JobError::TooManySkipped { skipped, allowed, first })
            }
            _ => Ok(()),
        }
    }

    fn defeat(&mut self, defeat: &Defeat) -> JobError {
        let name = |task: &TaskId| match task {
            TaskId::Map(map) => format!("map task {map}"),
            TaskId::Reduce(reducer) => format!("reduce task {reducer}"),
        };
        match defeat {
            Defeat::NoWorkerLeft => JobError::NoVmLeft { deaths: self.cluster.all_deaths() },
            Defeat::Deadly { task, places } => {
                let deaths = self.cluster.deaths.borrow();
                let deaths = places.iter().filter_map(|place| deaths.get(place).cloned()).collect();
                JobError::Deadly { task: name(task), deaths }
            }
            Defeat::Failed { task, .. } => {
                let (failure, vm) =
                    self.failure.take().unwrap_or((Failure::Internal("unknown".into()), String::new()));
                JobError::Failed { task: name(task), vm, why: failure.to_string() }
            }
        }
    }

    /// Cancels whatever still runs, and has the workers drop the job's data.
    fn end(&mut self) {
        let running: Vec<(AttemptId, WorkerId)> = self.master.running().collect();
        for (attempt, worker) in running {
            let _ = self.tell(worker, &ToWorker::Cancel { attempt: attempt.0 });
        }
        for worker in 0..self.cluster.workers.len() {
            if !self.cluster.deaths.borrow().contains_key(&self.cluster.workers[worker].place) {
                let _ = self.tell(WorkerId(worker), &ToWorker::Forget { job: self.job });
            }
        }
        self.cluster.tell_again(&self.foreign);
    }

    fn show(&mut self) {
        // That takes a pass over all map tasks.
        if self.run.bar.is_hidden() {
            return;
        }
        let (maps, reduces) = self.master.done();
        let records = self.read.iter().sum();
        let stage = match maps < self.maps.len() {
            true => Stage::Map { done: maps, of: self.maps.len(), records },
            false => Stage::Reduce { done: reduces, of: self.reduces.len() },
        };
        self.run.bar.show(&stage, self.master.alive());
    }
}
