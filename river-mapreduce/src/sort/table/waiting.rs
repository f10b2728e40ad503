//! Short keys with small values wait for each other and are looked up together: all their slots are asked for before the first
//! is needed. To wait for memory at each key would take as long as all the rest.

use super::slot::Slot;
use crate::inline_key::InlineKey;

/// So many wait at most: while their slots come from the last cache, the first has come.
pub(super) const TOGETHER: usize = 128;

/// What waits, in the order in which it came, as it would be in the table if it were the first of its key.
#[derive(Debug)]
pub(super) struct Waiting {
    slots: [Slot; TOGETHER],
    count: usize,
    /// How many do not wait any more.
    done: usize,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { slots: [Slot::default(); TOGETHER], count: 0, done: 0 }
    }
}

impl Waiting {
    /// Adds one. True: there is no room for another.
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

    /// The next one, which waits no more.
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
