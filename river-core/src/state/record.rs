//! The record of one VR: its starting point, and all of its inputs since.
//!
//! A VR is deterministic between its calls, so if `main` is run again from the same value with the same inputs, it makes
//! the same calls and gets to the same place. The record holds the inputs, and a line for each call and each send, with
//! which a second run is compared. It does not hold what a receive found, only what had arrived and during which call: the
//! mailbox is deterministic too, and finds the same again.
//!
//! No threads, no sockets, no clock. While lines are left, the record *replays*: it answers, and nothing leaves the VR.
//! Once none is left, it is *live*, and grows. The same object does both.

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

/// What to do about a send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sending {
    /// It was made before, with this outcome.
    Made(Result<(), Refusal>),
    /// It must be made, with this number.
    Due(u64),
    /// The VR has been taken over, so the send may have been made before, with this number; the receiver recognizes a
    /// duplicate.
    Again(u64),
}

/// The sends of a VR that is being taken over, by receiver.
#[derive(Clone, Debug)]
struct Resend {
    /// How many are known to have arrived everywhere they must.
    settled: IdMap<VrId, u64>,
    /// How many have been replayed.
    next: IdMap<VrId, u64>,
}

/// What to do about a receive that has found nothing yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocked {
    /// It gave up after this time.
    TimedOut(Duration),
    /// It checks once more.
    Again,
    /// The record ends here: it really waits.
    Live,
}

/// A part of a VR's inputs.
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

    /// The senders of its envelopes.
    pub(crate) fn senders(&self) -> impl Iterator<Item = VrId> {
        self.events.iter().filter_map(|event| match event {
            Event::Envelope(envelope) => Some(envelope.src),
            _ => None,
        })
    }
}

/// The content of one line of a record, for people and tools.
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
    /// The records that follow the next safepoints, for a recording that is replayed from one safepoint to the next.
    #[serde(skip)]
    following: VecDeque<Record>,
    /// Set for a VR that was taken over by this process.
    #[serde(skip)]
    resend: Option<Box<Resend>>,
    /// If the VR was ever taken over: upper bounds of how many of its sends had arrived by then, by receiver.
    arrived: IdMap<VrId, u64>,
    /// The numbers of the next envelopes to and from each VR, after all lines have been replayed.
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

    /// A record that replays the first one, then the one after the next safepoint, and so on.
    pub(crate) fn chain(stretches: impl IntoIterator<Item = Record>) -> Option<Self> {
        let mut stretches = stretches.into_iter();
        let first = stretches.next()?;
        Some(Self { following: stretches.collect(), ..first })
    }

    /// Marks the VR as taken over: its sends are repeated from the beginning of the record, except those known to have
    /// arrived.
    pub(crate) fn resend(&mut self, settled: IdMap<VrId, u64>, arrived: IdMap<VrId, u64>) {
        let next = self.base.sent.iter().copied().collect();
        self.resend = Some(Box::new(Resend { settled, next }));
        self.arrived = arrived;
    }

    /// Whether this run of the VR replaces another one.
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

    /// What was recorded after the first `lines` and `events`.
    pub(crate) fn since(&self, lines: usize, events: usize) -> Told {
        let (lines, events) = (self.lines.get(lines..), self.events.get(events..));
        Told { lines: lines.unwrap_or_default().to_vec(), events: events.unwrap_or_default().to_vec() }
    }

    /// Appends inputs to be replayed.
    pub(crate) fn extend(&mut self, told: Told) {
        self.lines.extend(told.lines);
        self.events.extend(told.events);
    }

    /// Appends inputs that the VR got in another process, and counts what it has sent and received there.
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

    /// Whether any line after the first `lines` is one that another run of the VR might not come to by itself.
    pub(crate) fn was_told_since(&self, lines: usize) -> bool {
        self.lines.iter().skip(lines).any(Line::is_told)
    }

    /// How many lines have been replayed.
    pub(crate) fn position(&self) -> usize {
        self.line
    }

    /// The content of each line.
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

    /// A line as text.
    pub(crate) fn line(&self, index: usize) -> Option<String> {
        self.lines.get(index).map(ToString::to_string)
    }

    /// The call that the VR is in, if that should not be repeated elsewhere: an effect, or a request to the program.
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

    /// The number of the next envelope from each VR, counting those that the VR has looked at or may look at.
    pub(crate) fn received(&self) -> &IdMap<VrId, u64> {
        self.following.back().map_or(&self.received, |last| &last.received)
    }

    /// Notes that the VR makes a call to which arrivals or an answer may belong. Returns whether it is live.
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

    /// Returns the arrivals for the last call; if the record is live, `arrive` takes them from the inbox. Returns `None` if
    /// nothing has arrived.
    pub(crate) fn arrivals(
        &mut self,
        events: &mut Vec<Event>,
        arrive: impl FnOnce(&mut Vec<Event>) -> Option<Moment>,
    ) -> Option<Moment> {
        if !self.is_live() {
            let Some(&Line::Arrived(count)) = self.lines.get(self.line) else { return None };
            // If the record is inconsistent, the next call detects that.
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
        // A separate line, even if the one before is an arrival as well: a line never changes, since it may be on a tape
        // already.
        self.append(Line::Arrived(count));
        Some(since)
    }

    /// Called by a waiting receive that has found nothing among the arrivals.
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

    /// Notes that a live receive checks once more; handlers may have run meanwhile.
    pub(crate) fn again(&mut self) {
        self.append(Line::Again);
    }

    /// Notes that a live receive has given up.
    pub(crate) fn timed_out(&mut self, waited: Duration) {
        self.append(Line::TimedOut(waited));
    }

    /// Notes that the VR sends something.
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

    /// Notes that the last send, a live one, was not accepted.
    pub(crate) fn refused(&mut self, refusal: Refusal) {
        self.take_back();
        self.append(Line::Refused(refusal));
    }

    /// Uncounts the last send.
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

    /// Returns the recorded result of the last call; `None` if there is none, so that the call must be made.
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

    /// Records the result of the last call, a live one.
    pub(crate) fn answer(&mut self, answer: Bytes) {
        self.append(Line::Answer(answer));
    }

    /// Answers how long the VR has been running: `now()` if it is live. Also returns whether it is.
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

    /// Notes that the VR's `main` has returned.
    pub(crate) fn finish(&mut self) -> Result<(), Divergence> {
        self.forgive();
        if self.is_live() { Ok(()) } else { Err(self.diverged("the end of `main`".into())) }
    }

    /// Starts over from a safepoint; nothing recorded before it is needed any more. Returns the complete old record, or
    /// `None` if the VR is exactly where the record began.
    pub(crate) fn restart(&mut self, base: Base) -> Result<Option<Record>, Divergence> {
        if self.line == 0 && self.base.safepoints > 0 {
            return Ok(None);
        }
        if self.line == self.lines.len()
            && let Some(mut next) = self.following.pop_front()
        {
            // A twin that takes over may have come to the same state in another way, such as with another order of a hash
            // map. Its actions are compared all the same.
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

    /// Lets a VR that took a checkpoint itself, directly after a safepoint, also go on as if after the checkpoint: if the
    /// checkpoint is at the end of a loop, a run from the safepoint does not come to it.
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
        // The texts of calls do not say what is deployed.
        let done = if recorded == done { format!("{done} of something else") } else { done };
        Divergence { line: self.line as u64 + 1, safepoints: self.base.safepoints, recorded, done }
    }
}

fn pairs(map: &IdMap<VrId, u64>) -> Vec<(VrId, u64)> {
    map.iter().map(|(vr, next)| (*vr, *next)).collect()
}

#[cfg(test)]
mod tests;
