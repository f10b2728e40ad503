//! Short keys within two words, as a hash table holds them: compared and hashed without a look elsewhere.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

/// Bytes of the longest key that is held.
const SHORT: usize = 15;

/// In place of a length: the key is elsewhere.
const LONG: u8 = 255;

/// A key of up to 15 bytes, zeros, and its length plus one. All zeros are no key. Of a longer key it holds the hash, and
/// where the key is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(align(16))]
pub(crate) struct InlineKey([u8; SHORT + 1]);

impl InlineKey {
    /// The key, if it is short. `around` are bytes that it may be a part of: then it is read from there, which is
    /// faster.
    #[inline]
    pub(crate) fn of(key: &[u8], around: &[u8]) -> Option<Self> {
        if key.len() > SHORT {
            return None;
        }
        // Sixteen bytes at once, whatever the length, and then a mask: to copy `len` bytes is to branch on it, and how
        // long words are no processor can predict. What stands where the key stands are its bytes, as both are borrowed.
        let at = key.as_ptr().addr().wrapping_sub(around.as_ptr().addr());
        let loaded = match around.get(at..).and_then(<[u8]>::first_chunk) {
            Some(sixteen) => u128::from_le_bytes(*sixteen),
            None => assemble(key),
        };
        let length = (key.len() as u128 + 1) << (8 * SHORT);
        Some(Self((loaded & MASKS[key.len() & SHORT] | length).to_le_bytes()))
    }

    /// What stands for a long key with this hash that is in an arena at `start`.
    pub(crate) fn long(hash: u64, start: u32) -> Self {
        Self((u128::from(hash) | u128::from(start) << 64 | u128::from(LONG) << (8 * SHORT)).to_le_bytes())
    }

    /// Whether there is a key.
    #[inline]
    pub(crate) fn is_some(self) -> bool {
        self.0[SHORT] != 0
    }

    /// Where a long key is.
    #[inline]
    pub(crate) fn start(self) -> Option<u32> {
        (self.0[SHORT] == LONG).then(|| (u128::from_le_bytes(self.0) >> 64) as u32)
    }

    /// The bytes of a short key.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        let (bytes, length) = self.0.split_at(SHORT);
        &bytes[..usize::from(length[0]).saturating_sub(1).min(SHORT)]
    }

    /// The same as [`hash`] of the key's bytes.
    #[inline]
    pub(crate) fn hash(self) -> u64 {
        let both = u128::from_le_bytes(self.0);
        if self.0[SHORT] == LONG {
            return both as u64;
        }
        // A multiplication to 128 bits whose halves are folded together, as in wyhash and foldhash. The second factor is
        // never zero, as no length is 0xd5.
        let product = u128::from(both as u64 ^ 0x9e37_79b9_7f4a_7c15)
            * u128::from((both >> 64) as u64 ^ 0xd6e8_feb8_6659_fd93);
        (product as u64) ^ (product >> 64) as u64
    }
}

/// Loads a key that is nowhere within sixteen bytes that may be read: halves that overlap.
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
static MASKS: [u128; SHORT + 1] = {
    let mut masks = [0; SHORT + 1];
    let mut len = 0;
    while len <= SHORT {
        masks[len] = (1 << (8 * len)) - 1;
        len += 1;
    }
    masks
};

/// A hash of a key that is the same in all processes.
#[inline]
pub(crate) fn hash(key: &[u8]) -> u64 {
    match InlineKey::of(key, &[]) {
        Some(short) => short.hash(),
        None => long_hash(key),
    }
}

/// The [`hash`] of a key that is not short.
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
            prop_assert!(alone.is_some());
            prop_assert_eq!(alone.bytes(), &key);
            prop_assert_eq!(alone.hash(), hash(&key));
        }
    }

    #[test]
    fn keys_differ_in_what_they_are_and_how_long_they_are() {
        let keys: [&[u8]; 6] = [b"", b"\0", b"\0\0", b"a", b"a\0", b"abcdefghijklmno"];
        let inline: HashSet<[u8; 16]> =
            keys.iter().filter_map(|key| InlineKey::of(key, &[])).map(|key| key.0).collect();
        assert_eq!(inline.len(), keys.len());
        assert_eq!(InlineKey::of(b"abcdefghijklmnop", &[]), None);
        assert!(!InlineKey::default().is_some());
        let long = InlineKey::long(hash(b"abcdefghijklmnop"), 77);
        assert_eq!((long.hash(), long.start()), (hash(b"abcdefghijklmnop"), Some(77)));
        assert!(keys.iter().all(|key| InlineKey::of(key, &[]).unwrap().start().is_none()));
    }

    #[test]
    fn similar_keys_spread() {
        // 100,000 numbers over 2^20 places: 95,300 different ones are expected of a random function.
        for make in [|n: u64| n.to_be_bytes().to_vec(), |n: u64| format!("word {n}").into_bytes()] {
            let places: HashSet<u64> = (0..100_000).map(|n| hash(&make(n)) >> 44).collect();
            assert!(places.len() > 94_000, "{}", places.len());
        }
    }
}
