//! The owner's half of a mailbox: selective receive over what has arrived, without a lock.
//!
//! Envelopes that no receive has asked for yet are held in order of arrival, indexed by lane. An envelope that
//! matches the receive that is waiting for it never enters that index.
//!
//! * `selector`: what a receive asks for
//! * `unexpected`: envelopes that no receive has asked for yet, MPI's *unexpected queue*
//! * `lanes`: their index
//! * `posted`: receives that no envelope has come for yet, MPI's *posted queue*
//! * `deaths`: which VRs are gone, and which receive reports it
//! * `queue`: a mailbox in its saved form

mod deaths;
mod lanes;
mod posted;
mod queue;
mod selector;
mod unexpected;

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::down::{Down, Why};
use crate::envelope::Envelope;
use crate::id::VrId;
use crate::inbox::{Event, Moment};

use deaths::Deaths;
pub(crate) use posted::PostId;
use posted::PostedReceives;
pub(crate) use queue::Queue;
pub use selector::Selector;
use unexpected::Unexpected;

/// Exchanges the contents of the inbox for an empty vector, as [`Inbox::swap`](crate::inbox::Inbox::swap) does.
pub(crate) type Swap<'a> = dyn FnMut(&mut Vec<Event>) -> Option<Moment> + 'a;

/// The contents of a VR's mailbox: the envelopes of all layers that have not been received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// The number of envelopes.
    pub messages: usize,
    /// The bytes of their payloads.
    pub bytes: usize,
    /// How long the oldest one has been waiting, accurate to a few milliseconds. Of several envelopes that arrived while
    /// their VR did not receive, all count as old as the first.
    pub oldest: Option<Duration>,
}

/// The result of a look into the mailbox.
#[derive(Debug)]
pub(crate) enum Found {
    Envelope(Envelope),
    /// A watched VR is gone, or the only VR that could answer the receive is.
    Down(Down),
    Stopped,
    Nothing,
}

/// The envelopes and notices that have arrived for a VR and were not received.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    /// Swapped out of the inbox and not yet examined, oldest last (so that taking one is a `pop`).
    fresh: Vec<Event>,
    /// When the first of them arrived.
    since: Moment,
    /// The number of the next envelope.
    arrivals: u64,
    unexpected: Unexpected,
    posted: PostedReceives,
    deaths: Deaths,
    stopped: bool,
}

impl Mailbox {
    /// Swaps what has arrived out of the inbox, which gets the memory of the last batch. Returns `false` if nothing has
    /// arrived.
    fn refill(&mut self, swap: &mut Swap<'_>) -> bool {
        debug_assert!(self.fresh.is_empty());
        let mut events = std::mem::take(&mut self.fresh);
        let since = swap(&mut events);
        events.reverse();
        self.fresh = events;
        self.since = since.unwrap_or(self.since);
        since.is_some()
    }

    /// Takes the earliest envelope that the selector and the predicate accept; if there is none, returns the notice that the
    /// receive must report.
    pub(crate) fn take(
        &mut self,
        selector: &Selector,
        accept: &mut dyn FnMut(&Envelope) -> bool,
        swap: &mut Swap<'_>,
    ) -> Found {
        match self.search(selector, accept, swap) {
            Some((_, envelope)) => Found::Envelope(envelope),
            None => self.news(selector),
        }
    }

    /// Takes the earliest envelope that the selector and the predicate accept, with its arrival number.
    fn search(
        &mut self,
        selector: &Selector,
        accept: &mut dyn FnMut(&Envelope) -> bool,
        swap: &mut Swap<'_>,
    ) -> Option<(u64, Envelope)> {
        if let Some(found) = self.unexpected.take(selector, accept) {
            return Some(found);
        }
        loop {
            while let Some(event) = self.fresh.pop() {
                let Event::Envelope(envelope) = event else {
                    self.absorb(event);
                    continue;
                };
                let number = self.number();
                // Receives that were posted earlier come first, as in MPI.
                let Some(envelope) = self.posted.give(number, envelope) else { continue };
                if selector.admits(&envelope) && accept(&envelope) {
                    return Some((number, envelope));
                }
                self.hold(number, envelope);
            }
            if !self.refill(swap) {
                return None;
            }
        }
    }

    /// Returns what a receive that finds no envelope must report.
    fn news(&mut self, selector: &Selector) -> Found {
        if self.stopped { Found::Stopped } else { self.deaths.news(selector) }
    }

    /// Posts a receive: from now on the earliest envelope that matches it, and no receive posted before, belongs to it. A
    /// standing receive gets all such envelopes.
    pub(crate) fn post(
        &mut self,
        selector: Selector,
        mut accept: Box<dyn FnMut(&Envelope) -> bool>,
        standing: bool,
        swap: &mut Swap<'_>,
    ) -> PostId {
        let mut got = VecDeque::new();
        while let Some(found) = self.search(&selector, &mut *accept, swap) {
            got.push_back(found);
            if !standing {
                break;
            }
        }
        self.posted.post(selector, accept, standing, got)
    }

    /// Takes the envelope of a posted receive, which is then no longer posted; or returns the notice that it must report.
    pub(crate) fn complete(&mut self, id: PostId, swap: &mut Swap<'_>) -> Found {
        let Some(selector) = self.posted.selector(id) else { return Found::Nothing };
        if let Some(envelope) = self.posted.complete(id) {
            return Found::Envelope(envelope);
        }
        self.absorb_all(swap);
        match self.posted.complete(id) {
            Some(envelope) => Found::Envelope(envelope),
            None => self.news(&selector),
        }
    }

    /// Whether a receive is still posted.
    pub(crate) fn has_posted(&self, id: PostId) -> bool {
        self.posted.selector(id).is_some()
    }

    /// Cancels a posted receive. Envelopes that it had got return to their old places in the queue.
    pub(crate) fn unpost(&mut self, id: PostId) {
        for (number, envelope) in self.posted.unpost(id) {
            self.put(number, envelope);
        }
    }

    /// Whether any posted receive may want an envelope that the selector admits.
    pub(crate) fn is_posted(&self, selector: &Selector) -> bool {
        self.posted.may_want(selector)
    }

    /// Whether a standing receive has got an envelope.
    pub(crate) fn has_standing(&self) -> bool {
        self.posted.has_standing()
    }

    /// Takes the earliest envelope that a standing receive has got, except those that are busy.
    pub(crate) fn take_standing(&mut self, busy: &[PostId]) -> Option<(PostId, Envelope)> {
        self.posted.take_standing(busy)
    }

    /// Shows every envelope that waits, oldest first, until the visitor returns `Some`.
    pub(crate) fn visit<R>(
        &mut self,
        selector: &Selector,
        visitor: &mut dyn FnMut(&Envelope) -> Option<R>,
        swap: &mut Swap<'_>,
    ) -> Option<R> {
        self.absorb_all(swap);
        self.unexpected.visit(selector, visitor)
    }

    /// Has the next receive that finds no envelope report when `who` is gone. Returns `false` if that was asked before.
    pub(crate) fn watch(&mut self, who: VrId) -> bool {
        self.deaths.watch(who)
    }

    /// Cancels a watch, and discards a notice that has arrived but was not reported.
    pub(crate) fn unwatch(&mut self, who: VrId) {
        self.deaths.unwatch(who);
    }

    /// Forgets the end of a VR, and that it is watched, as it may come back.
    pub(crate) fn revive(&mut self, who: VrId) {
        self.deaths.revive(who);
    }

    /// Remembers a VR that this one deployed: its abnormal end is reported without a watch.
    pub(crate) fn adopt(&mut self, child: VrId) {
        self.deaths.children.insert(child);
    }

    /// Returns the VRs whose notices were reported or dropped. The caller empties it and tells the inbox.
    #[inline]
    pub(crate) fn heard(&mut self) -> &mut Vec<VrId> {
        &mut self.deaths.heard
    }

    pub(crate) fn why_down(&self, who: VrId) -> Option<&Why> {
        self.deaths.down.get(&who)
    }

    /// Returns how many envelopes wait, including arrivals that were not examined.
    pub(crate) fn len(&self) -> usize {
        self.unexpected.len() + self.fresh.len()
    }

    /// Returns how many envelopes wait, including those that posted receives have got.
    #[inline]
    pub(crate) fn unreceived(&self) -> usize {
        self.len() + self.posted.got()
    }

    /// Returns the state of the mailbox, including the envelopes that posted receives have got.
    pub(crate) fn status(&mut self, swap: &mut Swap<'_>) -> QueueStatus {
        self.absorb_all(swap);
        let got: usize = self.posted.envelopes().map(|envelope| envelope.payload.len()).sum();
        QueueStatus {
            messages: self.unexpected.len() + self.posted.got(),
            bytes: self.unexpected.bytes() + got,
            oldest: self.unexpected.oldest(),
        }
    }

    /// Returns the payload lengths of all envelopes that were examined and still wait.
    pub(crate) fn lengths(&self) -> impl Iterator<Item = usize> {
        let held = self.unexpected.iter().map(|(_, envelope)| envelope);
        held.chain(self.posted.envelopes()).map(|envelope| envelope.payload.len())
    }

    /// Examines everything that has arrived.
    fn absorb_all(&mut self, swap: &mut Swap<'_>) {
        loop {
            while let Some(event) = self.fresh.pop() {
                self.absorb(event);
            }
            if !self.refill(swap) {
                return;
            }
        }
    }

    fn absorb(&mut self, event: Event) {
        match event {
            Event::Envelope(envelope) => {
                let number = self.number();
                self.put(number, envelope);
            }
            Event::Down(down) => self.deaths.hear(down),
            Event::Stop => self.stopped = true,
        }
    }

    /// Numbers an envelope that has arrived.
    fn number(&mut self) -> u64 {
        self.arrivals += 1;
        self.arrivals - 1
    }

    /// Gives an envelope to the earliest posted receive that wants it, or holds it.
    fn put(&mut self, number: u64, envelope: Envelope) {
        if let Some(envelope) = self.posted.give(number, envelope) {
            self.hold(number, envelope);
        }
    }

    fn hold(&mut self, number: u64, envelope: Envelope) {
        self.unexpected.hold(number, envelope, self.since);
    }
}

#[cfg(test)]
mod tests;
