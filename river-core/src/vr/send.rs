//! Sending: a VR asks the router for the link to a destination once, and then uses that link.

use std::collections::hash_map::Entry;

use super::Vr;
use super::content::Content;
use crate::envelope::{Channel, Label, Payload};
use crate::error::SendError;
use crate::id::VrId;
use crate::inbox::Refused;
use crate::link::Link;
use crate::trace::Reason;

/// The route to a VR that was sent to.
#[derive(Debug)]
pub(super) struct Route {
    link: Link,
    /// The count of [moves](crate::node::Node::moves) of VRs up to which the link is valid.
    moves: u64,
    /// The number of the next envelope.
    next: u64,
}

impl Vr {
    /// Sends a payload to a VR. `Ok` means accepted, not received.
    ///
    /// # Errors
    /// [`SendError::Down`] if the destination is known to be gone; [`SendError::Full`] if its mailbox has a limit and is
    /// full. The payload is then dropped.
    ///
    /// # Blocking
    /// The first send to a destination may wait for the directory and for a connection. A later send waits only while the
    /// destination's process does not read and the buffers in between are full: a quarter of a mebibyte on the same machine,
    /// otherwise the buffers of the connection and 8 MiB more. A live process always reads.
    pub fn send_bytes(
        &self,
        to: VrId,
        channel: Channel,
        lane: u64,
        payload: impl Into<Payload>,
    ) -> Result<(), SendError> {
        match &self.journal {
            None => self.dispatch(to, None, channel, lane, payload.into()),
            Some(_) => self.recorded_send(to, channel, lane, payload.into()),
        }
    }

    /// Sends a payload that consists of parts in the caller's memory, which can be reused when this returns. The parts are
    /// copied only where necessary: into a shared ring or a connection they are written directly. The receiver finds the same
    /// bytes at the same offsets, in one piece or in several.
    ///
    /// ```
    /// # use river_core::{Channel, Selector};
    /// # const CHANNEL: Channel = Channel::named("doc");
    /// # river_core::testing::threads(1, |vr, _, _| {
    /// vr.send_parts(vr.id(), CHANNEL, 0, &[b"hello ", b"world"]).unwrap();
    /// assert_eq!(&vr.receive(Selector::on(CHANNEL)).unwrap().payload.to_bytes()[..], b"hello world");
    /// # });
    /// ```
    ///
    /// # Errors
    /// As [`send_bytes`](Self::send_bytes).
    ///
    /// # Blocking
    /// As [`send_bytes`](Self::send_bytes); and on a connection, until the connection has taken the payload.
    pub fn send_parts(
        &self,
        to: VrId,
        channel: Channel,
        lane: u64,
        parts: &[&[u8]],
    ) -> Result<(), SendError> {
        match &self.journal {
            None => self.dispatch(to, None, channel, lane, parts),
            Some(_) => self.recorded_send(to, channel, lane, parts.concat().into()),
        }
    }

    /// Returns the longest payload that is transferred to a VR in one go. Split more data into envelopes of this length, so
    /// that one is copied out at the receiver while the next is copied in here. For a recorded VR the result does not depend
    /// on where the other one is.
    ///
    /// # Blocking
    /// As a first send to that VR.
    #[must_use]
    pub fn handy_size(&self, to: VrId) -> usize {
        const ELSEWHERE: usize = 128 << 10;
        if self.journal.is_some() {
            return ELSEWHERE;
        }
        self.link_to(to).and_then(|link| link.handy_size()).unwrap_or(ELSEWHERE)
    }

    /// Whether messages to a VR pass through memory only: it lives in this process, or in a process of this machine that
    /// shares memory with this one. Always `false` if this VR is recorded.
    ///
    /// # Blocking
    /// As a first send to that VR.
    #[must_use]
    pub fn shares_memory_with(&self, other: VrId) -> bool {
        let link = if self.journal.is_none() { self.link_to(other) } else { None };
        matches!(link, Some(Link::Local(_) | Link::Shm(_)))
    }

    /// Returns the link to a VR; `None` if it is gone, which the next send to it reports.
    fn link_to(&self, to: VrId) -> Option<Link> {
        let routes = self.routes.borrow();
        let known = routes.get(&to).filter(|route| route.moves == self.node.moves());
        known.map(|route| route.link.clone()).or_else(|| self.node.route(to).ok())
    }

    /// Sends an envelope, with this sequence number or the next one.
    pub(super) fn dispatch(
        &self,
        to: VrId,
        number: Option<u64>,
        channel: Channel,
        lane: u64,
        content: impl Content,
    ) -> Result<(), SendError> {
        let mut routes = self.routes.borrow_mut();
        let moves = self.node.moves();
        let route = match routes.entry(to) {
            Entry::Occupied(entry) if entry.get().moves == moves => entry.into_mut(),
            entry => {
                let link = self.timed(Reason::Connect, Some(to), || self.node.route(to));
                let link = link.map_err(SendError::Down)?;
                // Wherever the VR is now, the numbering of its envelopes continues.
                let next = if let Entry::Occupied(entry) = &entry { entry.get().next } else { 0 };
                entry.insert_entry(Route { link, moves, next }).into_mut()
            }
        };
        let local = matches!(route.link, Link::Local(_));
        if !local && !self.timed(Reason::Full, Some(to), || self.node.pass(to)) {
            return Err(SendError::Full(to));
        }
        let seq = number.unwrap_or(route.next);
        let label = Label { src: self.id, dst: to, seq, channel, lane };
        let sending = self
            .tracer
            .as_ref()
            .map(|tracer| (tracer, tracer.sending(&label, content.len(), || content.beginning())));
        match content.send(&route.link, label) {
            Ok(()) => {
                route.next = seq + 1;
                if let Some((tracer, sending)) = sending {
                    tracer.sent(sending, if local { Reason::Full } else { Reason::Send });
                }
                return Ok(());
            }
            Err(Refused::Full) => return Err(SendError::Full(to)),
            Err(Refused::Closed) => {}
        }
        routes.remove(&to);
        drop(routes);
        Err(SendError::Down(self.node.post_mortem(to)))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use super::*;
    use crate::id::HostId;
    use crate::link::SimNet;
    use crate::mailbox::Selector;
    use crate::node::Node;
    use crate::protocol::Place;

    #[test]
    fn envelopes_are_counted_on_when_vrs_have_moved() {
        const CHANNEL: Channel = Channel::named("test");
        let place = Place { host: HostId::fresh(), address: SocketAddr::from(([127, 0, 0, 1], 1)) };
        let (node, _notices) = Node::simulated(place, &Arc::new(SimNet::default()), Arc::new(|_| None));
        let id = VrId::fresh();
        let inbox = node.add(id);
        let vr = Vr::new(id, None, node.clone(), inbox);
        for number in 0..4 {
            vr.send_bytes(id, CHANNEL, 0, Vec::new()).unwrap();
            assert_eq!(vr.receive(Selector::on(CHANNEL)).unwrap().seq, number);
            node.moved(&[]);
        }
    }
}
