//! One entry of the table, sixteen bytes: a key, and its value or where that is.

use crate::inline_key::{InlineKey, SHORT};

/// In a key's last byte: what follows is the value itself. Lengths leave these bits alone.
const SMALL: u32 = 1 << 31;
/// In a key's last byte: it has no value.
const STALE: u32 = 1 << 30;

/// A key and a number; all zeros are none. It is bytes, so that a short key can be borrowed from it.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(16))]
pub(super) struct Slot([u8; 16]);

impl Slot {
    /// A key whose value is elsewhere, under that number.
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

    /// The value, if it is here and the key is that of `other`, whose value is there.
    #[inline]
    pub(super) fn small_of(&self, other: &Self) -> Option<u32> {
        let ((head, upper), (other_head, other_upper)) = (self.halves(), other.halves());
        (head == other_head && upper as u32 == other_upper as u32).then_some((upper >> 32) as u32)
    }

    /// The value, if it is here.
    #[inline]
    pub(super) fn small(&self) -> Option<u32> {
        let (_, upper) = self.halves();
        (upper as u32 & SMALL != 0).then_some((upper >> 32) as u32)
    }

    /// Changes the value, which is here.
    #[inline]
    pub(super) fn set_small(&mut self, small: u32) {
        if let Some(last) = self.0.last_chunk_mut() {
            *last = small.to_le_bytes();
        }
    }

    /// The number of the value, which is elsewhere.
    #[inline]
    pub(super) fn number(&self) -> usize {
        (self.halves().1 >> 32) as usize
    }

    #[inline]
    pub(super) fn key(&self) -> InlineKey {
        let (head, upper) = self.halves();
        InlineKey { head, tail: upper as u32 & !(SMALL | STALE) }
    }

    /// Whether there is a key.
    #[inline]
    pub(super) fn is_known(&self) -> bool {
        self.halves().1 as u32 != 0
    }

    /// Whether there is a key that has a value.
    #[inline]
    pub(super) fn is_live(&self) -> bool {
        let tail = self.halves().1 as u32;
        tail != 0 && tail & STALE == 0
    }

    /// Takes its value from the key.
    #[inline]
    pub(super) fn retire(&mut self) {
        let InlineKey { head, tail } = self.key();
        *self = Self::of(head, tail | STALE, 0);
    }

    /// The same for another key.
    #[inline]
    pub(super) fn with_key(&self, key: InlineKey) -> Self {
        let (_, upper) = self.halves();
        let flags = upper as u32 & (SMALL | STALE);
        Self::of(key.head, key.tail | flags, (upper >> 32) as u32)
    }

    /// The bytes of the key; `long` are those of all that are not short.
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

/// The hash and the bytes of a long key, which come after the hash and the length.
#[inline]
fn long_key(long: &[u8], start: u32) -> (u64, &[u8]) {
    let rest = &long[start as usize..];
    let Some((hash, rest)) = rest.split_first_chunk() else { return (0, &[]) };
    let Some((length, rest)) = rest.split_first_chunk() else { return (0, &[]) };
    (u64::from_le_bytes(*hash), &rest[..u32::from_le_bytes(*length) as usize])
}
