//! What a pattern can ask of an attribute.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, RangeToInclusive};

use bytes::Bytes;
use serde::Serialize;

use crate::decode::FromAttr;
use crate::encode::ToAttr;
use crate::range::Bounds;
use crate::typename::{TypeName, short};
use crate::value::{Kind, Scalar};
use crate::wire::Attr;

/// A condition on an attribute: implement it for what values, ranges and closures cannot say.
///
/// It is object-safe, runs on the VR's own thread while the message is still in the queue, and must not receive.
/// A type that is a `Constraint` should not be `Serialize` as well: a pattern could not tell which of the two is meant.
pub trait Constraint {
    /// Whether the attribute is as it should be; `None` if the message has no attribute of that name.
    fn accepts(&self, attr: Option<&Attr<'_>>) -> bool;

    /// How the condition is shown when a receive times out.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// The attribute is there, whatever its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present;

/// The attribute is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absent;

/// The constraint that an attribute is there, whatever its value: `pat! { data: ANY }`.
pub const ANY: Present = Present;
/// The constraint that an attribute is not there: `pat! { error: ABSENT }`.
pub const ABSENT: Absent = Absent;

/// A constraint in the form in which a pattern keeps it.
pub struct Check<'p>(Inner<'p>);

enum Inner<'p> {
    Present,
    Absent,
    Value(Value),
    Range(Bounds),
    OneOf(Vec<Check<'p>>),
    Not(Box<Check<'p>>),
    Other(Box<dyn Constraint + 'p>),
    Invalid(String),
}

/// A value to compare with, encoded as it would be in a message.
struct Value {
    kind: Kind,
    ty: std::borrow::Cow<'static, str>,
    body: Vec<u8>,
    blob: Option<Bytes>,
}

/// What can stand behind a name in [`pat!`](crate::pat): a value, [`ANY`], [`ABSENT`], a closure `|x: &T| -> bool`, a
/// range of numbers, [`one_of`], [`not`], or a [`Constraint`] of your own.
///
/// `M` only tells the cases apart; it is never written.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a constraint of a pattern",
    note = "a constraint is a value (`serde::Serialize`), `ANY`, `ABSENT`, a range of numbers, `one_of(..)`, `not(..)`, \
            a `river_sfm::Constraint`, or a closure such as `|x: &i32| *x > 1` whose argument type is written out"
)]
pub trait IntoConstraint<'p, M> {
    /// The constraint as a pattern keeps it.
    fn into_constraint(self) -> Check<'p>;
}

/// Tells the cases of [`IntoConstraint`] apart.
#[doc(hidden)]
pub mod case {
    /// Compared with the attribute's value.
    pub enum Value {}
    /// Called with the attribute's value.
    pub enum Predicate<T> {
        #[doc(hidden)]
        _Of(std::marker::PhantomData<T>, std::convert::Infallible),
    }
    /// Called with the attribute's string.
    pub enum OfStr {}
    /// `..=n`, the range that serde does not know.
    pub enum Through {}
    /// A constraint of the user's own.
    pub enum Own {}
    /// Made already.
    pub enum Made {}
}

impl<'p, T: ToAttr> IntoConstraint<'p, case::Value> for T {
    fn into_constraint(self) -> Check<'p> {
        let mut body = Vec::new();
        match self.encode(&mut body) {
            Ok(encoded) => {
                let range = Bounds::of(&Attr::lone("", encoded.kind, &encoded.ty, &body));
                Check(range.map_or_else(
                    || Inner::Value(Value { kind: encoded.kind, ty: encoded.ty, body, blob: encoded.blob }),
                    Inner::Range,
                ))
            }
            Err(error) => Check(Inner::Invalid(error.to_string())),
        }
    }
}

impl<'p, T: FromAttr, F: Fn(&T) -> bool + 'p> IntoConstraint<'p, case::Predicate<T>> for F
where
    T: 'p,
{
    fn into_constraint(self) -> Check<'p> {
        Check(Inner::Other(Box::new(Predicate(self, PhantomData))))
    }
}

impl<'p, F: Fn(&str) -> bool + 'p> IntoConstraint<'p, case::OfStr> for F {
    fn into_constraint(self) -> Check<'p> {
        Check(Inner::Other(Box::new(OfStr(self))))
    }
}

impl<'p, T: Serialize> IntoConstraint<'p, case::Through> for RangeToInclusive<T> {
    fn into_constraint(self) -> Check<'p> {
        let mut body = Vec::new();
        let high = self.end.encode(&mut body).ok().and_then(|end| match Scalar::read(end.kind, &body)? {
            Scalar::Uint(v) => Some(Scalar::Uint(v)),
            Scalar::Negative(v) => Some(Scalar::Negative(v)),
            Scalar::Float(v) => Some(Scalar::Float(v)),
            _ => None,
        });
        Check(match high {
            Some(high) => Inner::Range(Bounds { low: Bound::Unbounded, high: Bound::Included(high) }),
            None => Inner::Invalid("a range must be one of numbers".into()),
        })
    }
}

impl<'p> IntoConstraint<'p, case::Made> for Present {
    fn into_constraint(self) -> Check<'p> {
        Check(Inner::Present)
    }
}

impl<'p> IntoConstraint<'p, case::Made> for Absent {
    fn into_constraint(self) -> Check<'p> {
        Check(Inner::Absent)
    }
}

impl<'p> IntoConstraint<'p, case::Made> for Check<'p> {
    fn into_constraint(self) -> Check<'p> {
        self
    }
}

impl<'p, C: Constraint + 'p> IntoConstraint<'p, case::Own> for C {
    fn into_constraint(self) -> Check<'p> {
        Check(Inner::Other(Box::new(self)))
    }
}

/// The constraint that at least one of the constraints given holds: `pat! { tag: one_of(["stop", "work"]) }`.
pub fn one_of<'p, C: IntoConstraint<'p, M>, M>(of: impl IntoIterator<Item = C>) -> Check<'p> {
    Check(Inner::OneOf(of.into_iter().map(C::into_constraint).collect()))
}

/// The constraint that the one given does not hold. It holds where the attribute is not there at all; for one that is
/// there but different, say `pat! { n: ANY, n: not(5) }`.
pub fn not<'p, C: IntoConstraint<'p, M>, M>(constraint: C) -> Check<'p> {
    Check(Inner::Not(Box::new(constraint.into_constraint())))
}

impl Check<'_> {
    pub(crate) fn accepts(&self, attr: Option<&Attr<'_>>) -> bool {
        match &self.0 {
            Inner::Present => attr.is_some(),
            Inner::Absent => attr.is_none(),
            Inner::Value(value) => attr.is_some_and(|attr| value.equals(attr)),
            Inner::Range(range) => attr
                .and_then(|attr| Scalar::read(attr.kind, attr.body))
                .is_some_and(|scalar| range.contains(scalar)),
            Inner::OneOf(checks) => checks.iter().any(|check| check.accepts(attr)),
            Inner::Not(check) => !check.accepts(attr),
            Inner::Other(constraint) => constraint.accepts(attr),
            Inner::Invalid(_) => false,
        }
    }

    /// What is wrong with the constraint itself.
    pub(crate) fn invalid(&self) -> Option<&str> {
        match &self.0 {
            Inner::Invalid(error) => Some(error),
            Inner::OneOf(checks) => checks.iter().find_map(Check::invalid),
            Inner::Not(check) => check.invalid(),
            _ => None,
        }
    }

    /// The value to compare with, if that is what this constraint does.
    pub(crate) fn value(&self) -> Option<Attr<'_>> {
        match &self.0 {
            Inner::Value(value) => Some(Attr::lone("", value.kind, &value.ty, &value.body)),
            _ => None,
        }
    }
}

impl Value {
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
            (a, b) => a == b && attr.is_of(&self.ty) && self.body == attr.body,
        }
    }
}

struct Predicate<F, T>(F, PhantomData<fn(&T)>);

impl<T: FromAttr, F: Fn(&T) -> bool> Constraint for Predicate<F, T> {
    fn accepts(&self, attr: Option<&Attr<'_>>) -> bool {
        attr.and_then(|attr| T::decode(attr).ok()).is_some_and(|value| (self.0)(&value))
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "|&{}| ..", short(&TypeName::of::<T>().name))
    }
}

struct OfStr<F>(F);

impl<F: Fn(&str) -> bool> Constraint for OfStr<F> {
    fn accepts(&self, attr: Option<&Attr<'_>>) -> bool {
        let value = attr.and_then(|attr| Scalar::read(attr.kind, attr.body));
        matches!(value, Some(Scalar::Str(text)) if (self.0)(text))
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("|&str| ..")
    }
}

impl fmt::Display for Check<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::Present => f.write_str("ANY"),
            Inner::Absent => f.write_str("ABSENT"),
            Inner::Value(Value { kind: Kind::Blob, ty, blob, .. }) => {
                write!(f, "Blob<{}>({} bytes)", short(ty), blob.as_ref().map_or(0, Bytes::len))
            }
            Inner::Value(value) => Attr::lone("", value.kind, &value.ty, &value.body).fmt(f),
            Inner::Range(Bounds { low, high }) => {
                match low {
                    Bound::Included(low) | Bound::Excluded(low) => write!(f, "{low}..")?,
                    Bound::Unbounded => f.write_str("..")?,
                }
                match high {
                    Bound::Included(high) => write!(f, "={high}"),
                    Bound::Excluded(high) => write!(f, "{high}"),
                    Bound::Unbounded => Ok(()),
                }
            }
            Inner::OneOf(checks) => {
                f.write_str("one_of(")?;
                for (i, check) in checks.iter().enumerate() {
                    write!(f, "{}{check}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str(")")
            }
            Inner::Not(check) => write!(f, "not({check})"),
            Inner::Other(constraint) => constraint.describe(f),
            Inner::Invalid(error) => write!(f, "({error})"),
        }
    }
}

impl fmt::Debug for Check<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
