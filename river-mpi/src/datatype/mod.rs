//! Derived datatypes, which describe the bytes of a buffer that make up a message (MPI 1.3, section 3.12).
//!
//! * this module: constructors of types, their size, extent and bounds
//! * `runs`: the representation of a type as pieces of memory in order
//! * `pack`: copying those pieces into a message and out of it

mod pack;
mod runs;

use std::cell::{Cell, OnceCell};
use std::fmt;
use std::rc::Rc;

use crate::element::Element;
use runs::Runs;

/// A description of memory: an ordered list of pieces. It is built from basic types and other datatypes, and cheap to clone.
///
/// Displacements are in bytes from the beginning of the buffer, or in extents of the repeated type. A type may describe any
/// bytes of a buffer; so buffers have `Pod` types, for which all bytes are valid. `bool` and `char` are not among them.
///
/// ```
/// use river_mpi::Datatype;
///
/// // A column of a matrix of 3 rows and 4 columns.
/// let column = Datatype::of::<f64>().vector(3, 1, 4).commit();
/// assert_eq!((column.size(), column.extent()), (24, 72));
/// let matrix = [0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0, 20.0, 21.0, 22.0, 23.0];
/// let packed = column.pack(&matrix[1..], 1)?;
/// assert_eq!(bytemuck::pod_collect_to_vec::<u8, f64>(&packed), [1.0, 11.0, 21.0]);
/// # Ok::<(), river_mpi::MpiError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Datatype(Rc<Shape>);

#[derive(Clone, Debug, Default)]
struct Shape {
    runs: Runs,
    size: usize,
    lower: isize,
    upper: isize,
    /// Bounds that were set explicitly apply to every type that contains this one.
    lower_is_set: bool,
    upper_is_set: bool,
    align: usize,
    /// The sizes of the basic elements, in order: (size, number).
    basics: Vec<(usize, usize)>,
    /// Whether two pieces overlap, once it was computed.
    overlaps: OnceCell<bool>,
    /// The last number of consecutive copies that was checked for overlaps, and the result: a program tends to receive the
    /// same number again.
    row_overlaps: Cell<(usize, bool)>,
}

/// `count` copies of a type, one after the other, at a displacement in bytes.
struct Block<'a> {
    at: isize,
    count: usize,
    of: &'a Datatype,
}

impl Datatype {
    /// The basic type of one element.
    #[must_use]
    pub fn of<T: Element>() -> Self {
        let size = size_of::<T>();
        let mut runs = Runs::default();
        runs.push(0, size);
        Self(Rc::new(Shape {
            runs,
            size,
            upper: size.cast_signed(),
            align: align_of::<T>(),
            basics: vec![(size, 1)],
            ..Shape::default()
        }))
    }

    /// `count` copies of this type, one after the other.
    #[must_use]
    pub fn contiguous(&self, count: usize) -> Self {
        Self::assemble(std::iter::once(Block { at: 0, count, of: self }))
    }

    /// `count` blocks of `length` copies, whose beginnings are `stride` extents apart.
    #[must_use]
    pub fn vector(&self, count: usize, length: usize, stride: isize) -> Self {
        self.hvector(count, length, stride.saturating_mul(self.extent()))
    }

    /// `count` blocks of `length` copies, whose beginnings are `stride` bytes apart.
    #[must_use]
    pub fn hvector(&self, count: usize, length: usize, stride: isize) -> Self {
        Self::assemble((0..count).map(|i| Block {
            at: stride.saturating_mul(signed(i)),
            count: length,
            of: self,
        }))
    }

    /// Blocks, given as (length, displacement in extents).
    #[must_use]
    pub fn indexed(&self, blocks: &[(usize, isize)]) -> Self {
        let extent = self.extent();
        Self::assemble(blocks.iter().map(|&(count, at)| Block {
            at: at.saturating_mul(extent),
            count,
            of: self,
        }))
    }

    /// Blocks, given as (length, displacement in bytes).
    #[must_use]
    pub fn hindexed(&self, blocks: &[(usize, isize)]) -> Self {
        Self::assemble(blocks.iter().map(|&(count, at)| Block { at, count, of: self }))
    }

    /// Blocks of different types, given as (length, displacement in bytes, type). The upper bound is rounded up for alignment
    /// as compilers do for structs, unless a bound was set.
    ///
    /// ```
    /// use river_mpi::Datatype;
    ///
    /// // struct { double x; char c; }
    /// let pair = Datatype::structure(&[(1, 0, Datatype::of::<f64>()), (1, 8, Datatype::of::<u8>())]);
    /// assert_eq!((pair.size(), pair.extent()), (9, 16));
    /// ```
    #[must_use]
    pub fn structure(blocks: &[(usize, isize, Datatype)]) -> Self {
        Self::assemble(blocks.iter().map(|(count, at, of)| Block { at: *at, count: *count, of }))
    }

    /// The same memory with other bounds, in bytes: consecutive copies begin `upper - lower` bytes apart. The bounds also
    /// apply to types that are built from this one, like those of `MPI_LB` and `MPI_UB`.
    #[must_use]
    pub fn with_bounds(&self, lower: isize, upper: isize) -> Self {
        Self(Rc::new(Shape { lower, upper, lower_is_set: true, upper_is_set: true, ..(*self.0).clone() }))
    }

    /// The size of the data in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.size
    }

    /// The lower bound, in bytes.
    #[must_use]
    pub fn lower_bound(&self) -> isize {
        self.0.lower
    }

    /// The upper bound, in bytes.
    #[must_use]
    pub fn upper_bound(&self) -> isize {
        self.0.upper
    }

    /// The distance between the bounds, in bytes.
    #[must_use]
    pub fn extent(&self) -> isize {
        self.0.upper.saturating_sub(self.0.lower)
    }

    /// Makes the type usable in operations.
    #[must_use]
    pub fn commit(&self) -> Committed {
        Committed(self.clone())
    }

    fn assemble<'a>(blocks: impl Iterator<Item = Block<'a>>) -> Self {
        let mut shape = Shape { align: 1, ..Shape::default() };
        let (mut lower, mut upper): (Option<isize>, Option<isize>) = (None, None);
        let (mut set_lower, mut set_upper): (Option<isize>, Option<isize>) = (None, None);
        let least = |a: Option<isize>, b: isize| Some(a.map_or(b, |a| a.min(b)));
        let most = |a: Option<isize>, b: isize| Some(a.map_or(b, |a| a.max(b)));
        for Block { at, count, of } in blocks {
            let Shape { runs, size, basics, .. } = &*of.0;
            // A type with an empty type map adds no entries, wherever it lies (3.12.3).
            if count == 0 || *size == 0 && !of.0.lower_is_set && !of.0.upper_is_set {
                continue;
            }
            shape.align = shape.align.max(of.0.align);
            let extent = of.extent();
            shape.runs.push_copies(runs, at, count, extent);
            shape.size = shape.size.saturating_add(size.saturating_mul(count));
            repeat(&mut shape.basics, basics, count);
            let last = at.saturating_add(extent.saturating_mul(signed(count - 1)));
            let (low, high) =
                (at.min(last).saturating_add(of.0.lower), at.max(last).saturating_add(of.0.upper));
            (lower, upper) = (least(lower, low), most(upper, high));
            if of.0.lower_is_set {
                set_lower = least(set_lower, low);
            }
            if of.0.upper_is_set {
                set_upper = most(set_upper, high);
            }
        }
        shape.runs.compress();
        (shape.lower_is_set, shape.upper_is_set) = (set_lower.is_some(), set_upper.is_some());
        shape.lower = set_lower.or(lower).unwrap_or(0);
        shape.upper = set_upper.or(upper).unwrap_or(0);
        if !shape.upper_is_set {
            let odd = shape.upper.saturating_sub(shape.lower).rem_euclid(signed(shape.align.max(1)));
            if odd != 0 {
                shape.upper = shape.upper.saturating_add(signed(shape.align) - odd);
            }
        }
        Self(Rc::new(shape))
    }
}

/// A datatype that can be used in operations: see [`Datatype::commit`].
#[derive(Clone)]
pub struct Committed(Datatype);

impl Committed {
    /// The type itself, from which others can be built.
    #[must_use]
    pub fn datatype(&self) -> &Datatype {
        &self.0
    }

    /// The size of the data in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.size()
    }

    /// The distance between the bounds, in bytes.
    #[must_use]
    pub fn extent(&self) -> isize {
        self.0.extent()
    }

    /// The number of copies of this type in a message of `bytes` bytes; `None` if it is not a whole number (`MPI_Get_count`).
    #[must_use]
    pub fn count_in(&self, bytes: usize) -> Option<usize> {
        match self.size() {
            0 => (bytes == 0).then_some(0),
            size => bytes.is_multiple_of(size).then(|| bytes / size),
        }
    }

    /// The number of basic elements in a message of `bytes` bytes; `None` if it is not a whole number (`MPI_Get_elements`).
    #[must_use]
    pub fn elements_in(&self, bytes: usize) -> Option<usize> {
        let size = self.size();
        if size == 0 {
            return (bytes == 0).then_some(0);
        }
        let all: usize = self.0.0.basics.iter().map(|&(_, count)| count).sum();
        let (mut left, mut elements) = (bytes % size, bytes / size * all);
        for &(size, count) in &self.0.0.basics {
            let fit = left.checked_div(size).map_or(count, |most| most.min(count));
            left -= fit * size;
            elements += fit;
            if fit < count {
                break;
            }
        }
        (left == 0).then_some(elements)
    }

    fn runs(&self) -> &Runs {
        &self.0.0.runs
    }

    /// Whether two pieces of one copy overlap.
    fn overlaps(&self) -> bool {
        *self.0.0.overlaps.get_or_init(|| self.runs().overlap())
    }
}

impl fmt::Debug for Committed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Committed({} of {} bytes)", self.size(), self.extent())
    }
}

fn signed(n: usize) -> isize {
    isize::try_from(n).unwrap_or(isize::MAX)
}

fn repeat(all: &mut Vec<(usize, usize)>, basics: &[(usize, usize)], count: usize) {
    let mut push = |size: usize, count: usize| match all.last_mut() {
        Some((last, n)) if *last == size => *n += count,
        _ => all.push((size, count)),
    };
    if let [(size, n)] = basics {
        return push(*size, n.saturating_mul(count));
    }
    for _ in 0..count {
        basics.iter().for_each(|&(size, n)| push(size, n));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_of_the_standards_examples() {
        let int = Datatype::of::<i32>();
        // MPI 1.3, section 3.12.3: type1 = {(lb, -3), (int, 0), (ub, 6)} has extent 9, so two copies of it have 18.
        let type1 = int.with_bounds(-3, 6);
        assert_eq!((type1.lower_bound(), type1.extent(), type1.size()), (-3, 9, 4));
        let two = type1.contiguous(2);
        assert_eq!((two.lower_bound(), two.upper_bound(), two.size()), (-3, 15, 8));
        // Example 3.21: {(double, 0), (char, 8)}, alignment 8.
        let pair = Datatype::structure(&[(1, 0, Datatype::of::<f64>()), (1, 8, Datatype::of::<i8>())]);
        assert_eq!(pair.extent(), 16);
        assert_eq!(pair.contiguous(3).extent(), 48);
        let empty = int.contiguous(0);
        assert_eq!((empty.size(), empty.extent(), empty.commit().count_in(0)), (0, 0, Some(0)));
    }

    #[test]
    fn counts_and_elements() {
        let pair =
            Datatype::structure(&[(2, 0, Datatype::of::<i32>()), (1, 8, Datatype::of::<i8>())]).commit();
        assert_eq!((pair.count_in(18), pair.count_in(13)), (Some(2), None));
        assert_eq!(pair.elements_in(18), Some(6));
        assert_eq!(pair.elements_in(13), Some(4));
        assert_eq!(pair.elements_in(15), None);
    }
}
