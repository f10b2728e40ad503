//! What a VM reports about itself: in discovery, and to status requests.

use std::time::Instant;

use super::process::HostProcess;
use super::tenancy::Shared;
use crate::discovery::{self, Announcement, VmInfo, VmState};
use crate::image;
use crate::searches::Answers;
use crate::status::{LeaseStatus, Usage, VmStatus};

impl Answers for Shared {
    fn answer(&self, probe: &[u8]) -> Option<Vec<u8>> {
        discovery::answer(&self.key, self.id, || self.announcement(), probe)
    }

    fn is_over(&self) -> bool {
        self.state().stopped
    }

    fn stands_for_machine(&self) -> bool {
        true
    }
}

impl Shared {
    pub(super) fn status(&self) -> VmStatus {
        let state = self.state();
        let lease = state.lease.holder().map(|tenant| LeaseStatus {
            program: tenant.program,
            name: tenant.name.clone(),
            renewed: state.lease.age(Instant::now()).unwrap_or_default(),
            host: state.host.as_ref().map(HostProcess::usage),
            draining: state.draining,
        });
        VmStatus { usage: Usage::of(std::process::id()), lease }
    }

    fn announcement(&self) -> Announcement {
        let state = match self.state().lease.holder() {
            None => VmState::Idle,
            Some(tenant) => VmState::Leased { program: tenant.program, name: tenant.name.clone() },
        };
        Announcement {
            id: self.id,
            name: self.name.clone(),
            port: self.address.port(),
            cores: self.cores,
            memory: total_memory(),
            triple: image::host_triple(),
            labels: self.labels.clone(),
            state,
            uptime: self.started.elapsed(),
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    pub(super) fn info(&self) -> VmInfo {
        self.announcement().at(self.address.ip())
    }
}

/// The default for how much memory it lends for checkpoints.
pub(super) fn spare_memory() -> u64 {
    total_memory() / 8
}

fn total_memory() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit.max(1)))
}
