//! The peers and tags of operations.

use crate::error::{MpiError, Result};

/// The peer of an operation: a rank, or one of [`ANY_SOURCE`] and [`PROC_NULL`].
///
/// Operations take `impl Into<Peer>`, so a rank is passed as a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// The rank of the communicator with this number; in an intercommunicator, of the other group.
    Rank(usize),
    /// Any sender; for receives only.
    Any,
    /// No process: sending to it and receiving from it return at once and do nothing.
    Null,
}

/// Lets a receive match messages of any source (MPI 1.3, section 3.2.4).
pub const ANY_SOURCE: Peer = Peer::Any;
/// The null process, for example beyond the border of a grid (MPI 1.3, section 3.11).
pub const PROC_NULL: Peer = Peer::Null;

impl Peer {
    /// The rank, unless it is one of the special peers.
    #[must_use]
    pub fn rank(self) -> Option<usize> {
        match self {
            Self::Rank(rank) => Some(rank),
            Self::Any | Self::Null => None,
        }
    }
}

/// A rank as messages contain it. The number of a communicator's members fits into 32 bits.
#[inline]
pub(crate) fn number(rank: usize) -> u32 {
    u32::try_from(rank).unwrap_or(u32::MAX)
}

impl From<usize> for Peer {
    fn from(rank: usize) -> Self {
        Self::Rank(rank)
    }
}

/// The tag of a receive: a number, or [`ANY_TAG`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tag {
    /// This tag only.
    Is(i32),
    /// Any tag.
    Any,
}

/// Lets a receive match messages with any tag (MPI 1.3, section 3.2.4).
pub const ANY_TAG: Tag = Tag::Any;

impl Tag {
    #[inline]
    pub(crate) fn pattern(self) -> Result<Option<i32>> {
        match self {
            Self::Any => Ok(None),
            Self::Is(tag) => sendable(tag).map(Some),
        }
    }
}

impl From<i32> for Tag {
    fn from(tag: i32) -> Self {
        Self::Is(tag)
    }
}

/// Returns the tag if messages can be sent with it.
#[inline]
pub(crate) fn sendable(tag: i32) -> Result<i32> {
    if tag >= 0 { Ok(tag) } else { Err(unsendable(tag)) }
}

#[cold]
fn unsendable(tag: i32) -> MpiError {
    MpiError::Tag(tag.to_string())
}
