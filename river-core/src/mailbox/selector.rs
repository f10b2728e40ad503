//! Selectors: what a receive asks for, apart from the payload.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::envelope::{Channel, Envelope, Label};
use crate::id::VrId;

/// Selects envelopes for a receive by their headers. It does not look at payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector {
    pub(super) channel: Channel,
    pub(super) lane: Option<u64>,
    from: Option<VrId>,
    awaits: Option<VrId>,
}

impl Selector {
    /// Selects all envelopes of this channel.
    #[must_use]
    pub const fn on(channel: Channel) -> Self {
        Self { channel, lane: None, from: None, awaits: None }
    }

    /// Selects only envelopes with this lane, which are found without a scan of others.
    #[must_use]
    pub const fn lane(mut self, lane: u64) -> Self {
        self.lane = Some(lane);
        self
    }

    /// Selects only envelopes from this VR. If it is gone and none of its envelopes is left, the receive returns its `Down`.
    #[must_use]
    pub const fn from(mut self, src: VrId) -> Self {
        self.from = Some(src);
        self
    }

    /// Makes the receive return the `Down` of this VR if it is gone and no envelope that is admitted is left, even though
    /// other VRs may answer instead.
    #[must_use]
    pub const fn awaiting(mut self, who: VrId) -> Self {
        self.awaits = Some(who);
        self
    }

    /// Returns the VR whose end ends the receive.
    pub(crate) fn awaited(&self) -> Option<VrId> {
        self.awaits.or(self.from)
    }

    pub(super) fn admits(&self, envelope: &Envelope) -> bool {
        self.admits_label(&envelope.label())
    }

    /// Whether it admits an envelope with this header.
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
