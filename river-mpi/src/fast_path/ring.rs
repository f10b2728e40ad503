//! A ring of cache lines in shared memory, with messages of collective operations from one process to another.

use river_core::SharedLines;

use super::queue::{TAG, copy_of, is_later, tag_of};
use crate::coll::{Landed, Message, SHORT};
use crate::lend::ring::Reader;
use crate::queue::{LazyRing, RingOffer, Wait, sleep};

/// Lines of a ring whose sides run at the same time: it stays in the L1 cache of both.
const LINES: u16 = 256;
/// Lines of a ring whose sides take turns on a core: this much is sent in one turn.
const TURN_LINES: u16 = 1024;

/// The writing side of a pair's ring.
pub(super) struct Sender {
    ring: LazyRing,
    /// The operation whose remaining messages go through the engine.
    spilled: Option<i32>,
    pushed: u32,
}

/// The reading side.
pub(super) struct Receiver {
    reader: Reader<SharedLines>,
    /// A message of an operation later than the one asked for.
    held: Option<(i32, Message)>,
    /// A message that arrived through the engine; it was sent after everything that was in the ring.
    late: Option<(i32, Message)>,
}

impl Sender {
    /// Creates the sender to a rank. `can_have` says whether there can be a ring to it.
    pub(super) fn new(can_have: bool) -> Self {
        let ring = if can_have { LazyRing::NEW } else { LazyRing::Never };
        Self { ring, spilled: None, pushed: 0 }
    }

    /// Returns how many messages it has pushed, or `None` if there is no ring.
    pub(super) fn pushed(&self) -> Option<u32> {
        self.ring.is_open().then_some(self.pushed)
    }

    /// Pushes a copy of a message. Returns `None` if it has to go through the engine, and otherwise whether the receiver has
    /// to be woken.
    pub(super) fn push(&mut self, tag: i32, bytes: &[u8]) -> Option<bool> {
        let fits = bytes.len() <= SHORT && self.spilled != Some(tag);
        let wakes =
            if fits { self.ring.push([u64::from(tag.cast_unsigned())], bytes, reason(tag)) } else { None };
        match wakes {
            Some(_) => self.pushed = self.pushed.wrapping_add(1),
            None => self.spilled = Some(tag),
        }
        wakes
    }

    /// Notes that a message has gone through the engine. Returns the ring that has to be offered to the receiver.
    pub(super) fn advance(&mut self, waits: Wait, shares_memory: impl FnOnce() -> bool) -> Option<RingOffer> {
        let lines = match waits {
            Wait::Looking => LINES,
            Wait::Yielding => TURN_LINES,
        };
        self.ring.advance(lines, Some(waits), shares_memory)
    }
}

impl Receiver {
    /// Joins a ring that another process has created, and lets that process know. Returns `None` if this process cannot open
    /// it.
    pub(super) fn join(offer: &RingOffer) -> Option<Self> {
        Some(Self { reader: offer.join()?, held: None, late: None })
    }

    /// Keeps a message that arrived through the engine.
    pub(super) fn keep_late(&mut self, tag: i32, message: Message) {
        self.late = Some((tag, message));
    }

    /// Publishes that this side sleeps until something arrives in an operation: see [`sleep`].
    pub(super) fn fall_asleep(&self, tag: i32) {
        sleep::fall_asleep(self.reader.asleep(), reason(tag));
    }

    /// Publishes that this side is awake. Returns `false` if the sender has found it asleep, and has sent or will send a
    /// wake-up message.
    pub(super) fn wake_up(&self) -> bool {
        sleep::wake_up(self.reader.asleep())
    }

    /// Returns the next message of an operation, copied into `out` if it lies in the ring and fits. Discards messages of
    /// earlier operations, which must have failed.
    pub(super) fn pop_into(&mut self, tag: i32, out: &mut [u8]) -> Option<Landed> {
        match self.held.take() {
            Some((held, message)) if held == tag => return Some(message.into()),
            Some((held, message)) if is_later(held, tag) => self.held = Some((held, message)),
            _ => {}
        }
        while self.held.is_none()
            && let Some(record) = self.reader.next()
        {
            let (len, its) = (record.len(), tag_of(&record));
            let landed = (its == tag).then(|| match out.get_mut(..len.saturating_sub(TAG)) {
                Some(out) => {
                    record.copy_to(TAG / size_of::<u64>(), out);
                    Landed::Here(out.len())
                }
                None => copy_of(&record).into(),
            });
            if landed.is_none() && is_later(its, tag) {
                self.held = Some((its, copy_of(&record)));
            }
            self.reader.skip(len);
            if landed.is_some() {
                return landed;
            }
        }
        match self.late.take() {
            Some((late, message)) if late == tag => Some(message.into()),
            late => {
                self.late = late;
                None
            }
        }
    }
}

/// The reason of a receiver that sleeps until something arrives in an operation.
fn reason(tag: i32) -> u64 {
    u64::from(tag.cast_unsigned()) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lend::ring::memory_of;

    fn pair(lines: usize) -> (Sender, Receiver) {
        let ours = SharedLines::create(memory_of(lines)).unwrap();
        let theirs = SharedLines::open(&ours.name(), memory_of(lines)).unwrap();
        let sender = Sender { ring: LazyRing::open(ours), spilled: None, pushed: 0 };
        (sender, Receiver { reader: Reader::new(theirs), held: None, late: None })
    }

    fn pop(receiver: &mut Receiver, tag: i32) -> Option<u8> {
        let mut out = [0; 2];
        match receiver.pop_into(tag, &mut out)? {
            Landed::Here(len) => Some(out[..len][0]),
            Landed::Elsewhere(message) => Some(message.read(|bytes| bytes[0])),
        }
    }

    #[test]
    fn what_came_by_the_engine_is_behind_what_is_in_the_ring() {
        let (mut sender, mut receiver) = pair(32);
        assert!(sender.push(5, &[1]).is_some() && sender.push(5, &[2; 60]).is_some());
        receiver.late = Some((5, Message::Whole(vec![3].into())));
        assert_eq!([5, 5, 5, 5].map(|tag| pop(&mut receiver, tag)), [Some(1), Some(2), Some(3), None]);
    }

    #[test]
    fn an_operation_that_has_left_the_ring_does_not_come_back_to_it() {
        let (mut sender, mut receiver) = pair(32);
        while sender.push(7, &[7]).is_some() {}
        assert!(pop(&mut receiver, 7).is_some());
        while pop(&mut receiver, 7).is_some() {}
        assert!(sender.push(7, &[7]).is_none() && sender.push(8, &[8]).is_some());
        assert_eq!(pop(&mut receiver, 8), Some(8));
        assert!(sender.push(9, &vec![0; SHORT + 1]).is_none());
    }

    #[test]
    fn what_a_failed_operation_left_is_thrown_away_and_what_comes_later_waits() {
        let (mut sender, mut receiver) = pair(32);
        for tag in [i32::MAX - 1, i32::MAX, 0, 1] {
            assert!(sender.push(tag, &[tag as u8]).is_some());
        }
        receiver.late = Some((i32::MAX, Message::Whole(vec![9].into())));
        assert_eq!(pop(&mut receiver, i32::MAX), Some(255));
        assert_eq!(pop(&mut receiver, i32::MAX), Some(9), "though a later one is in the ring");
        assert_eq!([1, 1].map(|tag| pop(&mut receiver, tag)), [Some(1), None]);
    }

    #[test]
    fn a_sleeper_is_woken_once_and_by_what_it_waits_for() {
        let (mut sender, receiver) = pair(32);
        receiver.fall_asleep(7);
        assert_eq!([6, 7, 7].map(|tag| sender.push(tag, &[])), [Some(false), Some(true), Some(false)]);
    }
}
