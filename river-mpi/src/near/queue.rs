//! A queue of messages of collective operations from one thread to another.

use crate::coll::{Message, SHORT};
use crate::queue::{Arrived, queue};

/// Lines of a queue's ring: a line is a message.
const LINES: usize = 64;

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
    /// The first of a later operation than was asked for.
    held: Option<Parcel>,
}

/// A queue whose sender waits for room or not, when it is full.
pub(super) fn pair(waits: bool) -> (Sender, Receiver) {
    let (sender, receiver) = queue(LINES);
    let sender = if waits { sender.patient() } else { sender };
    (Sender(sender), Receiver { queue: receiver, held: None })
}

impl Sender {
    /// Pushes a message of [`SHORT`] bytes at most. False: there is no room; it has to be pushed in memory of its own.
    pub(super) fn push_short(&mut self, tag: i32, bytes: &[u8]) -> bool {
        debug_assert!(bytes.len() <= SHORT);
        self.0.push([u64::from(tag.cast_unsigned())], bytes)
    }

    pub(super) fn push(&mut self, tag: i32, message: Message) {
        self.0.push_thing(Parcel { tag, message });
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
        self.queue.take(|arrived| match arrived {
            Arrived::Record(record) => {
                let [tag, data @ ..] = record.words::<{ 1 + SHORT / 8 }>();
                let len = (record.len() - size_of_val(&tag)) as u8;
                Parcel { tag: (tag as u32).cast_signed(), message: Message::Short(data, len) }
            }
            Arrived::Thing(parcel) => parcel,
        })
    }
}

/// Operations are counted in 31 bits, and begin again with 0.
fn is_later(tag: i32, than: i32) -> bool {
    (1..1 << 30).contains(&(tag.wrapping_sub(than) & i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(sender: &mut Sender, tag: i32, n: u64) {
        let bytes = n.to_le_bytes();
        if !sender.push_short(tag, &bytes) {
            sender.push(tag, Message::Whole(bytes.to_vec().into()));
        }
    }

    fn number(message: &Message) -> u64 {
        message.read(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
    }

    #[test]
    fn order_is_kept_however_many_are_under_way() {
        let (mut sender, mut receiver) = pair(true);
        let (mut sent, mut received) = (0, 0);
        for (pushes, pops) in [(3, 1), (40, 5), (1, 30), (0, 8), (17, 17), (100, 99), (0, 1), (16, 16)] {
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
        let (mut sender, mut receiver) = pair(false);
        for tag in [i32::MAX - 1, i32::MAX, 0, 1] {
            push(&mut sender, tag, tag.cast_unsigned().into());
        }
        assert!(receiver.pop(i32::MAX).is_some_and(|message| number(&message) == i32::MAX as u64));
        assert!(receiver.pop(i32::MAX).is_none());
        assert!(receiver.pop(1).is_some_and(|message| number(&message) == 1));
    }
}
