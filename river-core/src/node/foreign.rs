//! Processes of other programs, which this one visits or is visited by, and the VRs of this process that they may reach:
//! published ones, and those that have looked up a service. No other VR of a program can be sent to from outside.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::book::Peer;
use super::{Node, Notice};
use crate::discovery::Network;
use crate::down::{Down, Why};
use crate::envelope::Envelope;
use crate::frame::Kind;
use crate::id::{HostId, ProgramId, VrId};
use crate::protocol::{Visiting, Visitor};
use crate::rt;

/// How long to wait for the end of a visit after a connection has failed.
const LAST_WORDS: Duration = Duration::from_millis(250);
const POLL: Duration = Duration::from_millis(1);
/// A process that was dialled no longer ago than this may have dialled this one at the same time.
const CROSSING: Duration = Duration::from_secs(5);

/// What is known of a process of another program.
#[derive(Debug)]
pub(super) struct Foreign {
    program: ProgramId,
    /// A description for people.
    process: String,
    /// The number of its current or last visit.
    visit: u64,
}

impl Foreign {
    pub(super) fn visit(&self) -> u64 {
        self.visit
    }

    pub(super) fn lost(&self, error: &str) -> Why {
        Why::LostProgram { process: self.process.clone(), error: error.into() }
    }
}

/// What other programs can find in this process, and which of them visit it.
#[derive(Debug)]
pub(super) struct Published {
    network: Network,
    /// Whether any process of another program is or was connected: from then on it matters where a frame comes from.
    any_foreign: AtomicBool,
    /// Held by a VR while it begins a visit.
    turn: Mutex<()>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    services: HashMap<String, VrId>,
    /// The task that answers searches for the services.
    answering: Option<rt::JoinHandle<()>>,
    visits: u64,
    /// The channel to the other side of each visit.
    visitors: HashMap<u64, rt::Sender<Visiting>>,
    /// The processes that were recently dialled for a visit, and the result, `None` until it is known.
    dialled: HashMap<HostId, Option<(u64, Instant)>>,
}

impl Inner {
    /// Whether this visit has just begun because this process dialled the other.
    fn has_dialled(&self, host: HostId, visit: u64) -> bool {
        self.dialled
            .get(&host)
            .is_some_and(|made| made.is_none_or(|(made, at)| made == visit && is_recent(at)))
    }
}

fn is_recent(at: Instant) -> bool {
    at.elapsed() < CROSSING
}

impl Published {
    pub(super) fn on(network: Network) -> Self {
        Self { network, any_foreign: AtomicBool::new(false), turn: Mutex::default(), inner: Mutex::default() }
    }

    /// Withdraws everything that a VR has published.
    pub(super) fn withdraw(&self, vr: VrId) {
        self.lock().services.retain(|_, published| *published != vr);
    }

    /// The program ends: tells its visitors, and stops being found.
    pub(super) fn end(&self) {
        let answering = {
            let mut inner = self.lock();
            inner.services.clear();
            for visitor in inner.visitors.values() {
                let _ = visitor.try_send(Visiting::Ended);
            }
            inner.answering.take()
        };
        answering.into_iter().for_each(rt::cancel);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Node {
    // ---- what others can find ----

    /// Returns the network on which this process is reached.
    pub(crate) fn network(&self) -> Network {
        self.published.network
    }

    /// Publishes a VR under a name. Returns `false` if another VR of this process has the name.
    pub(crate) fn publish(&self, name: &str, vr: VrId) -> bool {
        let published = *self.published.lock().services.entry(name.to_owned()).or_insert(vr);
        if published == vr {
            self.open(vr);
        }
        published == vr
    }

    /// Withdraws everything that a VR has published.
    pub(crate) fn withdraw(&self, vr: VrId) {
        self.published.withdraw(vr);
    }

    /// Returns the VR that has published this name.
    pub(crate) fn service(&self, name: &str) -> Option<VrId> {
        self.published.lock().services.get(name).copied()
    }

    pub(crate) fn publishes_something(&self) -> bool {
        !self.published.lock().services.is_empty()
    }

    /// Has searches answered by a task that `start` starts, unless there is one already.
    pub(crate) fn answer_by<E>(
        &self,
        start: impl FnOnce() -> Result<rt::JoinHandle<()>, E>,
    ) -> Result<(), E> {
        let mut inner = self.published.lock();
        if inner.answering.is_none() {
            inner.answering = Some(start()?);
        }
        Ok(())
    }

    /// Allows connected processes of other programs to send to this VR from now on.
    pub(crate) fn open(&self, vr: VrId) {
        self.book().open.insert(vr);
    }

    // ---- visits ----

    /// Waits for the turn to begin a visit.
    pub(crate) fn turn_to_visit(&self) -> MutexGuard<'_, ()> {
        self.published.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a process of another program, and where it listens. Returns the number of its visit, which stays the same
    /// until the process is gone.
    pub(crate) fn admit(&self, visitor: &Visitor, address: SocketAddr) -> u64 {
        let Visitor { program, host, process, .. } = visitor;
        self.published.any_foreign.store(true, Relaxed);
        self.local.guard();
        let mut book = self.book();
        let book = &mut *book;
        let mut stale = 0;
        match book.peers.get(host) {
            Some(Peer { foreign: Some(foreign), down: None, .. }) => return foreign.visit,
            Some(before) => stale = before.inbound + before.stale,
            None => {}
        }
        let visit = {
            let mut inner = self.published.lock();
            inner.visits += 1;
            inner.visits
        };
        // Processes that were connected before stay known as gone, but the places of their VRs are forgotten.
        let peers = &book.peers;
        let is_gone =
            |host: &HostId| peers.get(host).is_some_and(|peer| peer.foreign.is_some() && peer.down.is_some());
        book.located.retain(|_, at| at == host || !is_gone(at));
        let foreign = Some(Foreign { program: *program, process: process.clone(), visit });
        book.peers.insert(*host, Peer { address: Some(address), foreign, stale, ..Peer::default() });
        visit
    }

    /// Records that this process dials another for a visit.
    pub(crate) fn dials(&self, host: HostId) {
        let mut inner = self.published.lock();
        inner.dialled.retain(|_, made| made.is_none_or(|(_, at)| is_recent(at)));
        inner.dialled.insert(host, None);
    }

    /// Records the result: the number of the visit, if one has begun.
    pub(crate) fn has_dialled(&self, host: HostId, visit: Option<u64>) {
        let mut inner = self.published.lock();
        match visit {
            Some(visit) => inner.dialled.insert(host, Some((visit, Instant::now()))),
            None => inner.dialled.remove(&host),
        };
    }

    /// Ends an earlier visit of a process that begins a new one, since that end must not be reported after this beginning.
    /// But if both have dialled each other at the same time, both connections belong to one visit.
    pub(crate) fn end_visit_of(&self, host: HostId) {
        let (visit, why) = {
            let book = self.book();
            let Some(Peer { foreign: Some(foreign), doomed, .. }) = book.peers.get(&host) else { return };
            if doomed.is_none() && self.published.lock().has_dialled(host, foreign.visit) {
                return;
            }
            (foreign.visit, doomed.clone().unwrap_or_else(|| foreign.lost("it has begun anew")))
        };
        self.lose(host, Some(visit), &why, false);
    }

    /// Whether connections of an earlier visit have not been read to their end.
    pub(crate) fn hears_of_earlier(&self, host: HostId) -> bool {
        let book = self.book();
        book.peers.get(&host).is_some_and(|peer| peer.down.is_some() && peer.inbound > 0)
    }

    /// Whether there is a visit between this process and that one of another program.
    pub(crate) fn is_visited_by(&self, host: HostId) -> bool {
        let book = self.book();
        let peer = book.peers.get(&host);
        peer.is_some_and(|peer| peer.foreign.is_some() && peer.down.is_none() && peer.doomed.is_none())
    }

    /// Stores the channel to the other side of a visit, until the visit is over.
    pub(crate) fn enter_visit(&self, to: rt::Sender<Visiting>) -> u64 {
        let mut inner = self.published.lock();
        inner.visits += 1;
        let number = inner.visits;
        inner.visitors.insert(number, to);
        number
    }

    pub(crate) fn leave_visit(&self, number: u64) {
        self.published.lock().visitors.remove(&number);
    }

    /// Whether there are visits, in either direction.
    pub(crate) fn has_visits(&self) -> bool {
        !self.published.lock().visitors.is_empty()
    }

    /// Ends a visit: the other process is gone, or out of reach.
    pub(crate) fn visit_over(&self, host: HostId, visit: u64, end: VisitEnd, may_be_heard: bool) {
        let why = match self.book().peers.get(&host).and_then(|peer| peer.foreign.as_ref()) {
            Some(foreign) if foreign.visit == visit => match end {
                VisitEnd::Ended => Why::ProgramEnded,
                VisitEnd::Lost(error) => foreign.lost(&error),
            },
            _ => return,
        };
        self.lose(host, Some(visit), &why, may_be_heard);
    }

    /// Whether a visit is still under way.
    pub(crate) fn is_visit(&self, host: HostId, visit: u64) -> bool {
        let book = self.book();
        let peer = book.peers.get(&host);
        peer.is_some_and(|peer| {
            peer.down.is_none() && peer.foreign.as_ref().is_some_and(|foreign| foreign.visit == visit)
        })
    }

    /// Handles a failed connection to a host. If the host belongs to another program, this process itself decides that it is
    /// gone. Blocks briefly: a program that ends says so on the connection of the visit, which may be read a little later.
    pub(super) fn lose_foreign(&self, host: HostId, error: &str) -> Option<Why> {
        let (visit, why) = {
            let book = self.book();
            let foreign = book.peers.get(&host)?.foreign.as_ref()?;
            (foreign.visit, foreign.lost(error))
        };
        let known = || {
            let book = self.book();
            let peer = book.peers.get(&host)?;
            peer.down.clone().or_else(|| peer.doomed.clone())
        };
        let begun = Instant::now();
        while begun.elapsed() < LAST_WORDS {
            if let Some(why) = known() {
                return Some(why);
            }
            thread::sleep(POLL);
        }
        self.lose(host, Some(visit), &why, true);
        Some(known().unwrap_or(why))
    }

    // ---- who is foreign ----

    /// Returns the program of a host.
    pub(super) fn program_of(&self, host: HostId) -> ProgramId {
        let book = self.book();
        let foreign = book.peers.get(&host).and_then(|peer| peer.foreign.as_ref());
        foreign.map_or(self.program, |foreign| foreign.program)
    }

    /// Whether a VR is known to belong to another program.
    pub(crate) fn is_foreign(&self, vr: VrId) -> bool {
        if !self.published.any_foreign.load(Relaxed) {
            return false;
        }
        let book = self.book();
        let host = book.located.get(&vr);
        host.and_then(|host| book.peers.get(host)).is_some_and(|peer| peer.foreign.is_some())
    }

    /// Records that a VR lives in that process of another program.
    pub(crate) fn learn_foreign(&self, vr: VrId, host: HostId) {
        self.book().located.insert(vr, host);
    }

    /// Whether a frame is accepted. From another program, only frames from its own VRs to VRs that are open are. A sender to
    /// any other VR is told that the VR is unknown.
    pub(super) fn admits(&self, from: HostId, kind: Kind, envelope: &Envelope) -> bool {
        if !self.published.any_foreign.load(Relaxed) {
            return true;
        }
        let (src, dst) = (envelope.src, envelope.dst);
        let open = {
            let mut book = self.book();
            if book.peers.get(&from).is_none_or(|peer| peer.foreign.is_none()) {
                return true;
            }
            let at = book.located.get(&src).copied();
            if at.is_some_and(|at| at != from) || self.local.get(src).is_some() {
                tracing::warn!(%src, "another program sends in the name of a VR that it does not have");
                return false;
            }
            book.located.insert(src, from);
            book.open.contains(&dst) || self.local.get(dst).is_none()
        };
        if !open && matches!(kind, Kind::Envelope | Kind::Watch) {
            let down = Down { who: dst, why: Why::Unknown };
            let _ = self.courier.send(Notice::Down { to: src, down });
            return false;
        }
        true
    }
}

/// How a visit ended.
#[derive(Clone, Debug)]
pub(crate) enum VisitEnd {
    /// The other program has ended regularly.
    Ended,
    Lost(String),
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::envelope::{Channel, Payload};
    use crate::link::SimNet;
    use crate::protocol::Place;

    fn place(port: u16) -> Place {
        Place { host: HostId::fresh(), address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    fn visitor(at: Place) -> Visitor {
        let (program, process) = (ProgramId::fresh(), "calculator (process 7 on lab)".into());
        Visitor { program, host: at.host, port: at.address.port(), process }
    }

    fn envelope(src: VrId, dst: VrId) -> Envelope {
        let (channel, payload) = (Channel::named("test"), Payload::default());
        Envelope { src, dst, seq: 0, channel, lane: 0, payload }
    }

    fn node() -> (Arc<Node>, crossbeam_channel::Receiver<Notice>) {
        Node::simulated(place(1), &Arc::new(SimNet::default()), Arc::new(|_| None))
    }

    #[test]
    fn only_what_is_open_can_be_sent_to_from_another_program() {
        let (node, notices) = node();
        let (published, private, guest, own) = (VrId::fresh(), VrId::fresh(), VrId::fresh(), VrId::fresh());
        let _inboxes = (node.add(published), node.add(private), node.add(own));
        let (foreign, of_ours) = (place(2), place(3));
        assert!(node.publish("sums", published) && !node.publish("sums", private));
        node.admit(&visitor(foreign), foreign.address);
        for kind in [Kind::Envelope, Kind::Watch] {
            assert!(node.admits(foreign.host, kind, &envelope(guest, published)));
            assert!(!node.admits(foreign.host, kind, &envelope(guest, private)));
            let Ok(Notice::Down { to, down }) = notices.try_recv() else { panic!("nobody is told") };
            assert_eq!((to, down), (guest, Down { who: private, why: Why::Unknown }));
            // Processes of this program may send anything.
            assert!(node.admits(of_ours.host, kind, &envelope(VrId::fresh(), private)));
        }
        assert!(node.is_foreign(guest) && !node.is_foreign(published));
        // In the name of a VR of this process, or of one that lives elsewhere.
        assert!(!node.admits(foreign.host, Kind::Envelope, &envelope(own, published)));
        let other = place(4);
        node.admit(&visitor(other), other.address);
        assert!(!node.admits(other.host, Kind::Envelope, &envelope(guest, published)));
        // A VR that has ended cannot be reached either.
        node.remove(published, &Why::Finished);
        assert_eq!(node.service("sums"), None);
    }

    #[test]
    fn a_process_that_is_lost_may_come_again() {
        let (node, _notices) = node();
        let (at, guest, watcher) = (place(2), VrId::fresh(), VrId::fresh());
        let inbox = node.add(watcher);
        let first = node.admit(&visitor(at), at.address);
        assert_eq!(node.admit(&visitor(at), at.address), first, "it is here already");
        node.learn_foreign(guest, at.host);
        node.expect(watcher, guest);
        node.visit_over(at.host, first, VisitEnd::Lost("it is gone".into()), true);
        assert!(!node.is_visited_by(at.host) && node.is_foreign(guest));
        let mut events = Vec::new();
        inbox.swap(&mut events);
        let [crate::inbox::Event::Down(down)] = &events[..] else { panic!("{events:?}") };
        let said = down.to_string();
        assert!(said.contains("is gone with calculator (process 7 on lab): it is gone"), "{said}");
        let second = node.admit(&visitor(at), at.address);
        assert!(second != first && node.is_visited_by(at.host));
        // The end of the first visit, which arrives late, does not affect the second.
        node.visit_over(at.host, first, VisitEnd::Ended, false);
        assert!(node.is_visited_by(at.host));
        node.visit_over(at.host, second, VisitEnd::Ended, false);
        assert!(!node.is_visited_by(at.host));
    }

    #[test]
    fn who_is_dialled_while_it_dials_is_visited_once() {
        let (node, _notices) = node();
        let at = place(2);
        node.dials(at.host);
        let visit = node.admit(&visitor(at), at.address);
        node.end_visit_of(at.host);
        assert!(node.is_visited_by(at.host), "it has dialled first");
        node.has_dialled(at.host, Some(visit));
        node.end_visit_of(at.host);
        assert!(node.is_visited_by(at.host), "it has dialled last");
        node.visit_over(at.host, visit, VisitEnd::Lost("it is gone".into()), false);
        node.admit(&visitor(at), at.address);
        node.end_visit_of(at.host);
        assert!(!node.is_visited_by(at.host), "it begins anew");
    }
}
