//! Stopping or draining a VM from outside.

use std::time::Duration;

use crate::control;
use crate::discovery::VmInfo;
use crate::id::ProgramId;
use crate::key::ClusterKey;
use crate::protocol::{FromVm, Hello, ToVm};
use crate::rt;

/// How long a VM may take to stop.
const STOP_TIME: Duration = Duration::from_secs(5);

/// Why a VM could not be told to stop.
#[derive(Debug, thiserror::Error)]
#[error("cannot stop VM {vm}: {error}")]
pub struct StopError {
    vm: String,
    error: String,
}

/// Tells a VM to stop, even while a program is using it, and waits until it has closed the connection. The program is told
/// that the VM is gone.
///
/// # Errors
/// [`StopError`] if there is no key, or the VM cannot be reached.
pub fn stop(vm: &VmInfo) -> Result<(), StopError> {
    tell(vm, ToVm::Stop)
}

/// Drains a VM: it stops as soon as no program has it. If it is idle, that is at once; otherwise its program is asked to
/// give it back ([`Vr::leaving`](crate::Vr::leaving)), and is not disturbed in any other way. Waits only until the VM has
/// got the message.
///
/// # Errors
/// The same as for [`stop`].
pub fn drain(vm: &VmInfo) -> Result<(), StopError> {
    tell(vm, ToVm::Drain)
}

/// Sends a VM a message that needs no lease, and waits until it has closed the connection.
fn tell(vm: &VmInfo, message: ToVm) -> Result<(), StopError> {
    let failed = |error: &dyn std::fmt::Display| StopError { vm: vm.name.clone(), error: error.to_string() };
    let key = ClusterKey::load_or_create().map_err(|error| failed(&error))?;
    rt::block_on(async {
        let hello = Hello::Lease { program: ProgramId::fresh() };
        let (_, stream) = control::dial(vm.address, &key, &hello).await.map_err(|error| failed(&error))?;
        let (to, mut from) = control::split::<ToVm, FromVm>(stream);
        let _ = to.try_send(message);
        let closed = rt::timeout(STOP_TIME, async { while let Ok(Some(_)) = from.next().await {} }).await;
        closed.map_err(|_| failed(&format_args!("it did not stop within {STOP_TIME:?}")))
    })
}
