//! Where a message lies that is to be taken in: in memory of its own, in a ring that it shares with its sender (see `local`
//! and `shm`), or still arriving on a connection.

use river_core::{Arriving, Payload, aliasing};

use super::Engine;
use super::arrival::data_of;
use crate::header::{HEADER, Header};

/// A message to be taken in, wherever it lies.
pub(super) trait Incoming {
    /// Returns its length, including its header.
    fn len(&self) -> usize;

    /// Returns its first bytes, if it is as long as a header.
    fn head(&self) -> [u8; HEADER];

    /// Returns its header, unless it has none that can be read.
    fn header(&self) -> Option<Header> {
        if self.len() < HEADER { None } else { Header::decode(&self.head()) }
    }

    /// Whether all of it has arrived.
    fn is_here(&self) -> bool {
        true
    }

    /// Whether nothing is held that sending needs. If not, a message that asks for an answer, or that does not fit, is left,
    /// and comes once more.
    fn is_final(&self) -> bool {
        true
    }

    /// Copies all of its data, which follows the header. Returns `false` if the data did not arrive in time.
    fn copy_data(&self, out: &mut [u8]) -> bool;

    /// Returns all of it, which must have arrived, to be kept.
    fn kept(&self, engine: &Engine<'_>) -> Payload;
}

impl Incoming for Arriving<'_> {
    fn len(&self) -> usize {
        self.len()
    }

    fn head(&self) -> [u8; HEADER] {
        let mut head = [0; HEADER];
        let _ = self.copy_to(0, &mut head);
        head
    }

    fn is_here(&self) -> bool {
        self.here() == self.len()
    }

    fn is_final(&self) -> bool {
        false
    }

    fn copy_data(&self, out: &mut [u8]) -> bool {
        self.copy_to(HEADER, out)
    }

    fn kept(&self, engine: &Engine<'_>) -> Payload {
        let mut here = false;
        let kept = engine.pool.filled(self.len(), |bytes| here = self.copy_to(0, bytes));
        debug_assert!(here);
        kept.into()
    }
}

impl Incoming for Payload {
    fn len(&self) -> usize {
        self.len()
    }

    fn head(&self) -> [u8; HEADER] {
        let mut head = [0; HEADER];
        match self.head().first_chunk() {
            Some(first) => *first,
            None => {
                let bytes = self.slice(0, HEADER).unwrap_or_default();
                head[..bytes.len()].copy_from_slice(&bytes);
                head
            }
        }
    }

    fn copy_data(&self, out: &mut [u8]) -> bool {
        let mut at = 0;
        for part in data_of(self) {
            aliasing::copy(part, &mut out[at..at + part.len()]);
            at += part.len();
        }
        true
    }

    fn kept(&self, _: &Engine<'_>) -> Payload {
        self.clone()
    }
}
