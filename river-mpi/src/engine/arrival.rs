//! Messages that have arrived, or are arriving.

use bytes::Bytes;
use river_core::{Payload, aliasing};

use crate::header::{HEADER, Header, Kind};

/// A message as it lies in a mailbox.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) header: Header,
    pub(super) payload: Payload,
}

/// A message that has arrived, or is arriving in pieces.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) header: Header,
    pub(super) pieces: Vec<Payload>,
    /// How many bytes from the beginning are in the receiver's memory already; the pieces follow.
    pub(super) landed: usize,
    pub(super) here: usize,
}

/// More bytes have arrived than the message has.
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

    /// Creates the arrival of a message of which no data is here yet.
    pub(super) fn coming(header: Header) -> Self {
        Self { header, pieces: Vec::new(), landed: 0, here: 0 }
    }

    /// Keeps a piece that has arrived.
    pub(super) fn push(&mut self, payload: Payload) -> Result<(), Overrun> {
        self.count(payload.len() - HEADER)?;
        self.pieces.push(payload);
        Ok(())
    }

    /// Counts bytes that have arrived, wherever they are.
    pub(super) fn count(&mut self, bytes: usize) -> Result<(), Overrun> {
        if bytes as u64 > self.header.length - self.here as u64 {
            return Err(Overrun);
        }
        self.here += bytes;
        Ok(())
    }

    /// Returns where the next bytes belong in the receiver's memory: behind the kept pieces, which it moves there first.
    /// Returns `None` if the bytes exceed the message, or the memory has no room for the whole message.
    pub(super) fn place<'a>(&mut self, memory: &'a mut [u8], bytes: usize) -> Option<&'a mut [u8]> {
        if self.header.length > memory.len() as u64 || bytes as u64 > self.header.length - self.here as u64 {
            return None;
        }
        self.unload(memory);
        memory.get_mut(self.landed..self.landed + bytes)
    }

    /// Moves the kept pieces to the receiver's memory, which must have room for the whole message.
    pub(super) fn unload(&mut self, out: &mut [u8]) {
        self.landed = self.copy_to(out);
        self.pieces.clear();
    }

    pub(super) fn is_whole(&self) -> bool {
        self.here as u64 >= self.header.length
    }

    /// Returns the length of the message in bytes.
    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.header.length).unwrap_or(usize::MAX)
    }

    /// Returns the data that is not in the receiver's memory yet, slice by slice.
    pub(crate) fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().flat_map(data_of)
    }

    /// Copies the kept data to `out`, behind what has landed there, and returns how many bytes `out` then holds. It must have
    /// room for them.
    pub(crate) fn copy_to(&self, out: &mut [u8]) -> usize {
        let mut at = self.landed;
        for slice in self.slices() {
            aliasing::copy(slice, &mut out[at..at + slice.len()]);
            at += slice.len();
        }
        at
    }

    /// Returns the data in one piece, shared if it arrived in one.
    pub(crate) fn into_bytes(self) -> Bytes {
        match &self.pieces[..] {
            [piece] => piece.slice(HEADER, piece.len()).unwrap_or_default(),
            _ => self.read(Bytes::copy_from_slice),
        }
    }

    /// Passes the data to `read` in one piece, without a copy if it is in one piece already.
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

/// The data of an envelope: everything behind the header.
pub(super) fn data_of(payload: &Payload) -> impl Iterator<Item = &[u8]> {
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
        Arrival::coming(Header { kind: Kind::RequestToSend, from: 0, key: Key::NONE, ticket: 1, length })
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
