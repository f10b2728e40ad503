//! Reduce-scatter: each rank gets a block of the combination of all vectors. Algorithms: `reduce_then_scatter`,
//! `recursive_halving`, `pairwise`, `ring`.

pub mod pairwise;
pub mod recursive_halving;
pub mod reduce_then_scatter;
pub mod ring;

pub use pairwise::Pairwise;
pub use recursive_halving::RecursiveHalving;
pub use reduce_then_scatter::ReduceThenScatter;
pub use ring::Ring;

use super::algorithm::{Algorithm, Operation};
use super::shape::Shape;

/// Combines the vectors of all ranks, element by element, and gives each rank a block of the result. Buffers:
/// `input[block(i)]` for each rank `i`, one after the other; `output` is this rank's block. All ranks know the lengths of all
/// blocks.
///
/// # Standard section
/// MPI 1.3, section 4.10.
#[derive(Clone, Copy, Debug)]
pub struct ReduceScatter;

impl Operation for ReduceScatter {
    const NAME: &'static str = "reduce_scatter";
    const REDUCES: bool = true;
    const IN_PLACE: bool = false;

    fn algorithms() -> &'static [&'static dyn Algorithm<Self>] {
        &[&ReduceThenScatter, &RecursiveHalving, &Pairwise, &Ring]
    }

    fn buffers(rank: usize, shape: &Shape) -> (usize, usize) {
        (shape.total(), shape.block(rank).len())
    }
}
