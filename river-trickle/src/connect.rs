//! Finds VMs and starts servers on them (paper, sections 2.1 and 2.5).

use std::thread::available_parallelism;

use river_core::{Count, Query, VmInfo, Vr};
use river_rai::RaiServer;

use crate::error::TrickleError;
use crate::progress::say;
use crate::vms::Vms;

/// Finds idle VMs, leases them for this program until it ends or [releases](Vms::release) them, and connects to them.
/// `4` means exactly four, `2..` at least two and as many as are available, `..` all available, but at least one.
/// Prints their number to stderr.
///
/// The VMs must have been started, with `river vm`; the program itself is sent to them.
///
/// ```no_run
/// # fn example(vr: &river_core::Vr) -> river_core::Result {
/// let vms = river_trickle::connect(vr, 4)?;
/// let results = vms.iter().map(|vm| vm.call(|x: i64| x + 10, (10,))).collect::<Result<Vec<_>, _>>()?;
/// assert_eq!(results, [20, 20, 20, 20]);
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`TrickleError::Deploy`]; if there are too few VMs, it lists those found and how to start more.
///
/// # Blocking
/// Until enough VMs have answered, at most about a second, and until the program has been sent to all of them.
pub fn connect<'a>(vr: &'a Vr, count: impl Into<Count>) -> Result<Vms<'a>, TrickleError> {
    let count = count.into();
    let found = idle(vr, count)?;
    lease(vr, found, count)
}

/// Like [`connect`], but if no VM is idle anywhere, starts VMs on this machine, which end with the program: `n`, or one
/// per core. For programs that should run even if no VMs were started.
///
/// # Errors
/// As [`connect`]. With `Some(n)`, if some VMs are idle but fewer than `n`, there is an error, not a mixture.
///
/// # Blocking
/// As [`connect`].
pub fn connect_or_start(vr: &Vr, n: Option<usize>) -> Result<Vms<'_>, TrickleError> {
    let count = n.map_or(Count::AtLeast(1), Count::Exactly);
    let found = idle(vr, count)?;
    if !found.is_empty() {
        return lease(vr, found, count);
    }
    let n = n.unwrap_or_else(|| available_parallelism().map_or(1, usize::from));
    let vms = start(vr, n)?;
    say(format_args!("found no VMs, started {n} local {}", if n == 1 { "one" } else { "ones" }));
    Ok(vms)
}

/// Starts `n` VMs on this machine for this program alone and connects to them, without searching for others. They end
/// with the program.
///
/// # Errors
/// [`TrickleError::Deploy`] if the machine cannot start them.
///
/// # Blocking
/// Until they have started.
pub fn start(vr: &Vr, n: usize) -> Result<Vms<'_>, TrickleError> {
    let vms = vr.start_local(n)?;
    deploy(vr, &vms)
}

fn idle(vr: &Vr, count: Count) -> Result<Vec<VmInfo>, TrickleError> {
    let enough = count.maximum().map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    Ok(vr.discover(Query { count: enough, idle_only: true, ..Query::default() })?)
}

fn lease(vr: &Vr, mut found: Vec<VmInfo>, count: Count) -> Result<Vms<'_>, TrickleError> {
    if found.len() < count.minimum() {
        // It will fail, but the error should list the VMs that are in use.
        found = vr.discover(Query::default())?;
    }
    let vms = vr.allocate(found, count)?;
    say(format_args!("discovered {} {}", vms.len(), if vms.len() == 1 { "VM" } else { "VMs" }));
    deploy(vr, &vms)
}

fn deploy<'a>(vr: &'a Vr, vms: &[VmInfo]) -> Result<Vms<'a>, TrickleError> {
    let servers = vr.deploy(vms, |_| RaiServer::unrestricted()).inspect_err(|_| {
        // Nothing here could use them.
        let _ = vr.release(vms);
    })?;
    Ok(Vms::leased(vr, vms.iter().cloned().zip(servers.iter())))
}
