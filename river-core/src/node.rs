//! A process of a program: its VRs, and its ways to all others.
//!
//! * `book`: what is known of VRs and of other processes
//! * `router`: where a VR lives
//! * `connect`: connections to and from other processes
//! * `arrivals`: frames from other processes
//! * `courier`: a thread that sends notices
//! * `requests`: requests of VRs to the program
//! * `deaths`: which VRs and hosts are gone, and who is told
//! * `moves`: VRs that move between processes
//! * `mirrors`: VRs that have twins
//! * `foreign`: processes of other programs
//! * `simulated`: a node without threads and sockets, for tests
//!
//! Lock order: a peer's `link`, then `book`, then an inbox. A thread that holds `book` takes a `link` only by `try_lock`. No
//! lock is held while anything is sent.

mod arrivals;
mod book;
mod connect;
mod courier;
mod deaths;
mod foreign;
mod mirrors;
mod moves;
mod requests;
mod router;
#[cfg(test)]
mod simulated;

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crossbeam_channel::Sender;

use crate::discovery::Network;
use crate::down::{Down, Why};
use crate::envelope::Channel;
use crate::id::{ProgramId, VmId, VrId};
use crate::inbox::{Event, Inbox};
use crate::inboxes::Inboxes;
use crate::key::ClusterKey;
use crate::limit::Gates;
use crate::link::Reader;
use crate::protocol::Place;
use crate::rt;
use crate::state::Registry;
use crate::status::{ProcessReport, Usage};
use crate::trace::Traces;

use arrivals::Deliver;
use book::Book;
use connect::Ways;
pub(crate) use courier::Notice;
use foreign::Published;
pub(crate) use foreign::VisitEnd;
use mirrors::Mirrors;
pub(crate) use requests::Asked;
use requests::Requests;

/// The channel of messages between processes.
const SYSTEM: Channel = Channel::named("river-core");

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) program: ProgramId,
    /// The name of the VM that this process runs on; for the initiator, that of the machine.
    pub(crate) vm: String,
    key: ClusterKey,
    local: Arc<Inboxes>,
    book: Mutex<Book>,
    requests: Requests,
    ways: Ways,
    gates: Gates,
    courier: Sender<Notice>,
    /// Whether the VRs of this program are recorded by default.
    pub(crate) recoverable: bool,
    pub(crate) states: Registry,
    /// Set before the first VR begins, if the program is traced.
    pub(crate) traces: OnceLock<Arc<Traces>>,
    /// VMs that somebody wants back; known to the initiator's process only.
    leaving: Mutex<Vec<VmId>>,
    any_leaving: AtomicBool,
    published: Published,
    /// How often VRs have moved between processes.
    moves: AtomicU64,
    mirrors: Mirrors,
}

impl Node {
    /// Starts the process's node, which other processes reach on this network. Requests of its VRs come out of the receiver
    /// that belongs to `requests`.
    pub(crate) fn start(
        (place, network): (Place, Network),
        program: ProgramId,
        vm: String,
        key: ClusterKey,
        requests: rt::Sender<Asked>,
        recoverable: bool,
    ) -> io::Result<Arc<Self>> {
        let (courier, notices) = crossbeam_channel::unbounded();
        let rings = connect::rings_allowed()?;
        let local = Arc::new(Inboxes::default());
        let sink = Arc::new(Deliver::to(local.clone()));
        let reader = Reader::start(sink.clone())?;
        let node = Arc::new(Self {
            place,
            program,
            vm,
            key,
            local,
            book: Mutex::default(),
            requests: Requests::Program(requests),
            ways: Ways::Real { reader, rings },
            gates: Gates::default(),
            courier,
            recoverable,
            states: Registry::default(),
            traces: OnceLock::new(),
            leaving: Mutex::default(),
            any_leaving: AtomicBool::new(false),
            published: Published::on(network),
            moves: AtomicU64::new(0),
            mirrors: Mirrors::default(),
        });
        courier::start(Arc::downgrade(&node), notices)?;
        sink.belongs_to(&node);
        Ok(node)
    }

    /// Returns the same name, valid for as long as the process lives. A program has few VMs, so leaking them is cheap.
    pub(crate) fn intern(&self, name: &str) -> &'static str {
        static NAMES: Mutex<Vec<&str>> = Mutex::new(Vec::new());
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.iter().find(|known| **known == name) {
            return known;
        }
        let new: &'static str = Box::leak(name.into());
        names.push(new);
        new
    }

    pub(crate) fn key(&self) -> &ClusterKey {
        &self.key
    }

    // ---- VRs of this process ----

    pub(crate) fn add(&self, vr: VrId) -> Arc<Inbox> {
        let inbox = self.local.insert(vr);
        if self.book().stopped {
            let _ = inbox.push(Event::Stop);
        }
        inbox
    }

    /// Removes a VR that has ended, and tells its watchers after everything that it had sent. May block.
    pub(crate) fn remove(&self, vr: VrId, why: &Why) {
        // In this order, so that nobody finds the VR neither alive nor ended.
        let watchers = {
            let mut book = self.book();
            book.ended.insert(vr, why.clone());
            book.open.remove(&vr);
            for peer in book.peers.values_mut() {
                peer.watches.retain(|(watcher, _)| *watcher != vr);
            }
            book.watchers.remove(&vr).unwrap_or_default()
        };
        self.published.withdraw(vr);
        let inbox = self.local.remove(vr);
        self.ended_with_copies(vr);
        let down = Down { who: vr, why: why.clone() };
        let mut told = watchers;
        // VRs whose envelopes will never be read are told too.
        let left = inbox.map(|inbox| inbox.close(|host| self.gate(host, vr, None)));
        for event in left.unwrap_or_default() {
            if let Event::Envelope(envelope) = event {
                told.push(envelope.src);
            }
        }
        told.sort_unstable();
        told.dedup();
        for watcher in told {
            self.tell(watcher, &down);
        }
    }

    /// Stops all VRs of this process at their next call. VRs that wait for room in a full mailbox are let in, so that their
    /// sends complete.
    pub(crate) fn freeze(&self) {
        self.states.freeze();
        self.local.let_in(true);
        self.gates.let_in(true);
    }

    /// Lets the VRs continue. `settled` says whether all that had been sent has arrived, in all processes.
    pub(crate) fn thaw(&self, settled: bool) {
        // An envelope that has arrived at a mirrored VR may still be on its way to the twin.
        if settled && !self.has_mirrors() {
            self.states.settled();
        }
        self.local.let_in(false);
        self.gates.let_in(false);
        self.states.thaw();
    }

    /// Ends every receive of this process: the program stops.
    pub(crate) fn stop(&self) {
        self.book().stopped = true;
        self.published.end();
        self.thaw(false);
        self.stop_mirrors();
        self.local.stop();
        self.gates.open_all();
    }

    /// Whether an envelope may be sent to a VR of another process. Waits for room there if that VR's limit says so.
    pub(crate) fn pass(&self, to: VrId) -> bool {
        self.gates.pass(to)
    }

    /// Whether the program is ending.
    pub(crate) fn is_stopped(&self) -> bool {
        self.book().stopped
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.local.is_empty()
    }

    /// Reports the status of this process, for monitoring.
    pub(crate) fn status(&self) -> ProcessReport {
        let peers: Vec<_> = self.book().peers.iter().map(|(host, peer)| (*host, peer.link.clone())).collect();
        // A link that is being dialled is locked, and has carried nothing yet.
        let links = peers.iter().filter_map(|(host, link)| link.try_lock().ok()?.as_ref()?.status(*host));
        let links = links.collect();
        ProcessReport { usage: Usage::of(std::process::id()), vrs: self.local.status(), links }
    }

    pub(crate) fn inbox(&self, vr: VrId) -> Option<Arc<Inbox>> {
        self.local.get(vr)
    }

    // ---- VMs ----

    /// Records that somebody wants a VM back.
    pub(crate) fn note_leaving(&self, vm: VmId) {
        let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        if !leaving.contains(&vm) {
            leaving.push(vm);
        }
        self.any_leaving.store(true, Relaxed);
    }

    /// Records that VMs are given back, whether somebody wanted them or not.
    pub(crate) fn note_released(&self, vms: &[VmId]) {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner).retain(|vm| !vms.contains(vm));
    }

    pub(crate) fn leaving(&self) -> Vec<VmId> {
        if self.any_leaving.load(Relaxed) {
            self.leaving.lock().unwrap_or_else(PoisonError::into_inner).clone()
        } else {
            Vec::new()
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
