//! Checkpoints in the memory of VMs, as a program that restarts from one sees them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::control::{self, ControlError, Incoming};
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

fn failed(error: impl Display) -> StateError {
    StateError::Memory(error.to_string())
}

fn of_vm(vm: &VmInfo, error: impl Display) -> StateError {
    failed(format_args!("VM {}: {error}", vm.name))
}

/// Copies the newest checkpoint that these VMs keep of a run into a directory, where [`Stored`](crate::Stored) finds it, and
/// returns its number. Parts whose VM is gone come from that VM's partner. The VMs keep the checkpoint until [`forget`] is
/// called.
///
/// # Errors
/// [`StateError::NoneKept`] if there is no checkpoint of which all parts are left: VMs that refuse connections have none.
/// [`StateError::Memory`] if there may be one, but a VM does not answer, or not properly; [`StateError::File`] if it cannot be
/// written. After these two, a later call may succeed.
///
/// # Blocking
/// Until the checkpoint has been copied. Waits up to five seconds for a VM that does not answer.
pub fn fetch(run: ProgramId, vms: &[VmInfo], directory: impl AsRef<Path>) -> Result<u64, StateError> {
    let key = key()?;
    let directory = Directory::new(directory.as_ref());
    rt::block_on(async {
        let (mut kept, mut answered, mut silent) = (BTreeMap::<_, Parts<'_>>::new(), Vec::new(), None);
        for vm in vms {
            match list(vm, &key, run).await {
                Ok(Some(images)) => {
                    answered.push(vm);
                    for image in images {
                        let parts = kept.entry((image.number, image.program)).or_default();
                        parts.entry(image.part).or_default().push((image, vm));
                    }
                }
                Ok(None) => {}
                Err(error) => silent = Some(error),
            }
        }
        let mut missing = None;
        for ((number, _), parts) in kept.iter().rev() {
            match collect(*number, parts, &key).await? {
                Ok(parts) => match write(&directory, *number, &parts, &answered, &key).await {
                    Err(StateError::NoneKept(why)) => return Err(silent.unwrap_or(StateError::NoneKept(why))),
                    written => return written.map(|()| *number),
                },
                // An older one does not do while somebody may have the rest.
                Err(_) if silent.is_some() => break,
                Err(part) => missing = missing.or(Some((number, part))),
            }
        }
        let asked = vms.len();
        Err(silent.unwrap_or_else(|| {
            StateError::NoneKept(match missing {
                None => format!("none of the {asked} VMs that were found has one"),
                Some((number, part)) => format!(
                    "of checkpoint {number} no VM has part {part} any more: the {asked} that were found have others (more than \
                     one VM has died, or they shared a process)"
                ),
            })
        }))
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

/// Returns all parts of a checkpoint or, as the inner error, the number of a part that is nowhere intact. The outer error says
/// that it may still be somewhere.
async fn collect(
    number: u64,
    parts: &Parts<'_>,
    key: &ClusterKey,
) -> Result<Result<Vec<Vec<u8>>, u32>, StateError> {
    let count = parts.values().flatten().map(|(image, _)| image.parts).max().unwrap_or(0);
    let mut whole = Vec::new();
    for part in 0..count {
        let (mut found, mut failure) = (None, None);
        for (image, vm) in parts.get(&part).into_iter().flatten() {
            match download(vm, key, ToVm::Fetch(image.clone()), image.length).await {
                Ok(Some(bytes)) if read_part(&bytes).is_ok() => found = Some(bytes),
                Ok(Some(_)) => {
                    tracing::warn!(vm = vm.name, number, part, "a part of a checkpoint was altered");
                }
                Ok(None) => {}
                Err(error) => failure = Some(error),
            }
            if found.is_some() {
                break;
            }
        }
        match (found, failure) {
            (Some(bytes), _) => whole.push(bytes),
            (None, Some(error)) => return Err(error),
            (None, None) => return Ok(Err(part)),
        }
    }
    Ok(Ok(whole))
}

/// Writes a checkpoint and its program's executable, which VMs have in their caches.
async fn write(
    directory: &Directory,
    number: u64,
    parts: &[Vec<u8>],
    vms: &[&VmInfo],
    key: &ClusterKey,
) -> Result<(), StateError> {
    let (mut header, mut vrs) = (None, Vec::new());
    for part in parts {
        let part = read_part(part).map_err(failed)?;
        header = header.or(part.header);
        vrs.extend(part.vrs);
    }
    let header = header.ok_or_else(|| failed("it does not say of which program it is"))?;
    let mut missing = StateError::NoneKept("no VM has the program's executable any more".into());
    for vm in vms {
        match download(vm, key, ToVm::FetchProgram(header.image), MAX_IMAGE).await {
            Ok(Some(bytes)) if blake3::hash(&bytes).as_bytes() == header.image.as_bytes() => {
                directory.keep_image(header.image, &bytes)?;
                return directory.write(number, &header, &vrs).map(drop);
            }
            Ok(_) => {}
            Err(error) => missing = error,
        }
    }
    Err(missing)
}

/// What a VM keeps of the run; none: nobody is there any more.
async fn list(vm: &VmInfo, key: &ClusterKey, run: ProgramId) -> Result<Option<Vec<KeptImage>>, StateError> {
    let (to, mut from) = match converse(vm, key).await {
        Err(ControlError::Io(error)) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
        conversation => conversation.map_err(|error| of_vm(vm, error))?,
    };
    let _ = to.try_send(ToVm::List(run));
    match answer(vm, &mut from).await? {
        FromVm::Images(images) => Ok(Some(images)),
        _ => Err(of_vm(vm, "it sent an unexpected answer")),
    }
}

async fn converse(
    vm: &VmInfo,
    key: &ClusterKey,
) -> Result<(rt::Sender<ToVm>, Incoming<FromVm>), ControlError> {
    let hello = Hello::Lease { program: ProgramId::fresh() };
    control::dial(vm.address, key, &hello).await.map(|(_, stream)| control::split(stream))
}

async fn answer(vm: &VmInfo, from: &mut Incoming<FromVm>) -> Result<FromVm, StateError> {
    match rt::timeout(ANSWER, from.next()).await {
        Ok(Ok(Some(answer))) => Ok(answer),
        _ => Err(of_vm(vm, "it does not answer")),
    }
}

/// Receives an answer that comes in pieces, up to `most` bytes in total. Returns `None` if the VM has it no more.
async fn download(
    vm: &VmInfo,
    key: &ClusterKey,
    question: ToVm,
    most: u64,
) -> Result<Option<Vec<u8>>, StateError> {
    let (to, mut from) = converse(vm, key).await.map_err(|error| of_vm(vm, error))?;
    let _ = to.try_send(question);
    let mut bytes = Vec::new();
    loop {
        match answer(vm, &mut from).await? {
            FromVm::Piece(piece) if piece.is_empty() => return Ok(Some(bytes)),
            FromVm::Piece(piece) if (bytes.len() + piece.len()) as u64 > most => {
                return Err(of_vm(vm, format_args!("it sent more than the {most} bytes that there are")));
            }
            FromVm::Piece(piece) => bytes.extend_from_slice(&piece),
            FromVm::NotThere => return Ok(None),
            _ => return Err(of_vm(vm, "it sent an unexpected answer")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;
    use std::time::UNIX_EPOCH;

    use bytes::Bytes;

    use super::*;
    use crate::id::{ImageHash, VrId};
    use crate::protocol::Tenant;
    use crate::state::{Header, Writer};
    use crate::vm::{Vm, VmConfig};

    /// A part with which nothing is wrong.
    fn part() -> Bytes {
        let header = Header {
            program: ProgramId::fresh(),
            name: String::new(),
            image: ImageHash::from_bytes([7; 32]),
            triple: String::new(),
            taken: UNIX_EPOCH,
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: Vec::new(),
            initiator: VrId::fresh(),
            vms: Vec::new(),
            aliases: Vec::new(),
            places: Vec::new(),
            ended: Vec::new(),
            services: Vec::new(),
        };
        let mut writer = Writer::new(Vec::new()).unwrap();
        writer.header(&header).unwrap();
        writer.finish().unwrap().into()
    }

    /// Gives a VM a part of a checkpoint as a program does that has it, which then gives it back.
    async fn keep(vm: &Vm, image: &KeptImage, bytes: &Bytes) {
        let (key, program) = (key().unwrap(), image.program);
        let hello = Hello::Lease { program };
        let (_, stream) = control::dial(vm.info().address, &key, &hello).await.unwrap();
        let (to, mut from) = control::split::<ToVm, FromVm>(stream);
        let tenant = Tenant { program, name: "test".into() };
        let pieces = [bytes.clone(), Bytes::new()].map(ToVm::Image);
        for message in [ToVm::Acquire(tenant), ToVm::Keep(image.clone())].into_iter().chain(pieces) {
            to.try_send(message).unwrap();
        }
        let mut kept = 0;
        while kept < 2 {
            match from.next().await.unwrap().unwrap() {
                FromVm::Kept(result) => kept += usize::from(result.is_ok()),
                FromVm::Acquired | FromVm::Alive => {}
                other => panic!("{other:?}"),
            }
        }
        to.try_send(ToVm::Release).unwrap();
        while !matches!(from.next().await, Ok(None) | Err(_)) {}
    }

    #[test]
    fn parts_that_two_programs_of_a_run_have_taken_are_not_put_together() {
        let vms = Vm::start_many(&VmConfig::default().hidden(), 2).unwrap();
        let infos: Vec<VmInfo> = vms.iter().map(Vm::info).collect();
        let (run, bytes, scratch) = (ProgramId::fresh(), part(), tempfile::tempdir().unwrap());
        let [first, second] = [ProgramId::fresh(), ProgramId::fresh()];
        let image =
            |program, part| KeptImage { run, program, number: 1, part, parts: 2, length: bytes.len() as u64 };
        let why = || fetch(run, &infos, scratch.path()).unwrap_err();
        rt::block_on(keep(&vms[0], &image(first, 0), &bytes));
        rt::block_on(keep(&vms[1], &image(second, 1), &bytes));
        // What the second program keeps does not take the place of the other's.
        rt::block_on(keep(&vms[0], &image(second, 1), &bytes));
        assert!(matches!(why(), StateError::NoneKept(why) if why.contains("of checkpoint 1 no VM has part")));
        rt::block_on(keep(&vms[1], &image(first, 1), &bytes));
        assert!(matches!(why(), StateError::NoneKept(why) if why.contains("program's executable")));
    }

    #[test]
    fn a_vm_that_does_not_answer_may_keep_one_and_who_is_gone_does_not() {
        let vm = Vm::start(VmConfig::default().hidden()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let infos = [vm.info(), VmInfo { address: listener.local_addr().unwrap(), ..vm.info() }];
        let (run, scratch) = (ProgramId::fresh(), tempfile::tempdir().unwrap());
        let hangs_up = thread::spawn(move || drop(listener.accept()));
        let error = fetch(run, &infos, scratch.path()).unwrap_err();
        assert!(matches!(error, StateError::Memory(_)), "{error}");
        hangs_up.join().unwrap();
        let error = fetch(run, &infos, scratch.path()).unwrap_err();
        assert!(matches!(error, StateError::NoneKept(_)), "{error}");
    }
}
