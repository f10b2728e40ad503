//! What a VR can ask for besides messages: virtual machines, and VRs on them.

use std::time::Duration;

use super::resource::Create;
use super::{Group, VirtualResource, Vr, recorded, thread};
use crate::code;
use crate::discovery::{Query, VmInfo};
use crate::error::{DeployError, MigrateError, StateError};
use crate::id::{VmId, VrId};
use crate::protocol::{Count, Migrated, NewVr, Place, Reply, Request};
use crate::state::Call;

impl Vr {
    /// Finds virtual machines. Returns as soon as the number that the query asks for has answered, otherwise after a quarter
    /// of a second. The variable `RIVER_VMS`, which `river run -n` sets, is an upper limit for all
    /// queries of a program.
    ///
    /// # Errors
    /// [`DeployError::Discovery`] if no search could be made. Finding none is not an error.
    pub fn discover(&self, query: Query) -> Result<Vec<VmInfo>, DeployError> {
        self.vms(Call::Discover, Request::Discover(query))
    }

    /// Leases virtual machines for this program, in the order given: `count` is `4`, `2..` or `..`. A lease is
    /// exclusive and ends with the program.
    ///
    /// If two programs want the same VMs at the same moment, one gets them and the other an error. The same holds for two VRs
    /// of one program: VMs that the program already has, or is just leasing for another VR, are skipped.
    ///
    /// # Errors
    /// [`DeployError::TooFew`] if fewer than asked for could be leased; then none is kept.
    ///
    /// # Blocking
    /// Until all have answered. While other programs hold too many of them, it retries for a third of a second.
    pub fn allocate(&self, vms: Vec<VmInfo>, count: impl Into<Count>) -> Result<Vec<VmInfo>, DeployError> {
        self.allocate_within(vms, count, Duration::from_millis(330))
    }

    /// Like [`allocate`](Self::allocate), but retries for `patience` while other programs hold too many of the VMs.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate), when the time is up.
    pub fn allocate_within(
        &self,
        vms: Vec<VmInfo>,
        count: impl Into<Count>,
        patience: Duration,
    ) -> Result<Vec<VmInfo>, DeployError> {
        self.vms(Call::Allocate, Request::Allocate { vms, count: count.into(), patience })
    }

    /// Starts virtual machines inside the initiator's process, leased by this program. Nobody else finds them, and they end
    /// with it.
    ///
    /// # Errors
    /// [`DeployError::Vm`] if the machine lacks the resources to start them.
    pub fn start_local(&self, count: usize) -> Result<Vec<VmInfo>, DeployError> {
        self.vms(Call::StartLocal, Request::StartLocal(count))
    }

    /// Returns leased VMs. The VRs that run there end.
    ///
    /// # Errors
    /// [`DeployError::Stopped`] if the program is ending.
    pub fn release(&self, vms: &[VmInfo]) -> Result<(), DeployError> {
        let ids: Vec<VmId> = vms.iter().map(|vm| vm.id).collect();
        match self.ask(Call::Release, Request::Release(ids))? {
            Some(Reply::Done) => Ok(()),
            Some(Reply::Failed(error)) => Err(error),
            _ => Err(DeployError::Stopped),
        }
    }

    /// Returns the VMs of this program that somebody wants back (`river vm --drain`), oldest request first. A program that
    /// can spare such a VM [releases](Self::release) it; then it is no longer listed. In a recoverable program River moves
    /// the VRs away and returns the VM itself; only a VM for which that fails is listed. Only the VRs of the initiator's
    /// process get this list; elsewhere it is empty.
    #[must_use]
    pub fn leaving(&self) -> Vec<VmId> {
        // A divergence is reported by the next receive.
        self.remember(Call::Leaving, || self.node.leaving()).unwrap_or_default()
    }

    /// Moves a VR, this one or any other, to another VM of this program, which is leased first if it is not yet: with its
    /// state, its queue, and the call that it is in. It keeps its id; no message in transit to it is lost, duplicated or
    /// overtaken. If the result says that no VR was moved, it was there already.
    ///
    /// All VRs of the program must be recoverable, as all are stopped while the VR moves. On the new VM its `main` is
    /// replayed from its last safepoint; on the old one its thread is unwound at its next call. If the VR is busy with an
    /// [`effect`](Self::effect) or a request to the program, the move waits for that.
    ///
    /// # Errors
    /// [`MigrateError`]: the VR continues where it was.
    ///
    /// # Blocking
    /// Until the VR lives there, while a checkpoint is taken, and up to ten seconds while the VR is busy.
    pub fn migrate(&self, vr: VrId, vm: &VmInfo) -> Result<Migrated, MigrateError> {
        self.ask_to_move(Call::Migrate, Request::Migrate { vr, vm: vm.clone() })
    }

    /// Gives a VR, this one or any other, a *twin* on another VM of this program, which is leased first if it is not yet.
    /// When the VR's process dies, with its machine or alone, the twin takes its place under the same id, from exactly where
    /// the VR was. No message to it or from it is lost, duplicated or overtaken, and VRs that watch it are not notified.
    /// After that, and when the VR moves or its twin dies, it gets a new twin on another of the program's VMs, if there is
    /// one.
    ///
    /// Every message to the VR is also sent to the twin's process. What the VR is told is recorded there before any effect of
    /// it can be seen by others, so a send that follows a receive waits for an acknowledgement from that process. All VRs of
    /// the program must be recoverable, and are stopped briefly while the twin is made. An [`effect`](Self::effect) may be
    /// repeated by the twin, if nobody has seen its result.
    ///
    /// The result says what was transferred; its `vrs` is 0 if the twin was there already.
    ///
    /// ```
    /// use river_core::{Channel, Result, Selector, VirtualResource, Vr};
    /// use serde::{Deserialize, Serialize};
    ///
    /// const COUNTER: Channel = Channel::named("counter");
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Counter(u8);
    ///
    /// impl VirtualResource for Counter {
    ///     fn main(&mut self, vr: &Vr) -> Result {
    ///         loop {
    ///             vr.safepoint(self)?;
    ///             let question = vr.receive(Selector::on(COUNTER))?;
    ///             self.0 += 1;
    ///             vr.send_bytes(question.src, COUNTER, 0, vec![self.0])?;
    ///         }
    ///     }
    /// }
    ///
    /// # fn main() -> Result {
    /// # river_core::try_run_recoverable(|vr| {
    /// let vms = vr.start_local(2)?;
    /// let counter = vr.deploy(&vms[..1], |_| Counter(0))?[0];
    /// vr.mirror(counter, &vms[1])?;
    /// vr.send_bytes(counter, COUNTER, 0, vec![])?;
    /// assert_eq!(vr.receive(Selector::on(COUNTER).from(counter))?.payload.to_bytes()[0], 1);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`MigrateError`]: the VR has the twin that it had before, if any.
    ///
    /// # Blocking
    /// Until the twin is there, while a checkpoint is taken, and up to ten seconds while the VR is busy.
    pub fn mirror(&self, vr: VrId, vm: &VmInfo) -> Result<Migrated, MigrateError> {
        self.ask_to_move(Call::Mirror, Request::Mirror { vr, vm: vm.clone() })
    }

    fn ask_to_move(&self, call: Call, request: Request) -> Result<Migrated, MigrateError> {
        let ask = || match self.node.ask(request) {
            Some(Reply::Migrated(result)) => result,
            _ => Err(MigrateError::Stopped),
        };
        self.remember(call, ask).unwrap_or_else(|error| match error {
            StateError::Diverged(divergence) => Err(MigrateError::Diverged(divergence)),
            other => Err(MigrateError::GivenUp(other.to_string())),
        })
    }

    /// Starts a helper VR in this process, as a child of this one: for work that must wait while its parent continues. It
    /// need not be serializable, so the closure may capture.
    ///
    /// Only this VR, and VRs that the helper itself deploys or sends to, can address it.
    ///
    /// # Errors
    /// The system's error, if no thread can be started.
    pub fn spawn(
        &self,
        name: &str,
        body: impl FnOnce(&Vr) -> crate::error::Result + Send + 'static,
    ) -> std::io::Result<VrId> {
        let id = self.name_child();
        let begun = self.begin_deploying();
        thread::spawn(&self.node, id, name, self.id, Box::new(Some(body)), None, |_, _| {})?;
        self.deployed(begun, id);
        self.mailbox.borrow_mut().adopt(id);
        self.observed.borrow_mut().insert(id);
        Ok(id)
    }

    /// Starts one VR on each of the VMs given (two on a VM that is given twice); `make` is called here with 0, 1, ...
    ///
    /// The program's command line, working directory (where it exists), the environment variables named by `RIVER_PASS`, and
    /// `RUST_BACKTRACE`, `RUST_LIB_BACKTRACE`, `RUST_LOG`, `RIVER_LOG`, `RIVER_PORT`, `RIVER_HOSTS` and `RIVER_LINKS` are those
    /// of the initiator; the rest of the environment is that of the VM.
    ///
    /// This VR becomes their parent, and is notified without asking when one of them ends abnormally.
    ///
    /// # Errors
    /// [`DeployError`]: a VM is not leased, cannot run this program, or cannot be reached. VRs that were started before the
    /// error continue.
    ///
    /// # Blocking
    /// Until all of them run.
    pub fn deploy<V: VirtualResource>(
        &self,
        vms: &[VmInfo],
        make: impl FnMut(usize) -> V,
    ) -> Result<Group<V>, DeployError> {
        self.deploy_with(vms, make, self.node.recoverable)
    }

    /// Like [`deploy`](Self::deploy), but the VRs are recorded from their beginning, so that they can be part of a
    /// [`checkpoint`](Self::checkpoint). In a program that is recoverable as a whole, [`deploy`](Self::deploy) does the same.
    ///
    /// Between two calls on `Vr` such a VR must be deterministic: see [`Divergence`](crate::Divergence). Its record grows
    /// with every call, until a [`safepoint`](Self::safepoint) truncates it.
    ///
    /// # Errors
    /// As [`deploy`](Self::deploy).
    ///
    /// # Blocking
    /// As [`deploy`](Self::deploy).
    pub fn deploy_recoverable<V: VirtualResource>(
        &self,
        vms: &[VmInfo],
        make: impl FnMut(usize) -> V,
    ) -> Result<Group<V>, DeployError> {
        self.deploy_with(vms, make, true)
    }

    /// Like [`deploy`](Self::deploy), but each VR gets a twin on the next different VM of those given: see
    /// [`mirror`](Self::mirror).
    ///
    /// # Errors
    /// As [`deploy`](Self::deploy); [`DeployError::Mirror`] if a twin cannot be made: the VRs run, but some are not mirrored.
    ///
    /// # Blocking
    /// As [`deploy`](Self::deploy) and [`mirror`](Self::mirror).
    pub fn deploy_mirrored<V: VirtualResource>(
        &self,
        vms: &[VmInfo],
        make: impl FnMut(usize) -> V,
    ) -> Result<Group<V>, DeployError> {
        let group = self.deploy(vms, make)?;
        for (index, vr) in group.iter().enumerate() {
            let others = vms[index..].iter().chain(&vms[..index]);
            // If there is no other VM, `mirror` returns the error.
            let twin = others.clone().find(|vm| vm.id != vms[index].id).unwrap_or(&vms[index]);
            self.mirror(vr, twin).map_err(|error| DeployError::Mirror(Box::new(error)))?;
        }
        Ok(group)
    }

    fn deploy_with<V: VirtualResource>(
        &self,
        vms: &[VmInfo],
        mut make: impl FnMut(usize) -> V,
        recoverable: bool,
    ) -> Result<Group<V>, DeployError> {
        let new = |(index, vm): (usize, &VmInfo)| Ok((vm.id, self.new_vr(&make(index), recoverable)?));
        let vrs = vms.iter().enumerate().map(new).collect::<Result<Vec<_>, DeployError>>()?;
        let ids: Vec<VrId> = vrs.iter().map(|(_, new)| new.id).collect();
        let call = || Call::Deploy(recorded::fingerprint(vrs.iter().map(|(_, new)| new)));
        let begun = self.begin_deploying();
        let places = match self.ask(call(), Request::Deploy(vrs))? {
            Some(Reply::Deployed(places)) => places,
            Some(Reply::Failed(error)) => return Err(error),
            _ => return Err(DeployError::Stopped),
        };
        for (id, place) in places {
            self.deployed(begun, id);
            self.adopt(id, place);
        }
        Ok(Group::new(ids))
    }

    /// Returns the VR with this name on a leased VM: the existing one, or a new one made by `make`, whose parent is this VR.
    /// All VRs of this program that ask for the same name on the same VM get the same VR, even concurrently; once it has
    /// ended, the next request creates a new one.
    ///
    /// ```
    /// use river_core::{Channel, Result, Selector, VirtualResource, Vr};
    /// use serde::{Deserialize, Serialize};
    ///
    /// const COUNTER: Channel = Channel::named("counter");
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Counter(u8);
    ///
    /// impl VirtualResource for Counter {
    ///     fn main(&mut self, vr: &Vr) -> Result {
    ///         loop {
    ///             let question = vr.receive(Selector::on(COUNTER))?;
    ///             vr.send_bytes(question.src, COUNTER, 0, vec![self.0])?;
    ///             self.0 += 1;
    ///         }
    ///     }
    /// }
    ///
    /// # fn main() -> Result {
    /// # river_core::try_run(|vr| {
    /// let vms = vr.start_local(1)?;
    /// for count in 0..3 {
    ///     let counter = vr.service(&vms[0], "counter", || Counter(0))?;
    ///     vr.send_bytes(counter, COUNTER, 0, vec![])?;
    ///     assert_eq!(vr.receive(Selector::on(COUNTER).from(counter))?.payload.to_bytes()[0], count);
    /// }
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`deploy`](Self::deploy).
    ///
    /// # Blocking
    /// Until the VR runs.
    pub fn service<V: VirtualResource>(
        &self,
        vm: &VmInfo,
        name: &str,
        make: impl FnOnce() -> V,
    ) -> Result<VrId, DeployError> {
        let new = self.new_vr(&make(), self.node.recoverable)?;
        let (id, call) = (new.id, Call::Service(recorded::fingerprint(std::iter::once(&new))));
        let request = Request::Service { vm: vm.id, name: name.to_owned(), new };
        let begun = self.begin_deploying();
        match self.ask(call, request)? {
            Some(Reply::Deployed(places)) => {
                let Some(&(found, place)) = places.first() else { return Err(DeployError::Stopped) };
                if found == id {
                    self.deployed(begun, id);
                    self.adopt(id, place);
                } else if self.is_live() {
                    self.node.learn(found, place);
                }
                Ok(found)
            }
            Some(Reply::Failed(error)) => Err(error),
            _ => Err(DeployError::Stopped),
        }
    }

    /// Encodes a VR to be sent.
    fn new_vr<V: VirtualResource>(&self, value: &V, recoverable: bool) -> Result<NewVr, DeployError> {
        let name = std::any::type_name::<V>();
        let state = postcard::to_stdvec(value)
            .map_err(|error| DeployError::State { name: name.into(), error: error.to_string() })?;
        Ok(NewVr {
            id: self.name_child(),
            code: code::code_ptr::<Create<V>, ()>(()),
            name: name.into(),
            state,
            parent: self.id,
            parent_at: self.node.place,
            recoverable,
        })
    }

    /// Asks to be told of the end of a VR that this one has deployed.
    fn adopt(&self, child: VrId, place: Place) {
        self.mailbox.borrow_mut().adopt(child);
        self.observed.borrow_mut().insert(child);
        // Places in a record belong to a program that is gone.
        if self.is_live() {
            self.node.learn(child, place);
            self.node.expect(self.id, child);
        }
    }

    fn vms(&self, call: Call, request: Request) -> Result<Vec<VmInfo>, DeployError> {
        match self.ask(call, request)? {
            Some(Reply::Vms(vms)) => Ok(vms),
            Some(Reply::Failed(error)) => Err(error),
            _ => Err(DeployError::Stopped),
        }
    }
}
