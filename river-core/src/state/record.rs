//! The record of one VR: where it started from, and all that it has been told since.
//!
//! A VR is deterministic between its calls, so `main`, run again from the same value and told the same things, makes the
//! same calls and gets to the same place. The record holds what it is told, and a line for each call and each send, by
//! which a second run is compared with the first. What a receive finds is not recorded, only what had arrived and during
//! which call: the mailbox is deterministic too, and finds the same.
//!
//! No threads, no sockets, no clock. While lines are left the record *replays*: it answers, and nothing leaves the VR.
//! When none is left it is *live*, and grows. Replaying and going on is the same object.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::base::Base;
use super::codec;
use super::line::{Call, Line, Refusal, Sent};
use crate::error::Divergence;
use crate::id::{IdMap, VrId};
use crate::inbox::{Event, Moment};

/// What becomes of a send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sending {
    /// It was made before: this came of it.
    Made(Result<(), Refusal>),
    /// It is to be made, with this number.
    Due(u64),
    /// The VR has been taken over: whether it was made before, with this number, the receiver has to see.
    Again(u64),
}

/// The sends of a VR that is being taken over, by receiver.
#[derive(Clone, Debug)]
struct Resend {
    /// So many are known to have arrived wherever they have to.
    settled: IdMap<VrId, u64>,
    /// So many have been run through.
    next: IdMap<VrId, u64>,
}

/// What becomes of a receive that has found nothing yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocked {
    /// It waited so long, and then gave up.
    TimedOut(Duration),
    /// It looks once more.
    Again,
    /// The record ends here: it waits for real.
    Live,
}

/// A part of what a VR was told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    lines: Vec<Line>,
    #[serde(with = "codec::events")]
    events: Vec<Event>,
}

impl Told {
    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whose envelopes it was told.
    pub(crate) fn senders(&self) -> impl Iterator<Item = VrId> {
        self.events.iter().filter_map(|event| match event {
            Event::Envelope(envelope) => Some(envelope.src),
            _ => None,
        })
    }
}

/// What one line of a record says, for people and tools.
#[derive(Debug)]
pub(crate) enum Said<'a> {
    Arrived(&'a [Event]),
    Sent(VrId),
    /// The send before it was not accepted.
    Refused(String),
    Other(String),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    base: Arc<Base>,
    lines: Vec<Line>,
    #[serde(with = "codec::events")]
    events: Vec<Event>,
    /// How many lines and events have been replayed.
    #[serde(skip)]
    line: usize,
    #[serde(skip)]
    event: usize,
    /// What was recorded after the next safepoint, and so on: of a recording, which is replayed from one to the other.
    #[serde(skip)]
    following: VecDeque<Record>,
    /// Of a VR that was taken over here.
    #[serde(skip)]
    resend: Option<Box<Resend>>,
    /// Of a VR that was taken over anywhere: no more than so many of its sends had arrived by then, by receiver.
    arrived: IdMap<VrId, u64>,
    /// The numbers of the next envelopes to and from each VR, when all lines have been replayed.
    sent: IdMap<VrId, u64>,
    received: IdMap<VrId, u64>,
}

impl Record {
    pub(crate) fn new(base: Base) -> Self {
        let (sent, received) = (base.sent.iter().copied().collect(), base.received.iter().copied().collect());
        let (lines, events, following) = (Vec::new(), Vec::new(), VecDeque::new());
        let (base, resend, arrived) = (Arc::new(base), None, IdMap::default());
        Self { base, lines, events, line: 0, event: 0, following, resend, arrived, sent, received }
    }

    /// One that replays the first, then what follows its last safepoint, and so on.
    pub(crate) fn chain(stretches: impl IntoIterator<Item = Record>) -> Option<Self> {
        let mut stretches = stretches.into_iter();
        let first = stretches.next()?;
        Some(Self { following: stretches.collect(), ..first })
    }

    /// What it sends is sent again from its beginning on, as far as need be: the VR is taken over.
    pub(crate) fn resend(&mut self, settled: IdMap<VrId, u64>, arrived: IdMap<VrId, u64>) {
        let next = self.base.sent.iter().copied().collect();
        self.resend = Some(Box::new(Resend { settled, next }));
        self.arrived = arrived;
    }

    /// Whether this run of the VR has taken the place of another one.
    pub(crate) fn has_taken_over(&self) -> bool {
        self.resend.is_some()
    }

    pub(crate) fn base(&self) -> &Arc<Base> {
        &self.base
    }

    /// Whether everything has been replayed.
    pub(crate) fn is_live(&self) -> bool {
        self.line == self.lines.len() && self.following.is_empty()
    }

    /// How many lines and events there are.
    pub(crate) fn lengths(&self) -> (usize, usize) {
        (self.lines.len(), self.events.len())
    }

    /// What was recorded behind so many lines and events.
    pub(crate) fn since(&self, lines: usize, events: usize) -> Told {
        let (lines, events) = (self.lines.get(lines..), self.events.get(events..));
        Told { lines: lines.unwrap_or_default().to_vec(), events: events.unwrap_or_default().to_vec() }
    }

    /// Adds what is to be replayed.
    pub(crate) fn extend(&mut self, told: Told) {
        self.lines.extend(told.lines);
        self.events.extend(told.events);
    }

    /// Adds what the VR was told elsewhere, and counts what it has sent and received there.
    pub(crate) fn follow(&mut self, told: Told) {
        for line in told.lines {
            match &line {
                Line::Sent(sent) => *self.sent.entry(sent.to).or_default() += 1,
                Line::Refused(_) => self.take_back(),
                _ => {}
            }
            self.lines.push(line);
        }
        told.events.iter().for_each(|event| self.count(event));
        self.events.extend(told.events);
    }

    /// Whether behind so many lines there is one that another run of the VR might not come to by itself.
    pub(crate) fn was_told_since(&self, lines: usize) -> bool {
        self.lines.iter().skip(lines).any(Line::is_told)
    }

    /// How many lines have been replayed.
    pub(crate) fn position(&self) -> usize {
        self.line
    }

    /// What each line says.
    pub(crate) fn said(&self) -> impl Iterator<Item = Said<'_>> {
        let mut events = &self.events[..];
        self.lines.iter().map(move |line| match line {
            Line::Arrived(count) => {
                let (now, later) = events.split_at((*count as usize).min(events.len()));
                events = later;
                Said::Arrived(now)
            }
            Line::Sent(sent) => Said::Sent(sent.to),
            Line::Refused(_) => Said::Refused(line.to_string()),
            other => Said::Other(other.to_string()),
        })
    }

    /// A line for people.
    pub(crate) fn line(&self, index: usize) -> Option<String> {
        self.lines.get(index).map(ToString::to_string)
    }

    /// What the VR is in the middle of, if that is better not begun again elsewhere: an effect, or a question to the program.
    pub(crate) fn is_busy_with(&self) -> Option<&Call> {
        match self.lines.last() {
            Some(Line::Call(call)) if self.is_live() && call.is_done_once() => Some(call),
            _ => None,
        }
    }

    /// How many lines there are.
    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    /// The number of the next envelope to each VR that this one has sent to.
    pub(crate) fn sent(&self) -> &IdMap<VrId, u64> {
        self.following.back().map_or(&self.sent, |last| &last.sent)
    }

    /// The number of the next envelope from each VR, of those that the VR has looked at or may look at.
    pub(crate) fn received(&self) -> &IdMap<VrId, u64> {
        self.following.back().map_or(&self.received, |last| &last.received)
    }

    /// The VR makes a call that arrivals or an answer may belong to. True: it is live.
    pub(crate) fn call(&mut self, call: Call) -> Result<bool, Divergence> {
        if call != Call::Checkpoint {
            self.forgive();
        }
        if self.is_live() {
            self.append(Line::Call(call));
            return Ok(true);
        }
        match self.lines.get(self.line) {
            Some(Line::Call(recorded)) if *recorded == call => {
                self.line += 1;
                Ok(false)
            }
            _ => Err(self.diverged(call.to_string())),
        }
    }

    /// What has arrived, for the call that was made last; `arrive` takes it from the inbox if the record is live. False:
    /// nothing.
    pub(crate) fn arrivals(
        &mut self,
        events: &mut Vec<Event>,
        arrive: impl FnOnce(&mut Vec<Event>) -> Option<Moment>,
    ) -> Option<Moment> {
        if !self.is_live() {
            let Some(&Line::Arrived(count)) = self.lines.get(self.line) else { return None };
            // A record that makes no sense is found out by the next call.
            let end = self.event + count as usize;
            events.extend_from_slice(self.events.get(self.event..end).unwrap_or_default());
            (self.line, self.event) = (self.line + 1, end);
            return Some(Moment::now());
        }
        let since = arrive(events)?;
        events.iter().for_each(|event| self.count(event));
        self.events.extend_from_slice(events);
        self.event = self.events.len();
        let count = events.len() as u32;
        // A line of its own, though the one before may be one as well: a line never changes, as it may be on a tape already.
        self.append(Line::Arrived(count));
        Some(since)
    }

    /// A receive that waits has found nothing in what had arrived.
    pub(crate) fn blocked(&mut self) -> Result<Blocked, Divergence> {
        match self.lines.get(self.line) {
            None if self.is_live() => Ok(Blocked::Live),
            Some(&Line::TimedOut(waited)) => {
                self.line += 1;
                Ok(Blocked::TimedOut(waited))
            }
            Some(Line::Again) => {
                self.line += 1;
                Ok(Blocked::Again)
            }
            _ => Err(self.diverged("the receive before it still waits".into())),
        }
    }

    /// A live receive looks once more, and handlers may have run meanwhile.
    pub(crate) fn again(&mut self) {
        self.append(Line::Again);
    }

    /// A live receive has given up.
    pub(crate) fn timed_out(&mut self, waited: Duration) {
        self.append(Line::TimedOut(waited));
    }

    /// The VR sends something.
    pub(crate) fn send(&mut self, send: Sent) -> Result<Sending, Divergence> {
        self.forgive();
        if self.is_live() {
            self.append(Line::Sent(send));
            let next = self.sent.entry(send.to).or_default();
            *next += 1;
            let number = *next - 1;
            let may_have = self.arrived.get(&send.to).is_some_and(|arrived| number < *arrived);
            return Ok(if may_have { Sending::Again(number) } else { Sending::Due(number) });
        }
        match self.lines.get(self.line) {
            Some(Line::Sent(recorded)) if *recorded == send => self.line += 1,
            Some(Line::Sent(recorded)) => {
                let which = if send.is_like(recorded) { " with other bytes" } else { "" };
                return Err(self.diverged(format!("{send}{which}")));
            }
            _ => return Err(self.diverged(send.to_string())),
        }
        if let Some(Line::Refused(refusal)) = self.lines.get(self.line) {
            let refusal = refusal.clone();
            self.line += 1;
            return Ok(Sending::Made(Err(refusal)));
        }
        let Some(resend) = &mut self.resend else { return Ok(Sending::Made(Ok(()))) };
        let next = resend.next.entry(send.to).or_default();
        *next += 1;
        let number = *next - 1;
        let is_settled = resend.settled.get(&send.to).is_some_and(|settled| number < *settled);
        Ok(if is_settled { Sending::Made(Ok(())) } else { Sending::Again(number) })
    }

    /// The live send that was made last was not accepted.
    pub(crate) fn refused(&mut self, refusal: Refusal) {
        self.take_back();
        self.append(Line::Refused(refusal));
    }

    /// The send that was made last does not count.
    fn take_back(&mut self) {
        if let Some(Line::Sent(sent)) = self.lines.last()
            && let Some(next) = self.sent.get_mut(&sent.to)
        {
            *next = next.saturating_sub(1);
        }
    }

    fn count(&mut self, event: &Event) {
        if let Event::Envelope(envelope) = event {
            self.received.insert(envelope.src, envelope.seq + 1);
        }
    }

    /// What the call that was made last returned; `None` if that is not known, so that it has to be made.
    pub(crate) fn recorded_answer(&mut self) -> Result<Option<Bytes>, Divergence> {
        match self.lines.get(self.line) {
            None if self.is_live() => Ok(None),
            Some(Line::Answer(answer)) => {
                let answer = answer.clone();
                self.line += 1;
                Ok(Some(answer))
            }
            _ => Err(self.diverged("an answer to the call before it".into())),
        }
    }

    /// What the live call that was made last returned.
    pub(crate) fn answer(&mut self, answer: Bytes) {
        self.append(Line::Answer(answer));
    }

    /// The VR asks for how long it has been running: `now`, if it is live. True: it is.
    pub(crate) fn uptime(&mut self, now: impl FnOnce() -> Duration) -> Result<(Duration, bool), Divergence> {
        self.forgive();
        if self.is_live() {
            let uptime = now();
            self.append(Line::Uptime(uptime));
            return Ok((uptime, true));
        }
        let Some(&Line::Uptime(uptime)) = self.lines.get(self.line) else {
            return Err(self.diverged("a question for how long it has been running".into()));
        };
        self.line += 1;
        Ok((uptime, false))
    }

    /// The VR's `main` has returned.
    pub(crate) fn finish(&mut self) -> Result<(), Divergence> {
        self.forgive();
        if self.is_live() { Ok(()) } else { Err(self.diverged("the end of `main`".into())) }
    }

    /// Begins anew from a safepoint: all that was recorded before is not needed any more. The old record, whole; none if
    /// the VR is just where this one began.
    pub(crate) fn restart(&mut self, base: Base) -> Result<Option<Record>, Divergence> {
        if self.line == 0 && self.base.safepoints > 0 {
            return Ok(None);
        }
        if self.line == self.lines.len()
            && let Some(mut next) = self.following.pop_front()
        {
            // What takes over may have come to the same state in another way: a hash map in another order, say. What it does is
            // compared all the same.
            if self.resend.is_none() && next.base.state != base.state {
                self.following.push_front(next);
                return Err(self.diverged("a safepoint with another state".into()));
            }
            next.following = std::mem::take(&mut self.following);
            (next.resend, next.arrived) = (self.resend.take(), std::mem::take(&mut self.arrived));
            return Ok(Some(std::mem::replace(self, next)));
        }
        if !self.is_live() {
            return Err(self.diverged("a safepoint".into()));
        }
        let (sent, received) = (pairs(&self.sent), pairs(&self.received));
        let (safepoints, resend) = (self.base.safepoints + 1, self.resend.take());
        let arrived = self.arrived.clone();
        let next = Self { resend, arrived, ..Self::new(Base { sent, received, safepoints, ..base }) };
        Ok(Some(std::mem::replace(self, next)))
    }

    /// A VR that was checkpointed by itself, at once after a safepoint, may as well go on behind the checkpoint: where that
    /// stands at the end of a loop, a run from the safepoint does not come by it.
    fn forgive(&mut self) {
        if self.line == 0 && self.base.safepoints > 0 && self.lines == [Line::Call(Call::Checkpoint)] {
            self.lines.clear();
        }
    }

    fn append(&mut self, line: Line) {
        self.lines.push(line);
        self.line = self.lines.len();
    }

    fn diverged(&self, done: String) -> Divergence {
        let end = if self.following.is_empty() { "nothing" } else { "a safepoint" };
        let recorded = self.lines.get(self.line).map_or_else(|| end.into(), ToString::to_string);
        // Their texts do not say what is deployed.
        let done = if recorded == done { format!("{done} of something else") } else { done };
        Divergence { line: self.line as u64 + 1, safepoints: self.base.safepoints, recorded, done }
    }
}

fn pairs(map: &IdMap<VrId, u64>) -> Vec<(VrId, u64)> {
    map.iter().map(|(vr, next)| (*vr, *next)).collect()
}

#[cfg(test)]
mod tests;
