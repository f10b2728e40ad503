//! Counts the words in bytes, as fast as memory allows.
//!
//! - `split`: where words begin and end ([`split`], [`is_space`])
//! - `slot`: one entry of the table, and the hash of a word
//! - `counts`: the table ([`Counts`])
//! - `iter`: iteration over it ([`Iter`])
//! - `codec`: its compact form, for messages
//! - `file`: reads a file, or a range, through a buffer ([`count_file`], [`Scratch`])

mod codec;
mod counts;
mod file;
mod iter;
mod slot;
mod split;

pub use counts::Counts;
pub use file::{Scratch, count_file};
pub use iter::Iter;
pub use split::{is_space, split};

#[cfg(test)]
mod testing {
    //! Shared by the tests of this module: texts, and the obvious way to split them.

    use proptest::prelude::*;

    /// Text with words of all lengths around the limits of the table, few enough to repeat, and all six spaces.
    pub(super) fn text() -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![
            8 => prop::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(0)], 0..4),
            2 => prop::collection::vec(prop_oneof![Just(b'a'), Just(0xe9)], 9..20),
            1 => (0..200_usize).prop_map(|len| vec![b'z'; len]),
        ];
        let space = prop::sample::select(b" \t\n\x0b\x0c\r".to_vec());
        (prop::collection::vec((word, space), 0..120), any::<bool>()).prop_map(|(pairs, ends_in_word)| {
            let mut text: Vec<u8> =
                pairs.into_iter().flat_map(|(word, space)| [word, vec![space]].concat()).collect();
            if ends_in_word {
                text.pop();
            }
            text
        })
    }

    /// The words according to the standard library.
    pub(super) fn naive(text: &[u8]) -> Vec<&[u8]> {
        text.split(|byte| b" \t\n\x0b\x0c\r".contains(byte)).filter(|word| !word.is_empty()).collect()
    }
}
