//! Servers that are threads of the test's process.

use river_core::testing::threads;
use river_core::{VirtualResource, Vr};
use river_rai::{Rai, RaiServer};

/// Runs `client` with connections to `count` servers, which are stopped afterwards.
pub(crate) fn with_servers_like<R: Send>(
    make: impl Fn() -> RaiServer + Sync,
    count: usize,
    client: impl Fn(&Vr, &[Rai<'_>]) -> R + Sync,
) -> R {
    let results = threads(count + 1, |vr, index, vrs| {
        if index > 0 {
            make().main(vr).unwrap();
            return None;
        }
        let servers = Servers(vrs[1..].iter().map(|&server| Rai::connect(vr, server)).collect());
        Some(client(vr, &servers.0))
    });
    results.into_iter().flatten().next().unwrap()
}

pub(crate) struct Servers<'a>(pub(crate) Vec<Rai<'a>>);

impl Drop for Servers<'_> {
    /// A test that fails must end its servers too, or it would hang instead of failing.
    fn drop(&mut self) {
        for server in &self.0 {
            let _ = server.stop();
        }
    }
}
