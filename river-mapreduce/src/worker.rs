//! The worker: the VR that runs tasks, one after the other. Only while a reduce task waits for a map task to be run
//! again may the worker run that map task in between.

mod shuffle;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use river_core::trace::Label;
use river_core::{Down, RecvError, Result, Selector, SendError, VirtualResource, Vr, VrId, Why};
use serde::{Deserialize, Serialize};

use crate::counters::Counters;
use crate::failure::Failure;
use crate::input::Split;
use crate::output::{OutputBuffer, Sink, part_file};
use crate::place::Place;
use crate::protocol::{
    CHANNEL, Segment, ToDepot, ToMaster, ToWorker, decode, encode, is_announced, send_patiently,
};
use crate::sort::Run;
use crate::spec::JobSpec;
use crate::task::{ReduceTotals, Scratch};
use crate::travel::{AnyJob, unpack};
use shuffle::Shuffle;

/// How often a map task reports its progress to the master.
const PROGRESS: Duration = Duration::from_millis(100);
/// How often a map task checks its messages, which costs a system call or two.
const LOOK: Duration = Duration::from_millis(5);

/// A worker as it is deployed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Worker {
    /// The depot of its VM.
    pub(crate) depot: VrId,
}

impl VirtualResource for Worker {
    fn main(&mut self, vr: &Vr) -> Result {
        let Some(master) = vr.parent() else { return Ok(()) };
        vr.describe_channel(CHANNEL, "mapreduce", Label::None);
        serve(vr, master, self.depot)
    }
}

/// The main loop of a worker, until the program ends or its master is gone.
pub(crate) fn serve(vr: &Vr, master: VrId, depot: VrId) -> Result {
    let mut running = Running::new(vr, master, depot);
    vr.watch(master);
    loop {
        let _ = running.next(true).and_then(|message| message.map_or(Ok(()), |it| running.handle(it)));
        if let Some(end) = running.end.take() {
            return end;
        }
    }
}

/// The worker is to end, as `Running::end` says.
struct Ended;

/// An event for the worker.
enum Message {
    Told(ToWorker, Bytes),
    /// A VR is gone.
    Down(Down),
}

struct Running<'v> {
    vr: &'v Vr,
    master: VrId,
    depot: VrId,
    /// The result of the worker, once it is to end.
    end: Option<Result>,
    place: Arc<Place>,
    jobs: HashMap<u64, Loaded>,
    /// Messages that a running task has deferred.
    inbox: VecDeque<Message>,
}

struct Loaded {
    spec: Arc<JobSpec>,
    job: std::result::Result<Arc<dyn AnyJob>, String>,
    /// Kept from the last map task for the next.
    scratch: Scratch,
}

/// The result of an operation that fails only if the program ends.
type Alive<T = ()> = std::result::Result<T, Ended>;

impl<'v> Running<'v> {
    fn new(vr: &'v Vr, master: VrId, depot: VrId) -> Self {
        let (jobs, inbox) = (HashMap::new(), VecDeque::new());
        Self { vr, master, depot, end: None, place: Place::of(depot), jobs, inbox }
    }

    /// Returns the next message, deferred ones first. `None` if there is none, or if it is malformed.
    fn next(&mut self, wait: bool) -> Alive<Option<Message>> {
        match self.inbox.pop_front() {
            Some(message) => Ok(Some(message)),
            None => self.receive(wait),
        }
    }

    /// Returns the next message from the mailbox.
    fn receive(&mut self, wait: bool) -> Alive<Option<Message>> {
        let on = Selector::on(CHANNEL);
        let received = match wait {
            true => self.vr.receive(on).map(Some),
            false => self.vr.try_receive_where(on, |_| true),
        };
        match received {
            Ok(Some(envelope)) => {
                Ok(decode(&envelope.payload).map(|(message, body)| Message::Told(message, body)))
            }
            Ok(None) => Ok(None),
            Err(RecvError::Down(down)) if down.who == self.master => self.lose_master(down),
            Err(RecvError::Down(down)) => Ok(Some(Message::Down(down))),
            Err(RecvError::Stopped) => self.finish(Ok(())),
            Err(error) => self.finish(Err(error.into())),
        }
    }

    /// Sends a message to the master. If that fails the worker fails, which the master will notice.
    fn tell(&mut self, message: &ToMaster) -> Alive {
        match encode(message, Bytes::new()).map(|message| send_patiently(self.vr, self.master, &message)) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(SendError::Down(down))) => self.lose_master(down),
            Ok(Err(error)) => self.finish(Err(error.into())),
            Err(error) => self.finish(Err(error.into())),
        }
    }

    /// Ends the worker: with success if the master has ended, with an error if it is merely out of reach.
    fn lose_master<T>(&mut self, down: Down) -> Alive<T> {
        let lost = matches!(down.why, Why::LostLink { .. });
        self.finish(if lost { Err(RecvError::Down(down).into()) } else { Ok(()) })
    }

    fn finish<T>(&mut self, end: Result) -> Alive<T> {
        self.end.get_or_insert(end);
        Err(Ended)
    }

    /// Handles a message that needs no running task.
    fn handle(&mut self, message: Message) -> Alive {
        let Message::Told(message, _) = message else { return Ok(()) };
        match message {
            ToWorker::Job { job, spec } => {
                let loaded = unpack(spec.code, spec.state.clone());
                self.jobs.insert(job, Loaded { spec: Arc::new(spec), job: loaded, scratch: None });
            }
            ToWorker::Forget { job } => {
                self.jobs.remove(&job);
                self.place.forget(job);
            }
            ToWorker::Map { job, attempt, split } => {
                let outcome = self.map(job, attempt, &split);
                self.report(attempt, outcome)?;
            }
            ToWorker::Reduce { job, attempt, reducer, segments } => {
                let outcome = self.reduce(job, attempt, reducer, segments);
                self.report(attempt, outcome)?;
            }
            // For an attempt that has ended here.
            ToWorker::Cancel { attempt } => self.place.drop_attempt(attempt),
            ToWorker::Moved { .. } | ToWorker::Chunk { .. } | ToWorker::Missing { .. } => {}
        }
        Ok(())
    }

    fn report(&mut self, attempt: u64, outcome: std::result::Result<ToMaster, Failure>) -> Alive {
        let message = match outcome {
            Ok(message) => message,
            Err(Failure::Cancelled) => return Ok(()),
            Err(failure) => ToMaster::Failed { attempt, failure },
        };
        self.tell(&message)
    }

    fn job(&self, job: u64) -> std::result::Result<(Arc<JobSpec>, Arc<dyn AnyJob>), Failure> {
        let Some(loaded) = self.jobs.get(&job) else {
            return Err(Failure::Internal("a task of a job that is not known here".into()));
        };
        Ok((Arc::clone(&loaded.spec), loaded.job.clone().map_err(Failure::Internal)?))
    }

    fn map(&mut self, job: u64, attempt: u64, split: &Split) -> std::result::Result<ToMaster, Failure> {
        let (spec, code) = self.job(job)?;
        let mut scratch = self.jobs.get_mut(&job).and_then(|loaded| loaded.scratch.take());
        let settings = &spec.settings;
        let space = self.place.space(job, settings.store_memory, std::env::temp_dir());
        let task = settings.map_task(split, &space, settings.skippable);
        let (mut told, mut looked) = (Instant::now(), Instant::now());
        let (mapped, totals) = code.map(&task, &mut scratch, &mut |totals| {
            if looked.elapsed() < LOOK {
                return Ok(());
            }
            looked = Instant::now();
            self.look_up(attempt)?;
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                let message = encode(&ToMaster::Mapping { attempt, records: totals.records }, Bytes::new());
                // It is for the progress bar only: without room in the mailbox it is dropped.
                let _ = message.map(|message| self.vr.send_bytes(self.master, CHANNEL, 0, message));
            }
            Ok(())
        })?;
        if let Some(loaded) = self.jobs.get_mut(&job) {
            loaded.scratch = scratch;
        }
        let runs = mapped.runs.iter().map(|run| run.parts().to_vec()).collect();
        let spilled = mapped.runs.iter().map(Run::spilled_bytes).sum();
        self.place.keep(job, attempt, mapped.runs);
        Ok(ToMaster::Mapped { attempt, runs, totals, counters: mapped.counters, spilled })
    }

    /// Checks whether the attempt has been cancelled, and defers all other messages.
    fn look_up(&mut self, attempt: u64) -> std::result::Result<(), Failure> {
        while let Some(message) = self.receive(false).map_err(|Ended| Failure::Cancelled)? {
            if matches!(message, Message::Told(ToWorker::Cancel { attempt: other }, _) if other == attempt) {
                return Err(Failure::Cancelled);
            }
            self.inbox.push_back(message);
        }
        Ok(())
    }

    fn reduce(
        &mut self,
        job: u64,
        attempt: u64,
        reducer: u32,
        segments: Vec<Segment>,
    ) -> std::result::Result<ToMaster, Failure> {
        let (spec, code) = self.job(job)?;
        // The map phase is over, except for tasks that must be run again.
        if let Some(loaded) = self.jobs.get_mut(&job) {
            loaded.scratch = None;
        }
        let settings = &spec.settings;
        let (vr, master) = (self.vr, self.master);
        let count = segments.len();
        let (mut to_file, mut to_master);
        let sink: Sink<'_> = match &settings.directory {
            Some(path) => {
                to_file = part_file(path, reducer, attempt).map_err(Failure::Output)?;
                &mut to_file
            }
            None => {
                to_master = |bytes: Vec<u8>| {
                    let capacity = bytes.capacity();
                    let message = encode(&ToMaster::Output { attempt }, bytes.into());
                    let message = message.map_err(|error| error.to_string())?;
                    send_patiently(vr, master, &message).map_err(|error| error.to_string())?;
                    Ok(Vec::with_capacity(capacity))
                };
                &mut to_master
            }
        };
        let output = OutputBuffer::new(settings.format, sink);
        let mut shuffle = Shuffle::new(self, job, attempt, reducer, segments, settings.merge_memory);
        let (totals, counters): (ReduceTotals, Counters) = match settings.sample {
            Some(_) => (code.keys(&mut shuffle, count, output)?, Counters::default()),
            None => code.reduce(&mut shuffle, count, output)?,
        };
        Ok(ToMaster::Reduced { attempt, totals, counters })
    }

    /// Requests bytes from a depot. The error says why that is not possible, if the depot may be alive.
    fn ask(&self, depot: VrId, message: &ToDepot) -> std::result::Result<(), Option<String>> {
        let payload = encode(message, Bytes::new()).map_err(|error| Some(error.to_string()))?;
        self.vr.send_bytes(depot, CHANNEL, 0, payload).map_err(|error| match error {
            SendError::Down(down) if is_announced(&down.why) => None,
            error => Some(error.to_string()),
        })
    }
}
