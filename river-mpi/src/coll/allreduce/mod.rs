//! Allreduce: every rank gets the combination of all vectors. Algorithms: `recursive_doubling`, `ring`, `rabenseifner`,
//! `reduce_bcast`, `direct`, `all_to_all`, `two_level`.

pub mod all_to_all;
pub mod direct;
pub mod rabenseifner;
pub mod recursive_doubling;
pub mod reduce_bcast;
pub mod ring;
pub mod two_level;

pub use all_to_all::AllToAll;
pub use direct::Direct;
pub use rabenseifner::Rabenseifner;
pub use recursive_doubling::RecursiveDoubling;
pub use reduce_bcast::ReduceBcast;
pub use ring::Ring;
pub use two_level::TwoLevel;

use super::algorithm::{Algorithm, Operation};
use super::shape::Shape;

/// The combination of the vectors of all ranks, element by element, to all. `input[0..count]`,
/// `output[0..count]`.
///
/// # Standard section
/// MPI 1.3, section 4.9.5.
#[derive(Clone, Copy, Debug)]
pub struct Allreduce;

impl Operation for Allreduce {
    const NAME: &'static str = "allreduce";
    const REDUCES: bool = true;

    fn algorithms() -> &'static [&'static dyn Algorithm<Self>] {
        &[&RecursiveDoubling, &Ring, &Rabenseifner, &ReduceBcast, &Direct, &AllToAll, &TwoLevel]
    }

    fn buffers(_: usize, shape: &Shape) -> (usize, usize) {
        (shape.count(), shape.count())
    }
}
