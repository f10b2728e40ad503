//! Ranges of numbers as constraints.
//!
//! `1..5` is a value that serde can encode, so it reaches a pattern like any other value. It is recognised by its type
//! and holds for the numbers that it contains; it is never compared as a value.

use std::fmt;
use std::ops::{Bound, RangeBounds};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::value::{Elem, Kind, Number, Scalar};
use crate::wire::Attr;

/// The common form of std's ranges of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bounds {
    pub(crate) low: Bound<Number>,
    pub(crate) high: Bound<Number>,
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

    pub(crate) fn contains(&self, number: Number) -> bool {
        (self.low, self.high).contains(&number)
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.low {
            Bound::Included(low) | Bound::Excluded(low) => write!(f, "{low}..")?,
            Bound::Unbounded => f.write_str("..")?,
        }
        match self.high {
            Bound::Included(high) => write!(f, "={high}"),
            Bound::Excluded(high) => write!(f, "{high}"),
            Bound::Unbounded => Ok(()),
        }
    }
}

/// Decodes a number at the front of postcard's bytes.
fn number(elem: Elem, bytes: &[u8]) -> Option<(Number, &[u8])> {
    fn take<N: DeserializeOwned>(
        bytes: &[u8],
        scalar: impl Fn(N) -> Scalar<'static>,
    ) -> Option<(Number, &[u8])> {
        let (number, rest) = postcard::take_from_bytes(bytes).ok()?;
        Some((scalar(number).number()?, rest))
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
