//! One entry of the counting table: sixteen bytes that usually hold the whole word and its count.
//!
//! ```text
//! byte   0 .. 8    8 .. 11       11             12 .. 16
//! short  the word, then zeros    its length     low half of its count
//! long   offset    24 hash bits  LONG           low half of its count
//! empty  0         0             0              0
//! ```
//!
//! Four entries share a cache line and none straddles two. With room for the whole count and for longer words, an entry
//! would be half as large again, and so would be the part of a table of 200,000 words that must stay in the cache;
//! counts above 2^32 and words of more than eleven bytes are rare enough to be stored elsewhere.

/// The length of the longest word that is stored in the entry, in bytes.
pub(super) const SHORT: usize = 11;

/// In place of a length: the word is in the arena.
const LONG: u8 = 255;

/// One more occurrence, in units of an entry's second half.
const ONE: u64 = 1 << 32;

/// Identifies a word in the table: the first twelve bytes of its entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    head: u64,
    tail: u32,
}

impl Key {
    /// The key of the word `text[start..end]`, if it is short. The word must not be empty.
    #[inline]
    pub(super) fn short(text: &[u8], start: usize, end: usize) -> Option<Self> {
        let len = end - start;
        if len > SHORT {
            return None;
        }
        // Loads sixteen bytes whatever the length, and masks them: copying `len` bytes would branch on the length.
        let word = match text.get(start..).and_then(<[u8]>::first_chunk) {
            Some(bytes) => u128::from_le_bytes(*bytes),
            None => near_end(&text[start..end]),
        };
        let word = word & MASKS[len & 15];
        Some(Self { head: word as u64, tail: (word >> 64) as u32 | (len as u32) << 24 })
    }

    /// The key of a long word that is in the arena at `offset`.
    pub(super) fn long(offset: u64, hash: u64) -> Self {
        Self { head: offset, tail: hash as u32 & 0xff_ffff | u32::from(LONG) << 24 }
    }

    /// Whether both are long and have the same hash bits, so that they are worth a comparison of the words.
    pub(super) fn may_equal_long(self, hash: u64) -> bool {
        self.tail == Self::long(0, hash).tail
    }

    /// The position of a long word in the arena.
    pub(super) fn offset(self) -> Option<u64> {
        (self.tail >> 24 == u32::from(LONG)).then_some(self.head)
    }

    /// The hash of a short word.
    ///
    /// Neither factor can be zero: [`SEEDS`]`[0]` contains a space, which no word does, and the upper half of
    /// `SEEDS[1]` is combined with zeros.
    #[inline]
    pub(super) fn hash(self) -> u64 {
        fold(self.head ^ SEEDS[0], u64::from(self.tail) ^ SEEDS[1])
    }
}

/// Loads a word that ends less than sixteen bytes before the end of the text.
#[cold]
fn near_end(word: &[u8]) -> u128 {
    word.iter().rev().fold(0, |value, &byte| value << 8 | u128::from(byte))
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

/// Arbitrary odd numbers. They are constants so that the same text gives the same table, and the same message, in every
/// process: a program that is replayed must send what it sent before.
const SEEDS: [u64; 2] = [0x9e37_79b9_207f_4a15, 0xd6e8_feb8_6659_fd93];

/// Adds both halves of the product without carry: every bit of the result depends on all bits of both factors.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// The hash of a long word.
pub(super) fn hash_long(word: &[u8]) -> u64 {
    let (blocks, rest) = word.as_chunks::<16>();
    let mut last = [0; 16];
    last[..rest.len()].copy_from_slice(rest);
    blocks.iter().chain([&last]).fold(word.len() as u64 ^ SEEDS[1], |hash, block| {
        let block = u128::from_le_bytes(*block);
        fold(block as u64 ^ SEEDS[0], (block >> 64) as u64 ^ hash).wrapping_add(hash.rotate_left(29))
    })
}

/// An entry of the table. Stored as bytes, not numbers, so that a short word can be borrowed from it.
#[derive(Clone, Copy)]
#[repr(align(16))]
pub(super) struct Slot([u8; 16]);

impl Slot {
    /// An entry without a word.
    pub(super) const EMPTY: Self = Self([0; 16]);

    /// An entry with the low half of its count.
    #[inline]
    pub(super) fn new(key: Key, count: u32) -> Self {
        let tail = u64::from(key.tail) | u64::from(count) << 32;
        Self((u128::from(key.head) | u128::from(tail) << 64).to_le_bytes())
    }

    #[inline]
    fn halves(&self) -> (u64, u64) {
        let both = u128::from_le_bytes(self.0);
        (both as u64, (both >> 64) as u64)
    }

    /// Whether the entry is empty. The length of a word is never zero.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0[SHORT] == 0
    }

    /// The word's key.
    #[inline]
    pub(super) fn key(&self) -> Key {
        let (head, tail) = self.halves();
        Key { head, tail: tail as u32 }
    }

    /// The low half of the count.
    #[inline]
    pub(super) fn count(&self) -> u32 {
        (self.halves().1 >> 32) as u32
    }

    /// Counts one more if the word is in this entry and the low half has room for it; returns whether it did.
    #[inline]
    pub(super) fn count_one(&mut self, key: Key) -> bool {
        let (head, tail) = self.halves();
        if head != key.head || tail as u32 != key.tail {
            return false;
        }
        let Some(tail) = tail.checked_add(ONE) else { return false };
        // Stored with the width of the load: the next word may be the same, and a load that spans two stores is slow.
        self.0[8..].copy_from_slice(&tail.to_le_bytes());
        true
    }

    /// The word, if it is short.
    #[inline]
    pub(super) fn short_word(&self) -> Option<&[u8]> {
        let (word, rest) = self.0.split_at(SHORT);
        word.get(..usize::from(rest[0]))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn key(word: &[u8]) -> Key {
        Key::short(word, 0, word.len()).expect("a short word")
    }

    #[test]
    fn what_follows_a_word_does_not_matter() {
        for len in 1..=SHORT {
            let (alone, followed) = ([b'x'; SHORT], [[b'x'; SHORT], [b'y'; SHORT]].concat());
            assert!(key(&alone[..len]) == Key::short(&followed, SHORT - len, SHORT).expect("a short word"));
        }
        assert!(Key::short(&[b'x'; 12], 0, 12).is_none());
    }

    #[test]
    fn zero_bytes_are_letters() {
        assert!(key(b"a") != key(b"a\0"));
        assert!(key(b"\0") != key(b"\0\0"));
    }

    #[test]
    fn an_entry_holds_word_and_count() {
        let mut slot = Slot::new(key(b"hello"), u32::MAX - 1);
        assert_eq!((slot.short_word(), slot.count()), (Some(b"hello".as_slice()), u32::MAX - 1));
        assert!(!slot.count_one(key(b"hell")));
        assert!(slot.count_one(key(b"hello")));
        assert!(!slot.count_one(key(b"hello")), "the low half is full");
        assert_eq!((slot.short_word(), slot.count()), (Some(b"hello".as_slice()), u32::MAX));
    }

    #[test]
    fn similar_words_spread() {
        // 100,000 numbers into 2^20 buckets: a random function is expected to hit 95,300.
        let short: HashSet<u64> = (0..100_000).map(|n| key(format!("{n}").as_bytes()).hash() >> 44).collect();
        assert!(short.len() > 94_000, "{}", short.len());
        let long: HashSet<u64> =
            (0..100_000).map(|n| hash_long(format!("a common prefix {n}").as_bytes()) >> 44).collect();
        assert!(long.len() > 94_000, "{}", long.len());
    }
}
