//! The owner's half of a mailbox: selective receive over what has arrived, without a lock.
//!
//! Envelopes that no receive has asked for yet are held in order of arrival, indexed by lane. An envelope that
//! matches the receive that is waiting for it never enters that index. This is MPI's *unexpected queue*.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use crate::down::{Down, Why};
use crate::envelope::{Channel, Envelope};
use crate::id::VrId;
use crate::inbox::Event;

/// What a receive asks for before it looks at a payload.
#[derive(Clone, Copy, Debug)]
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

/// What a look into the mailbox found.
#[derive(Debug)]
pub(crate) enum Found {
    Envelope(Envelope),
    /// A watched VR is gone, or the only VR that the receive could be answered by.
    Down(Down),
    Stopped,
    Nothing,
}

#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    /// Swapped out of the inbox and not yet looked at, oldest last (so that taking one is a `pop`).
    fresh: Vec<Event>,
    held: BTreeMap<u64, Envelope>,
    /// Arrival numbers per lane, oldest first. May name envelopes that were taken by a receive without a lane.
    lanes: HashMap<(Channel, u64), VecDeque<u64>>,
    arrivals: u64,
    watched: HashSet<VrId>,
    children: HashSet<VrId>,
    down: HashMap<VrId, Why>,
    notices: VecDeque<Down>,
    stopped: bool,
}

impl Mailbox {
    /// Where the inbox may put new events: empty, with the memory of the last batch. Give it back by `refill`.
    pub(crate) fn lend(&mut self) -> Vec<Event> {
        debug_assert!(self.fresh.is_empty());
        std::mem::take(&mut self.fresh)
    }

    pub(crate) fn refill(&mut self, mut events: Vec<Event>) {
        events.reverse();
        self.fresh = events;
    }

    /// Takes the earliest envelope that the selector and the predicate accept.
    pub(crate) fn take(
        &mut self,
        selector: &Selector,
        accept: &mut dyn FnMut(&Envelope) -> bool,
        swap: &mut dyn FnMut(&mut Vec<Event>) -> bool,
    ) -> Found {
        if let Some(envelope) = self.take_held(selector, accept) {
            return Found::Envelope(envelope);
        }
        loop {
            while let Some(event) = self.fresh.pop() {
                match event {
                    Event::Envelope(envelope) if selector.admits(&envelope) && accept(&envelope) => {
                        return Found::Envelope(envelope);
                    }
                    other => self.absorb(other),
                }
            }
            let mut events = self.lend();
            let more = swap(&mut events);
            self.refill(events);
            if !more {
                break;
            }
        }
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

    /// Shows every envelope that waits, oldest first, until the visitor returns `Some`.
    pub(crate) fn visit<R>(
        &mut self,
        selector: &Selector,
        visitor: &mut dyn FnMut(&Envelope) -> Option<R>,
        swap: &mut dyn FnMut(&mut Vec<Event>) -> bool,
    ) -> Option<R> {
        loop {
            while let Some(event) = self.fresh.pop() {
                self.absorb(event);
            }
            let mut events = self.lend();
            let more = swap(&mut events);
            self.refill(events);
            if !more {
                break;
            }
        }
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

    fn absorb(&mut self, event: Event) {
        match event {
            Event::Envelope(envelope) => self.hold(envelope),
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

    fn hold(&mut self, envelope: Envelope) {
        if envelope.lane != 0 {
            self.lanes.entry((envelope.channel, envelope.lane)).or_default().push_back(self.arrivals);
        }
        self.held.insert(self.arrivals, envelope);
        self.arrivals += 1;
    }

    fn take_held(
        &mut self,
        selector: &Selector,
        accept: &mut dyn FnMut(&Envelope) -> bool,
    ) -> Option<Envelope> {
        if self.held.is_empty() {
            return None;
        }
        let Some(lane) = selector.lane.filter(|&lane| lane != 0) else {
            let (&number, _) = self.held.iter().find(|(_, e)| selector.admits(e) && accept(e))?;
            return self.held.remove(&number);
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
        self.held.remove(&number?)
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
        ]
    }

    proptest! {
        /// The mailbox is a list searched from the front, whatever its index does.
        #[test]
        fn equals_a_list(steps in prop::collection::vec(step(), 1..80)) {
            let (mut mailbox, mut inbox, mut model) = (Mailbox::default(), Vec::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Arrive { src, other, lane, value } => {
                        let channel = if other { OTHER } else { CHANNEL };
                        inbox.push(Event::Envelope(envelope(src, channel, lane, value)));
                        model.push((src, other, lane, value));
                    }
                    Step::Receive { from, lane, value } => {
                        let mut selector = Selector::on(CHANNEL);
                        selector.from = from.map(id);
                        selector.lane = lane;
                        let found = mailbox.take(
                            &selector,
                            &mut |e| value.is_none_or(|value| e.payload.head()[0] == value),
                            &mut |events| { std::mem::swap(events, &mut inbox); !events.is_empty() },
                        );
                        let expected = model.iter().position(|&(src, other, at, v)| {
                            !other
                                && from.is_none_or(|from| from == src)
                                && lane.is_none_or(|lane| lane == at)
                                && value.is_none_or(|value| value == v)
                        });
                        match (found, expected) {
                            (Found::Envelope(e), Some(index)) => {
                                let (src, _, lane, value) = model.remove(index);
                                prop_assert_eq!((e.src, e.lane, e.payload.head()[0]), (id(src), lane, value));
                            }
                            (Found::Nothing, None) => {}
                            (found, expected) => prop_assert!(false, "{:?} for {:?}", found, expected),
                        }
                    }
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
