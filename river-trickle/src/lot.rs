//! Tracks which VMs have joined and left and which are in use, and gives them back: shared by all handles to the VMs of
//! a farm.
//!
//! A VM that is leaving, because it is drained or released, is given back when it has no more work: neither from a
//! running farm nor from a fork that is not joined.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use river_core::{DeployError, VmId, VmInfo, Vr, VrId, Why};
use river_rai::{CallError, Pending, Rai};

use crate::progress::say;
use crate::scout::Scout;

/// A VM, as this module needs it.
#[derive(Clone, Copy)]
pub(crate) struct Place<'v> {
    pub(crate) rai: Rai<'v>,
    pub(crate) name: &'v str,
    /// The lease, if this program must give it back.
    pub(crate) info: Option<&'v VmInfo>,
}

/// What was put on every VM, under a name.
#[derive(Clone)]
pub(crate) struct Injection {
    name: String,
    /// Functions and data have separate namespaces.
    is_function: bool,
    put: Rc<Put>,
}

/// Begins to put it on a server.
type Put = dyn for<'a> Fn(Rai<'a>, &str) -> Result<Pending<'a, ()>, CallError>;

impl Injection {
    pub(crate) fn data(
        name: &str,
        put: impl for<'a> Fn(Rai<'a>, &str) -> Result<Pending<'a, ()>, CallError> + 'static,
    ) -> Self {
        Self { name: name.to_owned(), is_function: false, put: Rc::new(put) }
    }

    pub(crate) fn function(
        name: &str,
        put: impl for<'a> Fn(Rai<'a>, &str) -> Result<Pending<'a, ()>, CallError> + 'static,
    ) -> Self {
        Self { is_function: true, ..Self::data(name, put) }
    }

    pub(crate) fn put<'a>(&self, rai: Rai<'a>) -> Result<Pending<'a, ()>, CallError> {
        (self.put)(rai, &self.name)
    }
}

impl fmt::Debug for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Injection({})", self.name)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Lot {
    pub(crate) joined: RefCell<Vec<(VmInfo, VrId)>>,
    leaving: RefCell<HashSet<VrId>>,
    /// Servers of VMs that were given back or are dead.
    left: RefCell<HashSet<VrId>>,
    /// VMs that are still leased, but whose servers have ended.
    unused: RefCell<Vec<VmInfo>>,
    pub(crate) scout: RefCell<Option<Scout>>,
    farms: Cell<usize>,
    /// VMs that running farms have finished with, but that still have forks to be joined.
    parted: RefCell<HashSet<VrId>>,
    /// Unjoined forks, counted per server.
    forks: RefCell<HashMap<VrId, usize>>,
    /// What is put on VMs that join, oldest first.
    injected: RefCell<Vec<Injection>>,
}

/// How long to wait for the notice that a server that was given back has ended.
const NEWS: Duration = Duration::from_secs(2);

/// Consumes the notice of the end of a server that was given back: it was intended, so no receive of the program should
/// report it.
fn hear_of_end(server: Rai<'_>) {
    // If it is out of reach, the notice comes when its link is lost.
    let _ = server.wait_for_end(NEWS);
}

impl Lot {
    /// Makes a VM leave as soon as it can.
    pub(crate) fn drain(&self, vm: Place<'_>) {
        self.leaving.borrow_mut().insert(vm.rai.server());
        self.settle(vm);
    }

    /// Returns the VMs that were asked to leave from outside, or `None` if no VM is known to be leaving.
    pub(crate) fn who_leaves(&self, vr: &Vr) -> Option<Vec<VmId>> {
        let wanted = vr.leaving();
        (!self.leaving.borrow().is_empty() || !wanted.is_empty()).then_some(wanted)
    }

    /// Whether a VM must leave, given those that were asked to from outside.
    pub(crate) fn is_among(&self, wanted: &[VmId], vm: Place<'_>) -> bool {
        self.leaving.borrow().contains(&vm.rai.server())
            || vm.info.is_some_and(|info| wanted.contains(&info.id))
    }

    fn is_leaving(&self, vm: Place<'_>) -> bool {
        self.is_among(&vm.rai.vr().leaving(), vm)
    }

    pub(crate) fn has_left(&self, vm: Place<'_>) -> bool {
        self.left.borrow().contains(&vm.rai.server())
    }

    // ---- what is on the VMs ----

    /// Records what was put on all VMs, to be put on VMs that join.
    pub(crate) fn keep(&self, injection: Injection) {
        let mut injected = self.injected.borrow_mut();
        injected.retain(|old| (&old.name, old.is_function) != (&injection.name, injection.is_function));
        injected.push(injection);
    }

    /// Puts on a VM what all others have.
    pub(crate) fn furnish(&self, vm: Place<'_>) -> Result<(), CallError> {
        let injected = self.injected.borrow().clone();
        injected.iter().try_for_each(|injection| injection.put(vm.rai)?.wait())
    }

    // ---- which VMs have work ----

    pub(crate) fn begin_farm(&self) {
        self.farms.set(self.farms.get() + 1);
    }

    /// Returns `true` if it was the last one.
    pub(crate) fn end_farm(&self) -> bool {
        self.farms.set(self.farms.get() - 1);
        self.farms.get() == 0
    }

    pub(crate) fn begin_fork(&self, vm: Place<'_>) {
        *self.forks.borrow_mut().entry(vm.rai.server()).or_default() += 1;
    }

    pub(crate) fn end_fork(&self, vm: Place<'_>) {
        if let Some(forks) = self.forks.borrow_mut().get_mut(&vm.rai.server()) {
            *forks -= 1;
        }
        self.settle(vm);
    }

    fn has_forks(&self, vm: Place<'_>) -> bool {
        self.forks.borrow().get(&vm.rai.server()).is_some_and(|forks| *forks > 0)
    }

    /// Gives a VM back if it is leaving and has no work.
    pub(crate) fn settle(&self, vm: Place<'_>) {
        let farmed = self.farms.get() > 0 && !self.parted.borrow().contains(&vm.rai.server());
        if !farmed && self.is_leaving(vm) {
            self.release(vm);
        }
    }

    /// Gives back a VM on which no farm has work; if it has forks, the end of the last one does.
    pub(crate) fn release(&self, vm: Place<'_>) {
        if self.has_forks(vm) {
            self.leaving.borrow_mut().insert(vm.rai.server());
            self.parted.borrow_mut().insert(vm.rai.server());
            return;
        }
        self.give_up(vm);
    }

    /// Gives a VM back, whatever runs on it.
    pub(crate) fn give_up(&self, vm: Place<'_>) {
        if !self.leave(vm) {
            return;
        }
        let given_back = match vm.info {
            Some(info) => vm.rai.vr().release(std::slice::from_ref(info)).is_ok(),
            None => vm.rai.stop().is_ok(),
        };
        if given_back && vm.info.is_some() {
            hear_of_end(vm.rai);
        }
        if given_back {
            say(format_args!("VM {} was given back", vm.name));
        }
    }

    /// Gives back a VM that has joined but cannot be used: it is not considered again.
    pub(crate) fn pass_over(&self, vm: Place<'_>) {
        if let (Some(scout), Some(info)) = (&*self.scout.borrow(), vm.info) {
            scout.pass_over(info.id);
        }
        self.give_up(vm);
    }

    /// Gives several VMs back at once, whatever runs on them.
    pub(crate) fn give_up_all<'v>(
        &self,
        vr: &Vr,
        vms: impl Iterator<Item = Place<'v>>,
    ) -> Result<(), DeployError> {
        let (mut leased, mut servers) = (self.unused.take(), Vec::new());
        for vm in vms.filter(|vm| self.leave(*vm)) {
            match vm.info {
                Some(info) => {
                    leased.push(info.clone());
                    servers.push(vm.rai);
                }
                // It may have ended already.
                None => drop(vm.rai.stop()),
            }
        }
        vr.release(&leased)?;
        servers.into_iter().for_each(hear_of_end);
        Ok(())
    }

    /// A VM's server is gone, and another server may take its place.
    pub(crate) fn died(&self, vm: Place<'_>, why: &Why) {
        if !self.leave(vm) {
            return;
        }
        let Some(info) = vm.info else { return };
        match why {
            // The VM can be used again.
            Why::HostDied { .. } => drop(vm.rai.vr().release(std::slice::from_ref(info))),
            // A VM that is out of reach cannot be waited for.
            Why::LostLink { .. } => {}
            // Anything else that the program runs there goes on.
            _ => self.unused.borrow_mut().push(info.clone()),
        }
    }

    /// Marks a VM as left. Returns `false` if it already was.
    fn leave(&self, vm: Place<'_>) -> bool {
        let news = self.left.borrow_mut().insert(vm.rai.server());
        self.leaving.borrow_mut().remove(&vm.rai.server());
        if news && let Some(scout) = &*self.scout.borrow() {
            scout.one_less();
        }
        news
    }
}
