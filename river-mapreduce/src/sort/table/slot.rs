//! A slot of the table, sixteen bytes: a key, and its value or the value's index.

use crate::inline_key::{InlineKey, SHORT};

/// In the last word of a key: the value itself follows. Lengths do not use these bits.
const SMALL: u32 = 1 << 31;
/// In the last word of a key: it has no value.
const STALE: u32 = 1 << 30;

/// A key and a number; all zeros mean an empty slot. Stored as bytes, so that a short key can be borrowed from it.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(16))]
pub(super) struct Slot([u8; 16]);

impl Slot {
    /// A key whose value is elsewhere, at that index.
    #[inline]
    pub(super) fn new(key: InlineKey, number: u32) -> Self {
        Self::of(key.head, key.tail, number)
    }

    /// A key with its value.
    #[inline]
    pub(super) fn with_small(key: InlineKey, small: u32) -> Self {
        Self::of(key.head, key.tail | SMALL, small)
    }

    #[inline]
    fn of(head: u64, tail: u32, number: u32) -> Self {
        let upper = u64::from(tail) | u64::from(number) << 32;
        Self((u128::from(head) | u128::from(upper) << 64).to_le_bytes())
    }

    #[inline]
    fn halves(&self) -> (u64, u64) {
        let both = u128::from_le_bytes(self.0);
        (both as u64, (both >> 64) as u64)
    }

    /// The value, if it is in this slot and the key is that of `other`, which also holds its value.
    #[inline]
    pub(super) fn small_of(&self, other: &Self) -> Option<u32> {
        let ((head, upper), (other_head, other_upper)) = (self.halves(), other.halves());
        (head == other_head && upper as u32 == other_upper as u32).then_some((upper >> 32) as u32)
    }

    /// The value, if it is in this slot.
    #[inline]
    pub(super) fn small(&self) -> Option<u32> {
        let (_, upper) = self.halves();
        (upper as u32 & SMALL != 0).then_some((upper >> 32) as u32)
    }

    /// Changes the value, which must be in this slot.
    #[inline]
    pub(super) fn set_small(&mut self, small: u32) {
        if let Some(last) = self.0.last_chunk_mut() {
            *last = small.to_le_bytes();
        }
    }

    /// The index of the value, which must be elsewhere.
    #[inline]
    pub(super) fn number(&self) -> usize {
        (self.halves().1 >> 32) as usize
    }

    #[inline]
    pub(super) fn key(&self) -> InlineKey {
        let (head, upper) = self.halves();
        InlineKey { head, tail: upper as u32 & !(SMALL | STALE) }
    }

    /// Whether the slot has a key.
    #[inline]
    pub(super) fn is_known(&self) -> bool {
        self.halves().1 as u32 != 0
    }

    /// Whether the slot has a key with a value.
    #[inline]
    pub(super) fn is_live(&self) -> bool {
        let tail = self.halves().1 as u32;
        tail != 0 && tail & STALE == 0
    }

    /// Removes the value from the key.
    #[inline]
    pub(super) fn retire(&mut self) {
        let InlineKey { head, tail } = self.key();
        *self = Self::of(head, tail | STALE, 0);
    }

    /// Returns a slot with the same value for another key.
    #[inline]
    pub(super) fn with_key(&self, key: InlineKey) -> Self {
        let (_, upper) = self.halves();
        let flags = upper as u32 & (SMALL | STALE);
        Self::of(key.head, key.tail | flags, (upper >> 32) as u32)
    }

    /// The bytes of the key; `long` is the arena of long keys.
    #[inline]
    pub(super) fn key_bytes<'a>(&'a self, long: &'a [u8]) -> &'a [u8] {
        match self.key().start() {
            Some(start) => long_key(long, start).1,
            None => {
                let (bytes, rest) = self.0.split_at(SHORT);
                &bytes[..usize::from(rest[0] & 0x3f).saturating_sub(1).min(SHORT)]
            }
        }
    }

    #[inline]
    pub(super) fn hash(&self, long: &[u8]) -> u64 {
        match self.key().start() {
            Some(start) => long_key(long, start).0,
            None => self.key().hash(),
        }
    }
}

/// The hash and the bytes of a long key, which follow the hash and the length.
#[inline]
fn long_key(long: &[u8], start: u32) -> (u64, &[u8]) {
    let rest = &long[start as usize..];
    let Some((hash, rest)) = rest.split_first_chunk() else { return (0, &[]) };
    let Some((length, rest)) = rest.split_first_chunk() else { return (0, &[]) };
    (u64::from_le_bytes(*hash), &rest[..u32::from_le_bytes(*length) as usize])
}
