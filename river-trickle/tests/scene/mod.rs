//! VMs that are threads of the test's process.

use river_core::VirtualResource;
use river_core::testing::threads;
use river_rai::RaiServer;
use river_trickle::Vms;

/// Runs `body` with `count` VMs named `vm-0`, `vm-1`, ...
pub(crate) fn with_vms<R: Send>(count: usize, body: impl Fn(&Vms<'_>) -> R + Sync) -> R {
    let results = threads(count + 1, |vr, index, vrs| {
        if index > 0 {
            RaiServer::unrestricted().main(vr).unwrap();
            return None;
        }
        let names = (0..count).map(|i| format!("vm-{i}"));
        let vms = Stop(Vms::attach(vr, names.zip(vrs[1..].iter().copied())));
        Some(body(&vms.0))
    });
    results.into_iter().flatten().next().unwrap()
}

struct Stop<'a>(Vms<'a>);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        for vm in &self.0 {
            let _ = vm.rai().stop();
        }
    }
}
