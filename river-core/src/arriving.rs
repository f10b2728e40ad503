//! Envelopes that have not reached a mailbox yet: they still lie where their sender has written them.

use std::fmt;

use crate::envelope::{Channel, Label};
use crate::id::VrId;

/// An envelope that lies in memory shared with its sender's process, or is arriving on a connection. It is passed to the
/// callback of [`Vr::receive_arriving`](crate::Vr::receive_arriving), which can copy its payload directly to its destination.
/// If it is not taken, it is received like any other envelope.
pub struct Arriving<'a> {
    pub(crate) label: Label,
    pub(crate) len: usize,
    pub(crate) here: usize,
    pub(crate) payload: &'a dyn Source,
}

/// The source of a payload, which can only be copied, not referred to: memory that may change meanwhile, or a connection.
pub(crate) trait Source {
    /// Copies bytes from `offset` on. Returns `false` if they have not arrived. Panics if the payload is shorter.
    fn copy(&self, offset: usize, out: &mut [u8]) -> bool;

    /// Whether the whole payload has arrived, or was copied.
    fn is_read(&self) -> bool {
        true
    }
}

/// What happens to an [`Arriving`] envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// It goes to the mailbox.
    Left,
    /// It was taken, and the next one may be shown. Counts only if its whole payload has arrived, or the end of it was
    /// copied.
    Taken,
    /// Like [`Taken`](Self::Taken), and the receive is over.
    Done,
}

impl Arriving<'_> {
    /// Returns the sender.
    #[must_use]
    pub fn src(&self) -> VrId {
        self.label.src
    }

    /// Returns the protocol that the envelope belongs to.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.label.channel
    }

    /// Returns the lane.
    #[must_use]
    pub fn lane(&self) -> u64 {
        self.label.lane
    }

    /// Returns the length of the payload in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the payload is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns how many bytes of the payload have arrived; the rest is on its way.
    #[must_use]
    pub fn here(&self) -> usize {
        self.here
    }

    /// Copies a part of the payload, from `offset` on. Bytes that have not arrived are read from the connection, waiting a
    /// few microseconds if necessary; they can be copied only once, and only together with the end of the payload. Returns
    /// `false` if they did not come in time; the envelope must then be left ([`Intake::Left`]).
    ///
    /// # Panics
    /// If the payload is shorter.
    #[must_use]
    pub fn copy_to(&self, offset: usize, out: &mut [u8]) -> bool {
        assert!(offset <= self.len && out.len() <= self.len - offset, "the payload has {} bytes", self.len);
        self.payload.copy(offset, out)
    }
}

impl fmt::Debug for Arriving<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arriving").field("label", &self.label).field("len", &self.len).finish_non_exhaustive()
    }
}
