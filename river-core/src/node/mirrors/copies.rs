//! Messages to a mirrored VR are also sent to its twin; a message that arrives twice is taken once.

use super::Here;
use crate::envelope::Envelope;
use crate::frame::Kind;
use crate::id::{HostId, IdMap, VrId};
use crate::inbox::{Event, Inbox, Refused};
use crate::link::Link;
use crate::node::Node;

/// The sender of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum Source {
    /// Another process.
    Host(HostId),
    /// A VR of this process. If the mailbox is full, it waits or is refused.
    Vr,
    /// A VR of this process that has taken over, and repeats sends that were accepted.
    Heir,
}

impl Node {
    /// Whether any VR has, or had, a twin.
    pub(crate) fn has_mirrors(&self) -> bool {
        self.mirrors.any()
    }

    /// Whether a VR has a twin.
    pub(crate) fn is_mirrored(&self, vr: VrId) -> bool {
        self.mirrors.places(vr).is_some()
    }

    /// Sends to a mirrored VR and to its twin. `None` if it is not mirrored, and then nothing was sent. May block.
    pub(crate) fn send_mirrored(&self, envelope: &Envelope) -> Option<Result<(), Refused>> {
        self.send_twice(envelope, Source::Vr)
    }

    fn send_twice(&self, envelope: &Envelope, source: Source) -> Option<Result<(), Refused>> {
        let vr = envelope.dst;
        let mut places = self.mirrors.places(vr)?;
        if source == Source::Vr && places.main != self.place.host && !self.pass(vr) {
            return Some(Err(Refused::Full));
        }
        let mut reached = Vec::new();
        loop {
            for host in [places.main, places.twin] {
                if reached.contains(&host) {
                    continue;
                }
                match self.send_copy(host, envelope, source) {
                    Ok(()) => reached.push(host),
                    Err(Refused::Full) if reached.is_empty() => return Some(Err(Refused::Full)),
                    Err(_) => {}
                }
            }
            // The twin may have taken over meanwhile, and its process may not have this envelope.
            match self.mirrors.places(vr) {
                Some(now) if now == places => break,
                Some(now) => places = now,
                None => {
                    let now = self.whereabouts(vr);
                    if now.is_some_and(|now| !reached.contains(&now)) {
                        // It is now sent to like any other VR.
                        return None;
                    }
                    break;
                }
            }
        }
        Some(if reached.is_empty() { Err(Refused::Closed) } else { Ok(()) })
    }

    /// Repeats a send that may have been made before, with the same number. It was accepted then, so it is not refused now.
    /// May block.
    pub(crate) fn send_again(&self, envelope: &Envelope) {
        if self.send_twice(envelope, Source::Heir).is_some() {
            return;
        }
        // If the receiver is gone, that does not matter.
        match self.reach(envelope.dst) {
            Ok(Link::Local(_)) => drop(self.take_copy(envelope.clone(), Source::Heir)),
            Ok(link) => drop(link.notify(Kind::Copy, envelope)),
            Err(unreached) => self.give_up(&unreached),
        }
    }

    fn whereabouts(&self, vr: VrId) -> Option<HostId> {
        if self.inbox(vr).is_some() {
            return Some(self.place.host);
        }
        self.book().located.get(&vr).copied()
    }

    fn send_copy(&self, host: HostId, envelope: &Envelope, source: Source) -> Result<(), Refused> {
        if host == self.place.host {
            return self.take_copy(envelope.clone(), source);
        }
        let link = self.connect(host).map_err(|unreached| {
            self.give_up(&unreached);
            Refused::Closed
        })?;
        link.notify(Kind::Copy, envelope).map_err(|()| {
            // Which process has died is for the program to decide; it then has a twin take over.
            self.report(host, "the connection broke".into());
            Refused::Closed
        })
    }

    // ---- taking ----

    /// Takes a copy.
    pub(in crate::node) fn take_copy(&self, envelope: Envelope, source: Source) -> Result<(), Refused> {
        let (src, dst) = (envelope.src, envelope.dst);
        let mut here = self.mirrors.here();
        if let Some(Here::Twin(twin)) = here.get_mut(&dst) {
            twin.copy(envelope);
            return Ok(());
        }
        let Some(inbox) = self.inbox(dst) else { return Err(Refused::Closed) };
        let main = here.entry(dst).or_insert_with(|| Here::Main(IdMap::default()));
        let Here::Main(numbers) = main else { return Err(Refused::Closed) };
        let next = numbers.entry(src).or_insert_with(|| {
            self.received_by(dst, &inbox).and_then(|counts| counts.get(&src).copied()).unwrap_or_default()
        });
        if envelope.seq < *next {
            return Ok(());
        }
        *next = envelope.seq + 1;
        match source {
            Source::Host(from) => {
                let full = |full| self.gate(from, dst, Some(full));
                inbox.arrive(envelope, from, full).map_err(|_| Refused::Closed)
            }
            Source::Heir => inbox.readmit(envelope),
            Source::Vr => {
                // This may wait for room; nothing else sends in the name of this VR.
                drop(here);
                let seq = envelope.seq;
                let taken = inbox.offer(envelope);
                if taken == Err(Refused::Full)
                    && let Some(Here::Main(numbers)) = self.mirrors.here().get_mut(&dst)
                {
                    numbers.insert(src, seq);
                }
                taken
            }
        }
    }

    /// Returns how many envelopes from each other VR have reached a VR of this process; `None` if it is not recorded, or has
    /// ended.
    pub(crate) fn received_counts(&self, vr: VrId) -> Option<IdMap<VrId, u64>> {
        self.received_by(vr, &*self.inbox(vr)?)
    }

    fn received_by(&self, vr: VrId, inbox: &Inbox) -> Option<IdMap<VrId, u64>> {
        let recorder = self.states.get(vr)?;
        // In this order: what the VR takes out meanwhile is in its record before the record is read.
        let waiting = inbox.waiting();
        let mut counts = recorder.look(|record, ended| ended.is_none().then(|| record.received().clone()))?;
        for event in waiting {
            if let Event::Envelope(envelope) = event {
                let count = counts.entry(envelope.src).or_default();
                *count = (envelope.seq + 1).max(*count);
            }
        }
        Some(counts)
    }
}

#[cfg(test)]
mod tests {
    use std::iter;
    use std::sync::Arc;

    use super::*;
    use crate::envelope::Channel;
    use crate::id::VrId;
    use crate::limit::{QueueLimit, WhenFull};
    use crate::link::SimNet;
    use crate::protocol::Place;

    #[test]
    fn what_is_sent_again_is_taken_however_full_the_mailbox_is() {
        let place = Place { host: HostId::fresh(), address: ([127, 0, 0, 1], 1).into() };
        let (node, _notices) = Node::simulated(place, &Arc::new(SimNet::default()), Arc::new(|_| None));
        let (src, dst) = (VrId::fresh(), VrId::fresh());
        let inbox = node.add(dst);
        let limit = QueueLimit { messages: 1, bytes: usize::MAX, when_full: WhenFull::Refuse };
        inbox.set_limit(Some(limit), iter::empty(), |_| {});
        // The second one twice, as it may have arrived before.
        for seq in [0, 1, 1, 2] {
            let payload = vec![].into();
            let channel = Channel::named("test");
            node.send_again(&Envelope { src, dst, seq, channel, lane: 0, payload });
        }
        let waiting = inbox.waiting().into_iter().map(|event| match event {
            Event::Envelope(envelope) => envelope.seq,
            other => panic!("{other:?}"),
        });
        assert_eq!(waiting.collect::<Vec<_>>(), [0, 1, 2]);
    }
}
