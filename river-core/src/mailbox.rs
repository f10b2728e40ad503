//! The owner's half of a mailbox: selective receive over what has arrived, without a lock.
//!
//! Envelopes that no receive has asked for yet are held in order of arrival, indexed by lane. An envelope that
//! matches the receive that is waiting for it never enters that index. This is MPI's *unexpected queue*.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use crate::down::{Down, Why};
use crate::envelope::{Channel, Envelope};
use crate::id::VrId;
use crate::inbox::{Event, Moment};

/// What a receive asks for before it looks at a payload.
#[derive(Clone, Copy, Debug)]
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
        envelope.channel == self.channel
            && self.lane.is_none_or(|lane| envelope.lane == lane)
            && self.from.is_none_or(|from| envelope.src == from)
    }
}

/// Exchanges what is in the inbox for an empty vector, as [`Inbox::swap`](crate::inbox::Inbox::swap) does.
pub(crate) type Swap<'a> = dyn FnMut(&mut Vec<Event>) -> Option<Moment> + 'a;

/// What waits in a VR's mailbox, for whatever layer, and has not been received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    Many(VecDeque<u64>),
}

impl Lane {
    fn insert(&mut self, number: u64) {
        match self {
            Lane::One(other) if *other == number => {}
            Lane::One(other) => *self = Lane::Many([number.min(*other), number.max(*other)].into()),
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

impl std::fmt::Debug for Posted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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

impl Mailbox {
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::envelope::Payload;

    const CHANNEL: Channel = Channel::named("test");
    const OTHER: Channel = Channel::named("other");

    #[derive(Clone, Debug)]
    enum Step {
        Arrive { src: u8, other: bool, lane: u64, value: u8 },
        Receive { from: Option<u8>, lane: Option<u64>, value: Option<u8> },
        Post { from: Option<u8>, lane: Option<u64>, value: Option<u8>, standing: bool },
        Serve(Vec<usize>),
        Complete(usize),
        Unpost(usize),
        Status,
    }

    fn id(n: u8) -> VrId {
        VrId::from_uuid(uuid::Uuid::from_u128(u128::from(n) + 1))
    }

    fn envelope(src: u8, channel: Channel, lane: u64, value: u8) -> Envelope {
        let payload = Payload::from(vec![value]);
        Envelope { src: id(src), dst: id(99), seq: 0, channel, lane, payload }
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3u8, any::<bool>(), 0..3u64, 0..3u8).prop_map(|(src, other, lane, value)| Step::Arrive {
                src,
                other,
                lane,
                value
            }),
            (prop::option::of(0..3u8), prop::option::of(0..3u64), prop::option::of(0..3u8))
                .prop_map(|(from, lane, value)| Step::Receive { from, lane, value }),
            (prop::option::of(0..3u8), prop::option::of(0..3u64), prop::option::of(0..3u8)).prop_flat_map(
                |(from, lane, value)| any::<bool>().prop_map(move |standing| Step::Post {
                    from,
                    lane,
                    value,
                    standing
                })
            ),
            prop::collection::vec(0..3usize, 0..2).prop_map(Step::Serve),
            (0..3usize).prop_map(Step::Complete),
            (0..3usize).prop_map(Step::Unpost),
            Just(Step::Status),
        ]
    }

    type Sent = (u8, bool, u64, u8);
    type Wish = (Option<u8>, Option<u64>, Option<u8>);

    #[derive(Clone)]
    struct Post {
        wish: Wish,
        standing: bool,
        got: Vec<(usize, Sent)>,
        id: PostId,
    }

    fn fits(&(from, lane, value): &Wish, &(src, other, at, v): &Sent) -> bool {
        !other
            && from.is_none_or(|from| from == src)
            && lane.is_none_or(|lane| lane == at)
            && value.is_none_or(|value| value == v)
    }

    fn selector(&(from, lane, _): &Wish) -> Selector {
        Selector { channel: CHANNEL, lane, from: from.map(id), awaits: None }
    }

    fn predicate(&(_, _, value): &Wish) -> impl FnMut(&Envelope) -> bool + 'static {
        move |e| value.is_none_or(|value| e.payload.head()[0] == value)
    }

    /// Two lists: envelopes by arrival, and posted receives with what they have got.
    #[derive(Default)]
    struct Model {
        queue: Vec<(usize, Sent)>,
        posted: Vec<Post>,
    }

    impl Model {
        fn arrive(&mut self, number: usize, sent: Sent) {
            let wants = |post: &Post| (post.standing || post.got.is_empty()) && fits(&post.wish, &sent);
            let queue = match self.posted.iter_mut().find(|post| wants(post)) {
                Some(post) => &mut post.got,
                None => &mut self.queue,
            };
            queue.push((number, sent));
            queue.sort_unstable();
        }

        fn take(&mut self, wish: &Wish) -> Option<(usize, Sent)> {
            let index = self.queue.iter().position(|(_, sent)| fits(wish, sent))?;
            Some(self.queue.remove(index))
        }
    }

    proptest! {
        /// The mailbox is two lists searched from the front, whatever its index does.
        #[test]
        fn equals_two_lists(steps in prop::collection::vec(step(), 1..80)) {
            let (mut mailbox, mut inbox, mut model) = (Mailbox::default(), Vec::new(), Model::default());
            let mut arrived = 0;
            for step in steps {
                let mut swap = |events: &mut Vec<Event>| { std::mem::swap(events, &mut inbox); (!events.is_empty()).then(Moment::now) };
                let (found, expected) = match step {
                    Step::Arrive { src, other, lane, value } => {
                        let channel = if other { OTHER } else { CHANNEL };
                        inbox.push(Event::Envelope(envelope(src, channel, lane, value)));
                        model.arrive(arrived, (src, other, lane, value));
                        arrived += 1;
                        continue;
                    }
                    Step::Receive { from, lane, value } => {
                        let wish = (from, lane, value);
                        let found = mailbox.take(&selector(&wish), &mut predicate(&wish), &mut swap);
                        (found, model.take(&wish))
                    }
                    Step::Post { from, lane, value, standing } => {
                        let wish = (from, lane, value);
                        let accept = Box::new(predicate(&wish));
                        let id = mailbox.post(selector(&wish), accept, standing, &mut swap);
                        let mut got = Vec::new();
                        while let Some(found) = model.take(&wish) {
                            got.push(found);
                            if !standing {
                                break;
                            }
                        }
                        model.posted.push(Post { wish, standing, got, id });
                        continue;
                    }
                    Step::Serve(busy) => {
                        // What has arrived so far is given out before.
                        mailbox.visit(&Selector::on(CHANNEL), &mut |_| None::<()>, &mut swap);
                        let is_busy = |index: &usize| busy.contains(index);
                        let ids: Vec<PostId> = model.posted.iter().enumerate()
                            .filter(|(index, _)| is_busy(index)).map(|(_, post)| post.id).collect();
                        let served = model.posted.iter_mut().enumerate()
                            .filter(|(index, post)| !is_busy(index) && post.standing && !post.got.is_empty())
                            .min_by_key(|(_, post)| post.got[0].0)
                            .map(|(_, post)| (post.id, post.got.remove(0)));
                        let (found, expected) = (mailbox.take_standing(&ids), served);
                        prop_assert_eq!(found.as_ref().map(|(id, _)| *id), expected.map(|(id, _)| id));
                        let waiting = model.posted.iter().any(|post| post.standing && !post.got.is_empty());
                        prop_assert_eq!(mailbox.has_standing(), waiting);
                        (found.map_or(Found::Nothing, |(_, e)| Found::Envelope(e)), expected.map(|(_, sent)| sent))
                    }
                    Step::Complete(index) => {
                        let Some(post) = model.posted.get(index).filter(|post| !post.standing).cloned() else {
                            continue;
                        };
                        if !post.got.is_empty() {
                            model.posted.remove(index);
                        }
                        (mailbox.complete(post.id, &mut swap), post.got.first().copied())
                    }
                    Step::Status => {
                        let posted: usize = model.posted.iter().map(|post| post.got.len()).sum();
                        let status = mailbox.status(&mut swap);
                        let waiting = model.queue.len() + posted;
                        prop_assert_eq!((status.messages, status.bytes), (waiting, waiting));
                        prop_assert_eq!(status.oldest.is_some(), !model.queue.is_empty());
                        continue;
                    }
                    Step::Unpost(index) => {
                        if index < model.posted.len() {
                            // What has arrived so far was given out before the receive is taken back.
                            mailbox.visit(&Selector::on(CHANNEL), &mut |_| None::<()>, &mut swap);
                            let post = model.posted.remove(index);
                            mailbox.unpost(post.id);
                            for (number, sent) in post.got {
                                model.arrive(number, sent);
                            }
                        }
                        continue;
                    }
                };
                match (found, expected) {
                    (Found::Envelope(e), Some((_, (src, _, lane, value)))) => {
                        prop_assert_eq!((e.src, e.lane, e.payload.head()[0]), (id(src), lane, value));
                    }
                    (Found::Nothing, None) => {}
                    (found, expected) => prop_assert!(false, "{:?} for {:?}", found, expected),
                }
            }
        }
    }

    fn take(mailbox: &mut Mailbox, selector: Selector, events: Vec<Event>) -> Found {
        let mut events = Some(events);
        mailbox.take(&selector, &mut |_| true, &mut |into| match events.take() {
            Some(events) => {
                *into = events;
                Some(Moment::now())
            }
            None => None,
        })
    }

    #[test]
    fn what_a_dead_vr_had_sent_is_received_before_its_death() {
        let mut mailbox = Mailbox::default();
        let down = Down { who: id(1), why: Why::Finished };
        let events = vec![Event::Envelope(envelope(1, CHANNEL, 0, 7)), Event::Down(down.clone())];
        let from = Selector::on(CHANNEL).from(id(1));
        assert!(matches!(take(&mut mailbox, from, events), Found::Envelope(_)));
        assert!(matches!(take(&mut mailbox, from, vec![]), Found::Down(d) if d == down));
        assert!(matches!(take(&mut mailbox, Selector::on(CHANNEL), vec![]), Found::Nothing));
    }

    #[test]
    fn a_childs_failure_is_told_once_and_its_normal_end_is_not() {
        let mut mailbox = Mailbox::default();
        mailbox.adopt(id(1));
        mailbox.adopt(id(2));
        let any = Selector::on(CHANNEL);
        let finished = Event::Down(Down { who: id(1), why: Why::Finished });
        assert!(matches!(take(&mut mailbox, any, vec![finished]), Found::Nothing));
        let panicked = Down { who: id(2), why: Why::Panicked("x".into()) };
        assert!(
            matches!(take(&mut mailbox, any, vec![Event::Down(panicked.clone())]), Found::Down(d) if d == panicked)
        );
        assert!(matches!(take(&mut mailbox, any, vec![]), Found::Nothing));
    }

    #[test]
    fn a_watch_after_the_death_is_answered() {
        let mut mailbox = Mailbox::default();
        let any = Selector::on(CHANNEL);
        let down = Down { who: id(1), why: Why::Finished };
        assert!(matches!(take(&mut mailbox, any, vec![Event::Down(down.clone())]), Found::Nothing));
        mailbox.watch(id(1));
        assert!(matches!(take(&mut mailbox, any, vec![]), Found::Down(d) if d == down));
    }
}
