//! What the executor needs of a communicator.

use std::sync::Arc;

use bytes::Bytes;

use super::execute::Mismatch;
use crate::lend::Loan;

/// Carries messages between the ranks of one communicator.
///
/// `tag` names one operation: no two operations of a communicator that are under way at the same time have
/// the same. Messages of one tag from one rank to another arrive once and in the order in which they were
/// sent, however many are under way.
pub(crate) trait Wire {
    /// What can go wrong: a peer is gone.
    type Error: From<Mismatch>;

    /// Sends a copy of the bytes. Waits for no receive, here and below, though a little while for room.
    fn send(&self, to: usize, tag: i32, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Sends memory that is shared, and copied only if it has to leave the process. Waits for no receive.
    fn send_shared(&self, to: usize, tag: i32, bytes: Bytes) -> Result<(), Self::Error>;

    /// From how many bytes on it is worth while to lend memory to a rank; `None`: that rank cannot read it.
    fn lends_from(&self, _to: usize) -> Option<usize> {
        None
    }

    /// Lends memory to a rank that can read it. Waits for no receive.
    fn lend(&self, to: usize, tag: i32, loan: Arc<Loan>) -> Result<(), Self::Error> {
        self.send_shared(to, tag, loan.read(Bytes::copy_from_slice))
    }

    /// How long the pieces are in which a message to a rank travels best, if that is longer than others.
    fn piece(&self, _to: usize) -> usize {
        0
    }

    /// Whether a rank of another process can read so many bytes in this one's memory.
    fn offers(&self, _to: usize, _bytes: usize) -> bool {
        false
    }

    /// Has a rank read the bytes where they are: they stay as they are until the offer of this number is
    /// [settled](Self::settle). Waits for no receive.
    fn offer(&self, to: usize, tag: i32, bytes: &[u8]) -> Result<u64, Self::Error> {
        self.send(to, tag, bytes).map(|()| 0)
    }

    /// Returns when what was offered was read (true) or copied: soon, or, if not patiently, at once.
    fn settle(&self, _offer: u64, _patiently: bool) -> bool {
        true
    }

    /// The next message, which it waits for; what of it fits goes into `out`. `None`: that way is not for this rank.
    fn receive_into(&self, _from: usize, _tag: i32, _out: &mut [u8]) -> Result<Option<Landed>, Self::Error> {
        Ok(None)
    }

    /// The next message, which it waits for; it goes into `out` if it fits and has no memory of its own.
    fn receive_short(&self, from: usize, tag: i32, out: &mut [u8]) -> Result<Landed, Self::Error> {
        match self.receive_into(from, tag, out)? {
            Some(landing) => Ok(landing),
            None => self.receive(from, tag).map(Landed::from),
        }
    }

    /// The next message, if it has arrived.
    fn try_receive(&self, from: usize, tag: i32) -> Result<Option<Message>, Self::Error>;

    /// The next message, which it waits for.
    fn receive(&self, from: usize, tag: i32) -> Result<Message, Self::Error>;
}

/// Where a message is that has come.
#[derive(Debug)]
pub(crate) enum Landed {
    /// Where it belongs: its length in bytes.
    Here(usize),
    /// It is elsewhere. (Boxed, so that what has landed is told in registers.)
    Elsewhere(Box<Message>),
}

impl From<Message> for Landed {
    fn from(message: Message) -> Self {
        Self::Elsewhere(Box::new(message))
    }
}

impl Landed {
    /// How many bytes the message has.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Here(len) => *len,
            Self::Elsewhere(message) => message.len(),
        }
    }
}

/// A message that has come.
#[derive(Debug)]
pub(crate) enum Message {
    /// The first bytes of these, aligned as any element is, and their number.
    Short([u64; INLINE / 8], u8),
    Whole(Bytes),
    /// Bytes in the memory of their sender: all of them, whatever the length of a piece.
    Lent(Arc<Loan>),
}

/// Up to so many bytes a message is carried without memory of its own.
pub(crate) const INLINE: usize = 40;
/// Up to so many bytes to copy it takes less than to lend memory or to send it in pieces.
pub(crate) const SHORT: usize = 4096;

impl Message {
    /// How many bytes it has.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Short(_, len) => usize::from(*len),
            Self::Whole(bytes) => bytes.len(),
            Self::Lent(loan) => loan.len(),
        }
    }

    /// Reads it, once.
    pub(crate) fn read<R>(&self, read: impl FnOnce(&[u8]) -> R) -> R {
        match self {
            Self::Short(data, len) => read(&bytemuck::bytes_of(data)[..usize::from(*len)]),
            Self::Whole(bytes) => read(bytes),
            Self::Lent(loan) => loan.read(read),
        }
    }

    /// Its bytes, whoever lends them.
    pub(crate) fn into_bytes(self) -> Bytes {
        match self {
            Self::Whole(bytes) => bytes,
            other => other.read(Bytes::copy_from_slice),
        }
    }
}
