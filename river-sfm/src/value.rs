//! Kinds of values, and scalars, which compare and convert by value whatever width they were sent with.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! elems {
    ($($variant:ident $type:ident $code:literal $scalar:expr;)*) => {
        /// The element type of a numeric sequence whose elements travel as they lie in memory (little-endian).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Elem { $($variant),* }

        impl Elem {
            pub(crate) fn from_name(name: &str) -> Option<Self> {
                match name {
                    $(stringify!($type) => Some(Elem::$variant),)*
                    "isize" => Some(Elem::I64),
                    "usize" => Some(Elem::U64),
                    _ => None,
                }
            }

            pub(crate) fn name(self) -> &'static str {
                match self { $(Elem::$variant => stringify!($type)),* }
            }

            pub(crate) fn size(self) -> usize {
                match self { $(Elem::$variant => size_of::<$type>()),* }
            }

            fn code(self) -> u8 {
                match self { $(Elem::$variant => $code),* }
            }

            fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Elem::$variant),)* _ => None }
            }

            /// The element at the start of the bytes; `None` if there are too few.
            #[inline]
            pub(crate) fn read(self, bytes: &[u8]) -> Option<Scalar<'static>> {
                match self {
                    $(Elem::$variant => {
                        let bytes = bytes.first_chunk::<{ size_of::<$type>() }>()?;
                        Some($scalar($type::from_le_bytes(*bytes)))
                    })*
                }
            }
        }
    };
}

elems! {
    I8 i8 0 |v| Scalar::signed(i128::from(v));
    I16 i16 1 |v| Scalar::signed(i128::from(v));
    I32 i32 2 |v| Scalar::signed(i128::from(v));
    I64 i64 3 |v| Scalar::signed(i128::from(v));
    I128 i128 4 Scalar::signed;
    U8 u8 5 |v| Scalar::Uint(u128::from(v));
    U16 u16 6 |v| Scalar::Uint(u128::from(v));
    U32 u32 7 |v| Scalar::Uint(u128::from(v));
    U64 u64 8 |v| Scalar::Uint(u128::from(v));
    U128 u128 9 Scalar::Uint;
    F32 f32 10 |v| Scalar::Float(f64::from(v));
    F64 f64 11 Scalar::Float;
}

impl Elem {
    pub(crate) fn is_float(self) -> bool {
        matches!(self, Elem::F32 | Elem::F64)
    }
}

/// How to read the body of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub(crate) enum Kind {
    /// An integer that is not negative: 8 bytes, or 16 if it does not fit into 8.
    Uint,
    /// A negative integer: 8 bytes, or 16 if it does not fit into 8.
    Negative,
    Float,
    Bool,
    Char,
    Str,
    Bytes,
    /// A numeric sequence: its elements, little-endian, without a count.
    Array(Elem),
    /// Any other type: postcard's bytes, together with the type's name.
    Encoded,
    /// Plain memory, which follows the head of the message, with the name of the element type.
    Blob,
}

/// Array kinds are this plus the code of the element.
const ARRAY: u8 = 32;

impl Kind {
    pub(crate) fn code(self) -> u8 {
        match self {
            Kind::Uint => 1,
            Kind::Negative => 2,
            Kind::Float => 3,
            Kind::Bool => 4,
            Kind::Char => 5,
            Kind::Str => 6,
            Kind::Bytes => 7,
            Kind::Encoded => 8,
            Kind::Blob => 9,
            Kind::Array(elem) => ARRAY + elem.code(),
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Kind::Uint,
            2 => Kind::Negative,
            3 => Kind::Float,
            4 => Kind::Bool,
            5 => Kind::Char,
            6 => Kind::Str,
            7 => Kind::Bytes,
            8 => Kind::Encoded,
            9 => Kind::Blob,
            _ => Kind::Array(Elem::from_code(code.checked_sub(ARRAY)?)?),
        })
    }

    /// Whether equal values of this kind have equal bodies whatever type they were sent with (-0.0 aside).
    pub(crate) fn is_scalar(self) -> bool {
        !matches!(self, Kind::Array(_) | Kind::Encoded | Kind::Blob)
    }
}

impl From<Kind> for u8 {
    fn from(kind: Kind) -> Self {
        kind.code()
    }
}

impl TryFrom<u8> for Kind {
    type Error = String;

    fn try_from(code: u8) -> Result<Self, String> {
        Kind::from_code(code).ok_or_else(|| format!("there is no kind {code}"))
    }
}

/// A number. An integer is never equal to a float, nor ordered relative to one: a float is not exact.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Number {
    Uint(u128),
    Negative(i128),
    Float(f64),
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Number::Uint(a), Number::Uint(b)) => Some(a.cmp(b)),
            (Number::Negative(a), Number::Negative(b)) => Some(a.cmp(b)),
            (Number::Uint(_), Number::Negative(_)) => Some(Ordering::Greater),
            (Number::Negative(_), Number::Uint(_)) => Some(Ordering::Less),
            (Number::Float(a), Number::Float(b)) => a.partial_cmp(b),
            _ => None,
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Scalar::from(*self).fmt(f)
    }
}

/// A value that is encoded without the name of its type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scalar<'a> {
    Uint(u128),
    Negative(i128),
    Float(f64),
    Bool(bool),
    Char(char),
    Str(&'a str),
    Bytes(&'a [u8]),
}

impl From<Number> for Scalar<'_> {
    fn from(number: Number) -> Self {
        match number {
            Number::Uint(v) => Scalar::Uint(v),
            Number::Negative(v) => Scalar::Negative(v),
            Number::Float(v) => Scalar::Float(v),
        }
    }
}

impl<'a> Scalar<'a> {
    #[inline]
    pub(crate) fn signed(value: i128) -> Self {
        u128::try_from(value).map_or(Scalar::Negative(value), Scalar::Uint)
    }

    /// The scalar that an attribute of this kind holds; `None` if the kind is not scalar or the body is damaged.
    pub(crate) fn read(kind: Kind, body: &'a [u8]) -> Option<Self> {
        Some(match kind {
            Kind::Uint => match body.len() {
                8 => Scalar::Uint(u128::from(u64::from_le_bytes(body.try_into().ok()?))),
                _ => Scalar::Uint(u128::from_le_bytes(body.try_into().ok()?)),
            },
            Kind::Negative => match body.len() {
                8 => Scalar::signed(i128::from(i64::from_le_bytes(body.try_into().ok()?))),
                _ => Scalar::signed(i128::from_le_bytes(body.try_into().ok()?)),
            },
            Kind::Float => Scalar::Float(f64::from_le_bytes(body.try_into().ok()?)),
            Kind::Bool => match body {
                [0] => Scalar::Bool(false),
                [1] => Scalar::Bool(true),
                _ => return None,
            },
            Kind::Char => Scalar::Char(char::from_u32(u32::from_le_bytes(body.try_into().ok()?))?),
            Kind::Str => Scalar::Str(std::str::from_utf8(body).ok()?),
            Kind::Bytes => Scalar::Bytes(body),
            Kind::Array(_) | Kind::Encoded | Kind::Blob => return None,
        })
    }

    /// Appends the body and returns its kind.
    #[inline]
    pub(crate) fn write(self, out: &mut Vec<u8>) -> Kind {
        match self {
            Scalar::Uint(v) => {
                match u64::try_from(v) {
                    Ok(v) => out.extend_from_slice(&v.to_le_bytes()),
                    Err(_) => out.extend_from_slice(&v.to_le_bytes()),
                }
                Kind::Uint
            }
            Scalar::Negative(v) => {
                match i64::try_from(v) {
                    Ok(v) => out.extend_from_slice(&v.to_le_bytes()),
                    Err(_) => out.extend_from_slice(&v.to_le_bytes()),
                }
                Kind::Negative
            }
            Scalar::Float(v) => {
                out.extend_from_slice(&v.to_le_bytes());
                Kind::Float
            }
            Scalar::Bool(v) => {
                out.push(u8::from(v));
                Kind::Bool
            }
            Scalar::Char(v) => {
                out.extend_from_slice(&u32::from(v).to_le_bytes());
                Kind::Char
            }
            Scalar::Str(v) => {
                out.extend_from_slice(v.as_bytes());
                Kind::Str
            }
            Scalar::Bytes(v) => {
                out.extend_from_slice(v);
                Kind::Bytes
            }
        }
    }

    /// The value as a number, if it is one.
    pub(crate) fn number(self) -> Option<Number> {
        Some(match self {
            Scalar::Uint(v) => Number::Uint(v),
            Scalar::Negative(v) => Number::Negative(v),
            Scalar::Float(v) => Number::Float(v),
            _ => return None,
        })
    }

    /// The sort of value, for error messages.
    pub(crate) fn sort(self) -> &'static str {
        match self {
            Scalar::Uint(_) | Scalar::Negative(_) => "integer",
            Scalar::Float(_) => "float",
            Scalar::Bool(_) => "bool",
            Scalar::Char(_) => "char",
            Scalar::Str(_) => "String",
            Scalar::Bytes(_) => "bytes",
        }
    }
}

/// Longer strings are cut where a message is shown to people.
const SHOWN: usize = 48;

impl fmt::Display for Scalar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Uint(v) => v.fmt(f),
            Scalar::Negative(v) => v.fmt(f),
            // Debug keeps the `.0` that tells 1.0 from 1.
            Scalar::Float(v) => write!(f, "{v:?}"),
            Scalar::Bool(v) => v.fmt(f),
            Scalar::Char(v) => write!(f, "{v:?}"),
            Scalar::Str(v) => match v.char_indices().nth(SHOWN) {
                Some((end, _)) => write!(f, "{:?}... ({} bytes)", &v[..end], v.len()),
                None => write!(f, "{v:?}"),
            },
            Scalar::Bytes(v) => write!(f, "bytes({})", v.len()),
        }
    }
}
