//! Scatter: every rank gets a block of one rank's buffer. Algorithms: `linear`, `binomial`.

pub mod binomial;
pub mod linear;

pub use binomial::Binomial;
pub use linear::Linear;

use super::algorithm::{Algorithm, Operation};
use super::shape::Shape;

/// Gives each rank a block of the root's buffer. Buffers: on the root `input[block(i)]` for each rank `i`, no input on other
/// ranks; `output[0..count]`.
///
/// # Standard section
/// MPI 1.3, section 4.6.
#[derive(Clone, Copy, Debug)]
pub struct Scatter;

impl Operation for Scatter {
    const NAME: &'static str = "scatter";

    fn algorithms() -> &'static [&'static dyn Algorithm<Self>] {
        &[&Linear, &Binomial]
    }

    fn buffers(rank: usize, shape: &Shape) -> (usize, usize) {
        (if rank == shape.root() { shape.total() } else { 0 }, shape.block(rank).len())
    }
}

/// [`Scatter`] with blocks of different lengths. Only the root knows all lengths.
///
/// # Standard section
/// MPI 1.3, section 4.6.
#[derive(Clone, Copy, Debug)]
pub struct Scatterv;

impl Operation for Scatterv {
    const NAME: &'static str = "scatterv";

    fn algorithms() -> &'static [&'static dyn Algorithm<Self>] {
        &[&Linear]
    }

    fn buffers(rank: usize, shape: &Shape) -> (usize, usize) {
        Scatter::buffers(rank, shape)
    }
}
