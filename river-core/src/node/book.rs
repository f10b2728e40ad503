//! The book of a process: what its router knows of VRs and of other processes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use super::foreign::Foreign;
use crate::down::Why;
use crate::id::{HostId, IdMap, IdSet, VrId};
use crate::link::Link;

/// What the router knows.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) ended: IdMap<VrId, Why>,
    /// The watchers of each VR of this process.
    pub(super) watchers: IdMap<VrId, Vec<VrId>>,
    pub(super) located: IdMap<VrId, HostId>,
    pub(super) peers: IdMap<HostId, Peer>,
    /// VRs of this process that other programs may send to.
    pub(super) open: IdSet<VrId>,
    pub(super) stopped: bool,
}

impl Book {
    /// Returns why another process is gone, if it is.
    pub(super) fn why_down(&self, host: HostId) -> Option<Why> {
        self.peers.get(&host)?.down.clone()
    }
}

/// What is known of another process, and how to reach it.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub(super) address: Option<SocketAddr>,
    pub(super) link: Arc<Mutex<Option<Link>>>,
    /// Connections from this peer that are being read.
    pub(super) inbound: usize,
    /// Connections of an earlier visit that have not been read to their end.
    pub(super) stale: usize,
    /// Why it is dead, while there may still be something from it to read.
    pub(super) doomed: Option<Why>,
    pub(super) down: Option<Why>,
    /// Set if it belongs to another program.
    pub(super) foreign: Option<Foreign>,
    /// Watches of VRs here on VRs there: (watcher, watched).
    pub(super) watches: Vec<(VrId, VrId)>,
}
