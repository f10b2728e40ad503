//! VRs that move between processes: how a process releases one, and learns where one is.

use std::sync::atomic::Ordering::{Acquire, Release};

use super::{Node, Notice};
use crate::envelope::{Envelope, Payload};
use crate::frame::Kind;
use crate::id::VrId;
use crate::inbox::Event;
use crate::protocol::Place;

/// The lane of a watch that comes from a process other than the watcher's own.
pub(super) const PASSED_ON: u64 = 1;

impl Node {
    /// VRs live elsewhere from now on, or here. Call it only while all VRs are frozen, or when the process that they have
    /// left is dead.
    ///
    /// Watchers of such a VR here become watchers at its new place, so that they are told of its end whatever becomes of the
    /// process that it has left.
    pub(crate) fn moved(&self, moves: &[(VrId, Place)]) {
        self.moves.fetch_add(1, Release);
        for &(vr, to) in moves {
            let here = to.host == self.place.host;
            if !here {
                // In this order, so that nobody finds the VR neither here nor elsewhere, and all its watchers here are among
                // those that are told below.
                {
                    let mut book = self.book();
                    book.located.insert(vr, to.host);
                    book.peers.entry(to.host).or_default().address = Some(to.address);
                }
                self.abandon(vr);
            }
            let mut watchers = Vec::new();
            {
                let mut book = self.book();
                if here {
                    book.located.remove(&vr);
                } else {
                    watchers.extend(book.watchers.remove(&vr).unwrap_or_default());
                }
                for (host, peer) in &mut book.peers {
                    if *host != to.host {
                        let of_it = |watch: &mut (VrId, VrId)| watch.1 == vr;
                        watchers.extend(peer.watches.extract_if(.., of_it).map(|(watcher, _)| watcher));
                    }
                }
            }
            watchers.sort_unstable();
            watchers.dedup();
            for watcher in watchers {
                let _ = self.courier.send(Notice::Watch { watcher, watched: vr });
            }
            // Its new process reports anew if its mailbox is full.
            self.gates.set(vr, to.host, None);
        }
        self.moved_mirrors(moves.iter().map(|(vr, _)| *vr));
    }

    /// Returns how often VRs have moved. When this has changed, a link to a VR must be looked up again.
    pub(crate) fn moves(&self) -> u64 {
        self.moves.load(Acquire)
    }

    /// Ends a VR here that lives on elsewhere: nobody is told, and nothing of it can be seen any more.
    pub(crate) fn abandon(&self, vr: VrId) {
        self.drop_twin(vr);
        let Some(recorder) = self.states.forget(vr) else { return };
        recorder.abandon();
        // It may be waiting for something to arrive.
        if let Some(inbox) = self.local.remove(vr) {
            let _ = inbox.push(Event::Stop);
        }
    }

    /// Whether a VR that is not here is known to live elsewhere: what reaches this process for it is forwarded.
    pub(super) fn has_left(&self, vr: VrId) -> bool {
        let book = self.book();
        !book.ended.contains_key(&vr) && book.located.contains_key(&vr)
    }

    /// Sends any VR's watch on a VR that lives elsewhere. May block.
    pub(super) fn pass_on_watch(&self, watcher: VrId, watched: VrId) {
        if self.inbox(watcher).is_some() {
            self.watch(watcher, watched);
        } else if let Ok(link) = self.route(watched) {
            let payload = Payload::default();
            let (channel, lane) = (super::SYSTEM, PASSED_ON);
            let _ = link.notify(
                Kind::Watch,
                &Envelope { src: watcher, dst: watched, seq: 0, channel, lane, payload },
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::id::{HostId, ProgramId};
    use crate::link::SimNet;
    use crate::state::{Base, Origin, Record};

    fn place() -> Place {
        Place { host: HostId::fresh(), address: (Ipv4Addr::LOCALHOST, 1).into() }
    }

    /// The watcher has found the VR here, but its watch arrives too late.
    #[test]
    fn a_watch_on_a_vr_that_has_just_left_is_passed_on() {
        let net = Arc::new(SimNet::default());
        let (node, notices) = Node::simulated(place(), &net, Arc::new(|_| None));
        let [early, late, watched] = [VrId::fresh(), VrId::fresh(), VrId::fresh()];
        node.add(watched);
        let (name, program) = ("watched".into(), ProgramId::fresh());
        let origin = Origin { id: watched, parent: None, code: None, name, program };
        node.states.add(origin, Record::new(Base::new(watched, Bytes::new())));
        node.add_watcher(early, watched);
        assert!(notices.is_empty());
        node.moved(&[(watched, place())]);
        node.add_watcher(late, watched);
        for expected in [early, late] {
            let notice = notices.try_recv();
            assert!(
                matches!(notice, Ok(Notice::Watch { watcher, watched: at }) if (watcher, at) == (expected, watched)),
                "{notice:?}"
            );
        }
    }
}
