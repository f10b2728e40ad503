//! Requests that anybody who has the key may make of a VM, or of a program that is running.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::control::{self, Incoming};
use crate::discovery::{Reach, VmInfo, VmState};
use crate::error::{MigrateError, StateError};
use crate::id::ProgramId;
use crate::key::ClusterKey;
use crate::protocol::{Checkpoint, FromProgram, FromVm, Hello, KeepIn, Migrated, ToProgram, ToVm};
use crate::rt;
use crate::status::{ProgramStatus, VmStatus};

/// How long a VM or an initiator may take to answer a request.
const ANSWER: Duration = Duration::from_secs(5);

/// Why there was no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InspectError(String);

/// Checkpoints the program that uses a VM, as [`Vr::checkpoint`](crate::Vr::checkpoint) does, into a directory of the
/// machine of the program's initiator.
///
/// # Errors
/// [`StateError::GivenUp`] if no program uses the VM, or it cannot be reached; the errors of the checkpoint itself.
///
/// # Blocking
/// Until it is written.
pub fn checkpoint(vm: &VmInfo, directory: impl Into<PathBuf>, keep: usize) -> Result<Checkpoint, StateError> {
    match have(vm, ToProgram::Checkpoint { to: KeepIn::Directory(directory.into()), keep }) {
        Ok(FromProgram::Checkpoint(result)) => result,
        Ok(_) => Err(StateError::GivenUp("the program sent an unexpected answer".into())),
        Err(InspectError(error)) => Err(StateError::GivenUp(error)),
    }
}

/// Moves a VR of the program that uses the VM `used` to the VM `to`, as [`Vr::migrate`](crate::Vr::migrate) does. `vr` is the
/// beginning of the VR's id.
///
/// # Errors
/// [`MigrateError::GivenUp`] if no program uses the VM, or it cannot be reached; the errors of the migration itself. The VR
/// continues where it was.
///
/// # Blocking
/// Until the VR lives there.
pub fn migrate(used: &VmInfo, vr: &str, to: &VmInfo) -> Result<Migrated, MigrateError> {
    match have(used, ToProgram::Migrate { vr: vr.into(), vm: Box::new(to.clone()) }) {
        Ok(FromProgram::Migrated(result)) => result,
        Ok(_) => Err(MigrateError::GivenUp("the program sent an unexpected answer".into())),
        Err(InspectError(error)) => Err(MigrateError::GivenUp(error)),
    }
}

/// Sends a request to the program that uses a VM, and waits for its result however long that takes.
fn have(vm: &VmInfo, request: ToProgram) -> Result<FromProgram, InspectError> {
    rt::block_on(async {
        let mut from = operate(vm, request).await?;
        match from.next().await {
            Ok(Some(answer)) => Ok(answer),
            _ => Err(InspectError("the program has ended".into())),
        }
    })
}

/// Returns the status of the program that uses a VM: its VRs, its links, and the resources that its processes use.
///
/// # Errors
/// If no program uses the VM, or the program cannot be reached.
///
/// # Blocking
/// Until it has answered, at most five seconds. A host that does not answer the program within half a second has no report.
pub fn program_status(vm: &VmInfo) -> Result<ProgramStatus, InspectError> {
    let failed = |error: &str| InspectError(format!("the program on VM {}: {error}", vm.name));
    rt::block_on(async {
        let mut from = operate(vm, ToProgram::Inspect).await?;
        match rt::timeout(ANSWER, from.next()).await {
            Ok(Ok(Some(FromProgram::Inspected(status)))) => Ok(status),
            Ok(_) => Err(failed("it has ended")),
            Err(_) => Err(failed("it does not answer")),
        }
    })
}

/// Returns the status of a VM: its lease, and the resources that it and the host on it use.
///
/// # Errors
/// If it cannot be reached.
///
/// # Blocking
/// Until it has answered, at most five seconds.
pub fn vm_status(vm: &VmInfo) -> Result<VmStatus, InspectError> {
    let key = key(vm)?;
    rt::block_on(async {
        match ask(vm, &key, ProgramId::fresh(), ToVm::Inspect).await? {
            FromVm::Inspected(status) => Ok(status),
            _ => Err(of_vm(vm, &"it sent an unexpected answer")),
        }
    })
}

fn of_vm(vm: &VmInfo, error: &dyn std::fmt::Display) -> InspectError {
    InspectError(format!("VM {}: {error}", vm.name))
}

fn key(vm: &VmInfo) -> Result<ClusterKey, InspectError> {
    let reach = Reach::from_env().map_err(|error| of_vm(vm, &error))?;
    reach.key().map_err(|error| of_vm(vm, &error))
}

/// Sends a VM a request that needs no lease.
async fn ask(
    vm: &VmInfo,
    key: &ClusterKey,
    program: ProgramId,
    question: ToVm,
) -> Result<FromVm, InspectError> {
    let hello = Hello::Lease { program };
    let dialled = rt::timeout(ANSWER, control::dial(vm.address, key, &hello)).await;
    let dialled = dialled.map_err(|_| of_vm(vm, &"it does not answer"))?;
    let (_, stream) = dialled.map_err(|error| of_vm(vm, &error))?;
    let (to, mut from) = control::split::<ToVm, FromVm>(stream);
    let _ = to.try_send(question);
    match rt::timeout(ANSWER, from.next()).await {
        Ok(Ok(Some(answer))) => Ok(answer),
        _ => Err(of_vm(vm, &"it does not answer")),
    }
}

/// Sends a request to the program that uses a VM. The answer arrives on the channel that is returned.
async fn operate(vm: &VmInfo, request: ToProgram) -> Result<Incoming<FromProgram>, InspectError> {
    let VmState::Leased { program, .. } = vm.state else {
        return Err(of_vm(vm, &"no program uses it"));
    };
    let key = key(vm)?;
    let initiator = match ask(vm, &key, program, ToVm::FindInitiator).await? {
        FromVm::Initiator(Some(address)) => address,
        FromVm::Initiator(None) => return Err(of_vm(vm, &"its program has not started anything there yet")),
        _ => return Err(of_vm(vm, &"it sent an unexpected answer")),
    };
    // A loopback address means the VM's machine, so the VM's address takes its place.
    let initiator = match initiator.ip() {
        ip if ip.is_loopback() => SocketAddr::new(vm.address.ip(), initiator.port()),
        _ => initiator,
    };
    let (_, stream) = control::dial(initiator, &key, &Hello::Operate { program })
        .await
        .map_err(|error| InspectError(format!("the initiator at {initiator}: {error}")))?;
    let (to, from) = control::split::<ToProgram, FromProgram>(stream);
    let _ = to.try_send(request);
    Ok(from)
}
