//! The contents of a send: a payload, or parts that lie in the VR's own memory.

use bytes::Bytes;

use crate::envelope::{Label, Payload};
use crate::inbox::Refused;
use crate::link::Link;

/// The most bytes of a payload in parts, or in place, that a layer is shown to label an envelope in a trace.
pub(super) const BEGINNING: usize = 1024;

pub(super) trait Content {
    fn len(&self) -> usize;
    /// Returns the payload, or its beginning, for inspection.
    fn beginning(&self) -> Payload;
    fn send(self, link: &Link, label: Label) -> Result<(), Refused>;
}

impl Content for Payload {
    fn len(&self) -> usize {
        Payload::len(self)
    }

    fn beginning(&self) -> Payload {
        self.clone()
    }

    fn send(self, link: &Link, label: Label) -> Result<(), Refused> {
        link.send(label.with(self))
    }
}

impl Content for &[&[u8]] {
    fn len(&self) -> usize {
        self.iter().map(|part| part.len()).sum()
    }

    fn beginning(&self) -> Payload {
        let bytes: Vec<u8> = self.iter().copied().flatten().copied().take(BEGINNING).collect();
        Bytes::from(bytes).into()
    }

    fn send(self, link: &Link, label: Label) -> Result<(), Refused> {
        link.send_parts(label, self)
    }
}
