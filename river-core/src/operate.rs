//! What somebody who has the key may want of a program that is running.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::control;
use crate::discovery::{Reach, VmInfo, VmState};
use crate::error::{MigrateError, StateError};
use crate::protocol::{Checkpoint, FromProgram, FromVm, Hello, Migrated, ToProgram, ToVm};
use crate::rt;

/// How long a VM or an initiator may take to answer a question.
const ANSWER: Duration = Duration::from_secs(5);

/// Checkpoints the program that uses a VM, as [`Vr::checkpoint`](crate::Vr::checkpoint) does, into a directory of the
/// machine of the program's initiator.
///
/// # Errors
/// [`StateError::GivenUp`] if no program uses the VM, or it cannot be reached; what the checkpoint itself may fail with.
///
/// # Blocking
/// Until it is written.
pub fn checkpoint(vm: &VmInfo, directory: impl Into<PathBuf>, keep: usize) -> Result<Checkpoint, StateError> {
    match ask(vm, ToProgram::Checkpoint { directory: directory.into(), keep }) {
        Ok(FromProgram::Checkpoint(result)) => result,
        Ok(_) => Err(StateError::GivenUp("the program answered something else".into())),
        Err(error) => Err(StateError::GivenUp(error)),
    }
}

/// Moves a VR of the program that uses the VM `used` to the VM `to`, as [`Vr::migrate`](crate::Vr::migrate) does. `vr` is the
/// beginning of the VR's id.
///
/// # Errors
/// [`MigrateError::GivenUp`] if no program uses the VM, or it cannot be reached; what the migration itself may fail with. The VR
/// goes on where it was.
///
/// # Blocking
/// Until it lives there.
pub fn migrate(used: &VmInfo, vr: &str, to: &VmInfo) -> Result<Migrated, MigrateError> {
    match ask(used, ToProgram::Migrate { vr: vr.into(), vm: Box::new(to.clone()) }) {
        Ok(FromProgram::Migrated(result)) => result,
        Ok(_) => Err(MigrateError::GivenUp("the program answered something else".into())),
        Err(error) => Err(MigrateError::GivenUp(error)),
    }
}

/// Finds the initiator of the program that uses a VM, and has it do something.
fn ask(vm: &VmInfo, request: ToProgram) -> Result<FromProgram, String> {
    let failed = |error: &dyn std::fmt::Display| format!("VM {}: {error}", vm.name);
    let VmState::Leased { program, .. } = vm.state else { return Err(failed(&"no program uses it")) };
    let key = Reach::from_env().map_err(|error| failed(&error))?.key().map_err(|error| failed(&error))?;
    rt::block_on(async {
        let hello = Hello::Lease { program };
        let (_, stream) = control::dial(vm.address, &key, &hello).await.map_err(|error| failed(&error))?;
        let (to, mut from) = control::split::<ToVm, FromVm>(stream);
        let _ = to.try_send(ToVm::FindInitiator);
        let initiator = match rt::timeout(ANSWER, from.next()).await {
            Ok(Ok(Some(FromVm::Initiator(Some(address))))) => address,
            Ok(Ok(Some(FromVm::Initiator(None)))) => {
                return Err(failed(&"its program runs nothing there yet"));
            }
            _ => return Err(failed(&"it does not answer")),
        };
        // What is on the VM's machine is found where the VM is.
        let initiator = match initiator.ip() {
            ip if ip.is_loopback() => SocketAddr::new(vm.address.ip(), initiator.port()),
            _ => initiator,
        };
        let hello = Hello::Operate { program };
        let (_, stream) = control::dial(initiator, &key, &hello)
            .await
            .map_err(|error| format!("the initiator at {initiator}: {error}"))?;
        let (to, mut from) = control::split::<ToProgram, FromProgram>(stream);
        let _ = to.try_send(request);
        match from.next().await {
            Ok(Some(answer)) => Ok(answer),
            _ => Err("the program has ended".into()),
        }
    })
}
