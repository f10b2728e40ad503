//! A queue from one thread to another: a ring that takes no lock, and behind it, for the plan that sends much before it
//! receives, a list that never is full.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rtrb::{Consumer, Producer, RingBuffer};

use crate::coll::Message;

/// Messages in the ring.
const ROOM: usize = 16;

/// A message and its operation: one cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Parcel {
    tag: i32,
    message: Message,
}

const _: () = assert!(size_of::<Parcel>() == 64);

/// What did not fit into the ring. While there is any, all that comes goes here.
#[derive(Debug, Default)]
struct Spill {
    count: AtomicUsize,
    parcels: Mutex<VecDeque<Parcel>>,
}

#[derive(Debug)]
pub(super) struct Sender {
    ring: Producer<Parcel>,
    spill: Arc<Spill>,
}

#[derive(Debug)]
pub(super) struct Receiver {
    ring: Consumer<Parcel>,
    spill: Arc<Spill>,
    /// The first of a later operation than was asked for.
    held: Option<Parcel>,
}

pub(super) fn queue() -> (Sender, Receiver) {
    let (producer, consumer) = RingBuffer::new(ROOM);
    let spill = Arc::<Spill>::default();
    (Sender { ring: producer, spill: spill.clone() }, Receiver { ring: consumer, spill, held: None })
}

impl Sender {
    pub(super) fn push(&mut self, tag: i32, message: Message) {
        let mut parcel = Parcel { tag, message };
        if self.spill.count.load(Ordering::Acquire) == 0 {
            match self.ring.push(parcel) {
                Ok(()) => return,
                Err(rtrb::PushError::Full(back)) => parcel = back,
            }
        }
        let mut parcels = self.spill.parcels.lock().unwrap_or_else(PoisonError::into_inner);
        parcels.push_back(parcel);
        self.spill.count.store(parcels.len(), Ordering::Release);
    }
}

impl Receiver {
    /// The next message of an operation, if it has come. What is left of operations before it, which ended with an error,
    /// is thrown away.
    pub(super) fn pop(&mut self, tag: i32) -> Option<Message> {
        loop {
            let parcel = self.held.take().or_else(|| self.next())?;
            if parcel.tag == tag {
                return Some(parcel.message);
            }
            if is_later(parcel.tag, tag) {
                self.held = Some(parcel);
                return None;
            }
        }
    }

    fn next(&mut self) -> Option<Parcel> {
        // In this order: if there is a list, what is in the ring then is older, and nothing more comes into the ring.
        let spilled = self.spill.count.load(Ordering::Acquire) > 0;
        if let Ok(parcel) = self.ring.pop() {
            return Some(parcel);
        }
        if !spilled {
            return None;
        }
        let mut parcels = self.spill.parcels.lock().unwrap_or_else(PoisonError::into_inner);
        let parcel = parcels.pop_front();
        self.spill.count.store(parcels.len(), Ordering::Release);
        parcel
    }
}

/// Operations are counted in 31 bits, and begin again with 0.
fn is_later(tag: i32, than: i32) -> bool {
    (1..1 << 30).contains(&(tag.wrapping_sub(than) & i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(n: u64) -> Message {
        Message::short(&n.to_le_bytes()).unwrap()
    }

    fn number(message: &Message) -> u64 {
        message.read(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
    }

    #[test]
    fn order_is_kept_however_many_are_under_way() {
        let (mut sender, mut receiver) = queue();
        let (mut sent, mut received) = (0, 0);
        for (push, pop) in [(3, 1), (40, 5), (1, 30), (0, 8), (17, 17), (100, 99), (0, 1), (16, 16)] {
            for _ in 0..push {
                sender.push(7, short(sent));
                sent += 1;
            }
            for _ in 0..pop {
                assert_eq!(receiver.pop(7).map(|message| number(&message)), Some(received));
                received += 1;
            }
        }
        assert!(receiver.pop(7).is_none());
    }

    #[test]
    fn two_threads_keep_the_order() {
        const COUNT: u64 = 100_000;
        let (mut sender, mut receiver) = queue();
        let other = std::thread::spawn(move || (0..COUNT).for_each(|n| sender.push(1, short(n))));
        for n in 0..COUNT {
            let message = loop {
                match receiver.pop(1) {
                    Some(message) => break message,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(number(&message), n);
        }
        other.join().unwrap();
    }

    #[test]
    fn what_a_failed_operation_left_is_thrown_away_and_what_comes_later_waits() {
        let (mut sender, mut receiver) = queue();
        for tag in [i32::MAX - 1, i32::MAX, 0, 1] {
            sender.push(tag, short(tag.cast_unsigned().into()));
        }
        assert!(receiver.pop(i32::MAX).is_some_and(|message| number(&message) == i32::MAX as u64));
        assert!(receiver.pop(i32::MAX).is_none());
        assert!(receiver.pop(1).is_some_and(|message| number(&message) == 1));
    }
}
