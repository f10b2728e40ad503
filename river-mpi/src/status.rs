//! What is known of a message.

use crate::header::Header;

/// What a receive or a probe tells of a message (MPI 1.3, section 3.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    source: Option<usize>,
    tag: Option<i32>,
    bytes: usize,
    cancelled: bool,
}

impl Status {
    pub(crate) fn of(header: &Header) -> Self {
        Self {
            source: Some(header.key.source as usize),
            tag: Some(header.key.tag),
            bytes: usize::try_from(header.length).unwrap_or(usize::MAX),
            cancelled: false,
        }
    }

    /// Of a send, of a receive from nobody, and of what has not happened.
    pub(crate) const EMPTY: Self = Self { source: None, tag: None, bytes: 0, cancelled: false };
    pub(crate) const CANCELLED: Self = Self { cancelled: true, ..Self::EMPTY };

    /// Who sent the message; `None` if there is none: after a send, a cancelled receive, or one from
    /// [`PROC_NULL`](crate::PROC_NULL).
    #[must_use]
    pub fn source(&self) -> Option<usize> {
        self.source
    }

    /// The message's tag, if there is a message.
    #[must_use]
    pub fn tag(&self) -> Option<i32> {
        self.tag
    }

    /// The message's length in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many elements of type `T` the message has; `None` if that is not a whole number (`MPI_UNDEFINED`).
    #[must_use]
    pub fn count<T>(&self) -> Option<usize> {
        let size = size_of::<T>();
        if size == 0 { None } else { self.bytes.is_multiple_of(size).then(|| self.bytes / size) }
    }

    /// Whether the operation was cancelled, so that no message was sent or received.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled
    }
}
