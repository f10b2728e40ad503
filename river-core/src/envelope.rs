//! Envelopes, which the core moves between VRs. It never looks into their payload.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::VrId;

/// Separates the protocols that share one mailbox: a layer receives only what was sent on its own channel.
///
/// A new programming model names its channel once: `const LINDA: Channel = Channel::named("linda");`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Channel(u32);

impl Channel {
    /// Returns the channel with this name (FNV-1a of the name, so both ends agree without a registry).
    #[must_use]
    pub const fn named(name: &str) -> Self {
        let (bytes, mut hash, mut i) = (name.as_bytes(), 0x811c_9dc5_u32, 0);
        while i < bytes.len() {
            hash = (hash ^ bytes[i] as u32).wrapping_mul(0x0100_0193);
            i += 1;
        }
        Self(hash)
    }

    pub(crate) const fn from_wire(value: u32) -> Self {
        Self(value)
    }

    pub(crate) const fn to_wire(self) -> u32 {
        self.0
    }
}

/// The payload of an envelope: bytes, in one piece or in several.
///
/// A sender that already has large parts in memory passes them as they are ([`Payload::push`]). Within a process they are
/// shared; on a socket they are gathered by the system call; so they are never copied together. The bytes and their offsets
/// are the same either way: a payload that was pushed in parts may arrive in one piece, or in the same parts.
#[derive(Clone, Debug, Default)]
pub struct Payload {
    head: Bytes,
    parts: Vec<Bytes>,
    len: usize,
}

impl Payload {
    /// Appends a part. Never blocks, copies nothing.
    pub fn push(&mut self, part: Bytes) {
        self.len += part.len();
        if self.head.is_empty() && self.parts.is_empty() {
            self.head = part;
        } else if !part.is_empty() {
            self.parts.push(part);
        }
    }

    /// Returns the total length of all parts in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the payload has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the parts, in order.
    pub fn parts(&self) -> impl Iterator<Item = &Bytes> + Clone {
        std::iter::once(&self.head).chain(&self.parts)
    }

    /// The first part. It is the whole payload if that is in one piece, which a payload that was sent in parts may or may not
    /// be ([`slice`](Self::slice) and [`to_bytes`](Self::to_bytes) work either way).
    #[must_use]
    pub fn head(&self) -> &Bytes {
        &self.head
    }

    /// Returns the bytes `start..end` (offsets in the whole payload): shared if they lie within one part, otherwise copied
    /// into one piece. `None` if the range reaches beyond the payload.
    #[must_use]
    pub fn slice(&self, start: usize, end: usize) -> Option<Bytes> {
        if start > end || end > self.len {
            return None;
        }
        let mut offset = 0;
        let mut gathered = Vec::new();
        for part in self.parts() {
            let (from, to) = (start.max(offset), end.min(offset + part.len()));
            if from == start && to == end {
                return Some(part.slice(from - offset..to - offset));
            }
            if from < to {
                gathered.extend_from_slice(&part[from - offset..to - offset]);
            }
            offset += part.len();
        }
        Some(Bytes::from(gathered))
    }

    /// Returns all bytes in one piece: shared if they already are, otherwise copied.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.slice(0, self.len).unwrap_or_default()
    }
}

impl From<Bytes> for Payload {
    fn from(head: Bytes) -> Self {
        Self { len: head.len(), head, parts: Vec::new() }
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

/// A message between VRs.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// The sender.
    pub src: VrId,
    /// The receiver.
    pub dst: VrId,
    /// Counts the envelopes from `src` to `dst`, from 0: within a pair there is no gap and no reordering.
    pub seq: u64,
    /// The protocol that it belongs to.
    pub channel: Channel,
    /// An index key chosen by the layer above: a receive that names its lane is found without a scan. 0 means none.
    pub lane: u64,
    /// The contents.
    pub payload: Payload,
}

/// The header of an envelope: all but its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) src: VrId,
    pub(crate) dst: VrId,
    pub(crate) seq: u64,
    pub(crate) channel: Channel,
    pub(crate) lane: u64,
}

impl Envelope {
    pub(crate) fn label(&self) -> Label {
        let Self { src, dst, seq, channel, lane, .. } = *self;
        Label { src, dst, seq, channel, lane }
    }
}

impl Label {
    /// Returns the envelope with this header and payload.
    pub(crate) fn with(self, payload: Payload) -> Envelope {
        let Self { src, dst, seq, channel, lane } = self;
        Envelope { src, dst, seq, channel, lane, payload }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn slices_do_not_depend_on_how_the_payload_was_cut(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..6),
            from in 0usize..40, to in 0usize..40,
        ) {
            let whole: Vec<u8> = parts.concat();
            let mut payload = Payload::default();
            for part in parts {
                payload.push(Bytes::from(part));
            }
            prop_assert_eq!(payload.len(), whole.len());
            prop_assert_eq!(&payload.to_bytes()[..], &whole[..]);
            let slice = payload.slice(from, to);
            prop_assert_eq!(slice.as_deref(), whole.get(from..to));
        }
    }

    #[test]
    fn a_part_is_shared_not_copied() {
        let part = Bytes::from(vec![7u8; 100]);
        let mut payload = Payload::from(Bytes::from_static(b"head"));
        payload.push(part.clone());
        assert_eq!(payload.slice(4, 104).unwrap().as_ptr(), part.as_ptr());
    }
}
