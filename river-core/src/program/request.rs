//! Answers the requests of the program's VRs.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::discovery::{self, Query, SEARCH_TIME, VmInfo, VmState};
use crate::down::Why;
use crate::error::DeployError;
use crate::id::{HostId, VmId, VrId};
use crate::image::{self, Image};
use crate::machine::machine_name;
use crate::program::vm_link::Leased;
use crate::program::{Program, Service, State, failed};
use crate::protocol::{NewVr, Place, Reply, Request, ToHost};
use crate::rt;

/// The state of a service that a VR asks for.
enum Claim {
    There(VrId, Place),
    /// It is being made. The receiver is closed when it has been made, or could not be.
    InTheMaking(rt::Receiver<()>),
    /// There is none: the requester makes it, and then closes the sender.
    Ours(rt::Sender<()>),
}

impl Program {
    pub(super) async fn answer(self: &Arc<Self>, request: Request) -> Reply {
        match request {
            Request::Locate(vr) => {
                while self.state().mirrors.is_being_taken_over(Some(vr)) {
                    rt::sleep(Duration::from_millis(1)).await;
                }
                self.locate(vr)
            }
            Request::Verdict { host, error } => Reply::Gone(self.verdict(host, error).await),
            Request::Discover(query) => self.discover(query).await.map_or_else(failed, Reply::Vms),
            Request::Allocate { vms, count, patience } => {
                self.allocate(vms, count, patience).await.map_or_else(failed, Reply::Vms)
            }
            Request::StartLocal(count) => self.start_local(count).await.map_or_else(failed, Reply::Vms),
            Request::Release(vms) => self.release(&vms).await,
            Request::Deploy(vrs) => self.deploy(vrs).await.map_or_else(failed, Reply::Deployed),
            Request::Service { vm, name, new } => {
                self.service(vm, name, new).await.map_or_else(failed, Reply::Deployed)
            }
            Request::Checkpoint { to, keep } => Reply::Checkpoint(self.checkpoint(to, keep).await),
            Request::Migrate { vr, vm } => Reply::Migrated(self.migrate(vr, vm).await),
            Request::Mirror { vr, vm } => Reply::Migrated(self.mirror(vr, vm).await),
        }
    }

    /// Where a VR lives, or lived. If it has ended but its host lives, the host itself reports the end, after everything
    /// that the VR had sent.
    fn locate(&self, vr: VrId) -> Reply {
        let state = self.state();
        if let Some(why) = state.past.get(&vr) {
            return Reply::Gone(why.clone());
        }
        let Some(host) = state.directory.host_of(vr) else { return Reply::Gone(Why::Unknown) };
        if let Some(why) = state.directory.why_died(host) {
            return Reply::Dead { host, why: why.clone() };
        }
        if host == self.node.place.host {
            return Reply::At(self.node.place);
        }
        state.hosts.get(&host).map_or(Reply::Gone(Why::Unknown), |host| Reply::At(host.place))
    }

    pub(super) async fn discover(&self, mut query: Query) -> Result<Vec<VmInfo>, DeployError> {
        let limit = vm_limit()?;
        // A search for idle VMs may stop at the limit; in any other, the first VMs to answer may be in use.
        if let Some(limit) = limit
            && query.idle_only
        {
            query.count = Some(query.count.map_or(limit, |count| count.min(limit)));
        }
        let (key, reach) = (self.key.clone(), self.reach.clone());
        let search = rt::blocking(move || {
            let port = discovery::discovery_port().map_err(|error| error.to_string())?;
            discovery::search(&key, &query, port, &reach, SEARCH_TIME).map_err(|error| error.to_string())
        });
        let found = search.await.map_err(DeployError::Discovery)?;
        let ours = crate::noise::PROTOCOL;
        if let Some((&theirs, _)) = found.other_versions.iter().max_by_key(|(_, count)| **count) {
            let count = found.other_versions.values().sum();
            if found.vms.is_empty() {
                return Err(DeployError::OtherVersion { count, theirs, ours });
            }
            tracing::warn!(count, theirs, ours, "some VMs speak another version of the protocol");
        }
        let mut vms = found.vms;
        if let Some(limit) = limit {
            self.state().keep_first(&mut vms, limit as usize);
        }
        Ok(vms)
    }

    async fn deploy(self: &Arc<Self>, vrs: Vec<(VmId, NewVr)>) -> Result<Vec<(VrId, Place)>, DeployError> {
        let order: Vec<VrId> = vrs.iter().map(|(_, new)| new.id).collect();
        let image = own_image().await?;
        let mut by_vm: HashMap<VmId, Vec<NewVr>> = HashMap::new();
        for (vm, new) in self.unknown(vrs) {
            by_vm.entry(vm).or_default().push(new);
        }
        let mut running = Vec::new();
        for (vm, vrs) in by_vm {
            let leased = self.state().leased(vm)?;
            let program = self.clone();
            running.push(rt::spawn(async move { program.deploy_on(leased, image, vrs).await }));
        }
        let mut places = HashMap::new();
        let mut failure = None;
        for task in running {
            match task.await {
                Ok(made) => places.extend(made),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if let Some(error) = failure {
            return Err(error);
        }
        // Another request may be making them: a twin that has taken over a VR repeats the VR's requests.
        while order.iter().any(|vr| self.state().making.contains(vr)) {
            rt::sleep(Duration::from_millis(1)).await;
        }
        let state = self.state();
        let known = |id: &VrId| state.hosts.get(&state.directory.host_of(*id)?).map(|host| host.place);
        Ok(order
            .iter()
            .filter_map(|id| Some((*id, places.get(id).copied().or_else(|| known(id))?)))
            .collect())
    }

    async fn service(
        self: &Arc<Self>,
        vm: VmId,
        name: String,
        new: NewVr,
    ) -> Result<Vec<(VrId, Place)>, DeployError> {
        let key = (vm, name);
        let made = loop {
            match self.find_service(&key, new.id) {
                Claim::There(vr, place) => return Ok(vec![(vr, place)]),
                // Another VR has just asked for it: look again once it has been made, or could not be.
                Claim::InTheMaking(ready) => drop(ready.recv().await),
                Claim::Ours(made) => break made,
            }
        };
        let deployed = self.deploy(vec![(vm, new)]).await;
        let place = deployed.as_ref().ok().and_then(|places| places.first()).map(|(_, place)| *place);
        {
            let mut state = self.state();
            match (place, state.services.get_mut(&key)) {
                (Some(place), Some(service)) => service.place = Some(place),
                _ => drop(state.services.remove(&key)),
            }
        }
        made.close();
        deployed
    }

    /// Looks for a service, and enters `new` in its place if there is none.
    fn find_service(&self, key: &(VmId, String), new: VrId) -> Claim {
        let mut state = self.state();
        if let Some(Service { vr, place, ready }) = state.services.get(key)
            && !state.directory.has_ended(*vr)
        {
            return place.map_or_else(|| Claim::InTheMaking(ready.clone()), |place| Claim::There(*vr, place));
        }
        let (made, ready) = rt::unbounded();
        state.services.insert(key.clone(), Service { vr: new, place: None, ready });
        Claim::Ours(made)
    }

    async fn deploy_on(
        &self,
        mut vm: Arc<Leased>,
        image: &Image,
        mut vrs: Vec<NewVr>,
    ) -> Result<Vec<(VrId, Place)>, DeployError> {
        let host = loop {
            let started = vm.ensure_host(self, image).await;
            let host = started.map_err(|error| DeployError::Vm { vm: vm.info.name.clone(), error })?;
            self.unless_frozen().await;
            // The VM may have been drained meanwhile: then another one stands for it.
            let now = {
                let state = self.state();
                state.leased(state.alias(vm.info.id))?
            };
            if Arc::ptr_eq(&now, &vm) {
                break host;
            }
            vm = now;
        };
        let error = |error: String| DeployError::Vm { vm: vm.info.name.clone(), error };
        let ids = self.state().claim(host, &mut vrs);
        let created = self.create(host, vrs);
        let result = match &created {
            Some((_, made)) => made.recv().await.ok(),
            None => None,
        };
        self.state().making.retain(|vr| !ids.contains(vr));
        match (created, result) {
            (Some((place, _)), Some(Ok(()))) => Ok(ids.into_iter().map(|id| (id, place)).collect()),
            (_, Some(Err(error))) => Err(error),
            _ => {
                let why = self.state().directory.why_died(host).cloned();
                Err(error(why.map_or_else(
                    || "its host is gone".into(),
                    |why| format!("its host is gone: {}", why.cause()),
                )))
            }
        }
    }

    /// Tells a host to make VRs. The receiver gets the host's confirmation, or is closed if the host dies.
    fn create(
        &self,
        host: HostId,
        mut vrs: Vec<NewVr>,
    ) -> Option<(Place, rt::Receiver<Result<(), DeployError>>)> {
        let state = self.state();
        // Hosts do not know the address at which others reach them.
        for new in &mut vrs {
            let parent = state.hosts.get(&new.parent_at.host).map(|host| host.place);
            new.parent_at = parent.unwrap_or(self.node.place);
        }
        let place = state.hosts.get(&host)?.place;
        drop(state);
        Some((place, self.told(host, |ticket| ToHost::Create { ticket, vrs })?))
    }

    /// Sends a host a message that it must confirm. The receiver is closed if the host dies.
    pub(super) fn told(
        &self,
        host: HostId,
        message: impl FnOnce(u64) -> ToHost,
    ) -> Option<rt::Receiver<Result<(), DeployError>>> {
        let mut state = self.state();
        if state.directory.has_died(host) {
            return None;
        }
        let host = state.hosts.get_mut(&host)?;
        let (confirm, confirmed) = rt::unbounded();
        let ticket = host.next_ticket;
        host.next_ticket += 1;
        host.creating.insert(ticket, confirm);
        host.to.try_send(host.view.translate(message(ticket))).ok()?;
        Some(confirmed)
    }
}

impl State {
    /// Keeps at most `limit` VMs: first those that the program has already, since others could not be leased in addition, then
    /// idle ones.
    fn keep_first(&self, vms: &mut Vec<VmInfo>, limit: usize) {
        vms.sort_by_key(|vm| (!self.is_leased(vm.id), vm.state != VmState::Idle));
        vms.truncate(limit);
    }

    /// Keeps in `vrs` only those that nobody has made yet, and enters them as about to be made on that host.
    fn claim(&mut self, host: HostId, vrs: &mut Vec<NewVr>) -> Vec<VrId> {
        vrs.retain(|new| self.directory.host_of(new.id).is_none());
        let ids: Vec<VrId> = vrs.iter().map(|new| new.id).collect();
        for id in &ids {
            self.directory.enter(*id, host);
            self.making.insert(*id);
        }
        ids
    }
}

/// The most VMs that this program may see: `RIVER_VMS`.
fn vm_limit() -> Result<Option<u32>, DeployError> {
    match std::env::var("RIVER_VMS") {
        Err(_) => Ok(None),
        Ok(text) => text
            .parse()
            .map(Some)
            .map_err(|_| DeployError::Discovery(format!("RIVER_VMS is {text:?}, not a number of VMs"))),
    }
}

/// This program's image, read and hashed once.
pub(super) async fn own_image() -> Result<&'static Image, DeployError> {
    static IMAGE: OnceLock<Result<Image, String>> = OnceLock::new();
    let image = match IMAGE.get() {
        Some(image) => image,
        None => {
            rt::blocking(|| IMAGE.get_or_init(|| image::own_image().map_err(|error| error.to_string()))).await
        }
    };
    image.as_ref().map_err(|error| DeployError::Vm {
        vm: machine_name(),
        error: format!("cannot read this program's own executable: {error}"),
    })
}

#[cfg(test)]
mod tests;
