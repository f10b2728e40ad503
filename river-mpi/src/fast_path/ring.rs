//! A ring of cache lines that two processes share, with messages of collective operations.

use std::sync::atomic::{Ordering, compiler_fence, fence};

use river_core::{SharedLines, SharedName};

use super::queue::{TAG, copy_of, is_later, tag_of};
use crate::coll::{Landed, Message, SHORT};
use crate::lend::ring::Reader;
use crate::queue::{self, Patience, SharedWriter, Wait};

/// Lines of a ring: it stays in the first cache of both sides.
pub(super) const LINES: usize = 256;

/// The writing side of a ring that its reader has.
pub(super) struct Sender {
    ring: SharedWriter,
    patience: Patience,
    /// The operation whose messages go by the engine from now on.
    spilled: Option<i32>,
    pushed: u32,
}

/// The reading side.
pub(super) struct Receiver {
    reader: Reader<SharedLines>,
    /// Of a later operation than was asked for.
    held: Option<(i32, Message)>,
    /// What came by the engine, behind all that was in the ring.
    late: Option<(i32, Message)>,
}

/// Whether a receiver has to be told that it was woken.
pub(super) enum Sleeper {
    Awake,
    Asleep,
}

impl Sender {
    /// For all operations but this one, which goes by the engine.
    pub(super) fn new(mut ring: SharedWriter, waits: Wait, but: i32) -> Self {
        ring.seal();
        Self { ring, patience: Patience::new(Some(waits)), spilled: Some(but), pushed: 0 }
    }

    /// How many messages it has pushed.
    pub(super) fn pushed(&self) -> u32 {
        self.pushed
    }

    /// Pushes a copy of a message. `None`: there is no room, and it goes by the engine.
    pub(super) fn push(&mut self, tag: i32, bytes: &[u8]) -> Option<Sleeper> {
        if self.spilled == Some(tag) {
            return None;
        }
        self.patience.count();
        let words = [u64::from(tag.cast_unsigned())];
        let writer = self.ring.writer();
        let pushed = bytes.len() <= SHORT
            && (writer.push(words, bytes)
                || self.patience.wait_until(writer, |writer| writer.push(words, bytes)));
        if !pushed {
            self.spilled = Some(tag);
            return None;
        }
        self.pushed = self.pushed.wrapping_add(1);
        // Keeps the compiler from moving the push behind this look.
        compiler_fence(Ordering::SeqCst);
        let (asleep, reason) = (self.ring.writer().asleep(), reason(tag));
        let woken = asleep.load(Ordering::Relaxed) == reason
            && asleep.compare_exchange(reason, 0, Ordering::SeqCst, Ordering::Relaxed).is_ok();
        Some(if woken { Sleeper::Asleep } else { Sleeper::Awake })
    }
}

impl Receiver {
    /// Of a ring that another process has made, which sees that. `None`: this process cannot have it.
    pub(super) fn join(name: &SharedName) -> Option<Self> {
        Some(Self { reader: queue::join(name, LINES)?, held: None, late: None })
    }

    /// Notes a message that came by the engine.
    pub(super) fn keep_late(&mut self, tag: i32, message: Message) {
        self.late = Some((tag, message));
    }

    /// Notes that this side sleeps until something comes in an operation. It has to look once more before it really does, and again
    /// a moment later: see `Mesh::fall_asleep`.
    pub(super) fn fall_asleep(&self, tag: i32) {
        self.reader.asleep().store(reason(tag), Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Notes that it does not sleep. False: it was woken, and a message says so.
    pub(super) fn wake_up(&self) -> bool {
        self.reader.asleep().swap(0, Ordering::SeqCst) != 0
    }

    /// The next message of an operation. What is left of operations before it, which ended with an error, is thrown away.
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

/// What a receiver writes that sleeps until something comes in that operation.
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
        let ring = SharedWriter::new(ours);
        let sender = Sender { ring, patience: Patience::new(None), spilled: None, pushed: 0 };
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
        receiver.reader.asleep().store(reason(7), Ordering::SeqCst);
        assert!(matches!(sender.push(6, &[]), Some(Sleeper::Awake)));
        assert!(matches!(sender.push(7, &[]), Some(Sleeper::Asleep)));
        assert!(matches!(sender.push(7, &[]), Some(Sleeper::Awake)));
    }
}
