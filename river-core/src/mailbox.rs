//! The owner's half of a mailbox: selective receive over what has arrived, without a lock.
//!
//! Envelopes that no receive has asked for yet are held in order of arrival, indexed by lane. An envelope that
//! matches the receive that is waiting for it never enters that index. This is MPI's *unexpected queue*.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::down::{Down, Why};
use crate::envelope::{Channel, Envelope};
use crate::id::VrId;
use crate::inbox::Event;

/// What a receive asks for before it looks at a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector {
    channel: Channel,
    lane: Option<u64>,
    from: Option<VrId>,
}

impl Selector {
    /// Any envelope of that channel.
    #[must_use]
    pub const fn on(channel: Channel) -> Self {
        Self { channel, lane: None, from: None }
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

    pub(crate) fn source(&self) -> Option<VrId> {
        self.from
    }

    fn admits(&self, envelope: &Envelope) -> bool {
        envelope.channel == self.channel
            && self.lane.is_none_or(|lane| envelope.lane == lane)
            && self.from.is_none_or(|from| envelope.src == from)
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
    got: Option<(u64, Envelope)>,
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
    held: BTreeMap<u64, Envelope>,
    /// Arrival numbers per lane, oldest first. May name envelopes that were taken by a receive without a lane.
    lanes: HashMap<(Channel, u64), VecDeque<u64>>,
    arrivals: u64,
    /// Receives that were posted, earliest first: MPI's *posted queue*.
    posted: VecDeque<Posted>,
    posts: u64,
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
        mailbox.refill(queue.fresh);
        queue.held.into_iter().for_each(|(number, envelope)| mailbox.hold(number, envelope));
        mailbox
    }
}

impl Mailbox {
    /// What the mailbox holds; `None` if receives are posted, whose predicates cannot be written down.
    pub(crate) fn queue(&self) -> Option<Queue> {
        self.posted.is_empty().then(|| Queue {
            fresh: self.fresh.iter().rev().cloned().collect(),
            held: self.held.iter().map(|(number, envelope)| (*number, envelope.clone())).collect(),
            arrivals: self.arrivals,
            watched: self.watched.iter().copied().collect(),
            children: self.children.iter().copied().collect(),
            down: self.down.iter().map(|(who, why)| (*who, why.clone())).collect(),
            notices: self.notices.iter().cloned().collect(),
            stopped: self.stopped,
        })
    }

    /// Where the inbox may put new events: empty, with the memory of the last batch. Give it back by `refill`.
    pub(crate) fn lend(&mut self) -> Vec<Event> {
        debug_assert!(self.fresh.is_empty());
        std::mem::take(&mut self.fresh)
    }

    pub(crate) fn refill(&mut self, mut events: Vec<Event>) {
        events.reverse();
        self.fresh = events;
    }

    /// Takes the earliest envelope that the selector and the predicate accept; if there is none, the news that the
    /// receive has to hear of.
    pub(crate) fn take(
        &mut self,
        selector: &Selector,
        accept: &mut dyn FnMut(&Envelope) -> bool,
        swap: &mut dyn FnMut(&mut Vec<Event>) -> bool,
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
        swap: &mut dyn FnMut(&mut Vec<Event>) -> bool,
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
            let mut events = self.lend();
            let more = swap(&mut events);
            self.refill(events);
            if !more {
                return None;
            }
        }
    }

    /// What a receive has to hear of that finds no envelope.
    fn news(&mut self, selector: &Selector) -> Found {
        if self.stopped {
            return Found::Stopped;
        }
        if let Some(src) = selector.from
            && let Some(why) = self.down.get(&src)
        {
            let down = Down { who: src, why: why.clone() };
            self.notices.retain(|notice| notice.who != src);
            return Found::Down(down);
        }
        self.notices.pop_front().map_or(Found::Nothing, Found::Down)
    }

    /// Posts a receive: from now on the earliest envelope that matches it, and no receive posted before, is its own.
    pub(crate) fn post(
        &mut self,
        selector: Selector,
        mut accept: Box<dyn FnMut(&Envelope) -> bool>,
        swap: &mut dyn FnMut(&mut Vec<Event>) -> bool,
    ) -> PostId {
        let got = self.search(&selector, &mut *accept, swap);
        self.posts += 1;
        self.posted.push_back(Posted { id: PostId(self.posts), selector, accept, got });
        PostId(self.posts)
    }

    /// The envelope of a posted receive, which then is posted no longer; or the news that it has to hear of.
    pub(crate) fn complete(&mut self, id: PostId, swap: &mut dyn FnMut(&mut Vec<Event>) -> bool) -> Found {
        let Some(index) = self.posted.iter().position(|posted| posted.id == id) else {
            return Found::Nothing;
        };
        if self.posted[index].got.is_none() {
            self.absorb_all(swap);
        }
        if self.posted[index].got.is_some() {
            let got = self.posted.remove(index).and_then(|posted| posted.got);
            return got.map_or(Found::Nothing, |(_, envelope)| Found::Envelope(envelope));
        }
        let selector = self.posted[index].selector;
        self.news(&selector)
    }

    /// Takes a posted receive back. What it had got goes to its old place in the queue.
    pub(crate) fn unpost(&mut self, id: PostId) {
        if let Some(index) = self.posted.iter().position(|posted| posted.id == id)
            && let Some((number, envelope)) = self.posted.remove(index).and_then(|posted| posted.got)
            && let Some(envelope) = self.give_to_posted(number, envelope)
        {
            self.hold(number, envelope);
        }
    }

    /// Gives an envelope to the earliest posted receive that waits for one like it, or back.
    fn give_to_posted(&mut self, number: u64, envelope: Envelope) -> Option<Envelope> {
        for posted in &mut self.posted {
            if posted.got.is_none() && posted.selector.admits(&envelope) && (posted.accept)(&envelope) {
                posted.got = Some((number, envelope));
                return None;
            }
        }
        Some(envelope)
    }

    /// Shows every envelope that waits, oldest first, until the visitor returns `Some`.
    pub(crate) fn visit<R>(
        &mut self,
        selector: &Selector,
        visitor: &mut dyn FnMut(&Envelope) -> Option<R>,
        swap: &mut dyn FnMut(&mut Vec<Event>) -> bool,
    ) -> Option<R> {
        self.absorb_all(swap);
        self.held.values().filter(|envelope| selector.admits(envelope)).find_map(visitor)
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

    /// Looks at everything that has arrived.
    fn absorb_all(&mut self, swap: &mut dyn FnMut(&mut Vec<Event>) -> bool) {
        loop {
            while let Some(event) = self.fresh.pop() {
                self.absorb(event);
            }
            let mut events = self.lend();
            let more = swap(&mut events);
            self.refill(events);
            if !more {
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
            let numbers = self.lanes.entry((envelope.channel, envelope.lane)).or_default();
            // At the end, unless the envelope was given back.
            let at = numbers.partition_point(|&other| other < number);
            if numbers.get(at) != Some(&number) {
                numbers.insert(at, number);
            }
        }
        self.held.insert(number, envelope);
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
            let (&number, _) = self.held.iter().find(|(_, e)| selector.admits(e) && accept(e))?;
            return self.held.remove_entry(&number);
        };
        let key = (selector.channel, lane);
        let numbers = self.lanes.get_mut(&key)?;
        while numbers.front().is_some_and(|number| !self.held.contains_key(number)) {
            numbers.pop_front();
        }
        let found = numbers
            .iter()
            .position(|number| self.held.get(number).is_some_and(|e| selector.admits(e) && accept(e)));
        let number = found.and_then(|index| numbers.remove(index));
        if numbers.is_empty() {
            self.lanes.remove(&key);
        }
        self.held.remove_entry(&number?)
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
        Post { from: Option<u8>, lane: Option<u64>, value: Option<u8> },
        Complete(usize),
        Unpost(usize),
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
            (prop::option::of(0..3u8), prop::option::of(0..3u64), prop::option::of(0..3u8))
                .prop_map(|(from, lane, value)| Step::Post { from, lane, value }),
            (0..3usize).prop_map(Step::Complete),
            (0..3usize).prop_map(Step::Unpost),
        ]
    }

    type Sent = (u8, bool, u64, u8);
    type Wish = (Option<u8>, Option<u64>, Option<u8>);
    type Post = (Wish, Option<(usize, Sent)>, PostId);

    fn fits(&(from, lane, value): &Wish, &(src, other, at, v): &Sent) -> bool {
        !other
            && from.is_none_or(|from| from == src)
            && lane.is_none_or(|lane| lane == at)
            && value.is_none_or(|value| value == v)
    }

    fn selector(&(from, lane, _): &Wish) -> Selector {
        Selector { channel: CHANNEL, lane, from: from.map(id) }
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
            let post = self.posted.iter_mut().find(|(wish, got, _)| got.is_none() && fits(wish, &sent));
            match post {
                Some((_, got, _)) => *got = Some((number, sent)),
                None => self.queue.push((number, sent)),
            }
            self.queue.sort_unstable();
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
                let mut swap = |events: &mut Vec<Event>| { std::mem::swap(events, &mut inbox); !events.is_empty() };
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
                    Step::Post { from, lane, value } => {
                        let wish = (from, lane, value);
                        let post = mailbox.post(selector(&wish), Box::new(predicate(&wish)), &mut swap);
                        let got = model.take(&wish);
                        model.posted.push((wish, got, post));
                        continue;
                    }
                    Step::Complete(index) => {
                        let Some((_, got, post)) = model.posted.get(index).cloned() else { continue };
                        if got.is_some() {
                            model.posted.remove(index);
                        }
                        (mailbox.complete(post, &mut swap), got)
                    }
                    Step::Unpost(index) => {
                        if index < model.posted.len() {
                            // What has arrived so far was given out before the receive is taken back.
                            mailbox.visit(&Selector::on(CHANNEL), &mut |_| None::<()>, &mut swap);
                            let (_, got, post) = model.posted.remove(index);
                            mailbox.unpost(post);
                            if let Some((number, sent)) = got {
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
                true
            }
            None => false,
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
