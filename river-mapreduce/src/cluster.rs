//! The VMs that jobs run on.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::thread::available_parallelism;

use river_core::{Count, Query, RecvError, Selector, VmInfo, Vr, VrId};

use crate::depot::Depot;
use crate::error::{Death, JobError};
use crate::protocol::CHANNEL;
use crate::worker::Worker;

/// VMs with workers that run jobs, one after the other: chained and iterative jobs share a cluster.
///
/// Each VM has as many workers as it has *slots*, by default one: start a VM per core, or give a VM as many slots as it
/// has cores.
///
/// ```no_run
/// # use river_mapreduce::{Cluster, Input, Job, MapReduce, Travel};
/// # fn example(vr: &river_core::Vr, word_count: impl MapReduce<Input = String> + Travel) -> river_core::Result {
/// let cluster = Cluster::connect(vr, ..)?; // all VMs that can be found; or 4, or 2..
/// let outcome = Job::new(word_count, Input::lines(["/var/log"])).run(&cluster)?;
/// println!("{}", outcome.report());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Cluster<'v> {
    pub(crate) vr: &'v Vr,
    vms: Vec<VmInfo>,
    pub(crate) places: Vec<PlaceInfo>,
    pub(crate) workers: Vec<WorkerInfo>,
    /// The place to which each VR belongs; the place is lost when the VR ends.
    pub(crate) place_of: HashMap<VrId, usize>,
    pub(crate) deaths: RefCell<HashMap<usize, Death>>,
    pub(crate) next_attempt: Cell<u64>,
}

#[derive(Debug)]
pub(crate) struct PlaceInfo {
    pub(crate) name: String,
    pub(crate) depot: VrId,
    pub(crate) machine: IpAddr,
    /// This VM's share of its machine's memory.
    pub(crate) memory: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkerInfo {
    pub(crate) id: VrId,
    pub(crate) place: usize,
}

impl<'v> Cluster<'v> {
    /// Finds idle VMs, leases them for this program and starts a worker on each. `4` means exactly four, `2..` at least
    /// two and as many as are available, `..` all available, but at least one.
    ///
    /// # Errors
    /// [`JobError::Deploy`]; if there are too few VMs, it tells how many there are, and how to start more.
    ///
    /// # Blocking
    /// Until enough VMs have answered, at most about a second, and until the program has been sent to all of them.
    pub fn connect(vr: &'v Vr, count: impl Into<Count>) -> Result<Self, JobError> {
        let count = count.into();
        Self::lease(vr, idle(vr, count)?, count)
    }

    /// Like [`connect`](Self::connect), but if no VM is idle anywhere, starts VMs on this machine, which end with the
    /// program: `n`, or one per core.
    ///
    /// # Errors
    /// As [`connect`](Self::connect). With `Some(n)`, if some VMs are idle but fewer than `n`, there is an error, not a
    /// mixture.
    pub fn connect_or_start(vr: &'v Vr, n: Option<usize>) -> Result<Self, JobError> {
        let count = n.map_or(Count::AtLeast(1), Count::Exactly);
        let found = idle(vr, count)?;
        if !found.is_empty() {
            return Self::lease(vr, found, count);
        }
        let n = n.unwrap_or_else(|| available_parallelism().map_or(1, usize::from));
        Self::on_own(vr, vr.start_local(n)?)
    }

    fn lease(vr: &'v Vr, mut found: Vec<VmInfo>, count: Count) -> Result<Self, JobError> {
        if found.len() < count.minimum() {
            // It will fail, but the error should list the VMs that are in use.
            found = vr.discover(Query::default())?;
        }
        Self::on_own(vr, vr.allocate(found, count)?)
    }

    /// On VMs that nothing else uses: they are given back if no cluster can be made.
    fn on_own(vr: &'v Vr, vms: Vec<VmInfo>) -> Result<Self, JobError> {
        Self::on(vr, &vms).inspect_err(|_| drop(vr.release(&vms)))
    }

    /// Gives the VMs back, including those that the program had leased itself; the workers end, as does everything else
    /// that the program runs there. Without this call the VMs are kept until the program ends.
    ///
    /// # Errors
    /// [`JobError::Deploy`] if the program is ending.
    ///
    /// # Blocking
    /// Until they have ended.
    pub fn release(self) -> Result<(), JobError> {
        let deaths = self.deaths.borrow();
        let living = self.place_of.iter().filter(|(_, place)| !deaths.contains_key(place));
        let mut living: HashSet<VrId> = living.map(|(id, _)| *id).collect();
        living.iter().for_each(|id| self.vr.watch(*id));
        self.vr.release(&self.vms)?;
        // These ends are no news for the program, unlike all others.
        let mut foreign = Vec::new();
        while !living.is_empty() {
            match self.vr.receive(Selector::on(CHANNEL)) {
                Err(RecvError::Down(down)) if living.remove(&down.who) => {}
                Err(RecvError::Down(down)) => foreign.push(down.who),
                // A late message of a straggler.
                Ok(_) => {}
                Err(_) => return Err(JobError::Stopped),
            }
        }
        foreign.retain(|who| !self.place_of.contains_key(who));
        self.tell_again(&foreign);
        Ok(())
    }

    /// Makes the program's next receive report deaths of which the cluster was told.
    pub(crate) fn tell_again(&self, foreign: &[VrId]) {
        foreign.iter().for_each(|who| self.vr.watch(*who));
    }

    /// Starts a worker on each of these VMs, which the program has leased.
    ///
    /// # Errors
    /// [`JobError::Deploy`].
    pub fn on(vr: &'v Vr, vms: &[VmInfo]) -> Result<Self, JobError> {
        Self::with_slots(vr, vms, 1)
    }

    /// Starts this many workers on each of these VMs.
    ///
    /// # Errors
    /// [`JobError::Deploy`]; [`JobError::Settings`] for no slots or no VMs; [`JobError::Recoverable`].
    pub fn with_slots(vr: &'v Vr, vms: &[VmInfo], slots: usize) -> Result<Self, JobError> {
        if vr.is_recoverable() {
            return Err(JobError::Recoverable);
        }
        if slots == 0 || vms.is_empty() {
            return Err(JobError::Settings("a cluster needs at least one VM, and slots on each".into()));
        }
        let depots = vr.deploy(vms, |_| Depot)?;
        let each: Vec<VmInfo> = vms.iter().flat_map(|vm| vec![vm.clone(); slots]).collect();
        let workers = vr.deploy(&each, |i| Worker { depot: depots[i / slots] })?;
        let places = vms.iter().zip(depots.iter()).map(|(vm, depot)| {
            let neighbours = vms.iter().filter(|other| other.address.ip() == vm.address.ip()).count();
            let (name, machine) = (vm.name.clone(), vm.address.ip());
            PlaceInfo { name, depot, machine, memory: vm.memory / neighbours.max(1) as u64 }
        });
        Ok(Self::of(
            vr,
            vms.to_vec(),
            places.collect(),
            workers.iter().enumerate().map(|(i, id)| (id, i / slots)).collect(),
        ))
    }

    fn of(vr: &'v Vr, vms: Vec<VmInfo>, places: Vec<PlaceInfo>, workers: Vec<(VrId, usize)>) -> Self {
        let workers: Vec<WorkerInfo> =
            workers.into_iter().map(|(id, place)| WorkerInfo { id, place }).collect();
        let mut place_of: HashMap<VrId, usize> =
            workers.iter().map(|worker| (worker.id, worker.place)).collect();
        place_of.extend(places.iter().enumerate().map(|(index, place)| (place.depot, index)));
        let (deaths, next_attempt) = (RefCell::default(), Cell::new(1));
        Self { vr, vms, places, workers, place_of, deaths, next_attempt }
    }

    /// The names of the VMs, including those that were lost.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.places.iter().map(|place| place.name.as_str()).collect()
    }

    /// The number of VMs that were not lost.
    #[must_use]
    pub fn alive(&self) -> usize {
        self.places.len() - self.deaths.borrow().len()
    }

    pub(crate) fn all_deaths(&self) -> Vec<Death> {
        let deaths = self.deaths.borrow();
        let mut all: Vec<(usize, Death)> =
            deaths.iter().map(|(place, death)| (*place, death.clone())).collect();
        all.sort_by_key(|(place, _)| *place);
        all.into_iter().map(|(_, death)| death).collect()
    }
}

fn idle(vr: &Vr, count: Count) -> Result<Vec<VmInfo>, JobError> {
    let enough = count.maximum().map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    Ok(vr.discover(Query { count: enough, idle_only: true, ..Query::default() })?)
}
