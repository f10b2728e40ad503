//! Envelopes that have not reached a mailbox yet: they lie where their sender has written them.

use std::fmt;

use crate::envelope::{Channel, Label};
use crate::id::VrId;

/// An envelope that lies in memory shared with its sender's process, or comes on a connection, shown to
/// [`Vr::receive_arriving`](crate::Vr::receive_arriving), which can copy its payload to where it belongs. Who does not
/// take it gets it as any other envelope.
pub struct Arriving<'a> {
    pub(crate) label: Label,
    pub(crate) len: usize,
    pub(crate) here: usize,
    pub(crate) payload: &'a dyn Source,
}

/// Where a payload is copied from, to which nobody may refer: memory that may change meanwhile, or a connection.
pub(crate) trait Source {
    /// Copies bytes from that offset on. False: they have not come. Panics if there will never be that many.
    fn copy(&self, offset: usize, out: &mut [u8]) -> bool;

    /// Whether all of it is here, or was copied.
    fn is_read(&self) -> bool {
        true
    }
}

/// What becomes of an [`Arriving`] envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// It goes to the mailbox.
    Left,
    /// It was taken, and the next one may be shown. That counts if all of its payload is here, or the end of it was copied.
    Taken,
    /// The same, and the receive is over.
    Done,
}

impl Arriving<'_> {
    /// Who sent it.
    #[must_use]
    pub fn src(&self) -> VrId {
        self.label.src
    }

    /// The protocol that it belongs to.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.label.channel
    }

    /// Its lane.
    #[must_use]
    pub fn lane(&self) -> u64 {
        self.label.lane
    }

    /// Length of its payload in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no payload.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes of the payload have arrived; the rest is on its way.
    #[must_use]
    pub fn here(&self) -> usize {
        self.here
    }

    /// Copies a part of the payload, from `offset` on. Bytes that have not arrived are read from the connection, waiting a few
    /// microseconds if need be; they can be copied only once, and only together with the end of the payload. `false`: they
    /// did not come in time, and the envelope must be left ([`Intake::Left`]).
    ///
    /// # Panics
    /// If the payload does not have so many bytes.
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
