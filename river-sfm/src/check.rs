//! The forms of a constraint, and the values that satisfy each.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use river_core::naming::without_paths;
use serde::{Deserialize, Serialize};

use crate::encode::Encoded;
use crate::range::Bounds;
use crate::value::{Kind, Scalar};
use crate::wire::Attr;

/// A condition on an attribute. Implement it for conditions that values, ranges and closures cannot express.
///
/// It is object-safe, runs on the VR's own thread while the message is still in the queue, and must not receive.
/// A type that is a `Constraint` should not also be `Serialize`: a pattern could not tell which of the two is meant.
pub trait Constraint {
    /// Whether the attribute satisfies the condition; `attr` is `None` if the message has no attribute of that name.
    fn accepts(&self, attr: Option<&Attr<'_>>) -> bool;

    /// Formats the condition for the error of a receive that timed out.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

impl<C: Constraint + ?Sized> Constraint for Box<C> {
    fn accepts(&self, attr: Option<&Attr<'_>>) -> bool {
        (**self).accepts(attr)
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).describe(f)
    }
}

/// A constraint in stored form. `C` is what it can be besides the forms known here: code, or nothing in a template.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ask<C> {
    Present,
    Absent,
    Value(Value),
    Range(Bounds),
    OneOf(Vec<Ask<C>>),
    Not(Box<Ask<C>>),
    Other(C),
    /// Can never hold; with the reason.
    Invalid(String),
}

/// A value to compare with, encoded as it would be in a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Value {
    kind: Kind,
    ty: Cow<'static, str>,
    body: Vec<u8>,
    blob: Option<Bytes>,
}

impl<C: Constraint> Ask<C> {
    pub(crate) fn accepts(&self, attr: Option<&Attr<'_>>) -> bool {
        match self {
            Ask::Present => attr.is_some(),
            Ask::Absent => attr.is_none(),
            Ask::Value(value) => attr.is_some_and(|attr| value.equals(attr)),
            Ask::Range(range) => attr
                .and_then(|attr| Scalar::read(attr.kind, attr.body)?.number())
                .is_some_and(|number| range.contains(number)),
            Ask::OneOf(asks) => asks.iter().any(|ask| ask.accepts(attr)),
            Ask::Not(ask) => !ask.accepts(attr),
            Ask::Other(constraint) => constraint.accepts(attr),
            Ask::Invalid(_) => false,
        }
    }

    /// What is wrong with the constraint itself.
    pub(crate) fn invalid(&self) -> Option<&str> {
        match self {
            Ask::Invalid(error) => Some(error),
            Ask::OneOf(asks) => asks.iter().find_map(Ask::invalid),
            Ask::Not(ask) => ask.invalid(),
            _ => None,
        }
    }

    /// The value to compare with, if this constraint is a comparison.
    pub(crate) fn value(&self) -> Option<Attr<'_>> {
        match self {
            Ask::Value(value) => Some(value.attr()),
            _ => None,
        }
    }
}

impl Value {
    pub(crate) fn new(encoded: Encoded, body: Vec<u8>) -> Self {
        Self { kind: encoded.kind, ty: encoded.ty, body, blob: encoded.blob }
    }

    fn attr(&self) -> Attr<'_> {
        Attr::lone("", self.kind, &self.ty, &self.body)
    }

    /// Scalars and numeric sequences by value, anything else by type and bytes.
    fn equals(&self, attr: &Attr<'_>) -> bool {
        match (self.kind, attr.kind) {
            (Kind::Float, Kind::Float) => {
                Scalar::read(Kind::Float, &self.body) == Scalar::read(Kind::Float, attr.body)
            }
            (Kind::Array(a), Kind::Array(b)) if a != b || a.is_float() => {
                let (x, y) = (self.body.chunks_exact(a.size()), attr.body.chunks_exact(b.size()));
                x.len() == y.len() && x.zip(y).all(|(x, y)| a.read(x) == b.read(y))
            }
            (Kind::Blob, Kind::Blob) => attr.is_of(&self.ty) && self.blob == attr.memory(),
            // Most values are numbers, which need no call to be compared.
            (Kind::Uint, Kind::Uint) if self.body.len() == 8 => {
                self.body.first_chunk::<8>() == attr.body.first_chunk() && attr.body.len() == 8
            }
            (a, b) => a == b && attr.is_of(&self.ty) && self.body == attr.body,
        }
    }
}

impl<C: Constraint> fmt::Display for Ask<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ask::Present => f.write_str("ANY"),
            Ask::Absent => f.write_str("ABSENT"),
            Ask::Value(Value { kind: Kind::Blob, ty, blob, .. }) => {
                write!(f, "Blob<{}>({} bytes)", without_paths(ty), blob.as_ref().map_or(0, Bytes::len))
            }
            Ask::Value(value) => value.attr().fmt(f),
            Ask::Range(range) => range.fmt(f),
            Ask::OneOf(asks) => {
                f.write_str("one_of(")?;
                for (i, ask) in asks.iter().enumerate() {
                    write!(f, "{}{ask}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str(")")
            }
            Ask::Not(ask) => write!(f, "not({ask})"),
            Ask::Other(constraint) => constraint.describe(f),
            Ask::Invalid(error) => write!(f, "({error})"),
        }
    }
}
