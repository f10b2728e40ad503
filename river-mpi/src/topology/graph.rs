//! Graph topologies.

use std::ops::Deref;
use std::rc::Rc;

use super::{first, reordered};
use crate::communicator::Communicator;
use crate::error::{MpiError, Result};

/// A communicator whose ranks are the nodes of a graph. It dereferences to a communicator.
///
/// ```
/// # river_mpi::testing::world(4, |world| {
/// let star = world.graph_create(&[vec![1, 2, 3], vec![0], vec![0], vec![0]], false)?.unwrap();
/// for &neighbor in star.neighbors(star.rank())? {
///     star.send(&[star.rank()], neighbor, 0)?;
/// }
/// for &neighbor in star.neighbors(star.rank())? {
///     assert_eq!(star.recv::<usize>(neighbor, 0)?.0, [neighbor]);
/// }
/// # Ok(()) });
/// ```
#[derive(Clone, Debug)]
pub struct Graph<'v> {
    comm: Communicator<'v>,
    neighbors: Rc<[Vec<usize>]>,
}

impl<'v> Communicator<'v> {
    /// Creates a graph with a node for each list of neighbours; returns `None` on the ranks that are left over. All ranks
    /// call it, with the same lists.
    ///
    /// With `reorder`, ranks may be renumbered so that ranks that share a process are neighbours.
    ///
    /// # Errors
    /// [`MpiError::Topology`] if there are more nodes than ranks, or a neighbour is not a node.
    ///
    /// # Blocking
    /// Until all ranks have called it.
    ///
    /// # Standard section
    /// 6.5.3
    pub fn graph_create(&self, neighbors: &[Vec<usize>], reorder: bool) -> Result<Option<Graph<'v>>> {
        let nodes = self.guard(self.nodes(neighbors))?;
        let comm = first(self, nodes, reorder)?;
        Ok(comm.map(|comm| Graph { comm, neighbors: neighbors.into() }))
    }

    /// The rank that [`graph_create`](Self::graph_create) with `reorder` would give this rank in such a graph; `None` if it
    /// would be left over (`MPI_Graph_map`). Does not block.
    ///
    /// # Errors
    /// Those of [`graph_create`](Self::graph_create).
    ///
    /// # Standard section
    /// 6.5.6
    pub fn graph_map(&self, neighbors: &[Vec<usize>]) -> Result<Option<usize>> {
        let nodes = self.guard(self.nodes(neighbors))?;
        self.guard(reordered(self, nodes))
    }

    fn nodes(&self, neighbors: &[Vec<usize>]) -> Result<usize> {
        let nodes = neighbors.len();
        if nodes > self.size() {
            let text = format!("{} has {} ranks, not enough for {nodes} nodes", self.name(), self.size());
            return Err(MpiError::Topology(text));
        }
        match neighbors.iter().flatten().find(|&&node| node >= nodes) {
            Some(stranger) => Err(MpiError::Topology(format!(
                "a neighbour is {stranger}, which is no node of a graph of {nodes}"
            ))),
            None => Ok(nodes),
        }
    }
}

impl<'v> Graph<'v> {
    /// The neighbours of a node.
    ///
    /// # Errors
    /// [`MpiError::Rank`] if there is no such node.
    ///
    /// # Standard section
    /// 6.5.4
    pub fn neighbors(&self, rank: usize) -> Result<&[usize]> {
        let missing = || MpiError::Rank { rank: rank.to_string(), comm: self.name(), size: self.size() };
        self.comm.guard(self.neighbors.get(rank).map(Vec::as_slice).ok_or_else(missing))
    }

    /// The number of edges. An edge that both of its nodes name counts twice.
    #[must_use]
    pub fn edges(&self) -> usize {
        self.neighbors.iter().map(Vec::len).sum()
    }

    /// Creates a graph of the same shape with a communicator of its own: see [`Communicator::dup`].
    ///
    /// # Errors
    /// Those of [`Communicator::dup`].
    ///
    /// # Blocking
    /// Until all ranks have called it.
    pub fn dup(&self) -> Result<Self> {
        Ok(Self { comm: self.comm.dup()?, neighbors: self.neighbors.clone() })
    }
}

impl<'v> Deref for Graph<'v> {
    type Target = Communicator<'v>;

    fn deref(&self) -> &Communicator<'v> {
        &self.comm
    }
}
