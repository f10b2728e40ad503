//! Messages that have come.

use bytes::Bytes;
use river_core::Payload;
use smallvec::SmallVec;

use crate::header::{HEADER, Header, Kind};

/// A message as it lies in a mailbox.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) header: Header,
    pub(super) payload: Payload,
}

/// A message that has come.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) header: Header,
    pub(super) pieces: SmallVec<[Payload; 1]>,
    pub(super) here: usize,
}

impl Arrival {
    pub(super) fn new(message: Message) -> Self {
        let mut arrival = Self { header: message.header, pieces: SmallVec::new(), here: 0 };
        if message.header.kind != Kind::Offer {
            arrival.push(message.payload);
        }
        arrival
    }

    pub(super) fn push(&mut self, payload: Payload) {
        self.here += payload.len() - HEADER;
        self.pieces.push(payload);
    }

    pub(super) fn is_whole(&self) -> bool {
        self.here as u64 >= self.header.length
    }

    /// Length of the message in bytes.
    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.header.length).unwrap_or(usize::MAX)
    }

    /// The data, slice after slice.
    pub(crate) fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().flat_map(data_of)
    }

    /// Copies the data to the beginning of `out`, which must have room for it.
    pub(crate) fn copy_to(&self, out: &mut [u8]) {
        let mut at = 0;
        for slice in self.slices() {
            out[at..at + slice.len()].copy_from_slice(slice);
            at += slice.len();
        }
    }

    /// The data in one piece, shared if it came so.
    pub(crate) fn into_bytes(self) -> Bytes {
        match &self.pieces[..] {
            [piece] => piece.slice(HEADER, piece.len()).unwrap_or_default(),
            _ => self.read(Bytes::copy_from_slice),
        }
    }

    /// The data in one piece; `read` is given it without a copy if it is in one already.
    pub(crate) fn read<R>(&self, read: impl FnOnce(&[u8]) -> R) -> R {
        let mut slices = self.slices();
        let first = slices.next().unwrap_or_default();
        if first.len() == self.len() {
            return read(first);
        }
        let mut whole = Vec::with_capacity(self.here);
        self.slices().for_each(|slice| whole.extend_from_slice(slice));
        read(&whole)
    }
}

/// The data of an envelope: what is behind its header.
pub(super) fn data_of(payload: &Payload) -> impl Iterator<Item = &[u8]> {
    let mut skip = HEADER;
    payload.parts().filter_map(move |part| {
        let skipped = skip.min(part.len());
        skip -= skipped;
        Some(&part[skipped..]).filter(|rest| !rest.is_empty())
    })
}
