//! Handles on all VMs of a farm.

use std::ops::Deref;

use river_core::{Vr, VrId};
use river_rai::Rai;

use crate::vm::Vm;

/// The VMs of a farm, a slice of [`Vm`] with the operations that use all of them.
#[derive(Clone, Debug)]
pub struct Vms<'a> {
    vr: &'a Vr,
    vms: Vec<Vm<'a>>,
}

impl<'a> Vms<'a> {
    /// VMs on which servers run already: their names, for messages, and the servers. [`connect`](crate::connect) finds
    /// VMs and starts the servers.
    #[must_use]
    pub fn attach(vr: &'a Vr, servers: impl IntoIterator<Item = (String, VrId)>) -> Self {
        let vms = servers.into_iter().map(|(name, id)| Vm::new(Rai::connect(vr, id), name));
        Self { vr, vms: vms.collect() }
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
