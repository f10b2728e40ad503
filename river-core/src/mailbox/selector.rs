//! What a receive asks for before it looks at a payload.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::envelope::{Channel, Envelope, Label};
use crate::id::VrId;

/// What a receive asks for before it looks at a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector {
    pub(super) channel: Channel,
    pub(super) lane: Option<u64>,
    from: Option<VrId>,
    awaits: Option<VrId>,
}

impl Selector {
    /// Any envelope of that channel.
    #[must_use]
    pub const fn on(channel: Channel) -> Self {
        Self { channel, lane: None, from: None, awaits: None }
    }

    /// Only envelopes with that lane, which are found without looking at others.
    #[must_use]
    pub const fn lane(mut self, lane: u64) -> Self {
        self.lane = Some(lane);
        self
    }

    /// Only envelopes from that VR. If it is gone and nothing of it is left, the receive ends with its `Down`.
    #[must_use]
    pub const fn from(mut self, src: VrId) -> Self {
        self.from = Some(src);
        self
    }

    /// The receive ends with the `Down` of that VR if it is gone and nothing that is admitted is left, though others
    /// may answer in its stead.
    #[must_use]
    pub const fn awaiting(mut self, who: VrId) -> Self {
        self.awaits = Some(who);
        self
    }

    /// The VR whose death ends a receive.
    pub(crate) fn awaited(&self) -> Option<VrId> {
        self.awaits.or(self.from)
    }

    pub(super) fn admits(&self, envelope: &Envelope) -> bool {
        self.admits_label(&envelope.label())
    }

    /// Whether it admits an envelope of which this is known.
    pub(crate) fn admits_label(&self, label: &Label) -> bool {
        label.channel == self.channel
            && self.lane.is_none_or(|lane| label.lane == lane)
            && self.from.is_none_or(|from| label.src == from)
    }
}

/// Continues a sentence: "an envelope with lane 7 from 5f3a9c10".
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an envelope of channel {:x}", self.channel.to_wire())?;
        if let Some(lane) = self.lane {
            write!(f, " with lane {lane:x}")?;
        }
        self.from.map_or(Ok(()), |from| write!(f, " from {}", from.short()))
    }
}
