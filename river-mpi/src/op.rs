//! Operators of reductions, predefined and user-defined.
//!
//! ```
//! use river_mpi::op::{self, Operator, SUM};
//!
//! assert_eq!(SUM.apply(2, 3), 5);
//! // Compositions of maps x -> a x + b: associative, but the order matters.
//! let compose = op::ordered(|f: [i64; 2], g: [i64; 2]| [f[0] * g[0], f[0] * g[1] + f[1]]);
//! assert!(!Operator::<[i64; 2]>::is_commutative(&compose));
//! ```
//!
//! # Standard section
//! MPI 1.3, sections 4.9.2 to 4.9.4.

use num_complex::Complex;

use crate::element::{Element, Located};

/// An associative operator on elements of type `T`.
///
/// Implement [`apply`](Self::apply) and [`is_commutative`](Self::is_commutative). Reductions call the methods on slices,
/// whose default implementations are loops that the compiler can vectorize.
pub trait Operator<T: Element> {
    /// `left op right`.
    fn apply(&self, left: T, right: T) -> T;

    /// Whether `a op b` equals `b op a`, so that algorithms that change the order may be used. Must be the same on all ranks.
    fn is_commutative(&self) -> bool;

    /// Sets `into[i] = left[i] op right[i]`. The slices have the same length.
    fn combine(&self, left: &[T], right: &[T], into: &mut [T]) {
        for ((into, &left), &right) in into.iter_mut().zip(left).zip(right) {
            *into = self.apply(left, right);
        }
    }

    /// Sets `into[i] = left[i] op into[i]`. The slices have the same length.
    fn fold_left(&self, left: &[T], into: &mut [T]) {
        for (into, &left) in into.iter_mut().zip(left) {
            *into = self.apply(left, *into);
        }
    }

    /// Sets `into[i] = into[i] op right[i]`. The slices have the same length.
    fn fold_right(&self, into: &mut [T], right: &[T]) {
        for (into, &right) in into.iter_mut().zip(right) {
            *into = self.apply(*into, right);
        }
    }
}

/// An operator defined by a function of two elements: see [`commutative`] and [`ordered`].
#[derive(Clone, Copy, Debug)]
pub struct Function<F> {
    function: F,
    commutative: bool,
}

pub(crate) const fn function<F>(function: F, commutative: bool) -> Function<F> {
    Function { function, commutative }
}

/// Creates an operator that commutes.
///
/// ```
/// use river_mpi::op;
///
/// let gcd = op::commutative(|mut a: u64, mut b: u64| {
///     while b != 0 {
///         (a, b) = (b, a % b);
///     }
///     a
/// });
/// ```
///
/// # Standard section
/// MPI 1.3, section 4.9.4 (`MPI_Op_create` with `commute` true).
pub fn commutative<T: Element, F: Fn(T, T) -> T>(function: F) -> Function<F> {
    Function { function, commutative: true }
}

/// Creates an operator that does not commute: elements are combined in the order of the ranks.
///
/// # Standard section
/// MPI 1.3, section 4.9.4 (`MPI_Op_create` with `commute` false).
pub fn ordered<T: Element, F: Fn(T, T) -> T>(function: F) -> Function<F> {
    Function { function, commutative: false }
}

impl<T: Element, F: Fn(T, T) -> T> Operator<T> for Function<F> {
    #[inline]
    fn apply(&self, left: T, right: T) -> T {
        (self.function)(left, right)
    }

    fn is_commutative(&self) -> bool {
        self.commutative
    }
}

/// An operator defined by a function of slices, as in MPI: see [`slices`].
#[derive(Clone, Copy, Debug)]
pub struct Slices<F> {
    function: F,
    commutative: bool,
}

/// Creates an operator from a function of whole slices: `function(in, inout)` sets `inout[i] = in[i] op inout[i]`.
///
/// # Standard section
/// MPI 1.3, section 4.9.4 (`MPI_User_function`).
pub fn slices<T: Element, F: Fn(&[T], &mut [T])>(commutative: bool, function: F) -> Slices<F> {
    Slices { function, commutative }
}

impl<T: Element, F: Fn(&[T], &mut [T])> Operator<T> for Slices<F> {
    fn apply(&self, left: T, right: T) -> T {
        let mut result = [right];
        (self.function)(&[left], &mut result);
        result[0]
    }

    fn is_commutative(&self) -> bool {
        self.commutative
    }

    fn combine(&self, left: &[T], right: &[T], into: &mut [T]) {
        into.copy_from_slice(right);
        (self.function)(left, into);
    }

    fn fold_left(&self, left: &[T], into: &mut [T]) {
        (self.function)(left, into);
    }

    fn fold_right(&self, into: &mut [T], right: &[T]) {
        let left = into.to_vec();
        into.copy_from_slice(right);
        (self.function)(&left, into);
    }
}

/// Types that can be added and multiplied: integers (modulo 2^n), floats, complex numbers, and arrays of them, element by
/// element.
pub trait Arithmetic: Element {
    /// `self + other`
    #[must_use]
    fn sum(self, other: Self) -> Self;
    /// `self * other`
    #[must_use]
    fn product(self, other: Self) -> Self;
}

/// Types with a maximum and a minimum: integers and floats. If one of two floats is NaN, either may be the result.
pub trait Ordered: Element {
    /// The larger.
    #[must_use]
    fn larger(self, other: Self) -> Self;
    /// The smaller.
    #[must_use]
    fn smaller(self, other: Self) -> Self;
}

/// Types with bitwise operations: integers and `bool`.
pub trait Bits: Element {
    /// `self & other`
    #[must_use]
    fn and(self, other: Self) -> Self;
    /// `self | other`
    #[must_use]
    fn or(self, other: Self) -> Self;
    /// `self ^ other`
    #[must_use]
    fn xor(self, other: Self) -> Self;
    /// Whether the value is not zero, as a value of its type: 0 or 1.
    #[must_use]
    fn truth(self) -> Self;
}

macro_rules! ordered {
    ($($ty:ty)*) => { $(
        impl Ordered for $ty {
            #[inline]
            fn larger(self, other: Self) -> Self {
                if other > self { other } else { self }
            }
            #[inline]
            fn smaller(self, other: Self) -> Self {
                if other < self { other } else { self }
            }
        }
    )* };
}

macro_rules! integers {
    ($($ty:ty)*) => { $(
        impl Arithmetic for $ty {
            #[inline]
            fn sum(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline]
            fn product(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
        }
        impl Bits for $ty {
            #[inline]
            fn and(self, other: Self) -> Self {
                self & other
            }
            #[inline]
            fn or(self, other: Self) -> Self {
                self | other
            }
            #[inline]
            fn xor(self, other: Self) -> Self {
                self ^ other
            }
            #[inline]
            fn truth(self) -> Self {
                (self != 0).into()
            }
        }
    )* };
}

macro_rules! floats {
    ($($ty:ty)*) => { $(
        impl Arithmetic for $ty {
            #[inline]
            fn sum(self, other: Self) -> Self {
                self + other
            }
            #[inline]
            fn product(self, other: Self) -> Self {
                self * other
            }
        }
    )* };
}

integers!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize);
ordered!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64);
floats!(f32 f64 Complex<f32> Complex<f64>);

impl Bits for bool {
    #[inline]
    fn and(self, other: Self) -> Self {
        self & other
    }
    #[inline]
    fn or(self, other: Self) -> Self {
        self | other
    }
    #[inline]
    fn xor(self, other: Self) -> Self {
        self ^ other
    }
    #[inline]
    fn truth(self) -> Self {
        self
    }
}

impl<T: Arithmetic, const N: usize> Arithmetic for [T; N]
where
    [T; N]: Element,
{
    #[inline]
    fn sum(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i].sum(other[i]))
    }
    #[inline]
    fn product(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i].product(other[i]))
    }
}

macro_rules! predefined {
    ($($(#[$doc:meta])* $Name:ident $NAME:ident: $Bound:ident, |$left:ident, $right:ident| $result:expr;)*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $Name;

        $(#[$doc])*
        pub const $NAME: $Name = $Name;

        impl<T: $Bound> Operator<T> for $Name {
            #[inline]
            fn apply(&self, $left: T, $right: T) -> T {
                $result
            }

            fn is_commutative(&self) -> bool {
                true
            }
        }
    )* };
}

predefined! {
    /// `MPI_SUM`: the sum.
    Sum SUM: Arithmetic, |left, right| left.sum(right);
    /// `MPI_PROD`: the product.
    Product PROD: Arithmetic, |left, right| left.product(right);
    /// `MPI_MAX`: the largest.
    Max MAX: Ordered, |left, right| left.larger(right);
    /// `MPI_MIN`: the smallest.
    Min MIN: Ordered, |left, right| left.smaller(right);
    /// `MPI_BAND`: and, bit by bit.
    BitAnd BAND: Bits, |left, right| left.and(right);
    /// `MPI_BOR`: or, bit by bit.
    BitOr BOR: Bits, |left, right| left.or(right);
    /// `MPI_BXOR`: exclusive or, bit by bit.
    BitXor BXOR: Bits, |left, right| left.xor(right);
    /// `MPI_LAND`: whether all are true (not zero).
    And LAND: Bits, |left, right| left.truth().and(right.truth());
    /// `MPI_LOR`: whether any is true (not zero).
    Or LOR: Bits, |left, right| left.truth().or(right.truth());
    /// `MPI_LXOR`: whether an odd number of them is true (not zero).
    Xor LXOR: Bits, |left, right| left.truth().xor(right.truth());
}

/// `MPI_MAXLOC`: the largest value and the smallest index at which it occurs.
#[derive(Clone, Copy, Debug, Default)]
pub struct MaxLoc;

/// `MPI_MAXLOC`: the largest value and the smallest index at which it occurs.
pub const MAXLOC: MaxLoc = MaxLoc;

/// `MPI_MINLOC`: the smallest value and the smallest index at which it occurs.
#[derive(Clone, Copy, Debug, Default)]
pub struct MinLoc;

/// `MPI_MINLOC`: the smallest value and the smallest index at which it occurs.
pub const MINLOC: MinLoc = MinLoc;

impl<T: PartialOrd + Copy> Operator<Located<T>> for MaxLoc
where
    Located<T>: Element,
{
    #[inline]
    fn apply(&self, left: Located<T>, right: Located<T>) -> Located<T> {
        first_of(left, right, { right.value } > { left.value })
    }

    fn is_commutative(&self) -> bool {
        true
    }
}

impl<T: PartialOrd + Copy> Operator<Located<T>> for MinLoc
where
    Located<T>: Element,
{
    #[inline]
    fn apply(&self, left: Located<T>, right: Located<T>) -> Located<T> {
        first_of(left, right, { right.value } < { left.value })
    }

    fn is_commutative(&self) -> bool {
        true
    }
}

/// Returns the right operand if it is better; of equal values the one with the lower index.
fn first_of<T: PartialOrd + Copy>(left: Located<T>, right: Located<T>, right_is_better: bool) -> Located<T> {
    let equal = { left.value } == { right.value };
    if right_is_better || (equal && { right.index } < { left.index }) { right } else { left }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predefined_operators_do_what_the_standard_says() {
        assert_eq!(SUM.apply(u8::MAX, 2), 1);
        assert_eq!(SUM.apply([1.0, 2.0], [0.5, 0.5]), [1.5, 2.5]);
        assert_eq!(PROD.apply(Complex::new(0.0, 1.0), Complex::new(0.0, 1.0)), Complex::new(-1.0, 0.0));
        assert_eq!((MAX.apply(-1.0, 2.0), MIN.apply(-1, 2)), (2.0, -1));
        assert_eq!((LAND.apply(2, 4), BAND.apply(2, 4)), (1, 0));
        assert_eq!((LOR.apply(0, 4), BOR.apply(2, 4)), (1, 6));
        assert_eq!((LXOR.apply(2, 4), BXOR.apply(6, 4)), (0, 2));
        assert!(LAND.apply(true, true) && !LXOR.apply(true, true));
    }

    #[test]
    fn of_equal_values_the_lowest_index_counts() {
        let at = |value: f64, index| Located { value, index };
        assert_eq!(MAXLOC.apply(at(1.0, 0), at(2.0, 1)), at(2.0, 1));
        assert_eq!(MAXLOC.apply(at(2.0, 3), at(2.0, 1)), at(2.0, 1));
        assert_eq!(MINLOC.apply(at(1.0, 5), at(2.0, 1)), at(1.0, 5));
        assert_eq!(MINLOC.apply(at(1.0, 5), at(1.0, 6)), at(1.0, 5));
    }

    #[test]
    fn functions_of_slices_keep_the_order() {
        let subtract = slices(false, |left: &[i32], into: &mut [i32]| {
            for (into, left) in into.iter_mut().zip(left) {
                *into = left - *into;
            }
        });
        let mut into = [1, 2];
        subtract.fold_left(&[10, 10], &mut into);
        assert_eq!(into, [9, 8]);
        subtract.fold_right(&mut into, &[1, 1]);
        assert_eq!(into, [8, 7]);
        subtract.combine(&[5, 5], &[1, 2], &mut into);
        assert_eq!(into, [4, 3]);
        assert_eq!(subtract.apply(5, 3), 2);
    }
}
