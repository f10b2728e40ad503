//! A queue of messages from one thread to another: a ring of cache lines that takes no lock and no memory, and behind it,
//! for what is long or does not fit, a list that never is full.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::{Pod, Zeroable};
use river_core::Payload;
use rtrb::{Consumer, Producer, RingBuffer};

use super::EAGER_NEAR;
use crate::header::HEADER;

const LINE: usize = 64;
/// Lines in the ring.
const ROOM: usize = 1024;
/// A message begins with its length.
const LENGTH: usize = 8;
/// No message in the ring is longer.
const LONGEST: usize = HEADER + EAGER_NEAR;

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

impl Default for Line {
    fn default() -> Self {
        Self([0; LINE])
    }
}

/// What is not in the ring. While there is any, all that comes goes here.
#[derive(Debug, Default)]
struct Spill {
    count: AtomicUsize,
    payloads: Mutex<VecDeque<Payload>>,
}

#[derive(Debug)]
pub(super) struct Sender {
    ring: Producer<Line>,
    spill: Arc<Spill>,
}

#[derive(Debug)]
pub(super) struct Receiver {
    ring: Consumer<Line>,
    spill: Arc<Spill>,
}

/// A message that has come.
pub(super) enum Arrived<'a> {
    /// It is in the ring, in two parts as it may begin at its end. The header is in the first.
    Here(&'a [u8], &'a [u8]),
    Own(Payload),
}

pub(super) fn queue() -> (Sender, Receiver) {
    let (producer, consumer) = RingBuffer::new(ROOM);
    let spill = Arc::<Spill>::default();
    (Sender { ring: producer, spill: spill.clone() }, Receiver { ring: consumer, spill })
}

impl Sender {
    /// Whether the receiver is gone.
    pub(super) fn is_abandoned(&self) -> bool {
        self.ring.is_abandoned()
    }

    /// Copies a message, a header and what is behind it, into the ring. False: it is too long, or there is no room.
    pub(super) fn push(&mut self, header: &[u8], data: &[u8]) -> bool {
        let len = header.len() + data.len();
        if len > LONGEST || header.len() > LINE - LENGTH || self.spill.count.load(Ordering::Acquire) > 0 {
            return false;
        }
        let Ok(mut chunk) = self.ring.write_chunk((LENGTH + len).div_ceil(LINE)) else { return false };
        let (first, second) = chunk.as_mut_slices();
        let (first, second): (&mut [u8], &mut [u8]) =
            (bytemuck::cast_slice_mut(first), bytemuck::cast_slice_mut(second));
        let (length, rest) = first.split_at_mut(LENGTH);
        length.copy_from_slice(&(len as u64).to_le_bytes());
        let (head, rest) = rest.split_at_mut(header.len());
        head.copy_from_slice(header);
        let (here, there) = data.split_at(data.len().min(rest.len()));
        rest[..here.len()].copy_from_slice(here);
        second[..there.len()].copy_from_slice(there);
        chunk.commit_all();
        true
    }

    /// Sends what has memory of its own.
    pub(super) fn push_payload(&mut self, payload: Payload) {
        let mut payloads = self.spill.payloads.lock().unwrap_or_else(PoisonError::into_inner);
        payloads.push_back(payload);
        self.spill.count.store(payloads.len(), Ordering::Release);
    }
}

impl Receiver {
    /// Shows the next message, if there is one, which is gone then.
    pub(super) fn take<R>(&mut self, take: impl FnOnce(Arrived<'_>) -> R) -> Option<R> {
        // In this order: if there is a list, what is in the ring then is older, and nothing more comes into the ring.
        let spilled = self.spill.count.load(Ordering::Acquire) > 0;
        if let Ok(Line([a, b, c, d, ..])) = self.ring.peek() {
            let len = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
            let chunk = self.ring.read_chunk((LENGTH + len).div_ceil(LINE)).ok()?;
            let (first, second) = chunk.as_slices();
            let (first, second): (&[u8], &[u8]) = (bytemuck::cast_slice(first), bytemuck::cast_slice(second));
            let here = &first[LENGTH..first.len().min(LENGTH + len)];
            let result = take(Arrived::Here(here, &second[..len - here.len()]));
            chunk.commit_all();
            return Some(result);
        }
        if !spilled {
            return None;
        }
        let payload = {
            let mut payloads = self.spill.payloads.lock().unwrap_or_else(PoisonError::into_inner);
            let payload = payloads.pop_front();
            self.spill.count.store(payloads.len(), Ordering::Release);
            payload
        };
        payload.map(|payload| take(Arrived::Own(payload)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn send(sender: &mut Sender, number: usize, len: usize) {
        let header = [number as u8; HEADER];
        let data = vec![number as u8; len];
        if !sender.push(&header, &data) {
            sender.push_payload([&header[..], &data].concat().into());
        }
    }

    /// The number and the length of the next message.
    fn receive(receiver: &mut Receiver) -> Option<(u8, usize)> {
        receiver.take(|arrived| {
            let bytes = match arrived {
                Arrived::Here(first, second) => [first, second].concat(),
                Arrived::Own(payload) => payload.to_bytes().to_vec(),
            };
            assert!(bytes.iter().all(|&byte| byte == bytes[0]));
            (bytes[0], bytes.len() - HEADER)
        })
    }

    proptest! {
        #[test]
        fn order_is_kept_whatever_is_under_way(
            steps in prop::collection::vec((any::<bool>(), prop_oneof![0..80_usize, 0..20_000_usize]), 1..300),
        ) {
            let (mut sender, mut receiver) = queue();
            let mut model = VecDeque::new();
            for (number, (sends, len)) in steps.into_iter().enumerate() {
                if sends {
                    send(&mut sender, number, len);
                    model.push_back((number as u8, len));
                } else {
                    prop_assert_eq!(receive(&mut receiver), model.pop_front());
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
    fn two_threads_keep_the_order() {
        const COUNT: usize = 20_000;
        let len = |number: usize| number * 7919 % 20_000 / (1 + number % 100);
        let (mut sender, mut receiver) = queue();
        let other = std::thread::spawn(move || (0..COUNT).for_each(|n| send(&mut sender, n, len(n))));
        for number in 0..COUNT {
            let message = loop {
                match receive(&mut receiver) {
                    Some(message) => break message,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(message, (number as u8, len(number)));
        }
        other.join().unwrap();
    }
}
