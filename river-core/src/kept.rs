//! Checkpoints in the memory of VMs, as a program that restarts from one sees them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use crate::control::{self, Incoming};
use crate::discovery::{Reach, VmInfo};
use crate::error::StateError;
use crate::id::ProgramId;
use crate::key::ClusterKey;
use crate::protocol::{FromVm, Hello, KeptImage, ToVm};
use crate::rt;
use crate::state::{Directory, read_part};

/// How long a VM may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// The maximum size of an executable.
const MAX_IMAGE: u64 = 4 << 30;

/// The parts of a checkpoint, and the VMs that have each.
type Parts<'a> = BTreeMap<u32, Vec<(KeptImage, &'a VmInfo)>>;

fn failed(error: impl std::fmt::Display) -> StateError {
    StateError::Memory(error.to_string())
}

/// Copies the newest checkpoint that these VMs keep of a run into a directory, where [`Stored`](crate::Stored) finds it, and
/// returns its number. Parts whose VM is gone come from that VM's partner. The VMs keep the checkpoint until [`forget`] is
/// called.
///
/// # Errors
/// [`StateError::Memory`] if there is no checkpoint of which all parts are left; [`StateError::File`] if it cannot be
/// written.
///
/// # Blocking
/// Until the checkpoint has been copied. Waits up to five seconds for a VM that does not answer.
pub fn fetch(run: ProgramId, vms: &[VmInfo], directory: impl AsRef<Path>) -> Result<u64, StateError> {
    let key = key()?;
    let directory = Directory::new(directory.as_ref());
    rt::block_on(async {
        let mut kept: BTreeMap<u64, Parts<'_>> = BTreeMap::new();
        for vm in vms {
            let Ok(FromVm::Images(images)) = ask(vm, &key, ToVm::List(run)).await else { continue };
            for image in images {
                let parts = kept.entry(image.number).or_default();
                parts.entry(image.part).or_default().push((image, vm));
            }
        }
        let mut missing = BTreeSet::new();
        for (number, parts) in kept.iter().rev() {
            match collect(*number, parts, &key).await {
                Ok(parts) => {
                    write(&directory, *number, &parts, vms, &key).await?;
                    return Ok(*number);
                }
                Err(part) => drop(missing.insert((*number, part))),
            }
        }
        let asked = vms.len();
        Err(match missing.last() {
            None => failed(format_args!("none is kept by the {asked} VMs that were found")),
            Some((number, part)) => failed(format_args!(
                "of checkpoint {number} no VM has part {part} any more: the {asked} that were found have others (more than one \
                 VM has died, or they shared a process)"
            )),
        })
    })
}

/// Drops the checkpoints that these VMs keep of a run.
pub fn forget(run: ProgramId, vms: &[VmInfo]) {
    let Ok(key) = key() else { return };
    rt::block_on(async {
        for vm in vms {
            if let Ok((to, mut from)) = converse(vm, &key).await {
                let _ = to.try_send(ToVm::Forget { run, from: 0, before: u64::MAX });
                // An answer to the next message shows that it has got this one.
                let _ = to.try_send(ToVm::List(run));
                let _ = rt::timeout(ANSWER, from.next()).await;
            }
        }
    });
}

fn key() -> Result<ClusterKey, StateError> {
    Reach::from_env().map_err(failed)?.key().map_err(failed)
}

/// Returns all parts of a checkpoint, or the number of a part that is nowhere intact.
async fn collect(number: u64, parts: &Parts<'_>, key: &ClusterKey) -> Result<Vec<Vec<u8>>, u32> {
    let count = parts.values().flatten().map(|(image, _)| image.parts).max().unwrap_or(0);
    let mut whole = Vec::new();
    for part in 0..count {
        let mut found = None;
        for (image, vm) in parts.get(&part).into_iter().flatten() {
            match download(vm, key, ToVm::Fetch(image.clone()), image.length).await {
                Ok(bytes) if read_part(&bytes).is_ok() => found = Some(bytes),
                Ok(_) => tracing::warn!(vm = vm.name, number, part, "a part of a checkpoint was altered"),
                Err(error) => tracing::warn!(vm = vm.name, number, part, %error, "cannot fetch a part"),
            }
            if found.is_some() {
                break;
            }
        }
        whole.push(found.ok_or(part)?);
    }
    Ok(whole)
}

/// Writes a checkpoint and its program's executable, which VMs have in their caches.
async fn write(
    directory: &Directory,
    number: u64,
    parts: &[Vec<u8>],
    vms: &[VmInfo],
    key: &ClusterKey,
) -> Result<(), StateError> {
    let (mut header, mut vrs) = (None, Vec::new());
    for part in parts {
        let part = read_part(part).map_err(failed)?;
        header = header.or(part.header);
        vrs.extend(part.vrs);
    }
    let header = header.ok_or_else(|| failed("it does not say of which program it is"))?;
    let mut missing = failed("no VM has the program's executable any more");
    for vm in vms {
        match download(vm, key, ToVm::FetchProgram(header.image), MAX_IMAGE).await {
            Ok(bytes) if blake3::hash(&bytes).as_bytes() == header.image.as_bytes() => {
                directory.keep_image(header.image, &bytes)?;
                return directory.write(number, &header, &vrs).map(drop);
            }
            Ok(_) => {}
            Err(error) => missing = failed(format_args!("the program's executable cannot be had: {error}")),
        }
    }
    Err(missing)
}

async fn converse(vm: &VmInfo, key: &ClusterKey) -> Result<(rt::Sender<ToVm>, Incoming<FromVm>), StateError> {
    let hello = Hello::Lease { program: ProgramId::fresh() };
    let dialled = rt::timeout(ANSWER, control::dial(vm.address, key, &hello)).await;
    let dialled = dialled.map_err(|_| failed(format_args!("VM {}: it does not answer", vm.name)))?;
    let (_, stream) = dialled.map_err(|error| failed(format_args!("VM {}: {error}", vm.name)))?;
    Ok(control::split(stream))
}

async fn ask(vm: &VmInfo, key: &ClusterKey, question: ToVm) -> Result<FromVm, StateError> {
    let (to, mut from) = converse(vm, key).await?;
    let _ = to.try_send(question);
    answer(vm, &mut from).await
}

async fn answer(vm: &VmInfo, from: &mut Incoming<FromVm>) -> Result<FromVm, StateError> {
    match rt::timeout(ANSWER, from.next()).await {
        Ok(Ok(Some(answer))) => Ok(answer),
        _ => Err(failed(format_args!("VM {}: it does not answer", vm.name))),
    }
}

/// Receives an answer that comes in pieces, up to `most` bytes in total.
async fn download(vm: &VmInfo, key: &ClusterKey, question: ToVm, most: u64) -> Result<Vec<u8>, StateError> {
    let (to, mut from) = converse(vm, key).await?;
    let _ = to.try_send(question);
    let mut bytes = Vec::new();
    loop {
        match answer(vm, &mut from).await? {
            FromVm::Piece(piece) if piece.is_empty() => return Ok(bytes),
            FromVm::Piece(piece) if (bytes.len() + piece.len()) as u64 > most => {
                return Err(failed(format_args!(
                    "VM {}: it sent more than the {most} bytes that there are",
                    vm.name
                )));
            }
            FromVm::Piece(piece) => bytes.extend_from_slice(&piece),
            FromVm::NotThere => return Err(failed(format_args!("VM {}: it has it no more", vm.name))),
            _ => return Err(failed(format_args!("VM {}: it answered something else", vm.name))),
        }
    }
}
