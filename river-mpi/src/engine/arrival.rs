//! Messages that have come.

use bytes::Bytes;
use river_core::Payload;

use crate::header::{HEADER, Header, Kind};

/// A message as it lies in a mailbox.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) header: Header,
    pub(super) payload: Payload,
}

/// A message that has come, or is coming.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) header: Header,
    pub(super) pieces: Vec<Payload>,
    /// How many bytes from the beginning are in the receiver's memory already; the pieces follow.
    pub(super) landed: usize,
    pub(super) here: usize,
}

/// More bytes came than the message has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overrun;

impl Arrival {
    pub(super) fn new(message: Message) -> Self {
        let mut arrival = Self::coming(message.header);
        if message.header.kind != Kind::RequestToSend {
            arrival.here = message.payload.len() - HEADER;
            arrival.pieces.push(message.payload);
        }
        arrival
    }

    /// Of a message of which nothing is here yet.
    pub(super) fn coming(header: Header) -> Self {
        Self { header, pieces: Vec::new(), landed: 0, here: 0 }
    }

    /// A piece has come that is kept.
    pub(super) fn push(&mut self, payload: Payload) -> Result<(), Overrun> {
        self.count(payload.len() - HEADER)?;
        self.pieces.push(payload);
        Ok(())
    }

    /// How many bytes have come, wherever they are.
    pub(super) fn count(&mut self, bytes: usize) -> Result<(), Overrun> {
        if bytes as u64 > self.header.length - self.here as u64 {
            return Err(Overrun);
        }
        self.here += bytes;
        Ok(())
    }

    /// Where the next bytes belong in the receiver's memory, if they are of the message and that has room for all of it:
    /// behind those that are kept, which are moved there first.
    pub(super) fn place<'a>(&mut self, memory: &'a mut [u8], bytes: usize) -> Option<&'a mut [u8]> {
        if self.header.length > memory.len() as u64 || bytes as u64 > self.header.length - self.here as u64 {
            return None;
        }
        self.unload(memory);
        memory.get_mut(self.landed..self.landed + bytes)
    }

    /// Moves the pieces that are kept to the receiver's memory, which has room for the whole message.
    pub(super) fn unload(&mut self, out: &mut [u8]) {
        self.landed = self.copy_to(out);
        self.pieces.clear();
    }

    pub(super) fn is_whole(&self) -> bool {
        self.here as u64 >= self.header.length
    }

    /// Length of the message in bytes.
    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.header.length).unwrap_or(usize::MAX)
    }

    /// The data that has not landed, slice after slice.
    pub(crate) fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().flat_map(data_of)
    }

    /// Copies the data to the beginning of `out`, which must have room for it, and says how much there is.
    pub(crate) fn copy_to(&self, out: &mut [u8]) -> usize {
        let mut at = self.landed;
        for slice in self.slices() {
            out[at..at + slice.len()].copy_from_slice(slice);
            at += slice.len();
        }
        at
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
fn data_of(payload: &Payload) -> impl Iterator<Item = &[u8]> {
    let mut skip = HEADER;
    payload.parts().filter_map(move |part| {
        let skipped = skip.min(part.len());
        skip -= skipped;
        Some(&part[skipped..]).filter(|rest| !rest.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::Key;

    fn coming(length: u64) -> Arrival {
        let key = Key { context: 0, source: 0, tag: 0 };
        Arrival::coming(Header { kind: Kind::RequestToSend, from: 0, key, ticket: 1, length })
    }

    fn piece(data: &[u8]) -> Payload {
        [&[0; HEADER][..], data].concat().into()
    }

    #[test]
    fn pieces_land_at_their_place_at_once_or_before_the_next_one() {
        let mut arrival = coming(6);
        let mut memory = [0; 8];
        arrival.place(&mut memory, 2).unwrap().copy_from_slice(b"ab");
        arrival.count(2).unwrap();
        arrival.landed += 2;
        arrival.push(piece(b"cd")).unwrap();
        arrival.place(&mut memory, 2).unwrap().copy_from_slice(b"ef");
        arrival.count(2).unwrap();
        assert!(arrival.is_whole());
        assert_eq!(&memory, b"abcdef\0\0");
    }

    #[test]
    fn nothing_lands_where_the_message_does_not_fit() {
        assert_eq!(coming(6).place(&mut [0; 5], 2), None);
        assert_eq!(coming(6).place(&mut [0; 9], 7), None, "it is not of the message");
    }

    #[test]
    fn more_than_the_message_has_is_an_error() {
        let mut arrival = coming(6);
        arrival.push(piece(b"abcd")).unwrap();
        assert_eq!(arrival.push(piece(b"efg")), Err(Overrun));
        assert_eq!(arrival.count(usize::MAX), Err(Overrun));
        arrival.push(piece(b"ef")).unwrap();
        assert!(arrival.is_whole());
        assert_eq!(arrival.push(piece(b"g")), Err(Overrun));
    }
}
