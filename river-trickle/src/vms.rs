//! A handle to all VMs of a farm.

use std::cell::Cell;
use std::collections::HashSet;
use std::ops::Deref;
use std::rc::Rc;

use river_core::{VmInfo, Vr, VrId};
use river_rai::{CallError, Pending, Rai};

use crate::error::TrickleError;
use crate::lot::{Injection, Lot};
use crate::progress::say;
use crate::scout::Scout;
use crate::vm::Vm;

/// The VMs of a farm: a slice of [`Vm`], with operations that use all of them.
///
/// VMs can join while it is used, if it [grows](Self::grow), and leave, if they are [drained](Self::drain). A running
/// farm uses the VMs that are there; the slice does not change until it is [updated](Self::update).
#[derive(Clone, Debug)]
pub struct Vms<'a> {
    vr: &'a Vr,
    vms: Vec<Vm<'a>>,
    /// Shared by all clones.
    lot: Rc<Lot>,
}

/// The VMs as a running farm sees them. While it exists, draining does not give back VMs that the farm still uses.
pub(crate) struct Pool<'a> {
    vms: Vms<'a>,
    /// How many of the VMs that have joined are known to the farm.
    seen: Cell<usize>,
}

impl<'a> Vms<'a> {
    /// Uses VMs on which servers are already running: their names, for messages, and the servers.
    /// [`connect`](crate::connect) finds VMs and starts the servers.
    #[must_use]
    pub fn attach(vr: &'a Vr, servers: impl IntoIterator<Item = (String, VrId)>) -> Self {
        let lot = Rc::default();
        let vms = servers.into_iter().map(|(name, id)| Vm::new(Rai::connect(vr, id), name, None, &lot));
        Self { vr, vms: vms.collect(), lot }
    }

    pub(crate) fn leased(vr: &'a Vr, servers: impl IntoIterator<Item = (VmInfo, VrId)>) -> Self {
        let lot = Rc::default();
        let vms = servers
            .into_iter()
            .map(|(vm, id)| Vm::new(Rai::connect(vr, id), vm.name.clone(), Some(vm), &lot));
        Self { vr, vms: vms.collect(), lot }
    }

    /// The VR to which they are connected.
    #[must_use]
    pub fn vr(&self) -> &'a Vr {
        self.vr
    }

    /// The names of the VMs.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.iter().map(Vm::name).collect()
    }

    // ---- joining and leaving ----

    /// Searches for further VMs from now on, in the background: any VM that becomes idle, because it was just started
    /// or another program has ended, is leased and joins the running farm. At most `most` VMs are used at a time, if it
    /// is given; a VM that dies makes room for another.
    ///
    /// A VM that joins first gets what was [injected](Self::inject) on all VMs: as it was injected, without changes
    /// made through handles or by functions elsewhere. The farm waits meanwhile, so constructors should be quick. It
    /// does not get what was injected on single VMs. A VM on which that fails is given back, and not considered again
    /// until this method is called again.
    ///
    /// A farm that has lost its last VM then waits up to half a minute for another before it fails.
    ///
    /// ```no_run
    /// # fn example(vr: &river_core::Vr) -> river_core::Result {
    /// let vms = river_trickle::connect(vr, 1..)?;
    /// vms.grow(Some(100))?;
    /// let results = vms.forkwork(|x: u64| x * x, 0..1_000_000, 100)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`TrickleError::Deploy`] if no thread can be started.
    pub fn grow(&self, most: Option<usize>) -> Result<(), TrickleError> {
        let scout = Scout::start(self.vr, most, self.end_search().len())?;
        *self.lot.scout.borrow_mut() = Some(scout);
        Ok(())
    }

    /// Takes a VM out without losing work: a running farm gives it nothing more and waits for its outstanding chunks;
    /// forks are waited for until they are joined or dropped. Then it is given back, at once if there is no such work.
    /// Objects on it are lost. A VM that is drained from outside (`river vm --drain`) leaves in the same way, with the
    /// next join or farm.
    pub fn drain(&self, vm: &Vm<'a>) {
        self.lot.drain(vm.place());
    }

    /// Gives all VMs back, including those that have joined, so that this program or another can lease them again.
    /// Whatever runs there ends, including objects and forks that were not joined, and other handles to these VMs
    /// become useless. The search for further VMs ends.
    ///
    /// ```no_run
    /// # fn example(vr: &river_core::Vr) -> river_core::Result {
    /// let vms = river_trickle::connect(vr, 4)?;
    /// let squares = vms.forkwork(|x: u64| x * x, 0..1000, 10)?;
    /// vms.release()?;
    /// // For as long as this takes, they are others' to use.
    /// let sum: u64 = squares.iter().sum();
    /// let vms = river_trickle::connect(vr, 4)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`TrickleError::Deploy`] if the program is ending.
    ///
    /// # Blocking
    /// Until they are free, at most two seconds for a VM that does not answer, and until VMs that are just being taken
    /// are given back.
    pub fn release(self) -> Result<(), TrickleError> {
        let vms = self.end_search();
        Ok(self.lot.give_up_all(self.vr, vms.iter().map(Vm::place))?)
    }

    /// Ends the search for VMs. Returns the VMs that have been found by then.
    fn end_search(&self) -> Vec<Vm<'a>> {
        if let Some(scout) = &*self.lot.scout.borrow() {
            scout.end();
        }
        let vms = self.present();
        self.lot.scout.take();
        vms
    }

    /// Updates the slice: adds VMs that have joined, and removes those that were given back or have died.
    pub fn update(&mut self) {
        self.vms = self.present();
    }

    /// The VMs that are there, as far as is known.
    fn present(&self) -> Vec<Vm<'a>> {
        self.collect_joined();
        let mut vms = self.vms.clone();
        for (vm, server) in self.lot.joined.borrow().iter() {
            if !vms.iter().any(|known| known.server() == *server) {
                vms.push(self.joined(vm, *server));
            }
        }
        vms.retain(|vm| !self.lot.has_left(vm.place()));
        vms
    }

    fn collect_joined(&self) {
        let found = self.lot.scout.borrow().as_ref().map(|scout| scout.found(self.vr));
        for (info, server) in found.unwrap_or_default() {
            let vm = self.joined(&info, server);
            // Before it gets any work: functions rely on finding it there.
            if let Err(error) = self.lot.furnish(vm.place()) {
                tracing::warn!(vm = info.name, %error, "what was injected cannot be had on a VM that was found");
                self.lot.pass_over(vm.place());
                continue;
            }
            say(format_args!("VM {} joins", info.name));
            self.lot.joined.borrow_mut().push((info, server));
        }
    }

    fn joined(&self, info: &VmInfo, server: VrId) -> Vm<'a> {
        Vm::new(Rai::connect(self.vr, server), info.name.clone(), Some(info.clone()), &self.lot)
    }

    /// The VMs that are there and not in `known`.
    pub(crate) fn newcomers<'v>(&self, known: impl Iterator<Item = &'v Vm<'a>>) -> Vec<Vm<'a>>
    where
        'a: 'v,
    {
        let known: HashSet<VrId> = known.map(Vm::server).collect();
        let mut present = self.present();
        present.retain(|vm| !known.contains(&vm.server()));
        present
    }

    /// Puts something on all VMs, including those that will join.
    pub(crate) fn put(&self, injection: Injection) -> Result<(), TrickleError> {
        // Started everywhere before the first is waited for.
        let begun: Vec<_> = self.iter().map(|vm| (vm, injection.put(vm.rai()))).collect();
        for (vm, put) in begun {
            put.and_then(Pending::wait).map_err(|error| vm.error(error))?;
        }
        for vm in self.newcomers(self.iter()) {
            match injection.put(vm.rai()).and_then(Pending::wait) {
                // Nobody has noticed its death yet.
                Err(CallError::Down(down)) => vm.died(&down),
                result => result.map_err(|error| vm.error(error))?,
            }
        }
        self.lot.keep(injection);
        Ok(())
    }

    /// Gives back the VMs that must leave and have no work.
    pub(crate) fn settle(&self) {
        if self.lot.who_leaves(self.vr).is_some() {
            self.present().iter().for_each(|vm| self.lot.settle(vm.place()));
        }
    }
}

impl<'a> Pool<'a> {
    pub(crate) fn of(vms: &Vms<'a>) -> Self {
        vms.settle();
        vms.lot.begin_farm();
        Self { vms: vms.clone(), seen: Cell::new(0) }
    }

    pub(crate) fn vr(&self) -> &'a Vr {
        self.vms.vr
    }

    /// The VMs that there are when the farm begins.
    pub(crate) fn present(&self) -> Vec<Vm<'a>> {
        let present = self.vms.present();
        self.seen.set(self.vms.lot.joined.borrow().len());
        present
    }

    /// VMs that have joined and that the farm does not know.
    pub(crate) fn newcomers<'v>(&self, known: impl Iterator<Item = &'v Vm<'a>>) -> Vec<Vm<'a>>
    where
        'a: 'v,
    {
        self.vms.collect_joined();
        let joined = self.vms.lot.joined.borrow().len();
        if self.seen.replace(joined) == joined { Vec::new() } else { self.vms.newcomers(known) }
    }

    /// Whether the search for VMs is on.
    pub(crate) fn grows(&self) -> bool {
        self.vms.lot.scout.borrow().is_some()
    }

    /// Which of these VMs must leave, as far as is known: their indices.
    pub(crate) fn leaving<'v>(&self, vms: impl Iterator<Item = &'v Vm<'a>>) -> Vec<usize>
    where
        'a: 'v,
    {
        let Some(leaving) = self.vms.lot.who_leaves(self.vms.vr) else { return Vec::new() };
        let places = vms.enumerate().filter(|(_, vm)| self.vms.lot.is_among(&leaving, vm.place()));
        places.map(|(place, _)| place).collect()
    }

    /// Gives back a VM that has finished its work for the farm.
    pub(crate) fn release(&self, vm: &Vm<'a>) {
        self.vms.lot.release(vm.place());
    }

    /// Abandons a VM that does not answer.
    pub(crate) fn give_up(&self, vm: &Vm<'a>) {
        self.vms.lot.give_up(vm.place());
    }
}

impl Drop for Pool<'_> {
    fn drop(&mut self) {
        if self.vms.lot.end_farm() {
            // No farm is left that would.
            self.vms.settle();
        }
    }
}

impl<'a> Deref for Vms<'a> {
    type Target = [Vm<'a>];

    fn deref(&self) -> &[Vm<'a>] {
        &self.vms
    }
}

impl<'v, 'a> IntoIterator for &'v Vms<'a> {
    type Item = &'v Vm<'a>;
    type IntoIter = std::slice::Iter<'v, Vm<'a>>;

    fn into_iter(self) -> Self::IntoIter {
        self.vms.iter()
    }
}
