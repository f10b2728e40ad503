//! Frames from other processes: each one is delivered to the VR that it is for, or answered.

use std::sync::{Arc, OnceLock, Weak};

use super::courier::Notice;
use super::mirrors::Source;
use super::{Node, moves};
use crate::down::{Down, Why};
use crate::frame::{Frame, Kind, gate};
use crate::id::HostId;
use crate::inbox::Event;
use crate::inboxes::Inboxes;
use crate::link::Sink;

/// Handles what the reader has read.
pub(super) struct Deliver {
    local: Arc<Inboxes>,
    node: OnceLock<Weak<Node>>,
}

impl Deliver {
    /// Makes one for a node that does not exist yet; frames that need the node are dropped until then.
    pub(super) fn to(local: Arc<Inboxes>) -> Self {
        Self { local, node: OnceLock::new() }
    }

    pub(super) fn belongs_to(&self, node: &Arc<Node>) {
        let _ = self.node.set(Arc::downgrade(node));
    }

    fn node(&self) -> Option<Arc<Node>> {
        self.node.get().and_then(Weak::upgrade)
    }
}

impl Sink for Deliver {
    #[cfg(test)]
    fn opened(&self, from: HostId) {
        if let Some(node) = self.node() {
            node.book().peers.entry(from).or_default().inbound += 1;
        }
    }

    fn frame(&self, from: HostId, frame: Frame) {
        let Frame { kind, envelope } = frame;
        let envelope = match kind {
            Kind::Envelope => match self.local.deliver(envelope) {
                Ok(()) => return,
                Err(envelope) => envelope,
            },
            _ => envelope,
        };
        if let Some(node) = self.node() {
            node.arrived(from, Frame { kind, envelope });
        }
    }

    fn trusts_all(&self) -> bool {
        self.local.is_unguarded()
    }

    fn closed(&self, from: HostId, why: String) {
        if let Some(node) = self.node() {
            node.inbound_closed(from, &why);
        }
    }
}

impl Node {
    pub(super) fn arrived(&self, from: HostId, frame: Frame) {
        let _delivering = self.mirrors.deliver();
        if self.book().peers.get(&from).is_some_and(|peer| peer.down.is_some()) {
            // It was declared lost, so its frames are ignored even if it lives.
            return;
        }
        let Frame { kind, envelope } = frame;
        if !self.admits(from, kind, &envelope) {
            return;
        }
        match kind {
            Kind::Envelope => {
                let (src, dst) = (envelope.src, envelope.dst);
                let refused = match self.inbox(dst) {
                    Some(inbox) => {
                        inbox.arrive(envelope, from, |full| self.gate(from, dst, Some(full))).is_err()
                    }
                    None => true,
                };
                if refused {
                    let mut book = self.book();
                    book.located.entry(src).or_insert(from);
                    let why = book.ended.get(&dst).cloned().unwrap_or(Why::Unknown);
                    let _ = self.courier.send(Notice::Down { to: src, down: Down { who: dst, why } });
                }
            }
            Kind::Watch => {
                if envelope.lane != moves::PASSED_ON {
                    self.book().located.entry(envelope.src).or_insert(from);
                }
                if self.inbox(envelope.dst).is_some() || self.book().ended.contains_key(&envelope.dst) {
                    self.add_watcher(envelope.src, envelope.dst);
                } else if self.has_left(envelope.dst) {
                    let (watcher, watched) = (envelope.src, envelope.dst);
                    let _ = self.courier.send(Notice::Watch { watcher, watched });
                } else {
                    let down = Down { who: envelope.dst, why: Why::Unknown };
                    let _ = self.courier.send(Notice::Down { to: envelope.src, down });
                }
            }
            Kind::Down => {
                let Ok(why) = postcard::from_bytes(envelope.payload.head()) else { return };
                let down = Down { who: envelope.src, why };
                self.unexpect(from, envelope.dst, envelope.src);
                if let Some(inbox) = self.inbox(envelope.dst) {
                    let _ = inbox.push(Event::Down(down));
                } else if self.has_left(envelope.dst) {
                    let _ = self.courier.send(Notice::Down { to: envelope.dst, down });
                }
            }
            Kind::Gate => {
                // A process that was buried meanwhile will never report that there is room again, nor will one that no longer
                // has the VR.
                let book = self.book();
                if let Some(full) = gate::decode(envelope.payload.head())
                    && book.peers.get(&from).is_none_or(|peer| peer.down.is_none())
                    && book.located.get(&envelope.src).is_none_or(|host| *host == from)
                {
                    self.gates.set(envelope.src, from, full);
                }
            }
            // A process that sends a copy finds out itself that the receiver is gone.
            Kind::Copy => drop(self.take_copy(envelope, Source::Host(from))),
            Kind::Mirror => self.mirror_frame(from, &envelope),
        }
    }
}
