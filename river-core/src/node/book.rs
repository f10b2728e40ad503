//! The book of a process: what its router has learnt of VRs and of other processes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use super::foreign::Foreign;
use crate::down::Why;
use crate::id::{HostId, IdMap, IdSet, VrId};
use crate::link::Link;

/// What the router has learnt.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) ended: IdMap<VrId, Why>,
    /// Who watches a VR of this process.
    pub(super) watchers: IdMap<VrId, Vec<VrId>>,
    pub(super) located: IdMap<VrId, HostId>,
    pub(super) peers: IdMap<HostId, Peer>,
    /// VRs of this process that other programs may send to.
    pub(super) open: IdSet<VrId>,
    pub(super) stopped: bool,
}

impl Book {
    /// Why another process is gone, if it is.
    pub(super) fn why_down(&self, host: HostId) -> Option<Why> {
        self.peers.get(&host)?.down.clone()
    }
}

/// What is known of another process, and how it is reached.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub(super) address: Option<SocketAddr>,
    pub(super) link: Arc<Mutex<Option<Link>>>,
    /// Connections from this peer that are being read.
    pub(super) inbound: usize,
    /// Connections of an earlier visit whose end has not been heard of.
    pub(super) stale: usize,
    /// Said to be dead while there may be something of it left to read.
    pub(super) doomed: Option<Why>,
    pub(super) down: Option<Why>,
    /// Of another program.
    pub(super) foreign: Option<Foreign>,
    /// Watches of VRs here on VRs there: (watcher, watched).
    pub(super) watches: Vec<(VrId, VrId)>,
}
