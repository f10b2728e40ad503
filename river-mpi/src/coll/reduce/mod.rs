//! Reduce: one rank gets the combination of all vectors. Algorithms: `linear`, `binomial`, `rabenseifner`, `two_level`.

pub mod binomial;
pub mod linear;
pub mod rabenseifner;
pub mod two_level;

pub use binomial::Binomial;
pub use linear::Linear;
pub use rabenseifner::Rabenseifner;
pub use two_level::TwoLevel;

use super::algorithm::{Algorithm, Operation};
use super::shape::Shape;

/// Combines the vectors of all ranks, element by element, and gives the result to the root. Buffers: `input[0..count]`; on
/// the root `output[0..count]`, no output on other ranks.
///
/// # Standard section
/// MPI 1.3, section 4.9.1.
#[derive(Clone, Copy, Debug)]
pub struct Reduce;

impl Operation for Reduce {
    const NAME: &'static str = "reduce";
    const REDUCES: bool = true;

    fn algorithms() -> &'static [&'static dyn Algorithm<Self>] {
        &[&Linear, &Binomial, &Rabenseifner, &TwoLevel]
    }

    fn buffers(rank: usize, shape: &Shape) -> (usize, usize) {
        (shape.count(), if rank == shape.root() { shape.count() } else { 0 })
    }
}
