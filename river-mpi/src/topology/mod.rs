//! Topologies: ranks that know their neighbours (MPI 1.3, chapter 6).
//!
//! * `cartesian`: grids
//! * `graph`: any neighbours
//! * `dims`: how to cut a number of ranks into a grid

mod cartesian;
mod dims;
mod graph;

pub use cartesian::Cartesian;
pub use dims::dims_create;
pub use graph::Graph;

use crate::communicator::Communicator;
use crate::error::Result;

/// The first `count` ranks in a communicator of their own. Reordered, those that share a process are next to each
/// other.
fn first<'v>(comm: &Communicator<'v>, count: usize, reorder: bool) -> Result<Option<Communicator<'v>>> {
    let color = (comm.rank() < count).then_some(0);
    let key = if reorder { i64::from(comm.place_of(comm.rank())?.host) } else { 0 };
    comm.split(color, key)
}
