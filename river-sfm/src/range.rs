//! Ranges of numbers as constraints.
//!
//! `1..5` is a value that serde can encode, so it reaches a pattern as any other value does. It is recognised by its
//! type and holds for the numbers that it contains; it is never compared as a value.

use std::cmp::Ordering;
use std::ops::Bound;

use serde::de::DeserializeOwned;

use crate::value::{Elem, Kind, Scalar};
use crate::wire::Attr;

/// What std's range types of numbers have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) low: Bound<Scalar<'static>>,
    pub(crate) high: Bound<Scalar<'static>>,
}

impl Bounds {
    /// The bounds, if the value is a range of numbers.
    pub(crate) fn of(value: &Attr<'_>) -> Option<Self> {
        if value.kind != Kind::Encoded {
            return None;
        }
        let (shape, elem) =
            value.ty().strip_prefix("core::ops::range::")?.strip_suffix('>')?.split_once('<')?;
        let elem = Elem::from_name(elem)?;
        let (first, rest) = number(elem, value.body)?;
        let (low, high) = match shape {
            "Range" => (Bound::Included(first), Bound::Excluded(number(elem, rest)?.0)),
            "RangeInclusive" => (Bound::Included(first), Bound::Included(number(elem, rest)?.0)),
            "RangeFrom" => (Bound::Included(first), Bound::Unbounded),
            "RangeTo" => (Bound::Unbounded, Bound::Excluded(first)),
            _ => return None,
        };
        Some(Self { low, high })
    }

    pub(crate) fn contains(&self, value: Scalar<'_>) -> bool {
        let low = match self.low {
            Bound::Included(low) => matches!(value.compare(low), Some(Ordering::Greater | Ordering::Equal)),
            Bound::Excluded(low) => value.compare(low) == Some(Ordering::Greater),
            Bound::Unbounded => true,
        };
        let high = match self.high {
            Bound::Included(high) => matches!(value.compare(high), Some(Ordering::Less | Ordering::Equal)),
            Bound::Excluded(high) => value.compare(high) == Some(Ordering::Less),
            Bound::Unbounded => true,
        };
        low && high
    }
}

/// Takes a number from the front of postcard's bytes.
fn number(elem: Elem, bytes: &[u8]) -> Option<(Scalar<'static>, &[u8])> {
    fn take<N: DeserializeOwned>(
        bytes: &[u8],
        scalar: impl Fn(N) -> Scalar<'static>,
    ) -> Option<(Scalar<'static>, &[u8])> {
        let (number, rest) = postcard::take_from_bytes(bytes).ok()?;
        Some((scalar(number), rest))
    }
    match elem {
        Elem::I8 => take(bytes, |v: i8| Scalar::signed(v.into())),
        Elem::U8 => take(bytes, |v: u8| Scalar::Uint(v.into())),
        Elem::F32 => take(bytes, |v: f32| Scalar::Float(v.into())),
        Elem::F64 => take(bytes, Scalar::Float),
        // postcard's varints are the same for all widths.
        Elem::I16 | Elem::I32 | Elem::I64 | Elem::I128 => take(bytes, Scalar::signed),
        Elem::U16 | Elem::U32 | Elem::U64 | Elem::U128 => take(bytes, Scalar::Uint),
    }
}
