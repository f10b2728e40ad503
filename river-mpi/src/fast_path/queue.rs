//! A queue of messages of collective operations from one thread to another.

use crate::coll::{INLINE, Landed, Message};
use crate::queue::{Arrived, Record, Wait, queue};

/// Lines of a queue's ring if both sides run at the same time: it stays in the L1 cache of both. Most messages take one line,
/// the longest takes 65.
const LINES: usize = 256;
/// Lines if the sides take turns: this much is sent in one turn.
const TURN_LINES: usize = 1024;
/// Lines if there are many ranks, and therefore many more queues.
const FEW_LINES: usize = 128;
/// The most ranks that do not count as many.
const FEW_RANKS: usize = 16;

/// A message and its operation.
#[derive(Debug)]
pub(super) struct Parcel {
    tag: i32,
    message: Message,
}

#[derive(Debug)]
pub(super) struct Sender(crate::queue::Sender<Parcel>);

#[derive(Debug)]
pub(super) struct Receiver {
    queue: crate::queue::Receiver<Parcel>,
    /// The first message of an operation later than the one asked for.
    held: Option<Parcel>,
}

/// Creates a queue between two of this many ranks, whose sender waits for room as `waits` says.
pub(super) fn pair(ranks: usize, waits: Wait) -> (Sender, Receiver) {
    let (sender, receiver) = queue(match waits {
        _ if ranks > FEW_RANKS => FEW_LINES,
        Wait::Looking => LINES,
        Wait::Yielding => TURN_LINES,
    });
    (Sender(sender.waiting(waits)), Receiver { queue: receiver, held: None })
}

impl Sender {
    /// Pushes a copy of a message. Returns `false` if there is no room; it must then be pushed in memory of its own.
    pub(super) fn push_copy(&mut self, tag: i32, bytes: &[u8]) -> bool {
        self.0.push([u64::from(tag.cast_unsigned())], bytes)
    }

    pub(super) fn push(&mut self, tag: i32, message: Message) {
        self.0.push_thing(Parcel { tag, message });
    }
}

impl Receiver {
    /// Returns the next message of an operation, if it has arrived. Discards messages of earlier operations, which must have
    /// failed.
    pub(super) fn pop(&mut self, tag: i32) -> Option<Message> {
        let mut copy = None;
        let message = self.next(tag, |record| copy = Some(copy_of(record)))?;
        message.or(copy)
    }

    /// Like [`pop`](Self::pop), but copies a message that lies in the ring into `out`, if it fits.
    pub(super) fn pop_into(&mut self, tag: i32, out: &mut [u8]) -> Option<Landed> {
        let mut landing = Landed::Here(0);
        let message = self.next(tag, |record| {
            let len = record.len() - TAG;
            landing = match out.get_mut(..len) {
                Some(out) => {
                    record.copy_to(TAG / size_of::<u64>(), out);
                    Landed::Here(len)
                }
                None => copy_of(record).into(),
            };
        })?;
        Some(message.map_or(landing, Landed::from))
    }

    /// Returns the next message of an operation, or `Some(None)` if it lay in the ring and was passed to `take`.
    // `take` stores its result itself: returned from here, the result would be copied several times.
    fn next(&mut self, tag: i32, mut take: impl FnMut(&Record<'_>)) -> Option<Option<Message>> {
        loop {
            let mut other = self.held.take();
            if other.is_none() {
                self.queue.take(|arrived| match arrived {
                    Arrived::Record(record) if tag_of(record) == tag => take(record),
                    Arrived::Record(record) => {
                        other = Some(Parcel { tag: tag_of(record), message: copy_of(record) });
                    }
                    Arrived::Thing(parcel) => other = Some(parcel),
                })?;
            }
            match other {
                None => return Some(None),
                Some(parcel) if parcel.tag == tag => return Some(Some(parcel.message)),
                Some(parcel) if is_later(parcel.tag, tag) => {
                    self.held = Some(parcel);
                    return None;
                }
                Some(_) => {}
            }
        }
    }
}

/// Bytes of a record before its message.
pub(super) const TAG: usize = size_of::<u64>();

pub(super) fn tag_of(record: &Record<'_>) -> i32 {
    let [tag] = record.words();
    (tag as u32).cast_signed()
}

pub(super) fn copy_of(record: &Record<'_>) -> Message {
    let len = record.len().saturating_sub(TAG);
    if len <= INLINE {
        let [_, data @ ..] = record.words::<{ 1 + INLINE / 8 }>();
        return Message::Short(data, len as u8);
    }
    let mut copy = vec![0; len];
    record.copy_to(TAG / size_of::<u64>(), &mut copy);
    Message::Whole(copy.into())
}

/// Whether one operation comes after another. Operations are numbered with 31 bits; after the last number comes 0.
pub(super) fn is_later(tag: i32, than: i32) -> bool {
    (1..1 << 30).contains(&(tag.wrapping_sub(than) & i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(sender: &mut Sender, tag: i32, n: u64) {
        let bytes = n.to_le_bytes();
        if !sender.push_copy(tag, &bytes) {
            sender.push(tag, Message::Whole(bytes.to_vec().into()));
        }
    }

    fn number(message: &Message) -> u64 {
        message.read(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
    }

    #[test]
    fn order_is_kept_however_many_are_under_way() {
        let (mut sender, mut receiver) = pair(2, Wait::Looking);
        let (mut sent, mut received) = (0, 0);
        for (pushes, pops) in [(3, 1), (40, 5), (1, 30), (0, 8), (17, 17), (1000, 990), (9, 19), (16, 16)] {
            for _ in 0..pushes {
                push(&mut sender, 7, sent);
                sent += 1;
            }
            for _ in 0..pops {
                assert_eq!(receiver.pop(7).map(|message| number(&message)), Some(received));
                received += 1;
            }
        }
        assert!(receiver.pop(7).is_none());
    }

    #[test]
    fn what_a_failed_operation_left_is_thrown_away_and_what_comes_later_waits() {
        let (mut sender, mut receiver) = pair(17, Wait::Yielding);
        for tag in [i32::MAX - 1, i32::MAX, 0, 1] {
            push(&mut sender, tag, tag.cast_unsigned().into());
        }
        assert!(receiver.pop(i32::MAX).is_some_and(|message| number(&message) == i32::MAX as u64));
        assert!(receiver.pop(i32::MAX).is_none());
        assert!(receiver.pop(1).is_some_and(|message| number(&message) == 1));
    }
}
