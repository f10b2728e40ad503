//! The interface between the executor and a communicator.

use std::sync::Arc;

use bytes::Bytes;

use super::execute::Mismatch;
use crate::lend::Loan;

/// Carries messages between the ranks of one communicator.
///
/// `tag` identifies one operation: no two operations of a communicator that are under way at the same time have the same tag.
/// Messages with the same tag from one rank to another arrive exactly once and in the order in which they were sent, however
/// many are under way.
pub(crate) trait Wire {
    /// The error type: a peer is gone, for example.
    type Error: From<Mismatch>;

    /// Sends a copy of the bytes. Like the methods below, waits for no receive, though it may wait briefly for room.
    fn send(&self, to: usize, tag: i32, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Sends shared memory, which is copied only if it has to leave the process. Waits for no receive.
    fn send_shared(&self, to: usize, tag: i32, bytes: Bytes) -> Result<(), Self::Error>;

    /// The length in bytes from which lending memory to a rank pays; `None` if that rank cannot read it.
    fn lends_from(&self, _to: usize) -> Option<usize> {
        None
    }

    /// Lends memory to a rank that can read it. Waits for no receive.
    fn lend(&self, to: usize, tag: i32, loan: Arc<Loan>) -> Result<(), Self::Error> {
        self.send_shared(to, tag, loan.read(Bytes::copy_from_slice))
    }

    /// The preferred length of pieces sent to a rank, if it is longer than the usual one.
    fn piece(&self, _to: usize) -> usize {
        0
    }

    /// Whether a rank of another process can read a message of this many bytes from this rank's memory.
    fn offers(&self, _to: usize, _bytes: usize) -> bool {
        false
    }

    /// Lets a rank read the bytes where they are: they must not change until the returned offer is [settled](Self::settle).
    /// Waits for no receive.
    fn offer(&self, to: usize, tag: i32, bytes: &[u8]) -> Result<u64, Self::Error> {
        self.send(to, tag, bytes).map(|()| 0)
    }

    /// Returns once the offer was read (`true`) or copied (`false`). If not patient, it copies at once instead of waiting a
    /// while.
    fn settle(&self, _offer: u64, _patiently: bool) -> bool {
        true
    }

    /// [Settles](Self::settle) all of these offers, and may help their readers.
    fn settle_all(&self, offers: &[(u64, &[u8])], mut patiently: bool) {
        for &(offer, _) in offers {
            patiently &= self.settle(offer, patiently);
        }
    }

    /// Waits for the next message and copies what fits into `out`. Returns `None` if messages from that rank cannot be
    /// received this way.
    fn receive_into(&self, _from: usize, _tag: i32, _out: &mut [u8]) -> Result<Option<Landed>, Self::Error> {
        Ok(None)
    }

    /// Waits for the next message, which goes into `out` if it fits and has no memory of its own.
    fn receive_short(&self, from: usize, tag: i32, out: &mut [u8]) -> Result<Landed, Self::Error> {
        match self.receive_into(from, tag, out)? {
            Some(landing) => Ok(landing),
            None => self.receive(from, tag).map(Landed::from),
        }
    }

    /// Returns the next message if it has arrived.
    fn try_receive(&self, from: usize, tag: i32) -> Result<Option<Message>, Self::Error>;

    /// Waits for the next message.
    fn receive(&self, from: usize, tag: i32) -> Result<Message, Self::Error>;
}

/// Where a received message is.
#[derive(Debug)]
pub(crate) enum Landed {
    /// In the memory that was passed in. Contains its length in bytes.
    Here(usize),
    /// Elsewhere. (Boxed, so that the result is returned in registers.)
    Elsewhere(Box<Message>),
}

impl From<Message> for Landed {
    fn from(message: Message) -> Self {
        Self::Elsewhere(Box::new(message))
    }
}

impl Landed {
    /// The length of the message in bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Here(len) => *len,
            Self::Elsewhere(message) => message.len(),
        }
    }
}

/// A received message.
#[derive(Debug)]
pub(crate) enum Message {
    /// The first bytes of the array, which is aligned for any element, and their number.
    Short([u64; INLINE / 8], u8),
    Whole(Bytes),
    /// Bytes in the sender's memory: always the whole message, whatever the length of a piece.
    Lent(Arc<Loan>),
}

/// The length in bytes up to which a message is carried without an allocation.
pub(crate) const INLINE: usize = 40;
/// The length in bytes up to which copying is faster than lending memory or sending in pieces.
pub(crate) const SHORT: usize = 4096;

impl Message {
    /// The length in bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Short(_, len) => usize::from(*len),
            Self::Whole(bytes) => bytes.len(),
            Self::Lent(loan) => loan.len(),
        }
    }

    /// Reads the message, once.
    pub(crate) fn read<R>(&self, read: impl FnOnce(&[u8]) -> R) -> R {
        match self {
            Self::Short(data, len) => read(&bytemuck::bytes_of(data)[..usize::from(*len)]),
            Self::Whole(bytes) => read(bytes),
            Self::Lent(loan) => loan.read(read),
        }
    }

    /// The bytes of the message, also of a loan.
    pub(crate) fn into_bytes(self) -> Bytes {
        match self {
            Self::Whole(bytes) => bytes,
            other => other.read(Bytes::copy_from_slice),
        }
    }
}
