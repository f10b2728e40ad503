//! Executes several calls at a time: helper VRs besides the server's own, which call functions and send the answers
//! themselves.
//!
//! Only the server's VR receives requests. Jobs on one object are executed one at a time, in order of arrival; all
//! others by any free helper.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use river_core::{Vr, VrId};

use crate::current;
use crate::handed_out::HandedOut;
use crate::protocol::{Failure, Op, Target};
use crate::store::Store;
use crate::wire::{self, Reply};
use crate::work::{self, Job};

type Work = (Job, Vec<Target>);

/// A helper's report on a job that the server must process.
pub(crate) struct Done {
    /// The client of the job.
    pub(crate) client: VrId,
    /// The targets that are free again for other jobs.
    pub(crate) about: Vec<Target>,
    /// An answer for which the client had no room.
    pub(crate) refused: Option<Reply>,
}

/// The server's side.
pub(crate) struct Pool {
    jobs: Option<Sender<Work>>,
    /// Closed when the last helper has ended.
    done: Receiver<Done>,
    handed_out: HandedOut,
    /// The targets that helpers work on, and the jobs that wait for them, numbered in order.
    busy: HashMap<Target, Vec<(u64, Job)>>,
    /// How many times a job had to wait.
    waits: u64,
}

impl Pool {
    pub(crate) fn start(
        vr: &Vr,
        size: usize,
        store: &Arc<Store>,
        handed_out: HandedOut,
    ) -> std::io::Result<Self> {
        let (jobs, work) = crossbeam_channel::unbounded::<Work>();
        let (report, done) = crossbeam_channel::unbounded::<Done>();
        let server = vr.id();
        for _ in 0..size.max(1) {
            let (work, calls, store, report) =
                (work.clone(), handed_out.clone(), store.clone(), report.clone());
            vr.spawn("rai helper", move |vr| {
                help(vr, server, &work, &calls, &store, &report);
                drop(report);
                // If this was the last one, the server ends.
                let _ = wire::tell(vr, server, Op::Back);
                Ok(())
            })?;
        }
        Ok(Self { jobs: Some(jobs), done, handed_out, busy: HashMap::new(), waits: 0 })
    }

    /// Accepts a job. Returns it if the server itself must [run](Self::run) it, at once.
    pub(crate) fn take(&mut self, job: Job, store: &Store) -> Option<Job> {
        // It can be cancelled while it waits, too.
        if let Some(call) = job.call() {
            self.handed_out.add(call);
        }
        let about = job.about(store);
        if let Some(target) = about.iter().find(|target| self.busy.contains_key(target)) {
            self.waits += 1;
            self.busy.entry(target.clone()).or_default().push((self.waits, job));
            return None;
        }
        if !job.calls() {
            return Some(job);
        }
        for target in &about {
            self.busy.insert(target.clone(), Vec::new());
        }
        if let Some(jobs) = &self.jobs {
            // The helpers live as long as this end of the channel.
            let _ = jobs.send((job, about));
        }
        None
    }

    /// Executes a job on the server itself, and answers. Returns the answer if it must be sent later.
    pub(crate) fn run(&self, job: Job, vr: &Vr, store: &Store) -> Option<Reply> {
        run(job, vr, store, &self.handed_out)
    }

    /// What helpers have reported since the last call, and whether the last of them has ended. Does not block.
    pub(crate) fn done(&self) -> (Vec<Done>, bool) {
        let mut done = Vec::new();
        loop {
            match self.done.try_recv() {
                Ok(one) => done.push(one),
                Err(error) => return (done, error.is_disconnected()),
            }
        }
    }

    /// Frees the targets of a helper's job; returns the jobs that waited for them, in order. Some may have waited for a
    /// name, and others for the object that has it.
    pub(crate) fn back(&mut self, about: &[Target]) -> VecDeque<Job> {
        let mut waiting: Vec<(u64, Job)> =
            about.iter().filter_map(|target| self.busy.remove(target)).flatten().collect();
        waiting.sort_unstable_by_key(|(since, _)| *since);
        waiting.into_iter().map(|(_, job)| job).collect()
    }

    /// Whether a job waits for a target that a helper works on.
    pub(crate) fn is_awaited(&self) -> bool {
        self.busy.values().any(|waiting| !waiting.is_empty())
    }

    /// Lets the helpers end once they have executed the jobs that they were given.
    pub(crate) fn close(&mut self) {
        self.jobs = None;
    }
}

impl Drop for Pool {
    /// Waits for the jobs that are being executed.
    fn drop(&mut self) {
        self.close();
        self.done.iter().for_each(drop);
    }
}

fn help(
    vr: &Vr,
    server: VrId,
    jobs: &Receiver<Work>,
    calls: &HandedOut,
    store: &Arc<Store>,
    report: &Sender<Done>,
) {
    current::help(vr, store.clone(), calls.clone());
    for (job, about) in jobs {
        let client = job.client;
        current::begin(vr, job.call());
        let refused = run(job, vr, store, calls);
        if refused.is_some() || !about.is_empty() {
            // A server that is gone needs no report; one whose mailbox is full is not asleep, and will check.
            let _ = report.send(Done { client, about, refused });
            let _ = wire::tell(vr, server, Op::Back);
        }
    }
}

/// Executes a job unless it was cancelled while it waited.
fn run(job: Job, vr: &Vr, store: &Store, calls: &HandedOut) -> Option<Reply> {
    let call = job.call();
    let refused = if call.is_some_and(|call| calls.is_cancelled(call)) {
        work::answer(vr, job.client, job.ticket, Err(Failure::Cancelled))
    } else {
        job.run(vr, store)
    };
    if let Some(call) = call {
        calls.remove(call);
    }
    refused
}
