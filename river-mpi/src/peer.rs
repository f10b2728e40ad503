//! Whom a message is for, and which messages a receive wants.

use crate::error::{MpiError, Result};

/// The other side of an operation: a rank, or one of [`ANY_SOURCE`] and [`PROC_NULL`].
///
/// Operations take `impl Into<Peer>`, so a rank is written as the number that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// That rank of the communicator; of an intercommunicator, of the other group.
    Rank(usize),
    /// Whoever sends; for receives only.
    Any,
    /// Nobody: sending to it and receiving from it succeed at once and do nothing.
    Null,
}

/// A receive takes a message whoever sent it (MPI 1.3, section 3.2.4).
pub const ANY_SOURCE: Peer = Peer::Any;
/// The rank of nobody, for the borders of a grid (MPI 1.3, section 3.11).
pub const PROC_NULL: Peer = Peer::Null;

impl Peer {
    /// The rank, if it is one.
    #[must_use]
    pub fn rank(self) -> Option<usize> {
        match self {
            Self::Rank(rank) => Some(rank),
            Self::Any | Self::Null => None,
        }
    }
}

/// A rank as messages name it. A communicator's members are counted in 32 bits.
#[inline]
pub(crate) fn number(rank: usize) -> u32 {
    u32::try_from(rank).unwrap_or(u32::MAX)
}

impl From<usize> for Peer {
    fn from(rank: usize) -> Self {
        Self::Rank(rank)
    }
}

/// Which tag a receive wants: a number, or [`ANY_TAG`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tag {
    /// That one.
    Is(i32),
    /// Whichever.
    Any,
}

/// A receive takes a message whatever its tag (MPI 1.3, section 3.2.4).
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

/// The tag, if one can be sent with it.
#[inline]
pub(crate) fn sendable(tag: i32) -> Result<i32> {
    if tag >= 0 { Ok(tag) } else { Err(unsendable(tag)) }
}

#[cold]
fn unsendable(tag: i32) -> MpiError {
    MpiError::Tag(tag.to_string())
}
