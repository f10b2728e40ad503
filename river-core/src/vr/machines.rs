//! What a VR asks for besides messages: virtual machines, and VRs on them.

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
    /// Finds virtual machines that answer. Returns as soon as as many have answered as the query asks for, otherwise
    /// after a quarter of a second. The variable `RIVER_VMS`, which `river run -n` sets, is an upper limit for all
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
    /// [`DeployError::TooFew`] if fewer than wanted could be leased; then none is kept.
    ///
    /// # Blocking
    /// Until all have answered; while others hold too many of them, it tries again for a third of a second.
    pub fn allocate(&self, vms: Vec<VmInfo>, count: impl Into<Count>) -> Result<Vec<VmInfo>, DeployError> {
        self.allocate_within(vms, count, Duration::from_millis(330))
    }

    /// Like [`allocate`](Self::allocate), but tries again for as long as that if other programs hold too many of the VMs.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate), when the time is over.
    pub fn allocate_within(
        &self,
        vms: Vec<VmInfo>,
        count: impl Into<Count>,
        patience: Duration,
    ) -> Result<Vec<VmInfo>, DeployError> {
        self.vms(Call::Allocate, Request::Allocate { vms, count: count.into(), patience })
    }

    /// Starts virtual machines in this program's own initiator, leased by it, found by nobody else, gone when it ends.
    ///
    /// # Errors
    /// [`DeployError::Vm`] if the machine does not let them start.
    pub fn start_local(&self, count: usize) -> Result<Vec<VmInfo>, DeployError> {
        self.vms(Call::StartLocal, Request::StartLocal(count))
    }

    /// Gives leases back. The VRs that run there end.
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

    /// The VMs of this program that somebody wants back (`river vm --drain`), oldest request first: a program that can do
    /// without one [releases](Self::release) it, and it is not named any more. In a recoverable program River moves away what is
    /// there and gives the VM back; only if it cannot, it asks here. Known to the VRs of the initiator's process only; elsewhere
    /// empty.
    #[must_use]
    pub fn leaving(&self) -> Vec<VmId> {
        // A divergence is told by the receive that follows.
        self.remember(Call::Leaving, || self.node.leaving()).unwrap_or_default()
    }

    /// Moves a VR, this one or any other, to another VM of this program, which is leased if it is not yet: with its state, its
    /// queue, and all that it is in the middle of. It keeps its name; nothing that is under way to it is lost, doubled or
    /// overtaken. It was there already if the result says that none was moved.
    ///
    /// All VRs of the program have to be recoverable, as all are stopped while the VR travels. On the other VM its `main` runs
    /// again from its last safepoint, told what it had been told; on this one its thread is unwound at its next call. A VR that is
    /// in the middle of an [`effect`](Self::effect) or of a question to the program is waited for.
    ///
    /// # Errors
    /// [`MigrateError`]: the VR goes on where it was.
    ///
    /// # Blocking
    /// Until it lives there, while a checkpoint is taken, and up to ten seconds while the VR is busy.
    pub fn migrate(&self, vr: VrId, vm: &VmInfo) -> Result<Migrated, MigrateError> {
        self.ask_to_move(Call::Migrate, Request::Migrate { vr, vm: vm.clone() })
    }

    /// Gives a VR, this one or any other, a *twin* on another VM of this program, which is leased if it is not yet. When the
    /// process that the VR runs in dies, with its machine or alone, the twin takes its place: with the same name, from exactly
    /// where the VR was. Nothing that was sent to it or by it is lost, doubled or overtaken, and who watches it is not told.
    /// Then, and when the VR moves or its twin dies, it gets a new twin on another of the program's VMs if there is one.
    ///
    /// Whoever sends to the VR sends to the twin's process as well. What the VR was told is recorded there before anything of
    /// the VR is seen by others, so a send that follows a receive waits for an answer of that process. All VRs of the program
    /// have to be recoverable, and stand still for a moment while the twin is made. What an [`effect`](Self::effect) does may be
    /// done once more by the twin, if its result was not seen by anybody.
    ///
    /// The result says what had to travel; none was mirrored if the twin was there already.
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
    /// [`MigrateError`]: the VR has the twin that it had before, or none.
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

    /// Starts a VR in this very process, beside this one, which becomes its parent: for what has to wait while its
    /// parent goes on. It need not be able to travel, so it may capture.
    ///
    /// Only this VR and what the helper itself deploys or writes to can address it.
    ///
    /// # Errors
    /// The system's, if it has no thread left.
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

    /// Starts one VR on each of the VMs given (a VM given twice gets two); `make` is called here with 0, 1, ...
    ///
    /// The program's command line, working directory (where it exists) and the environment variables that `RIVER_PASS`
    /// names are those of the initiator there; the rest of the environment is that of the VM.
    ///
    /// This VR becomes their parent, and is told without asking when one of them does not end normally.
    ///
    /// # Errors
    /// [`DeployError`]: a VM is not leased, cannot run this program, or is out of reach. VRs that were started before
    /// the error go on.
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
    /// Between two calls on `Vr` such a VR has to be deterministic: see [`Divergence`](crate::Divergence). Its record grows
    /// with every call, until it makes it short by a [`safepoint`](Self::safepoint).
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

    /// Like [`deploy`](Self::deploy), but each VR gets a twin on the next of the VMs that is another one: see
    /// [`mirror`](Self::mirror).
    ///
    /// # Errors
    /// As [`deploy`](Self::deploy); [`DeployError::Mirror`] if a twin cannot be made: then the VRs run, and some are not mirrored.
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
            // If there is no other one, the error says so.
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

    /// The VR of that name on a leased VM: the one that is there, or a new one made by `make`, of which this VR becomes
    /// the parent. Whoever asks for the same name on the same VM in this program gets the same VR, also if two ask at
    /// once; when it has ended, the next one who asks gets a new one.
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
    /// Until it runs.
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

    /// A VR as it travels.
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

    /// Has the end of a VR that this one has deployed reported.
    fn adopt(&self, child: VrId, place: Place) {
        self.mailbox.borrow_mut().adopt(child);
        self.observed.borrow_mut().insert(child);
        // Places in a record are those of a program that is gone.
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
