//! Handles on VMs.

use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

use river_core::{Vr, VrId};
use river_rai::{CallError, Object, Packed, Rai, RemoteFn, RemoteSend};

use crate::error::TrickleError;
use crate::fork::Handle;

/// A VM of which this program has a server: functions are called on it, and objects live on it.
///
/// Cheap to clone. One VM does one thing at a time, in the order in which it was asked.
#[derive(Clone)]
pub struct Vm<'a> {
    rai: Rai<'a>,
    name: Rc<str>,
}

impl<'a> Vm<'a> {
    /// The VM's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The connection to its server, for everything that the layer below can do.
    #[must_use]
    pub fn rai(&self) -> Rai<'a> {
        self.rai
    }

    /// Calls a function on the VM and returns what it returned (paper, section 2.2).
    ///
    /// # Errors
    /// [`TrickleError::Call`]: it panicked, the VM is gone, the values cannot travel.
    ///
    /// # Blocking
    /// Until the function has returned or the VM is gone.
    pub fn call<F, Args>(&self, function: F, args: Args) -> Result<F::Output, TrickleError>
    where
        F: RemoteFn<Args>,
        F::Output: RemoteSend,
        Args: RemoteSend,
    {
        self.rai.call(function, args).map_err(|error| self.error(error))
    }

    /// Starts a function on the VM and returns at once; [`join`](crate::join) waits for the result (paper, section 2.3).
    ///
    /// # Errors
    /// [`TrickleError::Call`] if the VM is known to be gone or the arguments cannot travel.
    pub fn fork<F, Args>(&self, function: F, args: Args) -> Result<Handle<'a, F::Output>, TrickleError>
    where
        F: RemoteFn<Args>,
        F::Output: RemoteSend,
        Args: RemoteSend,
    {
        self.fork_packed(function, &Packed::new(&args).map_err(|error| self.error(error))?)
    }

    /// Creates an object on the VM (paper, example 5). It exists as long as the handle does.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    ///
    /// # Blocking
    /// As [`call`](Self::call).
    pub fn create<F, Args>(&self, function: F, args: Args) -> Result<Object<'a, F::Output>, TrickleError>
    where
        F: RemoteFn<Args>,
        F::Output: Send + 'static,
        Args: RemoteSend,
    {
        self.rai.create(function, args).map_err(|error| self.error(error))
    }

    fn fork_packed<F, Args>(
        &self,
        function: F,
        args: &Packed<Args>,
    ) -> Result<Handle<'a, F::Output>, TrickleError>
    where
        F: RemoteFn<Args>,
        F::Output: RemoteSend,
        Args: RemoteSend,
    {
        let pending = self.rai.call_packed(function, args).map_err(|error| self.error(error))?;
        Ok(Handle::new(self.clone(), pending))
    }

    /// What a call on this VM failed with.
    pub(crate) fn error(&self, error: CallError) -> TrickleError {
        match error {
            CallError::Stopped => TrickleError::Stopped,
            error => TrickleError::Call { vm: self.name.to_string(), error },
        }
    }
}

impl fmt::Debug for Vm<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vm({})", self.name)
    }
}

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
        let vms = servers.into_iter().map(|(name, id)| Vm { rai: Rai::connect(vr, id), name: name.into() });
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

    /// Starts a function with the same arguments on every VM.
    ///
    /// # Errors
    /// As [`Vm::fork`]; what has been started goes on, and its results are thrown away.
    pub fn fork<F, Args>(&self, function: F, args: Args) -> Result<Vec<Handle<'a, F::Output>>, TrickleError>
    where
        F: RemoteFn<Args>,
        F::Output: RemoteSend,
        Args: RemoteSend,
    {
        let Some(first) = self.first() else { return Ok(Vec::new()) };
        let args = Packed::new(&args).map_err(|error| first.error(error))?;
        self.iter().map(|vm| vm.fork_packed(function, &args)).collect()
    }

    /// Starts a function on one VM after the other, each with its own arguments (paper, example 6, line 18). If there
    /// are fewer arguments than VMs, the last VMs stay idle.
    ///
    /// # Errors
    /// As [`fork`](Self::fork), and [`TrickleError::TooManyArguments`] if there are more arguments than VMs.
    pub fn fork_each<F, Args>(
        &self,
        function: F,
        args: impl IntoIterator<Item = Args>,
    ) -> Result<Vec<Handle<'a, F::Output>>, TrickleError>
    where
        F: RemoteFn<Args>,
        F::Output: RemoteSend,
        Args: RemoteSend,
    {
        // All of them first: an error should not leave half of them running.
        let args: Vec<Args> = args.into_iter().take(self.len() + 1).collect();
        if args.len() > self.len() {
            return Err(TrickleError::TooManyArguments { vms: self.len() });
        }
        self.iter().zip(args).map(|(vm, args)| vm.fork(function, args)).collect()
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
