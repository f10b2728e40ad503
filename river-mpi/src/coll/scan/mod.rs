//! Scan: every rank gets the combination of the vectors of all ranks up to itself. Algorithms: `linear`,
//! `recursive_doubling`.

pub mod linear;
pub mod recursive_doubling;

pub use linear::Linear;
pub use recursive_doubling::RecursiveDoubling;

use super::algorithm::{Algorithm, Operation};
use super::shape::Shape;

/// Gives each rank the combination of the vectors of ranks `0..=rank`. Buffers: `input[0..count]`, `output[0..count]`.
///
/// # Standard section
/// MPI 1.3, section 4.11.
#[derive(Clone, Copy, Debug)]
pub struct Scan;

impl Operation for Scan {
    const NAME: &'static str = "scan";
    const REDUCES: bool = true;

    fn algorithms() -> &'static [&'static dyn Algorithm<Self>] {
        &[&Linear, &RecursiveDoubling]
    }

    fn buffers(_: usize, shape: &Shape) -> (usize, usize) {
        (shape.count(), shape.count())
    }
}

/// Gives each rank the combination of the vectors of ranks `0..rank`. Buffers: `input[0..count]`, `output[0..count]`; on rank
/// 0 the output is unchanged.
///
/// # Standard section
/// MPI 2.2, section 5.11.2.
#[derive(Clone, Copy, Debug)]
pub struct Exscan;

impl Operation for Exscan {
    const NAME: &'static str = "exscan";
    const REDUCES: bool = true;
    const UPDATES: bool = true;

    fn algorithms() -> &'static [&'static dyn Algorithm<Self>] {
        &[&Linear, &RecursiveDoubling]
    }

    fn buffers(_: usize, shape: &Shape) -> (usize, usize) {
        (shape.count(), shape.count())
    }
}
