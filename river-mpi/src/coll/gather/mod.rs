//! Gather: one rank gets the blocks of all ranks. Algorithms: `linear`, `binomial`.

pub mod binomial;
pub mod linear;

pub use binomial::Binomial;
pub use linear::Linear;

use super::algorithm::{Algorithm, Operation};
use super::shape::Shape;

/// Gives the blocks of all ranks to the root. Buffers: `input[0..count]`; on the root `output[block(i)]` for each rank `i`,
/// no output on other ranks.
///
/// # Standard section
/// MPI 1.3, section 4.5.
#[derive(Clone, Copy, Debug)]
pub struct Gather;

impl Operation for Gather {
    const NAME: &'static str = "gather";
    const IN_PLACE: bool = true;

    fn algorithms() -> &'static [&'static dyn Algorithm<Self>] {
        &[&Linear, &Binomial]
    }

    fn buffers(rank: usize, shape: &Shape) -> (usize, usize) {
        (shape.block(rank).len(), if rank == shape.root() { shape.total() } else { 0 })
    }

    fn in_place(rank: usize, shape: &Shape) -> usize {
        shape.block(rank).start
    }
}

/// [`Gather`] with blocks of different lengths. Only the root knows all lengths.
///
/// # Standard section
/// MPI 1.3, section 4.5.
#[derive(Clone, Copy, Debug)]
pub struct Gatherv;

impl Operation for Gatherv {
    const NAME: &'static str = "gatherv";
    const IN_PLACE: bool = true;

    fn algorithms() -> &'static [&'static dyn Algorithm<Self>] {
        &[&Linear]
    }

    fn buffers(rank: usize, shape: &Shape) -> (usize, usize) {
        Gather::buffers(rank, shape)
    }

    fn in_place(rank: usize, shape: &Shape) -> usize {
        shape.block(rank).start
    }
}
