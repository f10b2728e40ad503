//! The runs of a VM's map tasks, which its workers and its depot share: they are VRs of one process, so that is plain
//! memory.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use river_core::VrId;

use crate::sort::{Run, RunSpace};

/// The runs of a VM's map tasks.
#[derive(Debug, Default)]
pub(crate) struct Place {
    jobs: Mutex<HashMap<u64, Outputs>>,
}

#[derive(Debug)]
struct Outputs {
    space: Arc<RunSpace>,
    /// Indexed by attempt.
    runs: HashMap<u64, Arc<Vec<Run>>>,
}

/// The places of this process, by depot. An entry lives as long as the depot or a worker.
static PLACES: Mutex<Option<HashMap<VrId, Weak<Place>>>> = Mutex::new(None);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The data behind these locks is consistent between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Place {
    /// The place of that depot, which runs in this process; created by the first caller.
    pub(crate) fn of(depot: VrId) -> Arc<Self> {
        let mut places = lock(&PLACES);
        let places = places.get_or_insert_default();
        places.retain(|_, place| place.strong_count() > 0);
        if let Some(place) = places.get(&depot).and_then(Weak::upgrade) {
            return place;
        }
        let place = Arc::new(Self::default());
        places.insert(depot, Arc::downgrade(&place));
        place
    }

    /// The space for a job's runs: `memory` bytes of them are kept in memory.
    pub(crate) fn space(&self, job: u64, memory: usize, directory: PathBuf) -> Arc<RunSpace> {
        let mut jobs = lock(&self.jobs);
        let new = || Outputs { space: RunSpace::new(memory, directory), runs: HashMap::new() };
        Arc::clone(&jobs.entry(job).or_insert_with(new).space)
    }

    pub(crate) fn keep(&self, job: u64, attempt: u64, runs: Vec<Run>) {
        if let Some(outputs) = lock(&self.jobs).get_mut(&job) {
            outputs.runs.insert(attempt, Arc::new(runs));
        }
    }

    pub(crate) fn runs(&self, job: u64, attempt: u64) -> Option<Arc<Vec<Run>>> {
        lock(&self.jobs).get(&job)?.runs.get(&attempt).cloned()
    }

    /// Drops the runs of an attempt.
    pub(crate) fn drop_attempt(&self, attempt: u64) {
        let dropped: Vec<_> =
            lock(&self.jobs).values_mut().filter_map(|outputs| outputs.runs.remove(&attempt)).collect();
        drop(dropped);
    }

    /// Drops all runs of a job.
    pub(crate) fn forget(&self, job: u64) {
        let forgotten = lock(&self.jobs).remove(&job);
        drop(forgotten);
    }
}
