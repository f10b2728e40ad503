//! Keys in twelve bytes, as a hash table stores them: short keys are compared and hashed without a memory access
//! elsewhere.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

/// The length of the longest key that is stored inline.
pub(crate) const SHORT: usize = 11;

/// In place of a length: the key is stored elsewhere.
const LONG: u32 = 63;

/// A key of up to 11 bytes, padded with zeros, and its length plus one. All zeros mean no key. For a longer key: a part
/// of its hash, and its position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct InlineKey {
    pub(crate) head: u64,
    /// The length is in the upper byte, whose top two bits are never set.
    pub(crate) tail: u32,
}

impl InlineKey {
    /// The key, if it is short. `around` are bytes that may contain it: then it is read from there, which is faster.
    #[inline]
    pub(crate) fn of(key: &[u8], around: &[u8]) -> Option<Self> {
        if key.len() > SHORT {
            return None;
        }
        // Loads sixteen bytes whatever the length, and masks them: copying `len` bytes would branch on the length of
        // words, which no processor can predict. Bytes of `around` at the key's address are the key's, as both are
        // borrowed.
        let at = key.as_ptr().addr().wrapping_sub(around.as_ptr().addr());
        let loaded = match around.get(at..).and_then(<[u8]>::first_chunk) {
            Some(sixteen) => u128::from_le_bytes(*sixteen),
            None => assemble(key),
        };
        let word = loaded & MASKS[key.len() & 15];
        Some(Self { head: word as u64, tail: (word >> 64) as u32 | (key.len() as u32 + 1) << 24 })
    }

    /// The entry of a long key with this hash that is in an arena at `start`.
    #[inline]
    pub(crate) fn long(hash: u64, start: u32) -> Self {
        Self { head: u64::from(start) | hash & !0xffff_ffff, tail: hash as u32 & 0xff_ffff | LONG << 24 }
    }

    /// The length of a short key.
    #[inline]
    pub(crate) fn short_len(self) -> usize {
        (self.tail >> 24).saturating_sub(1) as usize
    }

    /// The position of a long key.
    #[inline]
    pub(crate) fn start(self) -> Option<u32> {
        (self.tail >> 24 == LONG).then_some(self.head as u32)
    }

    /// Whether it may be the long key with that hash.
    #[inline]
    pub(crate) fn may_be_long(self, hash: u64) -> bool {
        let long = Self::long(hash, 0);
        self.tail == long.tail && self.head >> 32 == long.head >> 32
    }

    /// The hash of a short key: the same as [`hash`] of its bytes.
    #[inline]
    pub(crate) fn hash(self) -> u64 {
        // A multiplication to 128 bits whose halves are folded together, as in wyhash and foldhash. The second factor
        // is never zero, as its upper half is not.
        let product = u128::from(self.head ^ 0x9e37_79b9_7f4a_7c15)
            * u128::from(u64::from(self.tail) ^ 0xd6e8_feb8_6659_fd93);
        (product as u64) ^ (product >> 64) as u64
    }
}

/// Loads a key for which sixteen bytes may not be read, by two overlapping halves.
#[inline]
fn assemble(key: &[u8]) -> u128 {
    if let (Some(first), Some(last)) = (key.first_chunk(), key.last_chunk()) {
        let last = u128::from(u64::from_le_bytes(*last)) << (8 * (key.len() - 8));
        return u128::from(u64::from_le_bytes(*first)) | last;
    }
    if let (Some(first), Some(last)) = (key.first_chunk(), key.last_chunk()) {
        let last = u128::from(u32::from_le_bytes(*last)) << (8 * (key.len() - 4));
        return u128::from(u32::from_le_bytes(*first)) | last;
    }
    key.iter().rev().fold(0, |word, &byte| word << 8 | u128::from(byte))
}

/// `MASKS[n]` keeps the first `n` bytes.
static MASKS: [u128; 16] = {
    let mut masks = [0; 16];
    let mut len = 0;
    while len < 16 {
        masks[len] = (1 << (8 * len)) - 1;
        len += 1;
    }
    masks
};

/// A hash of a key, the same in all processes.
#[inline]
pub(crate) fn hash(key: &[u8]) -> u64 {
    match InlineKey::of(key, &[]) {
        Some(short) => short.hash(),
        None => long_hash(key),
    }
}

/// Whether two keys are equal; makes no function call if they are short.
#[inline]
pub(crate) fn is_same(a: &[u8], b: &[u8]) -> bool {
    match (InlineKey::of(a, &[]), InlineKey::of(b, &[])) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// The [`hash`] of a long key.
pub(crate) fn long_hash(key: &[u8]) -> u64 {
    let mut hasher = FixedState::with_seed(0x5249_5645).build_hasher();
    hasher.write(key);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_is_the_same_wherever_it_stands(
            before: Vec<u8>, key in prop::collection::vec(any::<u8>(), 0..=SHORT), after: Vec<u8>,
        ) {
            let text = [before.as_slice(), &key, &after].concat();
            let within = &text[before.len()..before.len() + key.len()];
            let alone = InlineKey::of(&key, &[]).unwrap();
            prop_assert_eq!(InlineKey::of(within, &text).unwrap(), alone);
            prop_assert_eq!(InlineKey::of(within, &text[..before.len()]).unwrap(), alone);
            prop_assert_eq!(InlineKey::of(&key, &text).unwrap(), alone);
            prop_assert!(alone.tail != 0 && alone.start().is_none());
            prop_assert_eq!(alone.hash(), hash(&key));
        }
    }

    #[test]
    fn keys_differ_in_what_they_are_and_how_long_they_are() {
        let keys: [&[u8]; 6] = [b"", b"\0", b"\0\0", b"a", b"a\0", b"abcdefghijk"];
        let inline = keys.iter().filter_map(|key| InlineKey::of(key, &[]));
        assert_eq!(inline.map(|key| (key.head, key.tail)).collect::<HashSet<_>>().len(), keys.len());
        assert_eq!(InlineKey::of(b"abcdefghijkl", &[]), None);
        let long = hash(b"abcdefghijklmnop");
        assert_eq!(InlineKey::long(long, 77).start(), Some(77));
        assert!(InlineKey::long(long, 77).may_be_long(long) && !InlineKey::long(long, 77).may_be_long(!long));
    }

    #[test]
    fn similar_keys_spread() {
        // 100,000 numbers into 2^20 buckets: a random function is expected to hit 95,300.
        for make in [|n: u64| n.to_be_bytes().to_vec(), |n: u64| format!("word {n}").into_bytes()] {
            let places: HashSet<u64> = (0..100_000).map(|n| hash(&make(n)) >> 44).collect();
            assert!(places.len() > 94_000, "{}", places.len());
        }
    }
}
