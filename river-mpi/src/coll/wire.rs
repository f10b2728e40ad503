//! What the executor needs of a communicator.

use bytes::Bytes;

use super::execute::Mismatch;

/// Carries messages between the ranks of one communicator.
///
/// `tag` names one operation: no two operations of a communicator that are under way at the same time have
/// the same. Messages of one tag from one rank to another arrive once and in the order in which they were
/// sent, however many are under way.
pub(crate) trait Wire {
    /// What can go wrong: a peer is gone.
    type Error: From<Mismatch>;

    /// Sends a copy of the bytes. Waits for no receive.
    fn send(&self, to: usize, tag: i32, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Sends memory that is shared, and copied only if it has to leave the process. Waits for no receive.
    fn send_shared(&self, to: usize, tag: i32, bytes: Bytes) -> Result<(), Self::Error>;

    /// The next message, if it has arrived.
    fn try_receive(&self, from: usize, tag: i32) -> Result<Option<Bytes>, Self::Error>;

    /// The next message, which it waits for.
    fn receive(&self, from: usize, tag: i32) -> Result<Bytes, Self::Error>;
}
