//! Finds the words in a text.
//!
//! Words are the parts of a text between white space: space, `\t`, `\n`, `\x0b`, `\x0c`, `\r`, as in Python's
//! `bytes.split()`. Any encoding in which these six bytes mean white space will do.
//!
//! The text is read in blocks of 64 bytes. Each becomes a 64-bit mask of its white space, and a word begins or ends
//! where adjacent bits differ. Nothing here branches on a single byte, so the length of the words, which no processor
//! can predict, costs nothing until the end of a block.

/// Bytes in a block: one bit of a `u64` each.
const BLOCK: usize = 64;

/// The number of marks found before they are passed on: 4 KiB, so that they stay in the first-level cache.
const MARKS: usize = 512;

/// The number of marks written for a block without counting them. Blocks of ordinary text have about this many; a loop
/// with the exact number would end in a mispredicted branch nearly every time.
const USUAL_MARKS: usize = 24;

/// Whether a byte separates words.
#[inline]
#[must_use]
pub const fn is_space(byte: u8) -> bool {
    byte == b' ' || byte.wrapping_sub(b'\t') < 5
}

/// Calls `each` with every word of the text, in order. No word is empty.
///
/// ```
/// let mut words = Vec::new();
/// river_examples::words::split(b" to be,\tor\n", |word| words.push(word));
/// assert_eq!(words, [b"to".as_slice(), b"be,", b"or"]);
/// ```
pub fn split<'text>(text: &'text [u8], mut each: impl FnMut(&'text [u8])) {
    bounds(text, |batch| {
        for &[start, end] in batch {
            each(&text[start..end]);
        }
    });
}

/// Calls `batch` with the `[start, end)` of all words in order, some hundred at a time.
#[inline]
pub(super) fn bounds(text: &[u8], mut batch: impl FnMut(&[[usize; 2]])) {
    let mut marks = Marks { at: [0; MARKS], len: 0, after_space: 1 };
    let (blocks, rest) = text.as_chunks::<BLOCK>();
    for (block, base) in blocks.iter().zip((0..).step_by(BLOCK)) {
        marks.push(block, base);
        if marks.len > MARKS - BLOCK {
            batch(marks.pairs());
            marks.keep_odd();
        }
    }
    // The last block is padded with at least one space, which ends the last word.
    let mut block = [b' '; BLOCK];
    block[..rest.len()].copy_from_slice(rest);
    marks.push(&block, text.len() - rest.len());
    batch(marks.pairs());
}

/// The positions where white space changes to word or back: start, end, start, end.
struct Marks {
    at: [usize; MARKS],
    len: usize,
    /// 1 if the byte before the next block is white space (as it is before the text), otherwise 0.
    after_space: u64,
}

impl Marks {
    /// Adds the marks of a block that begins at `base`; at least [`BLOCK`] entries must be free.
    #[inline]
    fn push(&mut self, block: &[u8; BLOCK], base: usize) {
        let spaces = space_mask(block);
        let mut changes = spaces ^ (spaces << 1 | self.after_space);
        self.after_space = spaces >> (BLOCK - 1);
        let count = changes.count_ones() as usize;
        if let Some(free) = self.at[self.len..].first_chunk_mut::<BLOCK>() {
            for mark in &mut free[..USUAL_MARKS] {
                *mark = base + changes.trailing_zeros() as usize;
                changes &= changes.wrapping_sub(1);
            }
            for mark in free.iter_mut().take(count).skip(USUAL_MARKS) {
                *mark = base + changes.trailing_zeros() as usize;
                changes &= changes.wrapping_sub(1);
            }
        }
        self.len += count;
    }

    /// The complete words.
    #[inline]
    fn pairs(&self) -> &[[usize; 2]] {
        self.at[..self.len].as_chunks().0
    }

    /// Removes the complete words, and keeps the start of a word whose end has not been found.
    #[inline]
    fn keep_odd(&mut self) {
        self.at[0] = self.at[self.len - 1];
        self.len %= 2;
    }
}

/// Bit `i` is set if byte `i` is white space.
#[inline]
fn space_mask(block: &[u8; BLOCK]) -> u64 {
    // The compiler turns this comparison into vector instructions: 0xff or 0 for each byte.
    let mut classes = [0; BLOCK];
    for (class, &byte) in classes.iter_mut().zip(block) {
        *class = if is_space(byte) { 0xff } else { 0 };
    }
    // In each group of eight bytes, byte `i` keeps bit `i`; the multiplication adds all eight into the top byte.
    classes.as_chunks::<8>().0.iter().fold(0, |mask, &eight| {
        let diagonal = u64::from_le_bytes(eight) & 0x8040_2010_0804_0201;
        mask >> 8 | diagonal.wrapping_mul(0x0101_0101_0101_0101) & 0xff << 56
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::words::testing::{naive, text};

    fn words(text: &[u8]) -> Vec<&[u8]> {
        let mut words = Vec::new();
        split(text, |word| words.push(word));
        words
    }

    #[test]
    fn white_space_is_what_python_says() {
        let spaces: Vec<u8> = (0..=u8::MAX).filter(|&byte| is_space(byte)).collect();
        assert_eq!(spaces, b"\t\n\x0b\x0c\r ");
    }

    #[test]
    fn text_without_words_has_none() {
        for len in 0..200 {
            assert!(words(&vec![b'\n'; len]).is_empty());
        }
    }

    #[test]
    fn a_word_may_fill_or_cross_blocks() {
        for len in 1..300 {
            let text = vec![b'x'; len];
            assert_eq!(words(&text), [&text]);
        }
    }

    #[test]
    fn the_densest_text_fits() {
        let text = b"a ".repeat(5000);
        assert_eq!(words(&text).len(), 5000);
        assert_eq!(words(&text[1..]).len(), 4999);
    }

    proptest! {
        #[test]
        fn splits_like_the_slice_method(text in text()) {
            prop_assert_eq!(words(&text), naive(&text));
        }

        #[test]
        fn splits_any_bytes(text in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(words(&text), naive(&text));
        }
    }
}
