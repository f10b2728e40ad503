//! Bcast: every rank gets the root's vector. Algorithms: `linear`, `binomial`, `chain`, `scatter_allgather`, `two_level`.

pub mod binomial;
pub mod chain;
pub mod linear;
pub mod scatter_allgather;
pub mod two_level;

pub use binomial::Binomial;
pub use chain::Chain;
pub use linear::Linear;
pub use scatter_allgather::ScatterAllgather;
pub use two_level::TwoLevel;

use super::algorithm::{Algorithm, Operation};
use super::shape::Shape;

/// Gives the root's vector to every rank. There is no input; `output[0..count]` on all ranks, which on the root holds the
/// vector from the beginning.
///
/// # Standard section
/// MPI 1.3, section 4.4.
#[derive(Clone, Copy, Debug)]
pub struct Bcast;

impl Operation for Bcast {
    const NAME: &'static str = "bcast";
    const UPDATES: bool = true;

    fn algorithms() -> &'static [&'static dyn Algorithm<Self>] {
        &[&Linear, &Binomial, &Chain { segment: chain::SEGMENT }, &ScatterAllgather, &TwoLevel]
    }

    fn buffers(_: usize, shape: &Shape) -> (usize, usize) {
        (0, shape.count())
    }
}
