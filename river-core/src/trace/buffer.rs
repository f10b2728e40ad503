//! The events of one VR: a ring that its thread writes without a lock, and that another thread may read meanwhile.
//!
//! Memory is allocated in chunks as events come. When the process's budget is exhausted, or the VR has had its share, the
//! oldest events are overwritten.

use std::sync::OnceLock;
use std::sync::atomic::{
    AtomicI64, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release, fence,
};

use super::event::{Event, WORDS};

/// The number of events in a chunk.
const CHUNK: usize = 1024;

type Words = [AtomicU64; WORDS];

/// The budget of events shared by all buffers of a process.
#[derive(Debug)]
pub(crate) struct Budget(AtomicI64);

impl Budget {
    pub(crate) fn new(events: usize) -> Self {
        Self(AtomicI64::new(i64::try_from(events).unwrap_or(i64::MAX)))
    }

    /// Takes this many events from the budget; returns `false` if they are not left.
    pub(crate) fn take(&self, events: usize) -> bool {
        let events = events as i64;
        let enough = self.0.fetch_sub(events, Relaxed) >= events;
        if !enough {
            self.0.fetch_add(events, Relaxed);
        }
        enough
    }

    pub(crate) fn give_back(&self, events: usize) {
        self.0.fetch_add(events as i64, Relaxed);
    }

    #[cfg(test)]
    fn left(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

#[derive(Debug)]
pub(crate) struct Ring {
    chunks: Box<[OnceLock<Box<[Words]>>]>,
    /// How many events fit before the oldest is overwritten. Reduced at most once, when exactly this many have been
    /// written.
    room: AtomicUsize,
    /// How many events were written.
    written: AtomicU64,
}

/// The contents of a ring.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Held {
    /// Oldest first.
    pub(crate) events: Vec<Event>,
    /// How many were overwritten.
    pub(crate) dropped: u64,
}

impl Ring {
    /// A ring for this many events, rounded up to whole chunks; one fewer can be read, as one may be half overwritten.
    pub(crate) fn new(events: usize) -> Self {
        let chunks = events.div_ceil(CHUNK).max(1);
        Self {
            chunks: (0..chunks).map(|_| OnceLock::new()).collect(),
            room: AtomicUsize::new(chunks * CHUNK),
            written: AtomicU64::new(0),
        }
    }

    /// Writes an event. Only one thread may call this.
    pub(crate) fn push(&self, event: Event, budget: &Budget) {
        let written = self.written.load(Relaxed);
        let mut room = self.room.load(Relaxed);
        let mut at = (written % room as u64) as usize;
        let chunk = match self.chunks[at / CHUNK].get() {
            Some(chunk) => chunk,
            // The first chunk is always granted.
            None if at == 0 || budget.take(CHUNK) => {
                if at == 0 {
                    budget.0.fetch_sub(CHUNK as i64, Relaxed);
                }
                self.chunks[at / CHUNK].get_or_init(|| (0..CHUNK).map(|_| Words::default()).collect())
            }
            None => {
                room = at;
                self.room.store(room, Release);
                at = 0;
                let Some(first) = self.chunks[0].get() else { return };
                first
            }
        };
        // A reader that sees one of the words below then also sees a count that tells that they are being written.
        fence(Release);
        for (word, value) in chunk[at % CHUNK].iter().zip(event.to_words()) {
            word.store(value, Relaxed);
        }
        self.written.store(written + 1, Release);
    }

    /// Reads the ring. The writer may go on meanwhile; events that it overwrites count as dropped.
    pub(crate) fn read(&self) -> Held {
        let written = self.written.load(Acquire);
        let room = self.room.load(Acquire) as u64;
        let first = written.saturating_sub(room);
        let mut events: Vec<(u64, Option<Event>)> = Vec::with_capacity((written - first) as usize);
        for number in first..written {
            let at = (number % room) as usize;
            let words = self.chunks[at / CHUNK].get().map(|chunk| {
                let words = &chunk[at % CHUNK];
                std::array::from_fn(|i| words[i].load(Relaxed))
            });
            events.push((number, words.and_then(Event::from_words)));
        }
        fence(Acquire);
        // The event being written may have half overwritten an older one.
        let next = self.written.load(Relaxed);
        let whole = (next + 1).saturating_sub(self.room.load(Relaxed) as u64);
        let events: Vec<Event> = events
            .into_iter()
            .filter(|(number, _)| *number >= whole)
            .filter_map(|(_, event)| event)
            .collect();
        Held { dropped: written - events.len() as u64, events }
    }

    /// How many events it has taken from the budget.
    pub(crate) fn taken(&self) -> usize {
        self.chunks.iter().filter(|chunk| chunk.get().is_some()).count() * CHUNK
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::id::VrId;
    use crate::trace::event::What;

    fn event(number: u64) -> Event {
        let to = VrId::from_uuid(Uuid::from_u128(u128::from(number) + 1));
        Event { at: number, what: What::Send { to, seq: number, bytes: number }, label: number as u32 }
    }

    proptest! {
        /// The ring holds the newest events that fit, and knows how many others there were.
        #[test]
        fn is_the_newest_events(size in 1..4 * CHUNK, memory in 0..5 * CHUNK, count in 0..9 * CHUNK as u64) {
            let (ring, budget) = (Ring::new(size), Budget::new(memory));
            let chunks = size.div_ceil(CHUNK).min((memory / CHUNK).max(1));
            let mut model = VecDeque::new();
            for number in 0..count {
                ring.push(event(number), &budget);
                model.push_back(event(number));
                if model.len() >= chunks * CHUNK {
                    model.pop_front();
                }
            }
            let held = ring.read();
            prop_assert_eq!(held.dropped, count - model.len() as u64);
            prop_assert!(model == held.events);
            budget.give_back(ring.taken());
            prop_assert_eq!(budget.left(), memory as i64);
        }
    }

    #[test]
    fn reading_disturbs_no_writer_and_finds_whole_events_in_order() {
        let (ring, budget) = (Arc::new(Ring::new(CHUNK)), Budget::new(CHUNK));
        let writer = {
            let ring = ring.clone();
            std::thread::spawn(move || (0..400_000).for_each(|number| ring.push(event(number), &budget)))
        };
        let mut over = false;
        while !over {
            over = writer.is_finished();
            let held = ring.read();
            for (index, found) in held.events.iter().enumerate() {
                assert_eq!(*found, event(held.dropped + index as u64));
            }
        }
        writer.join().unwrap();
        assert_eq!(ring.read().events.len(), CHUNK - 1);
    }
}
