//! Internal messages, by which communicators are created. They are sent in the second context of a communicator, where no
//! receive of the program can match them.

use bytes::Bytes;

use crate::communicator::Communicator;
use crate::engine::{Ask, Sources};
use crate::error::Result;
use crate::matching::{Key, Pattern};

impl Communicator<'_> {
    /// Sends to a rank (of the other group, if there are two) without waiting for its receive.
    pub(crate) fn send_internal(&self, to: usize, tag: i32, bytes: Bytes) -> Result {
        self.engine().check(self.context())?;
        let member = self.member(to)?;
        self.engine().send_shared(member, self.internal_key(tag), bytes)
    }

    /// The earliest message of that rank with that tag, which it waits for.
    pub(crate) fn receive_internal(&self, from: usize, tag: i32) -> Result<Bytes> {
        self.engine().enter("the making of a communicator");
        let (_, arrival) = self.engine().receive(&self.internal_ask(from, tag)?, None)?;
        Ok(arrival.map(crate::engine::Arrival::into_bytes).unwrap_or_default())
    }

    fn internal_key(&self, tag: i32) -> Key {
        Key { context: self.context() + 1, source: self.source_of_mine(), tag }
    }

    fn internal_ask(&self, from: usize, tag: i32) -> Result<Ask> {
        let sources = Sources::One(self.member(from)?);
        let pattern =
            Pattern { context: self.context() + 1, source: u32::try_from(from).ok(), tag: Some(tag) };
        Ok(Ask { pattern, sources })
    }
}
