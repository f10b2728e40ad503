//! Alltoall: every rank sends a block to every rank. Algorithms: `linear`, `pairwise`, `bruck`.

pub mod bruck;
pub mod linear;
pub mod pairwise;

pub use bruck::Bruck;
pub use linear::Linear;
pub use pairwise::Pairwise;

use super::algorithm::{Algorithm, Operation};
use super::shape::Shape;

/// Sends a block from every rank to every rank. `input[block(i)]` goes to rank `i`; `output[incoming(i)]` comes from rank
/// `i`.
///
/// # Standard section
/// MPI 1.3, section 4.8.
#[derive(Clone, Copy, Debug)]
pub struct Alltoall;

impl Operation for Alltoall {
    const NAME: &'static str = "alltoall";

    fn algorithms() -> &'static [&'static dyn Algorithm<Self>] {
        &[&Linear, &Pairwise, &Bruck]
    }

    fn buffers(_: usize, shape: &Shape) -> (usize, usize) {
        (shape.total(), shape.total_incoming())
    }
}

/// [`Alltoall`] with blocks of different lengths. Each rank knows only the lengths of the blocks that it sends and receives.
///
/// # Standard section
/// MPI 1.3, section 4.8.
#[derive(Clone, Copy, Debug)]
pub struct Alltoallv;

impl Operation for Alltoallv {
    const NAME: &'static str = "alltoallv";

    fn algorithms() -> &'static [&'static dyn Algorithm<Self>] {
        &[&Linear, &Pairwise]
    }

    fn buffers(rank: usize, shape: &Shape) -> (usize, usize) {
        Alltoall::buffers(rank, shape)
    }
}
