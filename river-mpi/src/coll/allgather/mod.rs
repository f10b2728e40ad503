//! Allgather: every rank gets the blocks of all ranks. Algorithms: `linear`, `ring`, `recursive_doubling`, `bruck`,
//! `gather_bcast`.

pub mod bruck;
pub mod gather_bcast;
pub mod linear;
pub mod recursive_doubling;
pub mod ring;

pub use bruck::Bruck;
pub use gather_bcast::GatherBcast;
pub use linear::Linear;
pub use recursive_doubling::RecursiveDoubling;
pub use ring::Ring;

use super::algorithm::{Algorithm, Operation};
use super::shape::Shape;

/// Gives the blocks of all ranks to every rank. Buffers: `input[0..count]`, and `output[block(i)]` for each rank `i`.
///
/// # Standard section
/// MPI 1.3, section 4.7.
#[derive(Clone, Copy, Debug)]
pub struct Allgather;

impl Operation for Allgather {
    const NAME: &'static str = "allgather";
    const IN_PLACE: bool = true;

    fn algorithms() -> &'static [&'static dyn Algorithm<Self>] {
        &[&Linear, &Ring, &RecursiveDoubling, &Bruck, &GatherBcast]
    }

    fn buffers(rank: usize, shape: &Shape) -> (usize, usize) {
        (shape.block(rank).len(), shape.total())
    }

    fn in_place(rank: usize, shape: &Shape) -> usize {
        shape.block(rank).start
    }
}

/// [`Allgather`] with blocks of different lengths. All ranks know the lengths; the ranks' layouts of the output may differ.
///
/// # Standard section
/// MPI 1.3, section 4.7.
#[derive(Clone, Copy, Debug)]
pub struct Allgatherv;

impl Operation for Allgatherv {
    const NAME: &'static str = "allgatherv";
    const IN_PLACE: bool = true;

    fn algorithms() -> &'static [&'static dyn Algorithm<Self>] {
        &[&Linear, &Ring, &RecursiveDoubling, &Bruck]
    }

    fn buffers(rank: usize, shape: &Shape) -> (usize, usize) {
        Allgather::buffers(rank, shape)
    }

    fn in_place(rank: usize, shape: &Shape) -> usize {
        shape.block(rank).start
    }
}

/// Uses an algorithm for blocks of different lengths for blocks of equal length, too.
macro_rules! also_for_different_lengths {
    ($Algorithm:ty) => {
        impl Algorithm<super::Allgatherv> for $Algorithm {
            fn name(&self) -> &str {
                Algorithm::<super::Allgather>::name(self)
            }

            fn supports(&self, shape: &Shape) -> Result<(), &'static str> {
                Algorithm::<super::Allgather>::supports(self, shape)
            }

            fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
                Algorithm::<super::Allgather>::plan(self, rank, shape, plan);
            }
        }
    };
}
use also_for_different_lengths;
