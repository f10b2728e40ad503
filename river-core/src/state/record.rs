//! The record of one VR: where it started from, and all that it has been told since.
//!
//! A VR is deterministic between its calls, so `main`, run again from the same value and told the same things, makes the
//! same calls and gets to the same place. The record holds what it is told, and a line for each call and each send, by
//! which a second run is compared with the first. What a receive finds is not recorded, only what had arrived and during
//! which call: the mailbox is deterministic too, and finds the same.
//!
//! No threads, no sockets, no clock. While lines are left the record *replays*: it answers, and nothing leaves the VR.
//! When none is left it is *live*, and grows. Replaying and going on is the same object.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3Default;

use super::base::Base;
use super::codec;
use crate::down::Down;
use crate::envelope::{Channel, Payload};
use crate::error::Divergence;
use crate::id::{IdMap, VrId};
use crate::inbox::{Event, Moment};
use crate::mailbox::Selector;

/// What a VR asks of the world: as much of it as tells one call from another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Call {
    Receive(Selector),
    TryReceive(Selector),
    Peek(Selector),
    Post(Selector),
    /// A look at a posted receive.
    Test,
    /// A wait for a posted receive.
    Complete,
    Wait,
    /// What waits in the queue.
    Queue,
    LimitQueue,
    Now,
    Effect,
    VmName,
    Discover,
    Allocate,
    StartLocal,
    Leaving,
    Release,
    /// With a hash of what is deployed.
    Deploy(u64),
    Service(u64),
    Checkpoint,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Line {
    Call(Call),
    /// So many of the events arrived during the call above.
    Arrived(u32),
    /// The call above found nothing in time.
    TimedOut(Duration),
    Sent(Sent),
    /// The send above was not accepted.
    Refused(Refusal),
    /// The call above, which waits, looked once more: handlers may have run.
    Again,
    /// What the call above returned.
    Answer(#[serde(with = "codec::octets")] Bytes),
}

/// Why a send was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refusal {
    Down(Box<Down>),
    /// The destination's queue is full.
    Full,
}

/// A send, by what tells it from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sent {
    to: VrId,
    channel: Channel,
    lane: u64,
    len: u64,
    hash: u64,
}

impl Sent {
    pub(crate) fn new(to: VrId, channel: Channel, lane: u64, payload: &Payload) -> Self {
        let mut hasher = Xxh3Default::new();
        payload.parts().for_each(|part| hasher.update(part));
        Self { to, channel, lane, len: payload.len() as u64, hash: hasher.digest() }
    }
}

/// What becomes of a send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sending {
    /// It was made before: this came of it.
    Made(Result<(), Refusal>),
    /// It is to be made, with this number.
    Due(u64),
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
    /// The numbers of the next envelopes to and from each VR, when all lines have been replayed.
    sent: IdMap<VrId, u64>,
    received: IdMap<VrId, u64>,
}

impl Record {
    pub(crate) fn new(base: Base) -> Self {
        let (sent, received) = (base.sent.iter().copied().collect(), base.received.iter().copied().collect());
        let (lines, events) = (Vec::new(), Vec::new());
        Self { base: Arc::new(base), lines, events, line: 0, event: 0, sent, received }
    }

    pub(crate) fn base(&self) -> &Arc<Base> {
        &self.base
    }

    /// Whether everything has been replayed.
    pub(crate) fn is_live(&self) -> bool {
        self.line == self.lines.len()
    }

    /// How many lines there are.
    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    /// The number of the next envelope to each VR that this one has sent to.
    pub(crate) fn sent(&self) -> &IdMap<VrId, u64> {
        &self.sent
    }

    /// The number of the next envelope from each VR, of those that the VR has looked at or may look at.
    pub(crate) fn received(&self) -> &IdMap<VrId, u64> {
        &self.received
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
        match &self.lines[self.line] {
            Line::Call(recorded) if *recorded == call => {
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
            let Line::Arrived(count) = self.lines[self.line] else { return None };
            let end = self.event + count as usize;
            events.extend_from_slice(&self.events[self.event..end]);
            (self.line, self.event) = (self.line + 1, end);
            return Some(Moment::now());
        }
        let since = arrive(events)?;
        for event in &*events {
            if let Event::Envelope(envelope) = event {
                self.received.insert(envelope.src, envelope.seq + 1);
            }
        }
        self.events.extend_from_slice(events);
        self.event = self.events.len();
        let count = events.len() as u32;
        if let Some(Line::Arrived(more)) = self.lines.last_mut() {
            *more += count;
        } else {
            self.append(Line::Arrived(count));
        }
        Some(since)
    }

    /// A receive that waits has found nothing in what had arrived.
    pub(crate) fn blocked(&mut self) -> Result<Blocked, Divergence> {
        match self.lines.get(self.line) {
            None => Ok(Blocked::Live),
            Some(&Line::TimedOut(waited)) => {
                self.line += 1;
                Ok(Blocked::TimedOut(waited))
            }
            Some(Line::Again) => {
                self.line += 1;
                Ok(Blocked::Again)
            }
            Some(_) => Err(self.diverged("the receive before it still waits".into())),
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
            return Ok(Sending::Due(*next - 1));
        }
        match &self.lines[self.line] {
            Line::Sent(recorded) if *recorded == send => self.line += 1,
            Line::Sent(recorded) => {
                let same = Sent { hash: recorded.hash, ..send } == *recorded;
                let which = if same { " with other bytes" } else { "" };
                return Err(self.diverged(format!("{send}{which}")));
            }
            _ => return Err(self.diverged(send.to_string())),
        }
        if let Some(Line::Refused(refusal)) = self.lines.get(self.line) {
            let refusal = refusal.clone();
            self.line += 1;
            return Ok(Sending::Made(Err(refusal)));
        }
        Ok(Sending::Made(Ok(())))
    }

    /// The live send that was made last was not accepted.
    pub(crate) fn refused(&mut self, refusal: Refusal) {
        if let Some(Line::Sent(sent)) = self.lines.last()
            && let Some(next) = self.sent.get_mut(&sent.to)
        {
            *next -= 1;
        }
        self.append(Line::Refused(refusal));
    }

    /// What the call that was made last returned; `None` if that is not known, so that it has to be made.
    pub(crate) fn recorded_answer(&mut self) -> Result<Option<Bytes>, Divergence> {
        match self.lines.get(self.line) {
            None => Ok(None),
            Some(Line::Answer(answer)) => {
                let answer = answer.clone();
                self.line += 1;
                Ok(Some(answer))
            }
            Some(_) => Err(self.diverged("an answer to the call before it".into())),
        }
    }

    /// What the live call that was made last returned.
    pub(crate) fn answer(&mut self, answer: Bytes) {
        self.append(Line::Answer(answer));
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
        if !self.is_live() {
            return Err(self.diverged("a safepoint".into()));
        }
        let (sent, received) = (pairs(&self.sent), pairs(&self.received));
        let safepoints = self.base.safepoints + 1;
        Ok(Some(std::mem::replace(self, Self::new(Base { sent, received, safepoints, ..base }))))
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
        let recorded = self.lines.get(self.line).map_or_else(|| "nothing".into(), ToString::to_string);
        Divergence { line: self.line as u64 + 1, safepoints: self.base.safepoints, recorded, done }
    }
}

fn pairs(map: &IdMap<VrId, u64>) -> Vec<(VrId, u64)> {
    map.iter().map(|(vr, next)| (*vr, *next)).collect()
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Call::Receive(what) => write!(f, "a receive of {what}"),
            Call::TryReceive(what) => write!(f, "a receive without waiting of {what}"),
            Call::Peek(what) => write!(f, "a look for {what}"),
            Call::Post(what) => write!(f, "a posted receive of {what}"),
            Call::Test => f.write_str("a look at a posted receive"),
            Call::Complete => f.write_str("a wait for a posted receive"),
            Call::Wait => f.write_str("a wait for anything"),
            Call::Queue => f.write_str("a look at the queue"),
            Call::LimitQueue => f.write_str("a limit for the queue"),
            Call::Now => f.write_str("a question for the time"),
            Call::Effect => f.write_str("an effect"),
            Call::VmName => f.write_str("a question for the VM"),
            Call::Discover => f.write_str("a search for VMs"),
            Call::Allocate => f.write_str("an allocation of VMs"),
            Call::Leaving => f.write_str("a question for VMs that want to go"),
            Call::StartLocal => f.write_str("a start of local VMs"),
            Call::Release => f.write_str("a release of VMs"),
            Call::Deploy(_) => f.write_str("a deployment"),
            Call::Service(_) => f.write_str("a question for a service"),
            Call::Checkpoint => f.write_str("a checkpoint"),
        }
    }
}

impl std::fmt::Display for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a send of {} bytes to {} (lane {:x})", self.len, self.to.short(), self.lane)
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Line::Call(call) => call.fmt(f),
            Line::Arrived(count) => write!(f, "the arrival of {count} envelopes and notices"),
            Line::TimedOut(waited) => write!(f, "a receive that gave up after {waited:?}"),
            Line::Sent(sent) => sent.fmt(f),
            Line::Refused(Refusal::Down(down)) => write!(f, "a send that failed, as {down}"),
            Line::Refused(Refusal::Full) => f.write_str("a send that found a full queue"),
            Line::Again => f.write_str("a receive that waits"),
            Line::Answer(_) => f.write_str("the answer to a question"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::down::Why;
    use crate::envelope::Envelope;

    const CHANNEL: Channel = Channel::named("test");

    /// What a VR does next, and what the world would say to it.
    #[derive(Clone, Debug)]
    enum Step {
        Receive { arrive: u8, patience: bool },
        Try { arrive: u8 },
        Send { to: u8, value: u8, refused: bool },
        Ask { answer: u8 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3u8, any::<bool>()).prop_map(|(arrive, patience)| Step::Receive { arrive, patience }),
            (0..3u8).prop_map(|arrive| Step::Try { arrive }),
            (0..3u8, any::<u8>(), prop::bool::weighted(0.2)).prop_map(|(to, value, refused)| Step::Send {
                to,
                value,
                refused
            }),
            any::<u8>().prop_map(|answer| Step::Ask { answer }),
        ]
    }

    fn id(n: u8) -> VrId {
        VrId::from_uuid(uuid::Uuid::from_u128(u128::from(n) + 1))
    }

    fn fresh() -> Record {
        Record::new(Base::new(id(9), Bytes::new()))
    }

    fn down(to: u8) -> Refusal {
        Refusal::Down(Box::new(Down { who: id(to), why: Why::Finished }))
    }

    /// What the VR is told. `seq` counts what has arrived.
    fn run(record: &mut Record, step: &Step, seq: &mut u64) -> Result<String, Divergence> {
        let selector = Selector::on(CHANNEL);
        let arrive = |count: u8, seq: &mut u64, record: &mut Record| {
            let mut events = Vec::new();
            let next = &mut *seq;
            record.arrivals(&mut events, |events| {
                events.extend((0..count).map(|i| {
                    let seq = *next + u64::from(i);
                    let payload = vec![seq as u8].into();
                    Event::Envelope(Envelope {
                        src: id(0),
                        dst: id(9),
                        seq,
                        channel: CHANNEL,
                        lane: 0,
                        payload,
                    })
                }));
                (count > 0).then(Moment::now)
            });
            *seq += events.len() as u64;
            format!("{:?}", events.iter().map(seq_of).collect::<Vec<_>>())
        };
        match step {
            Step::Receive { arrive: count, patience } => {
                record.call(Call::Receive(selector))?;
                let got = arrive(*count, seq, record);
                if got != "[]" || *patience {
                    return Ok(got);
                }
                match record.blocked()? {
                    Blocked::TimedOut(waited) => Ok(format!("{waited:?}")),
                    Blocked::Again => unreachable!("there are no handlers"),
                    Blocked::Live => {
                        record.timed_out(Duration::from_secs(1));
                        Ok(format!("{:?}", Duration::from_secs(1)))
                    }
                }
            }
            Step::Try { arrive: count } => {
                record.call(Call::TryReceive(selector))?;
                Ok(arrive(*count, seq, record))
            }
            Step::Send { to, value, refused } => {
                let sent = Sent::new(id(*to), CHANNEL, 0, &vec![*value].into());
                let result = match record.send(sent)? {
                    Sending::Made(result) => result,
                    Sending::Due(_) if *refused => {
                        record.refused(down(*to));
                        Err(down(*to))
                    }
                    Sending::Due(_) => Ok(()),
                };
                Ok(format!("{result:?}"))
            }
            Step::Ask { answer } => {
                record.call(Call::Now)?;
                if let Some(answer) = record.recorded_answer()? {
                    return Ok(format!("{answer:?}"));
                }
                record.answer(Bytes::copy_from_slice(&[*answer]));
                Ok(format!("{:?}", Bytes::copy_from_slice(&[*answer])))
            }
        }
    }

    fn seq_of(event: &Event) -> u64 {
        match event {
            Event::Envelope(envelope) => envelope.seq,
            _ => u64::MAX,
        }
    }

    /// The record as it comes back from where it was written to.
    fn restored(record: &Record) -> Record {
        postcard::from_bytes(&postcard::to_stdvec(record).unwrap()).unwrap()
    }

    proptest! {
        #[test]
        fn a_second_run_is_told_the_same_and_goes_on_where_the_first_had_got_to(
            steps in prop::collection::vec(step(), 1..40), cut in 0..40usize,
        ) {
            let cut = cut.min(steps.len());
            let (mut record, mut seq) = (fresh(), 0);
            let told: Vec<String> =
                steps[..cut].iter().map(|step| run(&mut record, step, &mut seq).unwrap()).collect();
            let mut again = restored(&record);
            prop_assert_eq!(again.is_live(), record.is_live() && record.lines.is_empty());
            // The world is another one by now: what it would say must not matter.
            let mut other = 0;
            for (step, told) in steps[..cut].iter().zip(&told) {
                let changed = match step.clone() {
                    Step::Receive { arrive: 0, patience } => Step::Receive { arrive: 0, patience },
                    Step::Receive { patience, .. } => Step::Receive { arrive: 2, patience },
                    Step::Try { .. } => Step::Try { arrive: 1 },
                    Step::Send { to, value, .. } => Step::Send { to, value, refused: false },
                    Step::Ask { .. } => Step::Ask { answer: 77 },
                };
                // The last call of a record may find more than it did, as nothing has followed from what it found.
                let last = again.line + 1 >= again.lines.len();
                if last { break }
                prop_assert_eq!(&run(&mut again, &changed, &mut other).unwrap(), told);
            }
            prop_assert_eq!(again.sent(), record.sent());
            prop_assert_eq!(again.received(), record.received());
        }

        #[test]
        fn a_run_that_does_something_else_is_told_where(
            steps in prop::collection::vec(step(), 2..30), at in 0..30usize,
        ) {
            let (mut record, mut seq) = (fresh(), 0);
            for step in &steps {
                run(&mut record, step, &mut seq).unwrap();
            }
            let at = at.min(steps.len() - 1);
            let (mut again, mut seq) = (restored(&record), 0);
            for step in &steps[..at] {
                run(&mut again, step, &mut seq).unwrap();
            }
            let line = again.line;
            let error = again.call(Call::Release).unwrap_err();
            prop_assert_eq!(error.line, line as u64 + 1);
            prop_assert_eq!(&error.done, "a release of VMs");
            prop_assert_eq!(error.recorded, again.lines[line].to_string());
        }
    }

    #[test]
    fn a_send_of_other_bytes_is_a_divergence() {
        let mut record = fresh();
        let sent = |value: u8| Sent::new(id(1), CHANNEL, 3, &vec![value].into());
        assert_eq!(record.send(sent(1)), Ok(Sending::Due(0)));
        assert_eq!(record.send(sent(2)), Ok(Sending::Due(1)));
        let mut again = restored(&record);
        assert_eq!(again.send(sent(1)), Ok(Sending::Made(Ok(()))));
        let error = again.send(sent(3)).unwrap_err();
        assert_eq!((error.line, error.done.ends_with("with other bytes")), (2, true), "{error}");
        // The end of `main` is a divergence as well, as long as there is more in the record.
        assert!(again.finish().unwrap_err().to_string().contains("the end of `main`"));
    }

    #[test]
    fn a_safepoint_forgets_and_keeps_the_numbers() {
        let mut record = fresh();
        let sent = Sent::new(id(1), CHANNEL, 0, &vec![1].into());
        record.send(sent).unwrap();
        record.restart(Base::new(id(9), Bytes::from_static(b"state"))).unwrap();
        assert!(record.lines.is_empty());
        assert_eq!((record.base().safepoints, &record.base().state[..]), (1, &b"state"[..]));
        assert_eq!(record.send(sent), Ok(Sending::Due(1)));
        // The run that starts from it comes by it again.
        let mut again = restored(&record);
        assert!(again.restart(Base::new(id(9), Bytes::new())).unwrap().is_none());
        assert_eq!(again.send(sent), Ok(Sending::Made(Ok(()))));
        assert!(again.is_live());
    }

    #[test]
    fn a_checkpoint_at_the_end_of_a_loop_need_not_be_passed_again() {
        let mut record = fresh();
        record.restart(Base::new(id(9), Bytes::new())).unwrap();
        record.restart(Base::new(id(9), Bytes::new())).unwrap();
        assert_eq!(record.call(Call::Now), Ok(true));
        record.answer(Bytes::new());
        record.restart(Base::new(id(9), Bytes::new())).unwrap();
        assert_eq!(record.call(Call::Checkpoint), Ok(true));
        assert_eq!(restored(&record).call(Call::Checkpoint), Ok(false));
        assert_eq!(restored(&record).call(Call::Now), Ok(true));
    }
}
