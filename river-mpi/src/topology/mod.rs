//! Topologies: communicators whose ranks know their neighbours (MPI 1.3, chapter 6).
//!
//! * `cartesian`: grids
//! * `graph`: arbitrary graphs
//! * `dims`: factorization of a number of ranks into the dimensions of a grid

mod cartesian;
mod dims;
mod graph;

pub use cartesian::Cartesian;
pub use dims::dims_create;
pub use graph::Graph;

use crate::communicator::Communicator;
use crate::error::Result;

/// Creates a communicator of the first `count` ranks. If reordered, ranks that share a process get consecutive numbers.
fn first<'v>(comm: &Communicator<'v>, count: usize, reorder: bool) -> Result<Option<Communicator<'v>>> {
    let color = (comm.rank() < count).then_some(0);
    let key = if reorder { key(comm, comm.rank())? } else { 0 };
    comm.split(color, key)
}

/// This rank's number among the first `count` ranks after reordering; `None` if it is not one of them.
fn reordered(comm: &Communicator<'_>, count: usize) -> Result<Option<usize>> {
    if comm.rank() >= count {
        return Ok(None);
    }
    let keys = (0..count).map(|rank| key(comm, rank)).collect::<Result<Vec<i64>>>()?;
    let place = |rank: usize| (keys[rank], rank);
    Ok(Some((0..count).filter(|&rank| place(rank) < place(comm.rank())).count()))
}

/// The sort key for reordering.
fn key(comm: &Communicator<'_>, rank: usize) -> Result<i64> {
    Ok(comm.place_of(rank)?.host.into())
}
