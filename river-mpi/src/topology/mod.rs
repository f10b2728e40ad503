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
    let key = if reorder { key(comm, comm.rank())? } else { 0 };
    comm.split(color, key)
}

/// The rank that this one has among the first `count`, reordered; `None` if it is none of them.
fn reordered(comm: &Communicator<'_>, count: usize) -> Result<Option<usize>> {
    if comm.rank() >= count {
        return Ok(None);
    }
    let keys = (0..count).map(|rank| key(comm, rank)).collect::<Result<Vec<i64>>>()?;
    let place = |rank: usize| (keys[rank], rank);
    Ok(Some((0..count).filter(|&rank| place(rank) < place(comm.rank())).count()))
}

/// What ranks are reordered by.
fn key(comm: &Communicator<'_>, rank: usize) -> Result<i64> {
    Ok(comm.place_of(rank)?.host.into())
}
