//! A queue of messages of collective operations from one thread to another.

use crate::coll::Message;
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

pub(super) fn pair() -> (Sender, Receiver) {
    let (sender, receiver) = queue(LINES);
    (Sender(sender), Receiver { queue: receiver, held: None })
}

impl Sender {
    pub(super) fn push(&mut self, tag: i32, message: Message) {
        if let Message::Short([a, b, c, d, e], len) = message {
            let what = u64::from(tag.cast_unsigned()) << 32 | u64::from(len);
            if self.0.push([what, a, b, c, d, e], &[]) {
                return;
            }
        }
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
                let [what, data @ ..] = record.words::<6>();
                Parcel { tag: ((what >> 32) as u32).cast_signed(), message: Message::Short(data, what as u8) }
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

    fn short(n: u64) -> Message {
        Message::short(&n.to_le_bytes()).unwrap()
    }

    fn number(message: &Message) -> u64 {
        message.read(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
    }

    #[test]
    fn order_is_kept_however_many_are_under_way() {
        let (mut sender, mut receiver) = pair();
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
    fn what_a_failed_operation_left_is_thrown_away_and_what_comes_later_waits() {
        let (mut sender, mut receiver) = pair();
        for tag in [i32::MAX - 1, i32::MAX, 0, 1] {
            sender.push(tag, short(tag.cast_unsigned().into()));
        }
        assert!(receiver.pop(i32::MAX).is_some_and(|message| number(&message) == i32::MAX as u64));
        assert!(receiver.pop(i32::MAX).is_none());
        assert!(receiver.pop(1).is_some_and(|message| number(&message) == 1));
    }
}
