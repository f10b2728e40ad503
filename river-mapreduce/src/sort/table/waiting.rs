//! A queue of short keys with small values that are looked up together: all their slots are prefetched before the first
//! is needed. Waiting for memory at each key would take as long as everything else.

use super::slot::Slot;
use crate::inline_key::InlineKey;

/// The maximum number of waiting keys: by the time their slots have been requested from the last-level cache, the first
/// has arrived.
pub(super) const TOGETHER: usize = 128;

/// The waiting keys and values, in order of arrival, in the form that they would have in the table as the first of
/// their key.
#[derive(Debug)]
pub(super) struct Waiting {
    slots: [Slot; TOGETHER],
    count: usize,
    /// How many are no longer waiting.
    done: usize,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { slots: [Slot::default(); TOGETHER], count: 0, done: 0 }
    }
}

impl Waiting {
    /// Adds one. Returns `true` if there is no room for another.
    #[inline]
    pub(super) fn push(&mut self, key: InlineKey, small: u32) -> bool {
        if let Some(free) = self.slots.get_mut(self.count) {
            *free = Slot::with_small(key, small);
            self.count += 1;
        }
        self.count >= TOGETHER
    }

    /// All that wait.
    #[inline]
    pub(super) fn all(&self) -> &[Slot] {
        &self.slots[self.done..self.count]
    }

    /// Takes the next one.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Slot> {
        let next = self.all().first().copied();
        self.done += 1;
        if self.done >= self.count {
            self.clear();
        }
        next
    }

    pub(super) fn clear(&mut self) {
        (self.count, self.done) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_again_when_all_are_gone() {
        let key = InlineKey::of(b"key", &[]).unwrap();
        let mut waiting = Waiting::default();
        for round in 0..3 {
            let full = (0..).position(|small| waiting.push(key, small)).unwrap();
            assert_eq!((full + 1, waiting.all().len()), (TOGETHER, TOGETHER));
            let popped: Vec<Option<u32>> = (0..TOGETHER).map(|_| waiting.pop()?.small()).collect();
            assert_eq!(popped, (0..TOGETHER as u32).map(Some).collect::<Vec<_>>(), "round {round}");
            assert!(waiting.all().is_empty() && waiting.pop().is_none());
        }
    }
}
