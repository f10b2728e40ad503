//! Matches messages with receives: MPI's two queues, as a state machine that is independent of ranks, clocks and links.
//!
//! An incoming message goes to the earliest *posted* receive that it matches, or becomes *unexpected*; a receive that is
//! posted takes the earliest unexpected message that it matches, or is queued. As messages of one sender arrive in the order
//! in which they were sent, they do not overtake each other (MPI 1.3, section 3.5).
//!
//! Both queues are indexed by (context, source, tag), so that an incoming message finds its receive in constant time: it is at
//! the head of one of four queues, those of the receives with its source and tag, with its source and any tag, with any source
//! and its tag, and with any of both. A receive without wildcards finds its message in constant time; one with a wildcard, or a
//! probe, searches the unexpected messages of its context, and withdrawing a message searches all unexpected ones.

use std::collections::{BTreeMap, VecDeque};

use rustc_hash::FxHashMap;

/// The properties by which a message is matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The communicator's context.
    pub(crate) context: u32,
    /// The sender's rank in it.
    pub(crate) source: u32,
    pub(crate) tag: i32,
}

impl Key {
    /// The key of a control message, which no receive can match.
    pub(crate) const NONE: Self = Self { context: 0, source: 0, tag: 0 };
}

/// The criteria of a receive; `None` is a wildcard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    pub(crate) context: u32,
    pub(crate) source: Option<u32>,
    pub(crate) tag: Option<i32>,
}

impl Pattern {
    pub(crate) fn matches(&self, key: &Key) -> bool {
        self.context == key.context
            && self.source.is_none_or(|source| source == key.source)
            && self.tag.is_none_or(|tag| tag == key.tag)
    }

    /// Whether it matches a message with this key, and cannot match an earlier message from another source.
    pub(crate) fn will_get(&self, key: &Key) -> bool {
        self.source.is_some() && self.matches(key)
    }

    fn exact(&self) -> Option<Key> {
        Some(Key { context: self.context, source: self.source?, tag: self.tag? })
    }

    /// The queue of the receives with this pattern.
    fn queue(&self) -> (Class, Key) {
        let class = match (self.source, self.tag) {
            (Some(_), Some(_)) => Class::Exact,
            (None, Some(_)) => Class::AnySource,
            (Some(_), None) => Class::AnyTag,
            (None, None) => Class::Any,
        };
        let key = Key { context: self.context, source: self.source.unwrap_or(0), tag: self.tag.unwrap_or(0) };
        (class, key)
    }
}

/// Which criteria of a receive are wildcards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Exact,
    AnySource,
    AnyTag,
    Any,
}

impl Class {
    const ALL: [Self; 4] = [Self::Exact, Self::AnySource, Self::AnyTag, Self::Any];

    /// The key of the queue with the receives of this class that match a message.
    fn key(self, &Key { context, source, tag }: &Key) -> Key {
        match self {
            Self::Exact => Key { context, source, tag },
            Self::AnySource => Key { context, source: 0, tag },
            Self::AnyTag => Key { context, source, tag: 0 },
            Self::Any => Key { context, source: 0, tag: 0 },
        }
    }
}

/// The context of an unexpected message and, in the lower half, its number in the order of arrival. An integer, because those
/// are compared faster than pairs.
type Place = u128;

fn place(context: u32, number: u64) -> Place {
    Place::from(context) << 64 | Place::from(number)
}

/// The two queues. `M` is a message; a posted receive has a unique number that the caller chooses.
#[derive(Debug)]
pub(crate) struct Matching<M> {
    arrivals: u64,
    unexpected: BTreeMap<Place, (Key, M)>,
    unexpected_by_key: Index<Place>,
    posts: u64,
    /// The posted receives of each class: the order of posting, and the caller's number.
    posted: [Index<(u64, u64)>; Class::ALL.len()],
    /// The number of posted receives with a wildcard.
    wild: usize,
}

impl<M> Default for Matching<M> {
    fn default() -> Self {
        Self {
            arrivals: 0,
            unexpected: BTreeMap::new(),
            unexpected_by_key: Index::default(),
            posts: 0,
            posted: Default::default(),
            wild: 0,
        }
    }
}

impl<M> Matching<M> {
    /// Removes and returns the posted receive that matches a message with this key.
    pub(crate) fn claim(&mut self, key: &Key) -> Option<u64> {
        if self.wild == 0 {
            return self.posted[Class::Exact as usize].pop(key).map(|(_, id)| id);
        }
        let class = self.class_of_first(key);
        let (_, id) = self.posted[class as usize].pop(&class.key(key))?;
        self.wild -= usize::from(class != Class::Exact);
        Some(id)
    }

    /// Returns the posted receive that matches a message with this key, and leaves it posted.
    pub(crate) fn wants(&self, key: &Key) -> Option<u64> {
        let class = if self.wild == 0 { Class::Exact } else { self.class_of_first(key) };
        self.posted[class as usize].first(&class.key(key)).map(|&(_, id)| id)
    }

    /// The class of the earliest receive that matches a message with this key, if there is one.
    fn class_of_first(&self, key: &Key) -> Class {
        let (mut first, mut earliest) = (Class::Exact, u64::MAX);
        for class in Class::ALL {
            if let Some(&(order, _)) = self.posted[class as usize].first(&class.key(key))
                && order < earliest
            {
                (first, earliest) = (class, order);
            }
        }
        first
    }

    /// Stores an unexpected message.
    pub(crate) fn keep(&mut self, key: Key, message: M) {
        let place = place(key.context, self.arrivals);
        self.unexpected_by_key.push(key, place);
        self.unexpected.insert(place, (key, message));
        self.arrivals += 1;
    }

    /// Removes and returns the earliest unexpected message that matches.
    pub(crate) fn take(&mut self, pattern: &Pattern) -> Option<(Key, M)> {
        if self.unexpected.is_empty() {
            return None;
        }
        let place = self.find(pattern)?;
        self.take_from(place)
    }

    /// Returns the earliest unexpected message that matches, and leaves it there.
    pub(crate) fn peek(&mut self, pattern: &Pattern) -> Option<(&Key, &M)> {
        let place = self.find(pattern)?;
        self.unexpected.get(&place).map(|(key, message)| (key, message))
    }

    /// Posts a receive that found no unexpected message.
    pub(crate) fn post(&mut self, id: u64, pattern: &Pattern) {
        let order = self.posts;
        self.posts += 1;
        match pattern.exact() {
            Some(key) => self.posted[Class::Exact as usize].push(key, (order, id)),
            None => {
                let (class, key) = pattern.queue();
                self.posted[class as usize].push(key, (order, id));
                self.wild += 1;
            }
        }
    }

    /// Removes a posted receive. Returns `false` if it is not posted (any more).
    pub(crate) fn unpost(&mut self, id: u64, pattern: &Pattern) -> bool {
        let (class, key) = pattern.queue();
        let removed = self.posted[class as usize].remove(&key, |&(_, other)| other == id);
        self.wild -= usize::from(removed && class != Class::Exact);
        removed
    }

    /// The unexpected messages, those of each context in the order of their arrival.
    pub(crate) fn unexpected(&self) -> impl Iterator<Item = &M> {
        self.unexpected.values().map(|(_, message)| message)
    }

    /// Removes the unexpected message that its sender withdraws.
    pub(crate) fn withdraw(&mut self, mut is_it: impl FnMut(&M) -> bool) -> Option<M> {
        let (&place, _) = self.unexpected.iter().find(|(_, (_, message))| is_it(message))?;
        self.take_from(place).map(|(_, message)| message)
    }

    fn find(&self, pattern: &Pattern) -> Option<Place> {
        if let Some(key) = pattern.exact() {
            return self.unexpected_by_key.first(&key).copied();
        }
        let same_context = place(pattern.context, 0)..=place(pattern.context, u64::MAX);
        let mut messages = self.unexpected.range(same_context);
        messages.find(|(_, (key, _))| pattern.matches(key)).map(|(&place, _)| place)
    }

    fn take_from(&mut self, place: Place) -> Option<(Key, M)> {
        let (key, message) = self.unexpected.remove(&place)?;
        if self.unexpected_by_key.first(&key) == Some(&place) {
            self.unexpected_by_key.pop(&key);
        } else {
            self.unexpected_by_key.remove(&key, |&other| other == place);
        }
        Some((key, message))
    }
}

/// Queues by key. Empty queues are kept for a while, so that a message that comes and goes costs no allocation, but not for
/// ever, so that keys that are no longer used take no memory.
#[derive(Debug)]
struct Index<T> {
    queues: Vec<(Key, VecDeque<T>)>,
    /// Where the queue of a key is.
    places: FxHashMap<Key, usize>,
    /// Where the queue is that was changed last: the next message often has the same key.
    last: usize,
    /// The number of empty queues.
    empty: usize,
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        Self { queues: Vec::new(), places: FxHashMap::default(), last: 0, empty: 0 }
    }
}

/// The maximum number of empty queues that are kept.
const SPARE: usize = 64;

impl<T> Index<T> {
    fn push(&mut self, key: Key, item: T) {
        if let Some(queue) = self.queue_mut(&key) {
            let reused = queue.is_empty();
            queue.push_back(item);
            self.empty -= usize::from(reused);
            return;
        }
        self.last = self.queues.len();
        self.places.insert(key, self.last);
        self.queues.push((key, VecDeque::from([item])));
    }

    fn first(&self, key: &Key) -> Option<&T> {
        if self.is_empty() {
            return None;
        }
        self.queues[self.place(key)?].1.front()
    }

    fn pop(&mut self, key: &Key) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let queue = self.queue_mut(key)?;
        let item = queue.pop_front()?;
        if queue.is_empty() {
            self.emptied();
        }
        Some(item)
    }

    fn remove(&mut self, key: &Key, mut is_it: impl FnMut(&T) -> bool) -> bool {
        let Some(queue) = self.queue_mut(key) else { return false };
        let removed = queue.iter().position(&mut is_it).and_then(|at| queue.remove(at)).is_some();
        if removed && queue.is_empty() {
            self.emptied();
        }
        removed
    }

    #[inline]
    fn place(&self, key: &Key) -> Option<usize> {
        match self.queues.get(self.last) {
            Some((last, _)) if last == key => Some(self.last),
            _ => self.places.get(key).copied(),
        }
    }

    #[inline]
    fn queue_mut(&mut self, key: &Key) -> Option<&mut VecDeque<T>> {
        self.last = self.place(key)?;
        Some(&mut self.queues[self.last].1)
    }

    fn is_empty(&self) -> bool {
        self.queues.len() == self.empty
    }

    fn emptied(&mut self) {
        self.empty += 1;
        if self.empty > SPARE {
            self.queues.retain(|(_, queue)| !queue.is_empty());
            self.places = self.queues.iter().zip(0..).map(|((key, _), place)| (*key, place)).collect();
            self.empty = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Arrive(Key),
        Post(Pattern),
        Unpost(usize),
        Withdraw(usize),
        Peek(Pattern),
    }

    fn key() -> impl Strategy<Value = Key> {
        (0..2u32, 0..3u32, 0..3i32).prop_map(|(context, source, tag)| Key { context, source, tag })
    }

    fn pattern() -> impl Strategy<Value = Pattern> {
        (0..2u32, prop::option::of(0..3u32), prop::option::of(0..3i32))
            .prop_map(|(context, source, tag)| Pattern { context, source, tag })
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => key().prop_map(Step::Arrive),
            4 => pattern().prop_map(Step::Post),
            1 => (0..4usize).prop_map(Step::Unpost),
            1 => (0..4usize).prop_map(Step::Withdraw),
            1 => pattern().prop_map(Step::Peek),
        ]
    }

    proptest! {
        /// A literal implementation of the standard: two lists, searched from the front.
        #[test]
        fn it_matches_as_two_lists_do(steps in prop::collection::vec(step(), 0..200)) {
            let mut matching = Matching::<u64>::default();
            let mut posted: Vec<(u64, Pattern)> = Vec::new();
            let mut unexpected: Vec<(u64, Key)> = Vec::new();
            for (number, step) in (0_u64..).zip(steps) {
                match step {
                    Step::Arrive(key) => {
                        let at = posted.iter().position(|(_, pattern)| pattern.matches(&key));
                        prop_assert_eq!(matching.wants(&key), at.map(|at| posted[at].0));
                        prop_assert_eq!(matching.claim(&key), at.map(|at| posted[at].0));
                        match at {
                            Some(at) => drop(posted.remove(at)),
                            None => {
                                matching.keep(key, number);
                                unexpected.push((number, key));
                            }
                        }
                    }
                    Step::Post(pattern) => {
                        let at = unexpected.iter().position(|(_, key)| pattern.matches(key));
                        prop_assert_eq!(
                            matching.take(&pattern),
                            at.map(|at| (unexpected[at].1, unexpected[at].0))
                        );
                        match at {
                            Some(at) => drop(unexpected.remove(at)),
                            None => {
                                matching.post(number, &pattern);
                                posted.push((number, pattern));
                            }
                        }
                    }
                    Step::Unpost(at) => {
                        if at < posted.len() {
                            let (id, pattern) = posted.remove(at);
                            prop_assert!(matching.unpost(id, &pattern));
                            prop_assert!(!matching.unpost(id, &pattern));
                        }
                    }
                    Step::Withdraw(at) => {
                        if at < unexpected.len() {
                            let (number, _) = unexpected.remove(at);
                            prop_assert_eq!(matching.withdraw(|&message| message == number), Some(number));
                        }
                    }
                    Step::Peek(pattern) => {
                        let first = unexpected.iter().find(|(_, key)| pattern.matches(key));
                        prop_assert_eq!(
                            matching.peek(&pattern).map(|(&key, &number)| (number, key)),
                            first.copied()
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn keys_that_are_no_longer_used_take_no_memory_and_the_others_stay() {
        let pattern = |tag| Pattern { context: 0, source: Some(0), tag: Some(tag) };
        let key = |tag| Key { context: 0, source: 0, tag };
        let mut matching = Matching::<()>::default();
        matching.post(7, &pattern(500));
        for tag in (0..1000).filter(|&tag| tag != 500) {
            matching.post(tag as u64, &pattern(tag));
            assert_eq!(matching.claim(&key(tag)), Some(tag as u64));
        }
        assert!(matching.posted[Class::Exact as usize].queues.len() <= SPARE + 1);
        assert_eq!([500, 500].map(|tag| matching.claim(&key(tag))), [Some(7), None]);
    }
}
