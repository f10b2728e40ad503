//! Which VRs and hosts are gone: how a process learns of it, and which VRs it tells.

use super::book::Peer;
use super::connect::Unreached;
use super::foreign::Foreign;
use super::{Node, Notice, SYSTEM};
use crate::down::{Down, Why};
use crate::envelope::{Envelope, Payload};
use crate::frame::Kind;
use crate::id::{HostId, VrId};
use crate::inbox::Event;
use crate::link::Link;

impl Node {
    /// Registers a local VR's watch on any VR. Blocks as `route` does.
    pub(crate) fn watch(&self, watcher: VrId, watched: VrId) {
        match self.reach(watched) {
            Ok(Link::Local(_)) => self.add_watcher(watcher, watched),
            Ok(link) => {
                self.expect(watcher, watched);
                let payload = Payload::default();
                let envelope =
                    Envelope { src: watcher, dst: watched, seq: 0, channel: SYSTEM, lane: 0, payload };
                if link.notify(Kind::Watch, &envelope).is_err() {
                    // The verdict comes to all processes as `host_down`, after what can still be read of that host: telling
                    // the VR now would be too early.
                    self.post_mortem(watched);
                }
            }
            // What its dead host had sent is read first, if there is anything.
            Err(Unreached { alive: None, .. }) if self.book().located.contains_key(&watched) => {
                self.expect(watcher, watched);
            }
            Err(Unreached { why, .. }) => self.tell(watcher, &Down { who: watched, why }),
        }
    }

    /// Has a local VR told when the host of `watched` dies, without notifying that host.
    pub(crate) fn expect(&self, watcher: VrId, watched: VrId) {
        let gone = {
            let mut book = self.book();
            let Some(host) = book.located.get(&watched).copied() else { return };
            let peer = book.peers.entry(host).or_default();
            if peer.down.is_none() {
                peer.watches.push((watcher, watched));
            }
            peer.down.clone()
        };
        if let Some(why) = gone
            && !self.mirrors.adopt_orphan(watcher, watched)
        {
            self.tell(watcher, &Down { who: watched, why });
        }
    }

    /// The end of a VR was reported, so the death of its host need not be reported for that VR.
    pub(super) fn unexpect(&self, host: HostId, watcher: VrId, watched: VrId) {
        if let Some(peer) = self.book().peers.get_mut(&host) {
            peer.watches.retain(|watch| *watch != (watcher, watched));
        }
    }

    pub(crate) fn add_watcher(&self, watcher: VrId, watched: VrId) {
        let mut book = self.book();
        let notice = if let Some(why) = book.ended.get(&watched).cloned() {
            Notice::Down { to: watcher, down: Down { who: watched, why } }
        } else if book.located.contains_key(&watched) && self.inbox(watched).is_none() {
            // It has moved since it was looked up, and its earlier watchers watch it at its new place.
            Notice::Watch { watcher, watched }
        } else {
            book.watchers.entry(watched).or_default().push(watcher);
            return;
        };
        drop(book);
        let _ = self.courier.send(notice);
    }

    /// The program has established that a host is dead. Whatever can still be read from it is read first.
    pub(crate) fn host_down(&self, host: HostId, why: &Why) {
        self.unmirror_by(host);
        let may_be_heard = matches!(why, Why::HostDied { .. });
        self.lose(host, None, why, may_be_heard);
    }

    /// Declares a host gone; a host of another program only if its visit is still the given one. What can still be read from
    /// it is read first, if `may_be_heard`.
    pub(super) fn lose(&self, host: HostId, visit: Option<u64>, why: &Why, may_be_heard: bool) {
        let mut book = self.book();
        let peer = book.peers.entry(host).or_default();
        if peer.down.is_some() || peer.foreign.as_ref().map(Foreign::visit) != visit {
            return;
        }
        let link = peer.link.clone();
        let is_heard_of = peer.inbound > 0 && may_be_heard;
        if is_heard_of {
            peer.doomed = Some(why.clone());
        } else {
            let watches = self.bury(host, peer, why);
            drop(book);
            self.deliver_downs(watches, why);
        }
        // A dialler may hold the slot for as long as dialling takes; it finds out by itself.
        if let Ok(mut slot) = link.try_lock() {
            // Nobody asks for the link to a buried peer, so its file and its memory are released.
            let link = if is_heard_of { slot.clone() } else { slot.take() };
            if let Some(link) = link {
                link.close(&why.to_string());
            }
        };
    }

    pub(super) fn inbound_closed(&self, host: HostId, error: &str) {
        let mut book = self.book();
        let Some(peer) = book.peers.get_mut(&host) else { return };
        if peer.stale > 0 {
            peer.stale -= 1;
            return;
        }
        peer.inbound = peer.inbound.saturating_sub(1);
        if peer.inbound > 0 || peer.down.is_some() {
            return;
        }
        if let (Some(foreign), None) = (&peer.foreign, &peer.doomed) {
            let (visit, why) = (foreign.visit(), foreign.lost(error));
            drop(book);
            self.lose(host, Some(visit), &why, false);
            return;
        }
        if let Some(why) = peer.doomed.take() {
            if let Ok(mut slot) = peer.link.try_lock() {
                *slot = None;
            }
            let watches = self.bury(host, peer, &why);
            drop(book);
            self.deliver_downs(watches, &why);
        } else {
            drop(book);
            self.report(host, error.to_owned());
        }
    }

    /// Marks a host as gone, so that nothing of it is accepted any more. Returns the watches on its VRs.
    fn bury(&self, host: HostId, peer: &mut Peer, why: &Why) -> Vec<(VrId, VrId)> {
        peer.down = Some(why.clone());
        self.gates.forget(host);
        self.local.guard();
        std::mem::take(&mut peer.watches)
    }

    pub(super) fn deliver_downs(&self, watches: Vec<(VrId, VrId)>, why: &Why) {
        for (watcher, who) in watches {
            // A twin may take over.
            if self.mirrors.adopt_orphan(watcher, who) {
                continue;
            }
            if let Some(inbox) = self.inbox(watcher) {
                let _ = inbox.push(Event::Down(Down { who, why: why.clone() }));
            }
        }
    }

    /// Sends a notice to a VR wherever it is; the notice is dropped if the VR is gone. May block.
    ///
    /// A process that is being stopped sends none: its VRs end because of that, which the initiator announces, and those that are
    /// mirrored live on in other processes.
    pub(super) fn tell(&self, to: VrId, down: &Down) {
        if self.is_stopped() {
            return;
        }
        match self.reach(to) {
            Ok(Link::Local(inbox)) => drop(inbox.push(Event::Down(down.clone()))),
            Ok(link) => {
                let payload = postcard::to_stdvec(&down.why).unwrap_or_default().into();
                let envelope = Envelope { src: down.who, dst: to, seq: 0, channel: SYSTEM, lane: 0, payload };
                let _ = link.notify(Kind::Down, &envelope);
            }
            // The VR waits for this notice.
            Err(Unreached { alive: Some(_), .. }) => {
                let _ = self.courier.send(Notice::Down { to, down: down.clone() });
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::frame::Frame;
    use crate::link::SimNet;
    use crate::protocol::Place;

    #[test]
    fn who_has_ended_is_forgotten_by_its_watchers_and_with_them() {
        let at = |port| Place { host: HostId::fresh(), address: ([127, 0, 0, 1], port).into() };
        let (node, _notices) = Node::simulated(at(1), &Arc::new(SimNet::default()), Arc::new(|_| None));
        let (there, watcher) = (at(2), VrId::fresh());
        let watched = [(); 2].map(|()| VrId::fresh());
        let _inbox = node.add(watcher);
        for vr in watched {
            node.learn(vr, there);
            node.expect(watcher, vr);
        }
        let watches = || node.book().peers[&there.host].watches.clone();
        let payload = postcard::to_stdvec(&Why::Finished).unwrap().into();
        let envelope = Envelope { src: watched[0], dst: watcher, seq: 0, channel: SYSTEM, lane: 0, payload };
        node.arrived(there.host, Frame { kind: Kind::Down, envelope });
        assert_eq!(watches(), [(watcher, watched[1])]);
        node.remove(watcher, &Why::Finished);
        assert_eq!(watches(), []);
    }

    #[test]
    fn a_process_that_is_stopped_announces_no_ends() {
        let place = Place { host: HostId::fresh(), address: ([127, 0, 0, 1], 1).into() };
        for stops in [false, true] {
            let (node, _notices) = Node::simulated(place, &Arc::new(SimNet::default()), Arc::new(|_| None));
            let [watcher, watched] = [(); 2].map(|()| VrId::fresh());
            let (inbox, _watched) = (node.add(watcher), node.add(watched));
            node.watch(watcher, watched);
            if stops {
                node.stop();
            }
            node.remove(watched, &Why::Failed("the program is ending".to_owned()));
            let is_told = inbox.waiting().iter().any(|event| matches!(event, Event::Down(_)));
            assert_eq!(is_told, !stops);
        }
    }
}
