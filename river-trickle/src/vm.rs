//! A handle on one VM.

use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use river_core::{Down, VmInfo, VrId};
use river_rai::{CallError, Object, Rai, RemoteFn, RemoteSend};

use crate::error::TrickleError;
use crate::lot::{Lot, Place};

/// A VM of which this program has a server: functions are called on it, and objects live on it.
///
/// Cheap to clone. One VM does one thing at a time, in the order in which it was asked.
#[derive(Clone)]
pub struct Vm<'a> {
    rai: Rai<'a>,
    /// How long its calls may take.
    limit: Option<Duration>,
    name: Rc<str>,
    /// The lease, if it is this program's to give back.
    info: Option<Rc<VmInfo>>,
    /// Who is there, and who goes.
    lot: Rc<Lot>,
}

impl<'a> Vm<'a> {
    pub(crate) fn new(rai: Rai<'a>, name: String, info: Option<VmInfo>, lot: &Rc<Lot>) -> Self {
        Self { rai, limit: None, name: name.into(), info: info.map(Rc::new), lot: lot.clone() }
    }

    /// Who is there, and who goes.
    pub(crate) fn lot(&self) -> &Lot {
        &self.lot
    }

    /// This VM as the lot knows it.
    pub(crate) fn place(&self) -> Place<'_> {
        Place { rai: self.rai, name: &self.name, info: self.info.as_deref() }
    }

    /// When a call that is made now is given up.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.limit.and_then(|limit| Instant::now().checked_add(limit))
    }

    pub(crate) fn server(&self) -> VrId {
        self.rai.server()
    }

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

    /// The same VM, with calls that are given up after that time: with
    /// [`CallError::Timeout`](river_rai::CallError::Timeout), and cancelled.
    #[must_use]
    pub fn timeout(&self, limit: Duration) -> Self {
        Self { rai: self.rai.timeout(limit), limit: Some(limit), ..self.clone() }
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

    /// What a call on this VM failed with. That it is gone is noted for all.
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
