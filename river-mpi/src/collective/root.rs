//! Who the root is.

use crate::peer::Peer;

/// The root of an operation as this rank sees it. In a communicator with one group it is a rank. Between two
/// groups it is a rank of the other group, or [`ROOT`] on the root itself and [`PROC_NULL`](crate::PROC_NULL)
/// on the other ranks of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// That rank; of the other group, if there are two.
    Rank(usize),
    /// This rank, in an operation between two groups.
    Here,
    /// Another rank of this rank's group, in an operation between two groups.
    Elsewhere,
}

impl Root {
    /// Whether it is a rank, to which this one gives or from which it gets; otherwise this one is the root itself, or has
    /// no part.
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
            // Any source is no root; with several groups nobody here is.
            Peer::Null | Peer::Any => Root::Elsewhere,
        }
    }
}
