//! Checkpoints in the memory of the program's VMs.
//!
//! The image of each process is kept by the VM on which it runs and by a partner, so that a copy of each is left after the
//! death of any one VM. The initiator's process, which runs on no VM, has its image on two VMs.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Program;
use super::vm_link::Leased;
use crate::control::{self, ControlError};
use crate::error::StateError;
use crate::id::{HostId, ProgramId, VmId};
use crate::image::Image;
use crate::protocol::{FromVm, Hello, KeptImage, ToVm, pieces};
use crate::rt;
use crate::state::{self, Header, Target, Writer};

/// How long a VM may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// The memory of a program's VMs.
pub(super) struct Memory {
    program: Arc<Program>,
}

struct Draft {
    program: Arc<Program>,
    number: u64,
    /// The image of each process, ready to be sent.
    parts: BTreeMap<HostId, Writer<Vec<u8>>>,
}

fn failed(error: impl std::fmt::Display) -> StateError {
    StateError::Memory(error.to_string())
}

impl Memory {
    pub(super) fn new(program: Arc<Program>) -> Self {
        Self { program }
    }
}

impl Target for Memory {
    fn begin(&self, _image: &Image) -> Result<Box<dyn state::Draft>, StateError> {
        let count = self.program.keepers().len();
        if count < 2 {
            return Err(failed(format_args!(
                "each part is kept by two VMs, so at least two are needed that run VRs of the program from the initiator's image, \
                 in processes of their own; the program has {count}"
            )));
        }
        let number = {
            let mut state = self.program.state();
            state.cut.kept += 1;
            state.cut.kept
        };
        Ok(Box::new(Draft { program: self.program.clone(), number, parts: BTreeMap::new() }))
    }
}

impl Draft {
    fn part(&mut self, of: HostId) -> Result<&mut Writer<Vec<u8>>, StateError> {
        match self.parts.entry(of) {
            Entry::Occupied(there) => Ok(there.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(Writer::new(Vec::new()).map_err(failed)?)),
        }
    }
}

impl state::Draft for Draft {
    fn number(&self) -> u64 {
        self.number
    }

    fn vr(&mut self, of: HostId, saved: &[u8]) -> Result<(), StateError> {
        self.part(of)?.vr(saved).map_err(failed)
    }

    fn publish(mut self: Box<Self>, header: &Header, _keep: usize) -> Result<u64, StateError> {
        let own = self.program.node.place.host;
        self.part(own)?.header(header).map_err(failed)?;
        let (run, program, number) = (self.program.run_id(), self.program.tenant.program, self.number);
        let parts = u32::try_from(self.parts.len()).unwrap_or(u32::MAX);
        let vms = self.program.keepers();
        let addresses: Vec<SocketAddr> = vms.iter().map(|vm| vm.info.address).collect();
        let homes = self.program.homes();
        let mut sent = 0;
        let mut for_vm: HashMap<usize, Vec<(KeptImage, Bytes)>> = HashMap::new();
        for (part, (host, writer)) in (0..).zip(std::mem::take(&mut self.parts)) {
            let bytes = Bytes::from(writer.finish().map_err(failed)?);
            sent += bytes.len() as u64;
            let image = KeptImage { run, program, number, part, parts, length: bytes.len() as u64 };
            let home = homes.get(&host);
            let home = home.and_then(|home| vms.iter().position(|vm| vm.info.id == *home));
            let pair = keepers_of(home, part as usize, &addresses);
            for vm in pair.ok_or_else(|| failed("a VM has gone, and there is none left to keep its part"))? {
                for_vm.entry(vm).or_default().push((image.clone(), bytes.clone()));
            }
        }
        let result = rt::block_on(async {
            let mut sending = Vec::new();
            for (vm, images) in for_vm {
                let (program, vm) = (self.program.clone(), vms[vm].clone());
                sending.push(rt::spawn(async move { program.keep_on(&vm, images).await }));
            }
            let mut result = Ok(());
            for sending in sending {
                result = result.and(sending.await);
            }
            result
        });
        // Only a complete checkpoint replaces the previous one; an incomplete one is dropped.
        let (from, before) = if result.is_ok() { (0, number) } else { (number, number + 1) };
        self.program.forget(run, from, before);
        result.map(|()| sent)
    }
}

/// The two of these VMs that keep a part: the one that its process runs on, if it runs on one, and the next, on another
/// machine if there is one.
fn keepers_of(home: Option<usize>, part: usize, vms: &[SocketAddr]) -> Option<[usize; 2]> {
    if vms.len() < 2 {
        return None;
    }
    let first = home.unwrap_or(part % vms.len());
    let mut others = (1..vms.len()).map(|step| (first + step) % vms.len());
    let elsewhere = others.clone().find(|other| vms[*other].ip() != vms[first].ip());
    Some([first, elsewhere.or_else(|| others.next())?])
}

impl Program {
    /// The name under which the program's checkpoints are kept.
    fn run_id(&self) -> ProgramId {
        state::run_id().unwrap_or(self.tenant.program)
    }

    /// The VMs that can keep parts, in a stable order. A VM on which nothing runs cannot, as it lacks the program's
    /// executable, nor can one that runs another of the program's images.
    fn keepers(&self) -> Vec<Arc<Leased>> {
        let state = self.state();
        let local: Vec<VmId> = state.local_vms.iter().map(|vm| vm.info().id).collect();
        let keeps = |vm: &&Arc<Leased>| !local.contains(&vm.info.id) && vm.is_up() && vm.runs_own_image();
        let mut vms: Vec<_> = state.vms.values().filter(keeps).cloned().collect();
        vms.sort_by(|a, b| (&a.info.name, a.info.id).cmp(&(&b.info.name, b.info.id)));
        vms
    }

    /// The VM that each process runs on.
    fn homes(&self) -> HashMap<HostId, VmId> {
        self.state().hosts.iter().map(|(id, host)| (*id, host.vm)).collect()
    }

    /// Sends a VM the images that it is to keep.
    async fn keep_on(&self, vm: &Leased, images: Vec<(KeptImage, Bytes)>) -> Result<(), StateError> {
        let name = &vm.info.name;
        let error = |error: &dyn std::fmt::Display| failed(format_args!("VM {name}: {error}"));
        let hello = Hello::Lease { program: self.tenant.program };
        let dialled = control::dial(vm.info.address, &self.key, &hello).await;
        let (_, stream) = dialled.map_err(|e: ControlError| error(&e))?;
        let (to, mut from) = control::split::<ToVm, FromVm>(stream);
        for (image, bytes) in images {
            let _ = to.try_send(ToVm::Keep(image));
            for step in 0..2 {
                loop {
                    match rt::timeout(ANSWER, from.next()).await {
                        // It is still receiving.
                        Ok(Ok(Some(FromVm::Alive))) => {}
                        Ok(Ok(Some(FromVm::Kept(Ok(()))))) => break,
                        Ok(Ok(Some(FromVm::Kept(Err(why))))) => return Err(error(&why)),
                        Ok(Ok(_)) => return Err(error(&"it closed the connection")),
                        Ok(Err(e)) => return Err(error(&e)),
                        Err(_) => return Err(error(&format_args!("it did not answer within {ANSWER:?}"))),
                    }
                }
                if step == 0 {
                    pieces(&bytes).for_each(|piece| drop(to.try_send(ToVm::Image(piece))));
                    let _ = to.try_send(ToVm::Image(Bytes::new()));
                }
            }
        }
        Ok(())
    }

    /// Drops all kept checkpoints of the program, which is over and will not be restarted from them.
    pub(crate) fn forget_checkpoints(&self) {
        if self.state().cut.kept > 0 {
            self.forget(self.run_id(), 0, u64::MAX);
        }
    }

    /// Tells all VMs to drop checkpoints of these numbers, even one that can keep none any more because its host has died.
    fn forget(&self, run: ProgramId, from: u64, before: u64) {
        self.state().vms.values().for_each(|vm| vm.send(ToVm::Forget { run, from, before }));
    }

    /// Notes that the program has been restarted from this checkpoint: later ones get higher numbers.
    pub(crate) fn goes_on_from(&self, number: u64) {
        self.state().cut.kept = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_on_two_vms_and_on_two_machines_if_there_are_two() {
        let at = |machine: u8, port: u16| SocketAddr::from(([10, 0, 0, machine], port));
        let one = [at(1, 1), at(1, 2), at(1, 3)];
        let two = [at(1, 1), at(1, 2), at(2, 1), at(2, 2)];
        for vms in [&one[..], &two[..]] {
            for part in 0..9 {
                for home in [None, Some(part % vms.len())] {
                    let [first, second] = keepers_of(home, part, vms).unwrap();
                    assert_ne!(first, second);
                    assert!(home.is_none_or(|home| home == first));
                    assert!(vms.len() == 3 || vms[first].ip() != vms[second].ip());
                }
            }
        }
        assert_eq!(keepers_of(Some(0), 0, &one[..1]), None);
        assert_eq!(keepers_of(None, 0, &[]), None);
    }
}
