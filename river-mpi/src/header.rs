//! What stands before the data of every envelope between ranks: 32 bytes, little-endian. With as short a header as that a
//! message of 16 bytes fits into one cache line of a shared ring.

use crate::matching::Key;

/// Length of a header.
pub(crate) const HEADER: usize = 32;
/// Ranks are numbered with so many bits.
const RANK_BITS: u32 = 24;

/// What an envelope is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A message, whole. `ticket` names it to its sender.
    Eager,
    /// The same, and the sender waits for [`Kind::Ack`].
    EagerSync,
    /// A message of `length` bytes that the sender keeps until it gets [`Kind::ClearToSend`].
    RequestToSend,
    /// The message `ticket` was matched: send it, as pieces for the receive `length`.
    ClearToSend,
    /// A piece of a message, for the receive `ticket`.
    Fragment,
    /// The synchronous message `ticket` was matched.
    Ack,
    /// The sender asks to cancel the message `ticket`, on behalf of its operation `length` (the same number, unless the message
    /// was [`Kind::Eager`]). The answer repeats both.
    CancelRequest,
    /// Answer: it was not matched yet, and is gone.
    CancelGranted,
    /// Answer: it was matched already.
    CancelDenied,
    /// The communicator with this context was revoked.
    Revoke,
    /// From the job's supervisor; postcard follows.
    Job,
    /// Wake-up: a message lies in a shared queue or ring, and its sender found this rank asleep.
    Wake,
    /// The sender offers a ring in shared memory; the name of that memory follows.
    OfferRing,
}

const KINDS: [Kind; 13] = [
    Kind::Eager,
    Kind::EagerSync,
    Kind::RequestToSend,
    Kind::ClearToSend,
    Kind::Fragment,
    Kind::Ack,
    Kind::CancelRequest,
    Kind::CancelGranted,
    Kind::CancelDenied,
    Kind::Revoke,
    Kind::Job,
    Kind::Wake,
    Kind::OfferRing,
];

/// What an envelope begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// The sender's rank in the world: no job has 2^24.
    pub(crate) from: u32,
    /// What a message is matched by.
    pub(crate) key: Key,
    pub(crate) ticket: u64,
    pub(crate) length: u64,
}

/// What a receiver is told of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receipt {
    pub(crate) source: u32,
    pub(crate) tag: i32,
    pub(crate) length: u64,
}

impl Header {
    pub(crate) fn receipt(&self) -> Receipt {
        Receipt { source: self.key.source, tag: self.key.tag, length: self.length }
    }

    #[inline]
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let first = self.from & ((1 << RANK_BITS) - 1) | (self.kind as u32) << RANK_BITS;
        bytes[..4].copy_from_slice(&first.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.key.context.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.key.source.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.key.tag.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.ticket.to_le_bytes());
        bytes[24..].copy_from_slice(&self.length.to_le_bytes());
        bytes
    }

    /// `None`: these bytes are no header.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER] = bytes.first_chunk()?;
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        Some(Self {
            kind: *KINDS.get((u32_at(0) >> RANK_BITS) as usize)?,
            from: u32_at(0) & ((1 << RANK_BITS) - 1),
            key: Key { context: u32_at(4), source: u32_at(8), tag: u32_at(12).cast_signed() },
            ticket: u64_at(16),
            length: u64_at(24),
        })
    }

    /// An envelope of this header and this data, in one piece.
    pub(crate) fn with(&self, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + data.len());
        bytes.extend_from_slice(&self.encode());
        bytes.extend_from_slice(data);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_as_it_was_written() {
        for kind in KINDS {
            let key = Key { context: 7, source: u32::MAX, tag: -3 };
            let header = Header { kind, from: 5, key, ticket: u64::MAX - 1, length: 1 << 40 };
            assert_eq!(Header::decode(&header.with(b"data")), Some(header));
        }
        assert_eq!(Header::decode(&[0; HEADER - 1]), None);
        assert_eq!(Header::decode(&[99; HEADER]), None);
    }
}
