//! The root of a collective operation.

use crate::peer::Peer;

/// The root of an operation as this rank specifies it. In a communicator with one group it is a rank. Between two groups it
/// is a rank of the other group, or [`ROOT`] on the root itself and [`PROC_NULL`](crate::PROC_NULL) on the other ranks of its
/// group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// The rank with this number; between two groups, in the other group.
    Rank(usize),
    /// This rank, in an operation between two groups.
    Here,
    /// Another rank of this rank's group, in an operation between two groups.
    Elsewhere,
}

impl Root {
    /// Whether the root is given as a rank, with which this rank exchanges data. Otherwise this rank is the root itself, or
    /// does not take part.
    pub(super) fn is_rank(self) -> bool {
        matches!(self, Root::Rank(_))
    }
}

/// This rank is the root of an operation between two groups (`MPI_ROOT`).
///
/// # Standard section
/// MPI 2.0, section 7.3.2.
pub const ROOT: Root = Root::Here;

impl From<usize> for Root {
    fn from(rank: usize) -> Self {
        Root::Rank(rank)
    }
}

impl From<Peer> for Root {
    fn from(peer: Peer) -> Self {
        match peer {
            Peer::Rank(rank) => Root::Rank(rank),
            // `ANY_SOURCE` is not a root; between two groups it means that the root is not in this group.
            Peer::Null | Peer::Any => Root::Elsewhere,
        }
    }
}
