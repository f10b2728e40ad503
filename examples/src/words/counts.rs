//! The table: how often each word occurs.
//!
//! Open addressing with linear probing over a power of two of [`Slot`]s, chosen by the top bits of the hash. A word of
//! up to eleven bytes is stored in its slot; longer ones in one arena, as hash (8 bytes), length (varint), bytes.
//! Nothing is allocated per word.

use std::collections::BTreeMap;

use super::codec::{read_varint, write_varint};
use super::iter::Iter;
use super::slot::{Key, Slot, hash_long};
use super::split::bounds;

/// The number of slots of the smallest table: 16 KiB.
const FEWEST_SLOTS: usize = 1024;

/// How often each word occurs.
///
/// A word is any non-empty byte string; [`add_text`](Counts::add_text) finds them as [`split`](super::split) does.
/// Counts saturate at `u64::MAX`. An empty table owns no memory; one with `n` distinct words of up to 11 bytes takes 26
/// to 52 bytes per word.
///
/// Equal sequences of calls give equal tables, including the order of [`iter`](Counts::iter), in every process. In
/// return, someone who knows this source can craft words that collide; ordinary text does not.
///
/// ```
/// let mut counts = river_examples::words::Counts::new();
/// counts.add_text(b"to be or not to be");
/// assert_eq!(counts.get(b"be"), 2);
/// assert_eq!(counts.top(1), [(b"be".to_vec(), 2)]);
/// ```
#[derive(Clone, Default)]
pub struct Counts {
    /// Their number is a power of two, or zero.
    slots: Vec<Slot>,
    /// How far to shift a hash to get the number of a slot.
    shift: u32,
    /// The number of distinct words at which the table must grow.
    limit: usize,
    distinct: usize,
    total: u64,
    arena: Vec<u8>,
    /// The upper halves of counts above 2^32.
    high: BTreeMap<Key, u32>,
}

impl Counts {
    /// A table without words.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts all words of a text. A word does not continue in the next text.
    pub fn add_text(&mut self, text: &[u8]) {
        bounds(text, |batch| {
            self.total = self.total.saturating_add(batch.len() as u64);
            for &[start, end] in batch {
                match Key::short(text, start, end) {
                    Some(key) => self.add_one(key),
                    None => self.add_long(&text[start..end], hash_long(&text[start..end]), 1),
                }
            }
        });
    }

    /// Counts `n` more occurrences of a word, which may contain white space. An empty word or `n == 0` changes nothing.
    pub fn add_word(&mut self, word: &[u8], n: u64) {
        if word.is_empty() || n == 0 {
            return;
        }
        self.total = self.total.saturating_add(n);
        match Key::short(word, 0, word.len()) {
            Some(key) => self.add_short(key, key.hash(), n),
            None => self.add_long(word, hash_long(word), n),
        }
    }

    /// Returns how often a word occurs.
    #[must_use]
    pub fn get(&self, word: &[u8]) -> u64 {
        let found = match Key::short(word, 0, word.len()) {
            _ if word.is_empty() => return 0,
            Some(key) => self.find(key.hash(), |slot| slot.key() == key),
            None => self.find_long(word, hash_long(word)),
        };
        match found {
            Place::Here(index) => self.count(&self.slots[index]),
            Place::Free(_) | Place::NoTable => 0,
        }
    }

    /// Returns the number of words, including repetitions.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Returns the number of distinct words.
    #[must_use]
    pub fn distinct(&self) -> usize {
        self.distinct
    }

    /// Whether there are no words.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.distinct == 0
    }

    /// Iterates over all words with their counts, in an arbitrary order that is the same for the same history.
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        Iter::new(self, &self.slots)
    }

    /// Adds all counts of another table.
    pub fn merge(&mut self, other: &Self) {
        if self.is_empty() {
            self.clone_from(other);
            return;
        }
        // The other's words come in the order of their hashes. In a smaller table that grows meanwhile they would crowd
        // the front: quadratic.
        self.reserve(other.distinct);
        self.total = self.total.saturating_add(other.total);
        for slot in other.slots.iter().filter(|slot| !slot.is_empty()) {
            let n = other.count(slot);
            match slot.key().offset() {
                None => self.add_short(slot.key(), slot.key().hash(), n),
                Some(offset) => {
                    let (hash, word) = other.long_word(offset);
                    self.add_long(word, hash, n);
                }
            }
        }
    }

    /// Returns the `n` most frequent words with their counts: by descending count, then by ascending word.
    #[must_use]
    pub fn top(&self, n: usize) -> Vec<(Vec<u8>, u64)> {
        let order = |a: &(&[u8], u64), b: &(&[u8], u64)| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0));
        let mut words: Vec<(&[u8], u64)> = self.iter().collect();
        if n < words.len() {
            words.select_nth_unstable_by(n, order);
            words.truncate(n);
        }
        words.sort_unstable_by(order);
        words.into_iter().map(|(word, count)| (word.to_vec(), count)).collect()
    }

    /// Makes room for `extra` more distinct words, so that the next ones may come in any order.
    pub(super) fn reserve(&mut self, extra: usize) {
        // Seven eighths: full enough to need no growth when most of the words are already known.
        let words = self.distinct + extra;
        let slots = (words * 8).div_ceil(7).next_power_of_two();
        if slots > self.slots.len() {
            self.resize(slots.max(FEWEST_SLOTS));
        }
        self.limit = self.limit.max(words);
    }

    /// Counts a short word once; inlined into the loop over the text. The word is nearly always in its first slot.
    #[inline]
    fn add_one(&mut self, key: Key) {
        let hash = key.hash();
        let index = self.home(hash);
        if !self.slots.get_mut(index).is_some_and(|slot| slot.count_one(key)) {
            self.add_short(key, hash, 1);
        }
    }

    #[inline(never)]
    fn add_short(&mut self, key: Key, hash: u64, n: u64) {
        match self.find(hash, |slot| slot.key() == key) {
            Place::Here(index) => self.raise(index, n),
            place => self.insert(place, key, hash, n),
        }
    }

    #[inline(never)]
    fn add_long(&mut self, word: &[u8], hash: u64, n: u64) {
        match self.find_long(word, hash) {
            Place::Here(index) => self.raise(index, n),
            place => {
                let key = Key::long(self.arena.len() as u64, hash);
                self.arena.extend_from_slice(&hash.to_le_bytes());
                write_varint(&mut self.arena, word.len() as u64);
                self.arena.extend_from_slice(word);
                self.insert(place, key, hash, n);
            }
        }
    }

    /// Puts a new word where [`find`](Self::find) said, unless the table must grow first.
    fn insert(&mut self, mut place: Place, key: Key, hash: u64, n: u64) {
        if self.distinct >= self.limit {
            self.resize((self.slots.len() * 2).max(FEWEST_SLOTS));
            place = self.find(hash, |_| false);
        }
        if let Place::Free(index) = place {
            self.distinct += 1;
            self.slots[index] = Slot::new(key, 0);
            self.raise(index, n);
        }
    }

    /// Adds `n` to the count of an entry.
    fn raise(&mut self, index: usize, n: u64) {
        let slot = self.slots[index];
        let count = self.count(&slot).saturating_add(n);
        if count > u64::from(u32::MAX) {
            self.high.insert(slot.key(), (count >> 32) as u32);
        }
        self.slots[index] = Slot::new(slot.key(), count as u32);
    }

    /// The whole count of an entry.
    pub(super) fn count(&self, slot: &Slot) -> u64 {
        let high = if self.high.is_empty() { None } else { self.high.get(&slot.key()) };
        u64::from(slot.count()) | high.map_or(0, |&high| u64::from(high) << 32)
    }

    /// The first slot for a word with this hash: the top bits, as many as the table needs.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        (hash >> self.shift) as usize
    }

    /// Searches for the entry with this hash for which `is` returns `true`.
    #[inline]
    fn find(&self, hash: u64, is: impl Fn(&Slot) -> bool) -> Place {
        let home = self.home(hash);
        let Some((front, back)) = self.slots.split_at_checked(home) else { return Place::NoTable };
        let places = back.iter().zip(home..).chain(front.iter().zip(0..));
        for (slot, index) in places {
            if is(slot) {
                return Place::Here(index);
            }
            if slot.is_empty() {
                return Place::Free(index);
            }
        }
        Place::NoTable
    }

    fn find_long(&self, word: &[u8], hash: u64) -> Place {
        self.find(hash, |slot| {
            let key = slot.key();
            key.may_equal_long(hash) && key.offset().is_some_and(|offset| self.long_word(offset).1 == word)
        })
    }

    /// The hash and the bytes of the long word at this offset of the arena.
    pub(super) fn long_word(&self, offset: u64) -> (u64, &[u8]) {
        let record = || {
            let (hash, mut rest) = self.arena.get(usize::try_from(offset).ok()?..)?.split_first_chunk()?;
            let len = read_varint(&mut rest)?;
            Some((u64::from_le_bytes(*hash), rest.get(..usize::try_from(len).ok()?)?))
        };
        record().unwrap_or_default()
    }

    /// Moves all entries into a table with that many slots: a power of two, more than there are words.
    #[cold]
    fn resize(&mut self, slots: usize) {
        let old = std::mem::replace(&mut self.slots, vec![Slot::EMPTY; slots]);
        self.shift = u64::BITS - slots.trailing_zeros();
        // At most five eighths full, so that most look-ups end at the first slot.
        self.limit = slots / 8 * 5;
        for slot in old.into_iter().filter(|slot| !slot.is_empty()) {
            let hash = match slot.key().offset() {
                None => slot.key().hash(),
                Some(offset) => self.long_word(offset).0,
            };
            if let Place::Free(index) = self.find(hash, |_| false) {
                self.slots[index] = slot;
            }
        }
    }
}

/// The result of a look-up.
enum Place {
    /// The word is in this slot.
    Here(usize),
    /// The word is not in the table; this slot is free for it.
    Free(usize),
    /// There are no slots yet.
    NoTable,
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::words::testing::{naive, text};

    fn model(text: &[u8]) -> HashMap<&[u8], u64> {
        let mut model = HashMap::new();
        for word in naive(text) {
            *model.entry(word).or_default() += 1;
        }
        model
    }

    fn counts(text: &[u8]) -> Counts {
        let mut counts = Counts::new();
        counts.add_text(text);
        counts
    }

    fn sorted(counts: &Counts) -> Vec<(&[u8], u64)> {
        let mut words: Vec<_> = counts.iter().collect();
        words.sort_unstable();
        words
    }

    /// `n` different words; every third one is long.
    fn many(n: usize) -> impl Iterator<Item = Vec<u8>> {
        (0..n).map(|i| if i % 3 == 0 { format!("a-rather-long-{i}") } else { format!("w{i}") }.into_bytes())
    }

    #[test]
    fn an_empty_table_answers() {
        let counts = Counts::new();
        assert_eq!((counts.get(b"x"), counts.get(b"a word that is long"), counts.get(b"")), (0, 0, 0));
        assert_eq!((counts.iter().len(), counts.top(3)), (0, vec![]));
        assert!(counts.is_empty());
    }

    #[test]
    fn the_empty_word_and_zero_times_are_not_counted() {
        let mut counts = Counts::new();
        counts.add_word(b"", 3);
        counts.add_word(b"x", 0);
        assert_eq!((counts.total(), counts.distinct()), (0, 0));
    }

    #[test]
    fn counts_pass_the_limits_of_a_slot_and_stop_at_the_end() {
        let mut counts = Counts::new();
        for word in [b"short".as_slice(), b"a word that is long"] {
            counts.add_word(word, u64::from(u32::MAX));
            counts.add_text(word.split(|&byte| byte == b' ').next_back().unwrap_or_default());
            counts.add_word(word, 1);
            counts.add_word(word, 1 << 40);
        }
        assert_eq!(counts.get(b"short"), (1 << 40) + (1 << 32) + 1);
        assert_eq!(counts.get(b"a word that is long"), (1 << 40) + (1 << 32));
        let mut doubled = counts.clone();
        doubled.merge(&counts);
        assert_eq!(doubled.get(b"short"), 2 * counts.get(b"short"));
        counts.add_word(b"short", u64::MAX);
        assert_eq!((counts.get(b"short"), counts.total()), (u64::MAX, u64::MAX));
    }

    #[test]
    fn the_table_grows() {
        let mut counts = Counts::new();
        for round in 1..=2 {
            for word in many(20_000) {
                counts.add_word(&word, 1);
            }
            assert_eq!((counts.distinct(), counts.total()), (20_000, 20_000 * round));
        }
        assert!(many(20_000).all(|word| counts.get(&word) == 2));
        assert_eq!(counts.get(b"w0"), 0);
    }

    #[test]
    fn merging_in_the_order_of_hashes_is_not_quadratic() {
        let mut large = Counts::new();
        many(200_000).for_each(|word| large.add_word(&word, 1));
        let mut small = counts(b"one two three");
        small.merge(&large);
        assert_eq!(small.distinct(), 200_003);
        small.merge(&large);
        let slots = small.slots.len();
        small.merge(&large);
        assert_eq!(small.slots.len(), slots, "known words need no room");
    }

    #[test]
    fn top_is_by_count_then_by_word() {
        let counts = counts(b"c c c b b a a d");
        let expected: [(&[u8], u64); 4] = [(b"c", 3), (b"a", 2), (b"b", 2), (b"d", 1)];
        for n in 0..6 {
            let expected: Vec<_> =
                expected.iter().take(n).map(|&(word, count)| (word.to_vec(), count)).collect();
            assert_eq!(counts.top(n), expected);
        }
    }

    proptest! {
        #[test]
        fn counts_like_a_hash_map(text in text()) {
            let (counts, model) = (counts(&text), model(&text));
            prop_assert_eq!(counts.distinct(), model.len());
            prop_assert_eq!(counts.total(), model.values().sum::<u64>());
            prop_assert_eq!(counts.iter().len(), model.len());
            prop_assert_eq!(&counts.iter().collect::<HashMap<_, _>>(), &model);
            for (word, count) in model {
                prop_assert_eq!(counts.get(word), count);
            }
        }

        #[test]
        fn merging_is_counting_both(a in text(), b in text()) {
            let mut merged = counts(&a);
            merged.merge(&counts(&b));
            let whole = counts(&[a, b"\n".to_vec(), b].concat());
            prop_assert_eq!(sorted(&merged), sorted(&whole));
            prop_assert_eq!(merged, whole);
        }

        #[test]
        fn the_top_is_the_front_of_the_sorted_whole(text in text(), n in 0..50_usize) {
            let counts = counts(&text);
            let mut all: Vec<_> = counts.iter().map(|(word, count)| (word.to_vec(), count)).collect();
            all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            all.truncate(n);
            prop_assert_eq!(counts.top(n), all);
        }
    }
}
