//! Processes of other programs, which this one visits or is visited by, and what of this process they may reach: VRs that
//! are published, and VRs that have looked a service up. Nothing else of a program can be sent to from outside.

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

/// How long after a connection has failed the end of the visit is waited for.
const LAST_WORDS: Duration = Duration::from_millis(250);
const POLL: Duration = Duration::from_millis(1);
/// Who was dialled so long ago may have dialled this process at the same time.
const CROSSING: Duration = Duration::from_secs(5);

/// What is known of a process of another program.
#[derive(Debug)]
pub(super) struct Foreign {
    program: ProgramId,
    /// For people.
    process: String,
    /// The visit that it is, or was last, here by.
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

/// What other programs can find in this process, and which of them are here.
#[derive(Debug)]
pub(super) struct Published {
    network: Network,
    /// Some process of another program is or was here: from then on it matters where a frame comes from.
    any_foreign: AtomicBool,
    /// Held by the VR that begins a visit.
    turn: Mutex<()>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    services: HashMap<String, VrId>,
    /// What answers searches for them.
    answering: Option<rt::JoinHandle<()>>,
    visits: u64,
    /// How the other side of each visit is told something.
    visitors: HashMap<u64, rt::Sender<Visiting>>,
    /// Which processes were dialled for a visit a short time ago, and what came of it: `None` as long as that is not known.
    dialled: HashMap<HostId, Option<(u64, Instant)>>,
}

impl Inner {
    /// Whether a visit has begun, just now, by this process's own dialling.
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

    /// Takes back what a VR has published.
    pub(super) fn withdraw(&self, vr: VrId) {
        self.lock().services.retain(|_, published| *published != vr);
    }

    /// The program ends: its visitors are told, and nobody else finds it.
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

    /// On which network this process is reached.
    pub(crate) fn network(&self) -> Network {
        self.published.network
    }

    /// Makes a VR known by a name. False: another VR of this process has it.
    pub(crate) fn publish(&self, name: &str, vr: VrId) -> bool {
        let published = *self.published.lock().services.entry(name.to_owned()).or_insert(vr);
        if published == vr {
            self.open(vr);
        }
        published == vr
    }

    /// Takes back what a VR has published.
    pub(crate) fn withdraw(&self, vr: VrId) {
        self.published.withdraw(vr);
    }

    /// The VR that has published that name.
    pub(crate) fn service(&self, name: &str) -> Option<VrId> {
        self.published.lock().services.get(name).copied()
    }

    pub(crate) fn publishes_something(&self) -> bool {
        !self.published.lock().services.is_empty()
    }

    /// Has searches answered by the task that `start` makes, unless they are already.
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

    /// From now on processes of other programs that are here may send to this VR.
    pub(crate) fn open(&self, vr: VrId) {
        self.book().open.insert(vr);
    }

    // ---- visits ----

    /// Whose turn it is to begin a visit.
    pub(crate) fn turn_to_visit(&self) -> MutexGuard<'_, ()> {
        self.published.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the process of another program, and where it listens. A number of the visit; the same for all of one process
    /// until it is gone.
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
        // Who was here before is remembered as gone, but not by each of its VRs.
        let peers = &book.peers;
        let is_gone =
            |host: &HostId| peers.get(host).is_some_and(|peer| peer.foreign.is_some() && peer.down.is_some());
        book.located.retain(|_, at| at == host || !is_gone(at));
        let foreign = Some(Foreign { program: *program, process: process.clone(), visit });
        book.peers.insert(*host, Peer { address: Some(address), foreign, stale, ..Peer::default() });
        visit
    }

    /// This process dials another for a visit.
    pub(crate) fn dials(&self, host: HostId) {
        let mut inner = self.published.lock();
        inner.dialled.retain(|_, made| made.is_none_or(|(_, at)| is_recent(at)));
        inner.dialled.insert(host, None);
    }

    /// What came of it: the number of the visit, if one has begun.
    pub(crate) fn has_dialled(&self, host: HostId, visit: Option<u64>) {
        let mut inner = self.published.lock();
        match visit {
            Some(visit) => inner.dialled.insert(host, Some((visit, Instant::now()))),
            None => inner.dialled.remove(&host),
        };
    }

    /// A process begins a visit: an earlier one of it is over, as its end must not be told after this beginning. But if both have
    /// dialled each other at the same time, both connections are of one visit.
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

    /// Whether that process of another program is here.
    pub(crate) fn is_visited_by(&self, host: HostId) -> bool {
        let book = self.book();
        let peer = book.peers.get(&host);
        peer.is_some_and(|peer| peer.foreign.is_some() && peer.down.is_none() && peer.doomed.is_none())
    }

    /// Notes by what the other side of a visit is told something, until the visit is over.
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

    /// Whether there are visits, of either side.
    pub(crate) fn has_visits(&self) -> bool {
        !self.published.lock().visitors.is_empty()
    }

    /// A visit is over: that process is gone, or out of reach.
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

    /// Whether a visit goes on.
    pub(crate) fn is_visit(&self, host: HostId, visit: u64) -> bool {
        let book = self.book();
        let peer = book.peers.get(&host);
        peer.is_some_and(|peer| {
            peer.down.is_none() && peer.foreign.as_ref().is_some_and(|foreign| foreign.visit == visit)
        })
    }

    /// The connection to a host failed. If the host is of another program, this process decides by itself that it is gone. Blocks
    /// for a moment: a program that ends says so on the connection of the visit, which may be read a little later.
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

    /// The program of a host.
    pub(super) fn program_of(&self, host: HostId) -> ProgramId {
        let book = self.book();
        let foreign = book.peers.get(&host).and_then(|peer| peer.foreign.as_ref());
        foreign.map_or(self.program, |foreign| foreign.program)
    }

    /// Whether a VR is known to be of another program.
    pub(crate) fn is_foreign(&self, vr: VrId) -> bool {
        if !self.published.any_foreign.load(Relaxed) {
            return false;
        }
        let book = self.book();
        let host = book.located.get(&vr);
        host.and_then(|host| book.peers.get(host)).is_some_and(|peer| peer.foreign.is_some())
    }

    /// Notes that a VR is one of that process of another program.
    pub(crate) fn learn_foreign(&self, vr: VrId, host: HostId) {
        self.book().located.insert(vr, host);
    }

    /// Whether a frame may come in: from another program only what is from a VR there, and to a VR that is open. Who sends to
    /// another one hears that it is not known.
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
    /// The other program has ended as it was meant to.
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
            // Processes of this program may do what they like.
            assert!(node.admits(of_ours.host, kind, &envelope(VrId::fresh(), private)));
        }
        assert!(node.is_foreign(guest) && !node.is_foreign(published));
        // In the name of a VR of this process, or of one that is elsewhere.
        assert!(!node.admits(foreign.host, Kind::Envelope, &envelope(own, published)));
        let other = place(4);
        node.admit(&visitor(other), other.address);
        assert!(!node.admits(other.host, Kind::Envelope, &envelope(guest, published)));
        // What has ended is out of reach as well.
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
        // The end of the first visit, heard of late, does not concern the second.
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
