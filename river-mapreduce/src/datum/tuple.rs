//! Pairs and triples: component by component. A component before the last is preceded by its length, unless all values
//! of its type have the same length. [`Reverse`] reverses an order.

use std::cmp::{Ordering, Reverse};
use std::io;

use super::{Datum, DecodeError, Key};
use crate::varint;

/// Appends a component that is not the last.
fn put_inner<T: Datum>(value: &T::Ref<'_>, out: &mut Vec<u8>) {
    if T::WIDTH.is_some() {
        T::encode(value, out);
    } else {
        let mut scratch = Vec::new();
        let bytes = T::bytes(value, &mut scratch);
        varint::put(bytes.len(), out);
        out.extend_from_slice(bytes);
    }
}

/// The length of each encoded pair of a sequence, if it need not be stored: it must be the same for all, and not zero,
/// or the number of pairs could not be told.
pub(crate) const fn pair_width<K: Datum, V: Datum>() -> Option<usize> {
    match <(K, V)>::WIDTH {
        Some(0) => None,
        width => width,
    }
}

/// Appends the encoding of a pair, given views of its components with different lifetimes.
pub(crate) fn encode_pair<A: Datum, B: Datum>(a: &A::Ref<'_>, b: &B::Ref<'_>, out: &mut Vec<u8>) {
    put_inner::<A>(a, out);
    B::encode(b, out);
}

/// Splits off a component that is not the last.
fn split_inner<T: Datum>(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    match T::WIDTH {
        Some(width) => bytes.split_at_checked(width),
        None => {
            let (length, used) = varint::get(bytes)?;
            bytes[used..].split_at_checked(length)
        }
    }
}

const fn sum(widths: &[Option<usize>]) -> Option<usize> {
    let (mut total, mut i) = (0, 0);
    while i < widths.len() {
        match widths[i] {
            Some(width) => total += width,
            None => return None,
        }
        i += 1;
    }
    Some(total)
}

macro_rules! tuple {
    ($($inner:ident $at:tt),+; $last:ident $last_at:tt) => {
        /// The text form is the components with tabs between them.
        impl<$($inner: Datum,)+ $last: Datum> Datum for ($($inner,)+ $last) {
            type Ref<'a> = ($($inner::Ref<'a>,)+ $last::Ref<'a>);

            const WIDTH: Option<usize> = sum(&[$($inner::WIDTH,)+ $last::WIDTH]);
            const MEASURING_IS_SLOW: bool = $($inner::MEASURING_IS_SLOW ||)+ $last::MEASURING_IS_SLOW;

            fn encode(value: &Self::Ref<'_>, out: &mut Vec<u8>) {
                $(put_inner::<$inner>(&value.$at, out);)+
                $last::encode(&value.$last_at, out);
            }

            #[allow(non_snake_case)]
            fn decode(bytes: &[u8]) -> Result<Self::Ref<'_>, DecodeError> {
                let rest = bytes;
                $(
                    let Some(($inner, rest)) = split_inner::<$inner>(rest) else {
                        return Err(DecodeError::new("a tuple", bytes));
                    };
                )+
                Ok(($($inner::decode($inner)?,)+ $last::decode(rest)?))
            }

            fn own(value: Self::Ref<'_>) -> Self {
                ($($inner::own(value.$at),)+ $last::own(value.$last_at))
            }

            fn view(&self) -> Self::Ref<'_> {
                ($(self.$at.view(),)+ self.$last_at.view())
            }

            fn write_text(value: &Self::Ref<'_>, out: &mut Vec<u8>) -> io::Result<()> {
                $(
                    $inner::write_text(&value.$at, out)?;
                    out.push(b'\t');
                )+
                $last::write_text(&value.$last_at, out)
            }

            fn heap_bytes(&self) -> usize {
                $(self.$at.heap_bytes() +)+ self.$last_at.heap_bytes()
            }
        }

        impl<$($inner: Key,)+ $last: Key> Key for ($($inner,)+ $last) {
            fn compare(a: &[u8], b: &[u8]) -> Ordering {
                let (mut x, mut y) = (a, b);
                $(
                    // Malformed encodings are ordered somehow; decoding them is an error.
                    let (Some(left), Some(right)) = (split_inner::<$inner>(x), split_inner::<$inner>(y)) else {
                        return a.cmp(b);
                    };
                    let order = $inner::compare(left.0, right.0);
                    if order.is_ne() {
                        return order;
                    }
                    (x, y) = (left.1, right.1);
                )+
                $last::compare(x, y)
            }

            fn prefix(bytes: &[u8]) -> u64 {
                first_prefix::<($($inner,)+)>(bytes)
            }
        }
    };
}

tuple!(A 0; B 1);
tuple!(A 0, B 1; C 2);

/// The prefix of a tuple is that of its first component.
fn first_prefix<T: First>(bytes: &[u8]) -> u64 {
    split_inner::<T::Component>(bytes).map_or(0, |(first, _)| T::Component::prefix(first))
}

trait First {
    type Component: Key;
}

impl<A: Key> First for (A,) {
    type Component = A;
}

impl<A: Key, B: Key> First for (A, B) {
    type Component = A;
}

/// A key in descending order.
impl<T: Datum> Datum for Reverse<T> {
    type Ref<'a> = Reverse<T::Ref<'a>>;

    const WIDTH: Option<usize> = T::WIDTH;
    const MEASURING_IS_SLOW: bool = T::MEASURING_IS_SLOW;

    fn encode(value: &Self::Ref<'_>, out: &mut Vec<u8>) {
        T::encode(&value.0, out);
    }

    fn decode(bytes: &[u8]) -> Result<Self::Ref<'_>, DecodeError> {
        T::decode(bytes).map(Reverse)
    }

    fn own(value: Self::Ref<'_>) -> Self {
        Reverse(T::own(value.0))
    }

    fn view(&self) -> Self::Ref<'_> {
        Reverse(self.0.view())
    }

    fn write_text(value: &Self::Ref<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        T::write_text(&value.0, out)
    }

    fn bytes<'r>(value: &'r Self::Ref<'_>, scratch: &'r mut Vec<u8>) -> &'r [u8] {
        T::bytes(&value.0, scratch)
    }

    fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }
}

impl<T: Key> Key for Reverse<T> {
    fn compare(a: &[u8], b: &[u8]) -> Ordering {
        T::compare(b, a)
    }

    fn prefix(bytes: &[u8]) -> u64 {
        !T::prefix(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;

    use proptest::prelude::*;

    use crate::datum::testing::{check, encoded};
    use crate::datum::{Datum, Key};

    proptest! {
        #[test]
        fn tuples_order_by_component(a: (String, u8, String), b: (String, u8, String)) {
            check(&a, &b);
            check(&(a.1, a.0.clone()), &(b.1, b.0.clone()));
            check(&(a.1, a.1), &(b.1, b.1));
            check(&Reverse(a.0.clone()), &Reverse(b.0.clone()));
            check(&(Reverse(a.0), a.1), &(Reverse(b.0), b.1));
        }

        #[test]
        fn what_is_no_encoding_is_an_error_or_a_value(bytes: Vec<u8>, other: Vec<u8>) {
            let _ = <(String, u32)>::decode(&bytes);
            let _ = <(String, u32, Vec<u8>)>::compare(&bytes, &other);
            let _ = <(String, u32)>::prefix(&bytes);
        }
    }

    #[test]
    fn equally_long_components_have_no_length() {
        assert_eq!(encoded(&(1u8, 2u16)), [1, 0, 2]);
        assert_eq!(encoded(&("ab".to_string(), "c".to_string())), [2, b'a', b'b', b'c']);
        let mut text = Vec::new();
        <(String, i32)>::write_text(&("ab", -3), &mut text).unwrap();
        assert_eq!(text, b"ab\t-3");
    }
}
