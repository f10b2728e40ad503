//! The constraints that a pattern can put on an attribute.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, RangeToInclusive};

use river_core::naming::without_paths;
use serde::Serialize;

use crate::check::{Ask, Constraint, Value};
use crate::decode::FromAttr;
use crate::encode::ToAttr;
use crate::range::Bounds;
use crate::typename::TypeName;
use crate::value::Scalar;
use crate::wire::Attr;

/// The attribute is present, whatever its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present;

/// The attribute is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absent;

/// The constraint that an attribute is present, whatever its value: `pat! { data: ANY }`.
pub const ANY: Present = Present;
/// The constraint that an attribute is absent: `pat! { error: ABSENT }`.
pub const ABSENT: Absent = Absent;

/// A constraint in the form in which a pattern keeps it.
pub struct Check<'p>(pub(crate) Ask<Box<dyn Constraint + 'p>>);

/// Anything that can follow a name in [`pat!`](crate::pat): a value, [`ANY`], [`ABSENT`], a closure `|x: &T| -> bool`,
/// a range of numbers, [`one_of`], [`not`], or a [`Constraint`] of your own.
///
/// `M` only distinguishes the cases; it is inferred, never written.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a constraint of a pattern",
    note = "a constraint is a value (`serde::Serialize`), `ANY`, `ABSENT`, a range of numbers, `one_of(..)`, `not(..)`, \
            a `river_sfm::Constraint`, or a closure such as `|x: &i32| *x > 1` whose argument type is written out"
)]
pub trait IntoConstraint<'p, M> {
    /// Converts the constraint to the form that a pattern stores.
    fn into_constraint(self) -> Check<'p>;
}

/// Markers that distinguish the cases of [`IntoConstraint`].
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
    /// `..=n`, the range that serde does not support.
    pub enum Through {}
    /// A constraint of the user's own.
    pub enum Own {}
    /// Already in stored form.
    pub enum Made {}
}

impl<'p, T: ToAttr> IntoConstraint<'p, case::Value> for T {
    fn into_constraint(self) -> Check<'p> {
        let mut body = Vec::new();
        match self.encode(&mut body) {
            Ok(encoded) => {
                let range = Bounds::of(&Attr::lone("", encoded.kind, &encoded.ty, &body));
                Check(range.map_or_else(|| Ask::Value(Value::new(encoded, body)), Ask::Range))
            }
            Err(error) => Check(Ask::Invalid(error.to_string())),
        }
    }
}

impl<'p, T: FromAttr, F: Fn(&T) -> bool + 'p> IntoConstraint<'p, case::Predicate<T>> for F
where
    T: 'p,
{
    fn into_constraint(self) -> Check<'p> {
        Check(Ask::Other(Box::new(Predicate(self, PhantomData))))
    }
}

impl<'p, F: Fn(&str) -> bool + 'p> IntoConstraint<'p, case::OfStr> for F {
    fn into_constraint(self) -> Check<'p> {
        Check(Ask::Other(Box::new(OfStr(self))))
    }
}

impl<'p, T: Serialize> IntoConstraint<'p, case::Through> for RangeToInclusive<T> {
    fn into_constraint(self) -> Check<'p> {
        let mut body = Vec::new();
        let end = self.end.encode(&mut body).ok();
        let high = end.and_then(|end| Scalar::read(end.kind, &body)?.number());
        Check(match high {
            Some(high) => Ask::Range(Bounds { low: Bound::Unbounded, high: Bound::Included(high) }),
            None => Ask::Invalid("a range must be one of numbers".into()),
        })
    }
}

impl<'p> IntoConstraint<'p, case::Made> for Present {
    fn into_constraint(self) -> Check<'p> {
        Check(Ask::Present)
    }
}

impl<'p> IntoConstraint<'p, case::Made> for Absent {
    fn into_constraint(self) -> Check<'p> {
        Check(Ask::Absent)
    }
}

impl<'p> IntoConstraint<'p, case::Made> for Check<'p> {
    fn into_constraint(self) -> Check<'p> {
        self
    }
}

impl<'p, C: Constraint + 'p> IntoConstraint<'p, case::Own> for C {
    fn into_constraint(self) -> Check<'p> {
        Check(Ask::Other(Box::new(self)))
    }
}

/// The constraint that at least one of the given constraints holds: `pat! { tag: one_of(["stop", "work"]) }`.
pub fn one_of<'p, C: IntoConstraint<'p, M>, M>(of: impl IntoIterator<Item = C>) -> Check<'p> {
    Check(Ask::OneOf(of.into_iter().map(|constraint| constraint.into_constraint().0).collect()))
}

/// The constraint that the given constraint does not hold. It also holds if the attribute is absent; for an attribute
/// that is present but different, write `pat! { n: ANY, n: not(5) }`.
pub fn not<'p, C: IntoConstraint<'p, M>, M>(constraint: C) -> Check<'p> {
    Check(Ask::Not(Box::new(constraint.into_constraint().0)))
}

struct Predicate<F, T>(F, PhantomData<fn(&T)>);

impl<T: FromAttr, F: Fn(&T) -> bool> Constraint for Predicate<F, T> {
    fn accepts(&self, attr: Option<&Attr<'_>>) -> bool {
        attr.and_then(|attr| T::decode(attr).ok()).is_some_and(|value| (self.0)(&value))
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "|&{}| ..", without_paths(&TypeName::of::<T>().name))
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
        self.0.fmt(f)
    }
}

impl fmt::Debug for Check<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
