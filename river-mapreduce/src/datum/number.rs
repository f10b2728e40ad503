//! Numbers: big-endian with the sign bit flipped, so that the bytes have the order of the numbers.

use std::io::{self, Write};

use super::{Datum, DecodeError, Key};

macro_rules! number {
    ($($type:ty, $bits:ty, $to_bits:expr, $from_bits:expr, $to_small:expr, $from_small:expr;)*) => {$(
        impl Datum for $type {
            type Ref<'a> = $type;

            const WIDTH: Option<usize> = Some(size_of::<$type>());

            #[inline]
            fn encode(value: &$type, out: &mut Vec<u8>) {
                let bits: $bits = $to_bits(*value);
                out.extend_from_slice(&bits.to_be_bytes());
            }

            #[inline]
            fn decode(bytes: &[u8]) -> Result<$type, DecodeError> {
                match bytes.try_into() {
                    Ok(array) => Ok($from_bits(<$bits>::from_be_bytes(array))),
                    Err(_) => Err(DecodeError::new(concat!("a ", stringify!($type)), bytes)),
                }
            }

            #[inline]
            fn own(value: $type) -> Self {
                value
            }

            #[inline]
            fn view(&self) -> $type {
                *self
            }

            fn write_text(value: &$type, out: &mut Vec<u8>) -> io::Result<()> {
                write!(out, "{value}")
            }

            #[inline]
            fn to_small(&self) -> Option<u32> {
                $to_small(*self)
            }

            #[inline]
            fn from_small(small: u32) -> Option<Self> {
                $from_small(small)
            }
        }

        impl Key for $type {}
    )*};
}

macro_rules! integers {
    ($($unsigned:ty, $signed:ty;)*) => {
        number! {
            $(
                $unsigned, $unsigned, std::convert::identity, std::convert::identity,
                    |x: $unsigned| u32::try_from(x).ok(), |small: u32| <$unsigned>::try_from(small).ok();
                $signed, $unsigned, |x: $signed| (x as $unsigned) ^ (1 << (<$unsigned>::BITS - 1)),
                    |bits: $unsigned| (bits ^ (1 << (<$unsigned>::BITS - 1))) as $signed,
                    |x: $signed| i32::try_from(x).ok().map(|x| x as u32),
                    |small: u32| <$signed>::try_from(small as i32).ok();
            )*
        }
    };
}

integers! {
    u8, i8;
    u16, i16;
    u32, i32;
    u64, i64;
    u128, i128;
    usize, isize;
}

// IEEE 754's total order: all bits of a negative number are flipped, only the sign of a positive one.
number! {
    f32, u32, |x: f32| flip(x.to_bits().into(), 32) as u32, |bits: u32| f32::from_bits(unflip(bits.into(), 32) as u32),
        |x: f32| Some(x.to_bits()), |small: u32| Some(f32::from_bits(small));
    f64, u64, |x: f64| flip(x.to_bits(), 64), |bits: u64| f64::from_bits(unflip(bits, 64)),
        |_| None, |_| None;
    bool, u8, u8::from, |bits: u8| bits != 0,
        |x: bool| Some(u32::from(x)), |small: u32| Some(small != 0);
}

#[inline]
fn flip(bits: u64, width: u32) -> u64 {
    let sign = 1 << (width - 1);
    if bits & sign == 0 { bits | sign } else { !bits }
}

#[inline]
fn unflip(bits: u64, width: u32) -> u64 {
    let sign = 1 << (width - 1);
    if bits & sign == 0 { !bits } else { bits & !sign }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::datum::testing::{check, encoded};
    use crate::datum::{Datum, Key};

    proptest! {
        #[test]
        fn numbers_order_as_themselves(a: (i8, i64, u32, u64, bool, i128), b: (i8, i64, u32, u64, bool, i128)) {
            check(&a.0, &b.0);
            check(&a.1, &b.1);
            check(&a.2, &b.2);
            check(&a.3, &b.3);
            check(&a.4, &b.4);
            check(&a.5, &b.5);
        }

        #[test]
        fn floats_are_in_total_order(a: (f64, f32), b: (f64, f32)) {
            let (x, y) = (encoded(&a.0), encoded(&b.0));
            prop_assert_eq!(f64::decode(&x).unwrap().to_bits(), a.0.to_bits());
            prop_assert_eq!(f64::compare(&x, &y), a.0.total_cmp(&b.0));
            let (x, y) = (encoded(&a.1), encoded(&b.1));
            prop_assert_eq!(f32::decode(&x).unwrap().to_bits(), a.1.to_bits());
            prop_assert_eq!(f32::compare(&x, &y), a.1.total_cmp(&b.1));
        }
    }
}
