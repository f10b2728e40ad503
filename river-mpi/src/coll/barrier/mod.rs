//! Barrier: no rank leaves before all have entered. Algorithms: `linear`, `tree`, `dissemination`, `recursive_doubling`,
//! `all_to_all`, `two_level`.

pub mod all_to_all;
pub mod dissemination;
pub mod linear;
pub mod recursive_doubling;
pub mod tree;
pub mod two_level;

pub use all_to_all::AllToAll;
pub use dissemination::Dissemination;
pub use linear::Linear;
pub use recursive_doubling::RecursiveDoubling;
pub use tree::Tree;
pub use two_level::TwoLevel;

use super::algorithm::{Algorithm, Operation};
use super::shape::Shape;

/// No rank leaves the barrier before all have entered it. It has no input and no output.
///
/// # Standard section
/// MPI 1.3, section 4.3.
#[derive(Clone, Copy, Debug)]
pub struct Barrier;

impl Operation for Barrier {
    const NAME: &'static str = "barrier";

    fn algorithms() -> &'static [&'static dyn Algorithm<Self>] {
        &[&Linear, &Tree, &Dissemination, &RecursiveDoubling, &AllToAll, &TwoLevel]
    }

    fn buffers(_: usize, _: &Shape) -> (usize, usize) {
        (0, 0)
    }
}
