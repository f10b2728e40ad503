//! The status of a message.

use std::fmt;

use crate::header::{Header, Receipt};

/// Information about a message, from a receive or a probe (MPI 1.3, section 3.2.5).
// Only two words long, since vectors of it are built message by message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// [`NOBODY`] if there is no message.
    source: u32,
    /// If there is no message, whether the operation was cancelled.
    tag: i32,
    bytes: u64,
}

const NOBODY: u32 = u32::MAX;

impl From<Receipt> for Status {
    fn from(Receipt { source, tag, length }: Receipt) -> Self {
        Self { source, tag, bytes: length }
    }
}

impl Status {
    pub(crate) fn of(header: &Header) -> Self {
        header.receipt().into()
    }

    /// The status of a send, of a receive from `PROC_NULL`, and of an operation that was not started.
    pub(crate) const EMPTY: Self = Self { source: NOBODY, tag: 0, bytes: 0 };
    pub(crate) const CANCELLED: Self = Self { tag: 1, ..Self::EMPTY };

    /// The sender of the message; `None` if there is no message: after a send, a cancelled receive, or a receive from
    /// [`PROC_NULL`](crate::PROC_NULL).
    #[must_use]
    pub fn source(&self) -> Option<usize> {
        (self.source != NOBODY).then_some(self.source as usize)
    }

    /// The message's tag, if there is a message.
    #[must_use]
    pub fn tag(&self) -> Option<i32> {
        (self.source != NOBODY).then_some(self.tag)
    }

    /// The message's length in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        usize::try_from(self.bytes).unwrap_or(usize::MAX)
    }

    /// The number of elements of type `T` in the message; `None` if it is not a whole number (`MPI_UNDEFINED`).
    #[must_use]
    pub fn count<T>(&self) -> Option<usize> {
        let (size, bytes) = (size_of::<T>(), self.bytes());
        if size == 0 { None } else { bytes.is_multiple_of(size).then(|| bytes / size) }
    }

    /// Whether the operation was cancelled, so that no message was sent or received.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.source == NOBODY && self.tag != 0
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Status")
            .field("source", &self.source())
            .field("tag", &self.tag())
            .field("bytes", &self.bytes())
            .field("cancelled", &self.is_cancelled())
            .finish()
    }
}
