//! A handle to one VM.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use river_core::{Down, VmInfo, VrId};
use river_rai::{CallError, Object, Rai, RemoteFn, RemoteSend};

use crate::error::TrickleError;
use crate::lot::{Lot, Place};

/// A VM on which this program has a server: it can call functions and create objects there.
///
/// Cheap to clone. A VM executes one request at a time, in order of arrival.
#[derive(Clone)]
pub struct Vm<'a> {
    rai: Rai<'a>,
    /// The time limit of its calls.
    limit: Option<Duration>,
    name: Rc<str>,
    /// The lease, if this program must give it back.
    info: Option<Rc<VmInfo>>,
    /// Which VMs have joined and left.
    lot: Rc<Lot>,
}

impl<'a> Vm<'a> {
    pub(crate) fn new(rai: Rai<'a>, name: String, info: Option<VmInfo>, lot: &Rc<Lot>) -> Self {
        Self { rai, limit: None, name: name.into(), info: info.map(Rc::new), lot: lot.clone() }
    }

    /// Which VMs have joined and left.
    pub(crate) fn lot(&self) -> &Lot {
        &self.lot
    }

    /// This VM as the lot knows it.
    pub(crate) fn place(&self) -> Place<'_> {
        Place { rai: self.rai, name: &self.name, info: self.info.as_deref() }
    }

    /// The time limit of its calls.
    pub(crate) fn limit(&self) -> Option<Duration> {
        self.limit
    }

    pub(crate) fn server(&self) -> VrId {
        self.rai.server()
    }

    /// The VM's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The connection to its server, for everything that river-rai can do.
    #[must_use]
    pub fn rai(&self) -> Rai<'a> {
        self.rai
    }

    /// The same VM, but with a time limit for each call: a call that exceeds it is cancelled, and fails with
    /// [`CallError::Timeout`](river_rai::CallError::Timeout).
    #[must_use]
    pub fn timeout(&self, limit: Duration) -> Self {
        Self { rai: self.rai.timeout(limit), limit: Some(limit), ..self.clone() }
    }

    /// Calls a function on the VM and returns its result (paper, section 2.2).
    ///
    /// # Errors
    /// [`TrickleError::Call`] if it panicked, the VM is gone, or the values cannot be encoded or decoded.
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

    /// Its server is gone.
    pub(crate) fn died(&self, down: &Down) {
        self.lot.died(self.place(), &down.why);
    }

    /// Converts the error of a call on this VM. If the VM is gone, that is recorded for all handles.
    pub(crate) fn error(&self, error: CallError) -> TrickleError {
        if let CallError::Down(down) = &error {
            self.died(down);
        }
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
