//! Single-producer, single-consumer queues between two threads of a process.
//!
//! Short records are copied into a ring of cache lines ([`Writer`]). Values that own their memory, here called things, go
//! through a second ring, and a mark in the first one keeps their place in the order. Behind both is an unbounded list, the
//! spill, for a sender that is far ahead. The spill costs several times as much, so a sender first waits for room in the
//! rings if the receiver seems to be making progress.

mod patience;
mod shared;
pub(crate) mod sleep;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) use crate::lend::ring::Record;
pub(crate) use patience::{Patience, Wait};
use rtrb::{Consumer, Producer, RingBuffer};
pub(crate) use shared::{LazyRing, RingOffer};

use crate::lend::ring::{self, Reader, Writer};

/// The rings from one rank to others have at most this many lines together, 2 MiB. A line that a core has just read belongs to
/// that core's caches, and costs the writer more than one that has left them for a cache that both share.
const LINES: u16 = 32 << 10;
/// No ring for messages of ranks has fewer lines; more are of no use to ranks that take turns on a core.
const FEW_LINES: u16 = 1 << 10;
/// The capacity of the ring of things.
const THINGS: usize = 16;
/// The receiver gives a heartbeat each time it has taken this many things from the spill.
const BEAT: usize = 64;

/// What has found no room in the rings. While there is any, everything that is sent is appended to it.
#[derive(Debug)]
struct Spill<T> {
    count: AtomicUsize,
    things: Mutex<VecDeque<T>>,
}

#[derive(Debug)]
pub(crate) struct Sender<T> {
    lines: Writer,
    things: Producer<T>,
    spill: Arc<Spill<T>>,
    patience: Patience,
}

#[derive(Debug)]
pub(crate) struct Receiver<T> {
    lines: Reader,
    things: Consumer<T>,
    spill: Arc<Spill<T>>,
    /// The things of the spill, as of when this side last emptied it: they are older than everything else in the queue.
    taken: VecDeque<T>,
}

/// What a receiver takes from a queue.
pub(crate) enum Arrived<'a, T> {
    /// By reference, as copying what was just written would stall until the store buffer has drained.
    Record(&'a Record<'a>),
    Thing(T),
}

/// Returns how many lines the ring of messages from one rank to each of this many others has, a power of two. `at_once` says
/// whether they can all run at the same time.
pub(crate) fn lines_for(others: usize, at_once: bool) -> u16 {
    let part = LINES / u16::try_from(others.max(1).next_power_of_two()).unwrap_or(LINES);
    if at_once { part.max(FEW_LINES) } else { FEW_LINES }
}

/// Creates a queue whose ring has this many lines, a power of two.
pub(crate) fn queue<T>(lines: usize) -> (Sender<T>, Receiver<T>) {
    let (writer, reader) = ring::ring(lines);
    let (producer, consumer) = RingBuffer::new(THINGS);
    let spill = Arc::new(Spill { count: AtomicUsize::new(0), things: Mutex::default() });
    (
        Sender { lines: writer, things: producer, spill: spill.clone(), patience: Patience::new(None) },
        Receiver { lines: reader, things: consumer, spill, taken: VecDeque::new() },
    )
}

impl<T> Sender<T> {
    /// Has the sender wait for room in this way.
    pub(crate) fn waiting(self, how: Wait) -> Self {
        Self { patience: Patience::new(Some(how)), ..self }
    }

    /// Whether the receiver is gone.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.lines.is_abandoned()
    }

    /// Copies a record of some words, followed by bytes. Returns `false` if it has to be sent as a thing, because it is too
    /// long or there is no room.
    #[inline]
    pub(crate) fn push<const N: usize>(&mut self, words: [u64; N], bytes: &[u8]) -> bool {
        self.patience.count();
        !self.is_spilling() && (self.lines.push(words, bytes) || self.push_late(words, bytes))
    }

    #[cold]
    fn push_late<const N: usize>(&mut self, words: [u64; N], bytes: &[u8]) -> bool {
        ring::fits(words, bytes)
            && self.patience.wait_until(&mut self.lines, |lines| lines.push(words, bytes))
    }

    /// Sends a thing.
    pub(crate) fn push_thing(&mut self, mut thing: T) {
        self.patience.count();
        let things = &self.things;
        let has_room = |lines: &mut Writer| things.slots() > 0 && lines.has_room_for_mark();
        if !self.is_spilling()
            && (has_room(&mut self.lines) || self.patience.wait_until(&mut self.lines, has_room))
        {
            match self.things.push(thing) {
                Ok(()) => return self.lines.push_mark(),
                Err(rtrb::PushError::Full(back)) => thing = back,
            }
        }
        let mut things = self.spill.things.lock().unwrap_or_else(PoisonError::into_inner);
        things.push_back(thing);
        self.spill.count.store(things.len(), Ordering::Release);
    }

    fn is_spilling(&self) -> bool {
        self.spill.count.load(Ordering::Acquire) > 0
    }
}

impl<T> Receiver<T> {
    /// Passes the next record or thing, if there is one, to `take`, and removes it.
    #[inline]
    pub(crate) fn take<R>(&mut self, take: impl FnOnce(Arrived<'_, T>) -> R) -> Option<R> {
        if let Some(thing) = self.taken.pop_front() {
            if self.taken.len().is_multiple_of(BEAT) {
                self.lines.beat();
            }
            return Some(take(Arrived::Thing(thing)));
        }
        // Checked before the rings: if there is a spill, everything in the rings is older, and nothing more is put into them
        // until the spill is taken.
        let spilled = self.spill.count.load(Ordering::Acquire) > 0;
        if let Some(record) = self.lines.next() {
            let len = record.len();
            if record.is_mark() {
                // Skipped first, so that a panic in `take` does not leave the mark of a thing that was popped.
                self.lines.skip(len);
                let thing = self.things.pop();
                debug_assert!(thing.is_ok(), "a thing is put into its ring before its mark");
                return thing.ok().map(|thing| take(Arrived::Thing(thing)));
            }
            let result = take(Arrived::Record(&record));
            self.lines.skip(len);
            return Some(result);
        }
        if !spilled {
            return None;
        }
        {
            let mut things = self.spill.things.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut *things, &mut self.taken);
            self.spill.count.store(0, Ordering::Release);
        }
        self.taken.pop_front().map(|thing| take(Arrived::Thing(thing)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sends a number and this many bytes: as a thing if the length is a multiple of 3, otherwise as a record if possible.
    fn send(sender: &mut Sender<(u64, usize)>, number: u64, len: usize) {
        if len.is_multiple_of(3) || !sender.push([number], &vec![number as u8; len]) {
            sender.push_thing((number, len));
        }
    }

    fn receive(receiver: &mut Receiver<(u64, usize)>) -> Option<(u64, usize)> {
        receiver.take(|arrived| match arrived {
            Arrived::Thing(thing) => thing,
            Arrived::Record(record) => {
                let [number] = record.words();
                let mut bytes = vec![0; record.len() - 8];
                record.copy_to(1, &mut bytes);
                assert!(bytes.iter().all(|&byte| byte == number as u8));
                (number, bytes.len())
            }
        })
    }

    proptest! {
        #[test]
        fn order_is_kept_whatever_is_under_way(
            steps in prop::collection::vec((0..50_u8, any::<bool>(), prop_oneof![0..80_usize, 0..20_000_usize]), 1..100),
        ) {
            let (mut sender, mut receiver) = queue(256);
            let (mut model, mut number) = (VecDeque::new(), 0);
            for (times, sends, len) in steps {
                for _ in 0..times {
                    if sends {
                        send(&mut sender, number, len);
                        model.push_back((number, len));
                        number += 1;
                    } else {
                        prop_assert_eq!(receive(&mut receiver), model.pop_front());
                    }
                }
            }
            for left in model {
                prop_assert_eq!(receive(&mut receiver), Some(left));
            }
            prop_assert!(receive(&mut receiver).is_none() && !sender.is_abandoned());
            drop(receiver);
            prop_assert!(sender.is_abandoned());
        }
    }

    #[test]
    fn the_more_ranks_there_are_the_shorter_their_rings() {
        let lengths: Vec<u16> = (0..6).map(|others| lines_for(others, true)).collect();
        assert_eq!(lengths, [LINES, LINES, LINES / 2, LINES / 4, LINES / 4, LINES / 8]);
        assert_eq!(lines_for(usize::MAX / 2, true), FEW_LINES);
        assert_eq!(lines_for(1, false), FEW_LINES);
    }

    #[test]
    fn a_panic_of_who_takes_loses_what_was_taken_and_nothing_else() {
        let (mut sender, mut receiver) = queue(256);
        for (number, len) in [(0, 3), (1, 4), (2, 6)] {
            send(&mut sender, number, len);
        }
        let taken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            receiver.take(|_| std::panic::resume_unwind(Box::new(())))
        }));
        assert!(taken.is_err_and(|panic| panic.is::<()>()));
        assert_eq!(receive(&mut receiver), Some((1, 4)));
        assert_eq!(receive(&mut receiver), Some((2, 6)));
    }

    #[test]
    fn two_threads_keep_the_order_whether_the_sender_waits_for_room_or_not() {
        const COUNT: u64 = 50_000;
        let len = |number: u64| (number * 7919 % 20_000 / (1 + number % 100)) as usize;
        for waits in [None, Some(Wait::Yielding), Some(Wait::Looking)] {
            let (sender, mut receiver) = queue(256);
            let mut sender = if let Some(how) = waits { sender.waiting(how) } else { sender };
            let other = std::thread::spawn(move || (0..COUNT).for_each(|n| send(&mut sender, n, len(n))));
            for number in 0..COUNT {
                let message = loop {
                    match receive(&mut receiver) {
                        Some(message) => break message,
                        None => std::thread::yield_now(),
                    }
                };
                assert_eq!(message, (number, len(number)));
            }
            other.join().unwrap();
        }
    }

    #[test]
    fn a_sender_that_waits_in_vain_goes_on() {
        let (sender, mut receiver) = queue(4);
        let mut sender = sender.waiting(Wait::Looking);
        (0..100).for_each(|number| send(&mut sender, number, 1));
        (0..100).for_each(|number| assert_eq!(receive(&mut receiver), Some((number, 1))));
        assert_eq!(receive(&mut receiver), None);
    }
}
