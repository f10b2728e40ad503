//! VRs that change their processes: how a process lets one go, and learns where it is.

use std::sync::atomic::Ordering::{Acquire, Release};

use super::{Node, Notice};
use crate::envelope::{Envelope, Payload};
use crate::frame::Kind;
use crate::id::VrId;
use crate::inbox::Event;
use crate::protocol::Place;

/// The lane of a watch that comes of another process than the one that the watcher lives in.
pub(super) const PASSED_ON: u64 = 1;

impl Node {
    /// VRs are somewhere else from now on, or here. To be called while all VRs are frozen, or when the process is dead that they have
    /// left.
    ///
    /// Who watches one of them here watches it there, so that its end is told whatever becomes of the process that it has
    /// left.
    pub(crate) fn moved(&self, moves: &[(VrId, Place)]) {
        self.moves.fetch_add(1, Release);
        for &(vr, to) in moves {
            let here = to.host == self.place.host;
            if !here {
                self.abandon(vr);
            }
            let mut watchers = Vec::new();
            {
                let mut book = self.book();
                if here {
                    book.located.remove(&vr);
                } else {
                    book.located.insert(vr, to.host);
                    book.peers.entry(to.host).or_default().address = Some(to.address);
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
            // Its new process says anew if it is full.
            self.gates.set(vr, to.host, None);
        }
        self.moved_mirrors(moves.iter().map(|(vr, _)| *vr));
    }

    /// How often VRs have moved: whoever knows a link to one looks for it again when this has changed.
    pub(crate) fn moves(&self) -> u64 {
        self.moves.load(Acquire)
    }

    /// Has a VR end that lives on elsewhere: nobody is told, and nothing of it is seen any more.
    pub(crate) fn abandon(&self, vr: VrId) {
        self.drop_twin(vr);
        let Some(recorder) = self.states.forget(vr) else { return };
        recorder.abandon();
        // It may wait for something to arrive.
        if let Some(inbox) = self.local.remove(vr) {
            let _ = inbox.push(Event::Stop);
        }
    }

    /// Where a VR is that is not here, if that is known: what reaches this process for it is passed on.
    pub(super) fn has_left(&self, vr: VrId) -> bool {
        let book = self.book();
        !book.ended.contains_key(&vr) && book.located.contains_key(&vr)
    }

    /// Sends a watch of any VR on one that is elsewhere. May block.
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
