//! Serving several calls at a time: helper VRs beside the server's own, which call functions and answer by themselves.
//!
//! The server's VR remains the only one that takes requests in. What concerns one object is done one at a time, in the
//! order in which it came; everything else by whoever is free.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use river_core::{Vr, VrId};

use crate::current;
use crate::handed_out::HandedOut;
use crate::protocol::{Failure, ObjectId, Op};
use crate::store::Store;
use crate::wire;
use crate::work::{self, Job};

type Work = (Job, Option<ObjectId>);

/// The server's side.
pub(crate) struct Pool {
    jobs: Option<Sender<Work>>,
    /// Closed when the last helper has ended.
    ended: Receiver<()>,
    handed_out: HandedOut,
    helpers: Vec<VrId>,
    /// Objects that a helper has, and who waits for them.
    busy: HashMap<ObjectId, VecDeque<Job>>,
}

impl Pool {
    pub(crate) fn start(
        vr: &Vr,
        size: usize,
        store: &Arc<Store>,
        handed_out: HandedOut,
    ) -> std::io::Result<Self> {
        let (jobs, work) = crossbeam_channel::unbounded::<Work>();
        let (alive, ended) = crossbeam_channel::bounded::<()>(0);
        let server = vr.id();
        let helpers = (0..size.max(1)).map(|_| {
            let (work, calls, store, alive) =
                (work.clone(), handed_out.clone(), store.clone(), alive.clone());
            vr.spawn("rai helper", move |vr| {
                help(vr, server, &work, &calls, &store);
                drop(alive);
                Ok(())
            })
        });
        let helpers = helpers.collect::<std::io::Result<Vec<VrId>>>()?;
        Ok(Self { jobs: Some(jobs), ended, handed_out, helpers, busy: HashMap::new() })
    }

    pub(crate) fn is_helper(&self, who: VrId) -> bool {
        self.helpers.contains(&who)
    }

    /// Takes a job to be done. What comes back is for the server itself to do, now.
    pub(crate) fn take(&mut self, job: Job, store: &Store) -> Option<Job> {
        let object = job.object(store);
        if let Some(waiting) = object.and_then(|object| self.busy.get_mut(&object)) {
            waiting.push_back(job);
            return None;
        }
        if !job.calls() {
            return Some(job);
        }
        if let Some(object) = object {
            self.busy.insert(object, VecDeque::new());
        }
        if let Some(ticket) = job.ticket {
            self.handed_out.add((job.client, ticket));
        }
        if let Some(jobs) = &self.jobs {
            // The helpers live as long as this end of the channel.
            let _ = jobs.send((job, object));
        }
        None
    }

    /// A helper has put an object back: who has waited for it, in order.
    pub(crate) fn back(&mut self, object: ObjectId) -> VecDeque<Job> {
        self.busy.remove(&object).unwrap_or_default()
    }

    /// Whether somebody waits for an object that a helper has.
    pub(crate) fn is_awaited(&self) -> bool {
        self.busy.values().any(|waiting| !waiting.is_empty())
    }
}

impl Drop for Pool {
    /// Waits for what is being done.
    fn drop(&mut self) {
        self.jobs = None;
        let _ = self.ended.recv();
    }
}

fn help(vr: &Vr, server: VrId, jobs: &Receiver<Work>, calls: &HandedOut, store: &Arc<Store>) {
    current::help(vr, store.clone(), calls.clone());
    for (job, object) in jobs {
        let call = job.ticket.map(|ticket| (job.client, ticket));
        current::begin(vr, call);
        let answered = if call.is_some_and(|call| calls.is_cancelled(call)) {
            work::answer(vr, job.client, job.ticket, Err(Failure::Cancelled))
        } else {
            job.run(vr, store)
        };
        if let Err(error) = answered {
            tracing::debug!(%error, "a reply was not sent");
        }
        if let Some(call) = call {
            calls.remove(call);
        }
        if let Some(object) = object {
            // A server that is gone needs nothing back.
            let _ = wire::tell(vr, server, Op::Back(object));
        }
    }
}
