//! The types of keys, values and records: types with a compact encoding, in which they are sorted, shuffled and stored.
//!
//! Moving records never decodes them: user code gets a borrowed view ([`Ref`]) of the bytes, and what it emits is
//! encoded at once. The view of a `String` is `&str`, that of a `Vec<u8>` is `&[u8]`, and that of a number is the
//! number itself.

mod bytes;
mod number;
mod serde;
mod tuple;

use std::cmp::Ordering;
use std::io;

pub use self::serde::Serde;
pub(crate) use self::tuple::{encode_pair, pair_width};

/// The view of a `T` inside a record: `&str` for `String`, `&[u8]` for `Vec<u8>`, `u64` for `u64`.
pub type Ref<'a, T> = <T as Datum>::Ref<'a>;

/// A type of which records can consist.
///
/// Implemented for `String`, `Vec<u8>`, `[u8; N]`, integers, floats, `bool`, `()`, pairs and triples of these, and
/// [`Serde<T>`] for any type that serde can encode. Implement it, and [`Key`] for keys, to give a type of your own its
/// own encoding or order.
pub trait Datum: Sized + Send + 'static {
    /// The borrowed view.
    type Ref<'a>;

    /// The length of every value's encoding, if it is the same for all. Then no length is stored.
    const WIDTH: Option<usize> = None;

    /// Whether [`heap_bytes`](Self::heap_bytes) takes longer for larger values. Then a value is measured only now and then
    /// while others are combined into it, and assumed to grow by twice their encodings meanwhile.
    const MEASURING_IS_SLOW: bool = false;

    /// Appends the encoding.
    fn encode(value: &Self::Ref<'_>, out: &mut Vec<u8>);

    /// Decodes a value, as a view.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not an encoding of this type.
    fn decode(bytes: &[u8]) -> Result<Self::Ref<'_>, DecodeError>;

    /// Converts a view to an owned value.
    fn own(value: Self::Ref<'_>) -> Self;

    /// Returns the view of a value.
    fn view(&self) -> Self::Ref<'_>;

    /// Appends the value in readable form, for text output.
    ///
    /// # Errors
    /// If the value has no such form. A job that would write it fails.
    fn write_text(value: &Self::Ref<'_>, out: &mut Vec<u8>) -> io::Result<()>;

    /// Returns the encoding: the value's own bytes if it has them, otherwise written into `scratch`.
    fn bytes<'r>(value: &'r Self::Ref<'_>, scratch: &'r mut Vec<u8>) -> &'r [u8] {
        scratch.clear();
        Self::encode(value, scratch);
        scratch
    }

    /// How many bytes a value occupies on the heap, for the accounting of memory.
    #[inline]
    fn heap_bytes(&self) -> usize {
        0
    }

    /// The value in 32 bits, if it fits: then it is stored next to its key while values are combined, which is faster.
    /// [`from_small`](Self::from_small) is the inverse. Default: `None`.
    #[inline]
    fn to_small(&self) -> Option<u32> {
        None
    }

    /// The value whose [`to_small`](Self::to_small) is `small`.
    #[inline]
    fn from_small(_small: u32) -> Option<Self> {
        None
    }
}

/// A [`Datum`] with an order, by which a job sorts.
///
/// Two keys are equal if and only if their encodings are the same bytes, so `compare` must return `Equal` only for
/// those.
pub trait Key: Datum {
    /// Compares two encodings.
    #[inline]
    fn compare(a: &[u8], b: &[u8]) -> Ordering {
        a.cmp(b)
    }

    /// A number whose order agrees with `compare`: if it is smaller for `a` than for `b`, then `a` comes first; if it
    /// is equal, `compare` decides. Most comparisons in a sort need nothing else.
    #[inline]
    fn prefix(bytes: &[u8]) -> u64 {
        first_eight(bytes)
    }
}

/// The error for bytes that are not an encoding of the expected type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes are not {expected}{}", if .detail.is_empty() { String::new() } else { format!(": {}", .detail) })]
pub struct DecodeError {
    /// The expected type: "valid UTF-8", "a u64".
    pub expected: String,
    /// The number of bytes.
    pub bytes: usize,
    /// What is wrong with them, if known.
    pub detail: String,
}

impl DecodeError {
    /// The error that `bytes` are not an encoding of `expected`.
    pub fn new(expected: impl Into<String>, bytes: &[u8]) -> Self {
        Self { expected: expected.into(), bytes: bytes.len(), detail: String::new() }
    }

    /// Adds what is wrong with the bytes.
    #[must_use]
    pub fn because(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }
}

/// The first eight bytes as a number with the same order; missing bytes count as zero.
#[inline]
pub(crate) fn first_eight(bytes: &[u8]) -> u64 {
    if let Some(eight) = bytes.first_chunk::<8>() {
        return u64::from_be_bytes(*eight);
    }
    // Two overlapping loads, rather than a copy whose length is known only at run time.
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let last = u64::from(u32::from_be_bytes(*last));
        let rest = (last << (64 - 8 * bytes.len())) & 0xffff_ffff;
        return u64::from(u32::from_be_bytes(*first)) << 32 | rest;
    }
    let byte = |at: usize| bytes.get(at).map_or(0, |byte| u64::from(*byte) << (56 - 8 * at));
    byte(0) | byte(1) | byte(2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_first_eight_bytes_are_those(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            let mut eight = bytes.clone();
            eight.resize(8, 0);
            let expected = eight.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
            prop_assert_eq!(super::first_eight(&bytes), expected);
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    pub(crate) fn encoded<T: Datum>(value: &T) -> Vec<u8> {
        let mut bytes = Vec::new();
        T::encode(&value.view(), &mut bytes);
        if let Some(width) = T::WIDTH {
            assert_eq!(bytes.len(), width);
        }
        let mut scratch = vec![1, 2, 3];
        assert_eq!(T::bytes(&value.view(), &mut scratch), bytes);
        bytes
    }

    /// Checks that decoding inverts encoding, and that encodings have the order of the values.
    pub(crate) fn check<T: Key + Ord + std::fmt::Debug>(a: &T, b: &T) {
        let (x, y) = (encoded(a), encoded(b));
        assert_eq!(T::own(T::decode(&x).unwrap()), *a);
        assert_eq!(T::compare(&x, &y), a.cmp(b), "{a:?} {b:?}");
        assert_eq!(x == y, a == b);
        assert!(a.to_small().is_none_or(|small| T::from_small(small).as_ref() == Some(a)), "{a:?}");
        match T::prefix(&x).cmp(&T::prefix(&y)) {
            Ordering::Equal => {}
            different => assert_eq!(different, a.cmp(b), "{a:?} {b:?}"),
        }
    }
}
