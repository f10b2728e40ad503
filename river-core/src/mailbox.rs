//! The owner's half of a mailbox: selective receive over what has arrived, without a lock.
//!
//! Envelopes that no receive has asked for yet are held in order of arrival, indexed by lane. An envelope that
//! matches the receive that is waiting for it never enters that index. This is MPI's *unexpected queue*.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::down::{Down, Why};
use crate::envelope::{Channel, Envelope, Label};
use crate::id::VrId;
use crate::inbox::{Event, Moment};

/// What a receive asks for before it looks at a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector {
    channel: Channel,
    lane: Option<u64>,
    from: Option<VrId>,
    awaits: Option<VrId>,
}

impl Selector {
    /// Any envelope of that channel.
    #[must_use]
    pub const fn on(channel: Channel) -> Self {
        Self { channel, lane: None, from: None, awaits: None }
    }

    /// Only envelopes with that lane, which are found without looking at others.
    #[must_use]
    pub const fn lane(mut self, lane: u64) -> Self {
        self.lane = Some(lane);
        self
    }

    /// Only envelopes from that VR. If it is gone and nothing of it is left, the receive ends with its `Down`.
    #[must_use]
    pub const fn from(mut self, src: VrId) -> Self {
        self.from = Some(src);
        self
    }

    /// The receive ends with the `Down` of that VR if it is gone and nothing that is admitted is left, though others
    /// may answer in its stead.
    #[must_use]
    pub const fn awaiting(mut self, who: VrId) -> Self {
        self.awaits = Some(who);
        self
    }

    /// The VR whose death ends a receive.
    pub(crate) fn awaited(&self) -> Option<VrId> {
        self.awaits.or(self.from)
    }

    fn admits(&self, envelope: &Envelope) -> bool {
        self.admits_label(&envelope.label())
    }

    /// Whether it admits an envelope of which this is known.
    pub(crate) fn admits_label(&self, label: &Label) -> bool {
        label.channel == self.channel
            && self.lane.is_none_or(|lane| label.lane == lane)
            && self.from.is_none_or(|from| label.src == from)
    }
}

/// Continues a sentence: "an envelope with lane 7 from 5f3a9c10".
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an envelope of channel {:x}", self.channel.to_wire())?;
        if let Some(lane) = self.lane {
            write!(f, " with lane {lane:x}")?;
        }
        self.from.map_or(Ok(()), |from| write!(f, " from {}", from.short()))
    }
}

/// Exchanges what is in the inbox for an empty vector, as [`Inbox::swap`](crate::inbox::Inbox::swap) does.
pub(crate) type Swap<'a> = dyn FnMut(&mut Vec<Event>) -> Option<Moment> + 'a;

/// What waits in a VR's mailbox, for whatever layer, and has not been received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// How many envelopes there are.
    pub messages: usize,
    /// How many bytes their payloads are.
    pub bytes: usize,
    /// How long the oldest has been waiting, to some milliseconds. Envelopes that arrived while their VR did not receive count
    /// as as old as the first of them.
    pub oldest: Option<Duration>,
}

/// An envelope that no receive has asked for yet.
#[derive(Debug)]
struct Held {
    envelope: Envelope,
    since: Moment,
}

/// A lane of a channel. Two that share a key cost time, and nothing else: every envelope is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct LaneKey(u64);

impl LaneKey {
    fn new(channel: Channel, lane: u64) -> Self {
        Self(lane ^ (u64::from(channel.to_wire()) << 32))
    }
}

/// Lanes are hashes or count up, so one multiplication spreads them. Only who has the cluster's key can choose one.
#[derive(Debug, Default)]
struct LaneHasher(u64);

impl Hasher for LaneHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(byte.into()));
    }

    fn write_u64(&mut self, key: u64) {
        let mixed = u128::from(self.0 ^ key) * 0x9e37_79b9_7f4a_7c15;
        self.0 = mixed as u64 ^ (mixed >> 64) as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The arrival numbers of a lane's envelopes, oldest first. Most lanes hold one, which needs no memory of its own.
#[derive(Debug)]
enum Lane {
    One(u64),
    #[expect(clippy::box_collection, reason = "most lanes are not this, and the index of many stays small")]
    Many(Box<VecDeque<u64>>),
}

impl Lane {
    fn insert(&mut self, number: u64) {
        match self {
            Lane::One(other) if *other == number => {}
            Lane::One(other) => {
                *self = Lane::Many(Box::new([number.min(*other), number.max(*other)].into()));
            }
            Lane::Many(numbers) => {
                // At the end, unless the envelope was given back.
                let at = numbers.partition_point(|&other| other < number);
                if numbers.get(at) != Some(&number) {
                    numbers.insert(at, number);
                }
            }
        }
    }

    /// Removes and returns the first number for which `take` says so, and those at the front that are `stale`. The lane itself
    /// may be removed if it says `true` besides.
    fn take(
        &mut self,
        mut stale: impl FnMut(u64) -> bool,
        mut take: impl FnMut(u64) -> bool,
    ) -> (Option<u64>, bool) {
        match self {
            Lane::One(number) => {
                let number = *number;
                let found = take(number);
                (found.then_some(number), found || stale(number))
            }
            Lane::Many(numbers) => {
                while numbers.front().is_some_and(|&number| stale(number)) {
                    numbers.pop_front();
                }
                let index = numbers.iter().position(|&number| take(number));
                (index.and_then(|index| numbers.remove(index)), numbers.is_empty())
            }
        }
    }
}

/// What a look into the mailbox found.
#[derive(Debug)]
pub(crate) enum Found {
    Envelope(Envelope),
    /// A watched VR is gone, or the only VR that the receive could be answered by.
    Down(Down),
    Stopped,
    Nothing,
}

/// Names a posted receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PostId(u64);

struct Posted {
    id: PostId,
    selector: Selector,
    accept: Box<dyn FnMut(&Envelope) -> bool>,
    /// Wants every envelope that matches, not only one.
    standing: bool,
    got: VecDeque<(u64, Envelope)>,
}

impl Posted {
    fn wants(&mut self, envelope: &Envelope) -> bool {
        (self.standing || self.got.is_empty()) && self.selector.admits(envelope) && (self.accept)(envelope)
    }
}

impl fmt::Debug for Posted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Posted")
            .field("id", &self.id)
            .field("selector", &self.selector)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    /// Swapped out of the inbox and not yet looked at, oldest last (so that taking one is a `pop`).
    fresh: Vec<Event>,
    /// When the first of them arrived.
    since: Moment,
    held: BTreeMap<u64, Held>,
    /// The bytes of their payloads.
    held_bytes: usize,
    /// Arrival numbers per lane, oldest first. May name envelopes that were taken by a receive without a lane.
    lanes: HashMap<LaneKey, Lane, BuildHasherDefault<LaneHasher>>,
    arrivals: u64,
    /// Receives that were posted, earliest first: MPI's *posted queue*.
    posted: VecDeque<Posted>,
    posts: u64,
    /// Envelopes that standing receives have got.
    standing: usize,
    watched: HashSet<VrId>,
    children: HashSet<VrId>,
    down: HashMap<VrId, Why>,
    notices: VecDeque<Down>,
    stopped: bool,
}

/// A mailbox as it can be written down: one without posted receives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    /// Not looked at yet, oldest first.
    pub(crate) fresh: Vec<Event>,
    /// Looked at and not taken, with the numbers of their arrival.
    pub(crate) held: Vec<(u64, Envelope)>,
    pub(crate) arrivals: u64,
    pub(crate) watched: Vec<VrId>,
    pub(crate) children: Vec<VrId>,
    pub(crate) down: Vec<(VrId, Why)>,
    pub(crate) notices: Vec<Down>,
    pub(crate) stopped: bool,
}

impl From<Queue> for Mailbox {
    fn from(queue: Queue) -> Self {
        let mut mailbox = Self {
            arrivals: queue.arrivals,
            watched: queue.watched.into_iter().collect(),
            children: queue.children.into_iter().collect(),
            down: queue.down.into_iter().collect(),
            notices: queue.notices.into(),
            stopped: queue.stopped,
            ..Self::default()
        };
        mailbox.fresh = queue.fresh.into_iter().rev().collect();
        queue.held.into_iter().for_each(|(number, envelope)| mailbox.hold(number, envelope));
        mailbox
    }
}

impl Mailbox {
    /// What the mailbox holds; `None` if receives are posted, whose predicates cannot be written down.
    pub(crate) fn queue(&self) -> Option<Queue> {
        self.posted.is_empty().then(|| Queue {
            fresh: self.fresh.iter().rev().cloned().collect(),
            held: self.held.iter().map(|(number, held)| (*number, held.envelope.clone())).collect(),
            arrivals: self.arrivals,
            watched: self.watched.iter().copied().collect(),
            children: self.children.iter().copied().collect(),
            down: self.down.iter().map(|(who, why)| (*who, why.clone())).collect(),
            notices: self.notices.iter().cloned().collect(),
            stopped: self.stopped,
        })
    }

    /// Where the inbox may put new events: empty, with the memory of the last batch.
    fn lend(&mut self) -> Vec<Event> {
        debug_assert!(self.fresh.is_empty());
        std::mem::take(&mut self.fresh)
    }

    fn refill(&mut self, swap: &mut Swap<'_>) -> bool {
        let mut events = self.lend();
        let since = swap(&mut events);
        events.reverse();
        self.fresh = events;
        self.since = since.unwrap_or(self.since);
        since.is_some()
    }

    /// Takes the earliest envelope that the selector and the predicate accept; if there is none, the news that the
    /// receive has to hear of.
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

    /// The earliest envelope that the selector and the predicate accept, with its arrival number.
    fn search(
        &mut self,
        selector: &Selector,
        accept: &mut dyn FnMut(&Envelope) -> bool,
        swap: &mut Swap<'_>,
    ) -> Option<(u64, Envelope)> {
        if let Some(found) = self.take_held(selector, accept) {
            return Some(found);
        }
        loop {
            while let Some(event) = self.fresh.pop() {
                let Event::Envelope(envelope) = event else {
                    self.absorb(event);
                    continue;
                };
                let number = self.arrivals;
                self.arrivals += 1;
                // Receives that were posted earlier come first, as in MPI.
                let Some(envelope) = self.give_to_posted(number, envelope) else { continue };
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

    /// What a receive has to hear of that finds no envelope.
    fn news(&mut self, selector: &Selector) -> Found {
        if self.stopped {
            return Found::Stopped;
        }
        if let Some(src) = selector.awaited()
            && let Some(why) = self.down.get(&src)
        {
            let down = Down { who: src, why: why.clone() };
            self.notices.retain(|notice| notice.who != src);
            return Found::Down(down);
        }
        self.notices.pop_front().map_or(Found::Nothing, Found::Down)
    }

    /// Posts a receive: from now on the earliest envelope that matches it, and no receive posted before, is its own; of
    /// a standing one, all of them.
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
        self.posts += 1;
        if standing {
            self.standing += got.len();
        }
        self.posted.push_back(Posted { id: PostId(self.posts), selector, accept, standing, got });
        PostId(self.posts)
    }

    /// The envelope of a posted receive, which then is posted no longer; or the news that it has to hear of.
    pub(crate) fn complete(&mut self, id: PostId, swap: &mut Swap<'_>) -> Found {
        let Some(index) = self.posted.iter().position(|posted| posted.id == id) else {
            return Found::Nothing;
        };
        if self.posted[index].got.is_empty() {
            self.absorb_all(swap);
        }
        if self.posted[index].got.is_empty() {
            let selector = self.posted[index].selector;
            return self.news(&selector);
        }
        let got = self.posted.remove(index).and_then(|mut posted| posted.got.pop_front());
        got.map_or(Found::Nothing, |(_, envelope)| Found::Envelope(envelope))
    }

    /// Whether a receive is posted that may want what the selector admits.
    pub(crate) fn is_posted(&self, selector: &Selector) -> bool {
        self.posted.iter().any(|posted| posted.selector.channel == selector.channel)
    }

    /// Whether a standing receive has got something.
    pub(crate) fn has_standing(&self) -> bool {
        self.standing > 0
    }

    /// Takes the earliest envelope that a standing receive has got, but for those of the busy ones.
    pub(crate) fn take_standing(&mut self, busy: &[PostId]) -> Option<(PostId, Envelope)> {
        let standing = self.posted.iter_mut().filter(|posted| posted.standing && !busy.contains(&posted.id));
        let first = standing.filter(|posted| !posted.got.is_empty());
        let first = first.min_by_key(|posted| posted.got.front().map(|(number, _)| *number))?;
        let (_, envelope) = first.got.pop_front()?;
        self.standing -= 1;
        Some((first.id, envelope))
    }

    /// Takes a posted receive back. What it had got goes to its old place in the queue.
    pub(crate) fn unpost(&mut self, id: PostId) {
        let Some(index) = self.posted.iter().position(|posted| posted.id == id) else { return };
        let Some(posted) = self.posted.remove(index) else { return };
        if posted.standing {
            self.standing -= posted.got.len();
        }
        for (number, envelope) in posted.got {
            if let Some(envelope) = self.give_to_posted(number, envelope) {
                self.hold(number, envelope);
            }
        }
    }

    /// Gives an envelope to the earliest posted receive that waits for one like it, or back.
    fn give_to_posted(&mut self, number: u64, envelope: Envelope) -> Option<Envelope> {
        let Some(posted) =
            self.posted.iter_mut().find_map(|posted| posted.wants(&envelope).then_some(posted))
        else {
            return Some(envelope);
        };
        self.standing += usize::from(posted.standing);
        // At the end, unless the envelope was given back by another.
        let at = posted.got.partition_point(|(other, _)| *other < number);
        posted.got.insert(at, (number, envelope));
        None
    }

    /// Shows every envelope that waits, oldest first, until the visitor returns `Some`.
    pub(crate) fn visit<R>(
        &mut self,
        selector: &Selector,
        visitor: &mut dyn FnMut(&Envelope) -> Option<R>,
        swap: &mut Swap<'_>,
    ) -> Option<R> {
        self.absorb_all(swap);
        let held = self.held.values().map(|held| &held.envelope);
        held.filter(|envelope| selector.admits(envelope)).find_map(visitor)
    }

    /// Asks to be told by the next receive that finds no envelope when `who` is gone. True: not asked before.
    pub(crate) fn watch(&mut self, who: VrId) -> bool {
        if let Some(why) = self.down.get(&who) {
            self.notices.push_back(Down { who, why: why.clone() });
        }
        self.watched.insert(who)
    }

    /// Forgets the death of a VR, and that it is watched: it may be heard of again.
    pub(crate) fn revive(&mut self, who: VrId) {
        self.down.remove(&who);
        self.unwatch(who);
    }

    /// Takes a watch back, and a notice that has arrived but was not seen.
    pub(crate) fn unwatch(&mut self, who: VrId) {
        self.watched.remove(&who);
        self.notices.retain(|notice| notice.who != who);
    }

    /// Remembers a VR that this one deployed: its abnormal end is told without a watch.
    pub(crate) fn adopt(&mut self, child: VrId) {
        self.children.insert(child);
    }

    pub(crate) fn why_down(&self, who: VrId) -> Option<&Why> {
        self.down.get(&who)
    }

    /// Envelopes that wait, and that no receive has looked at: (held, fresh).
    pub(crate) fn len(&self) -> usize {
        self.held.len() + self.fresh.len()
    }

    /// Envelopes that wait, with what posted receives have got.
    #[inline]
    pub(crate) fn unreceived(&self) -> usize {
        self.len() + self.posted.iter().map(|posted| posted.got.len()).sum::<usize>()
    }

    /// What waits, with what posted receives have got.
    pub(crate) fn status(&mut self, swap: &mut Swap<'_>) -> QueueStatus {
        self.absorb_all(swap);
        let got = self.posted.iter().flat_map(|posted| &posted.got);
        let (count, bytes) = got.fold((0, 0), |(n, bytes), (_, e)| (n + 1, bytes + e.payload.len()));
        QueueStatus {
            messages: self.held.len() + count,
            bytes: self.held_bytes + bytes,
            oldest: self.held.values().next().map(|held| held.since.age()),
        }
    }

    /// The lengths of all that was looked at and waits.
    pub(crate) fn lengths(&self) -> impl Iterator<Item = usize> {
        let got = self.posted.iter().flat_map(|posted| &posted.got).map(|(_, envelope)| envelope);
        self.held.values().map(|held| &held.envelope).chain(got).map(|envelope| envelope.payload.len())
    }

    /// Looks at everything that has arrived.
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
                let number = self.arrivals;
                self.arrivals += 1;
                if let Some(envelope) = self.give_to_posted(number, envelope) {
                    self.hold(number, envelope);
                }
            }
            Event::Down(Down { who, why }) => {
                if self.down.contains_key(&who) {
                    return;
                }
                if self.watched.contains(&who) || (self.children.contains(&who) && !why.is_normal()) {
                    self.notices.push_back(Down { who, why: why.clone() });
                }
                self.down.insert(who, why);
            }
            Event::Stop => self.stopped = true,
        }
    }

    fn hold(&mut self, number: u64, envelope: Envelope) {
        if envelope.lane != 0 {
            let key = LaneKey::new(envelope.channel, envelope.lane);
            self.lanes.entry(key).and_modify(|lane| lane.insert(number)).or_insert(Lane::One(number));
        }
        self.held_bytes += envelope.payload.len();
        self.held.insert(number, Held { envelope, since: self.since });
    }

    fn release(&mut self, number: u64) -> Option<(u64, Envelope)> {
        let Held { envelope, .. } = self.held.remove(&number)?;
        self.held_bytes -= envelope.payload.len();
        Some((number, envelope))
    }

    fn take_held(
        &mut self,
        selector: &Selector,
        accept: &mut dyn FnMut(&Envelope) -> bool,
    ) -> Option<(u64, Envelope)> {
        if self.held.is_empty() {
            return None;
        }
        let Some(lane) = selector.lane.filter(|&lane| lane != 0) else {
            let mut held = self.held.iter();
            let (&number, _) =
                held.find(|(_, held)| selector.admits(&held.envelope) && accept(&held.envelope))?;
            return self.release(number);
        };
        let Entry::Occupied(mut entry) = self.lanes.entry(LaneKey::new(selector.channel, lane)) else {
            return None;
        };
        let held = &self.held;
        let admitted = |number| {
            let envelope = held.get(&number).map(|held| &held.envelope);
            envelope.is_some_and(|envelope| selector.admits(envelope) && accept(envelope))
        };
        let (number, over) = entry.get_mut().take(|number| !held.contains_key(&number), admitted);
        if over {
            entry.remove();
        }
        self.release(number?)
    }
}

#[cfg(test)]
mod tests;
