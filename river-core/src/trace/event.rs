//! Events of a VR, each of them six words.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::id::VrId;

/// What a VR waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Reason {
    /// An envelope.
    Receive,
    /// Room in a limited mailbox that is full.
    Full,
    /// Handing an envelope to its link, which takes time if the envelope is large or the reader slow.
    Send,
    /// The location of a VR, and the connection to it.
    Connect,
    /// A search for VMs.
    Discover,
    /// Leases of VMs, or their return.
    Lease,
    /// The start of VRs, including the transfer of the program's image.
    Deploy,
    /// A checkpoint of the program.
    Checkpoint,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Reason; 8] = [
        Reason::Receive,
        Reason::Full,
        Reason::Send,
        Reason::Connect,
        Reason::Discover,
        Reason::Lease,
        Reason::Deploy,
        Reason::Checkpoint,
    ];

    /// A short name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Reason::Receive => "receive",
            Reason::Full => "full queue",
            Reason::Send => "send",
            Reason::Connect => "connect",
            Reason::Discover => "discover",
            Reason::Lease => "lease",
            Reason::Deploy => "deploy",
            Reason::Checkpoint => "checkpoint",
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum What {
    /// It sent an envelope.
    Send {
        /// The destination.
        to: VrId,
        /// Its number among those to the same VR.
        seq: u64,
        /// The length of its payload.
        bytes: u64,
    },
    /// It took an envelope out of its mailbox.
    Receive {
        /// The sender.
        from: VrId,
        /// Its number among those from the same VR.
        seq: u64,
        /// The length of its payload.
        bytes: u64,
    },
    /// It waited.
    Wait {
        /// What it waited for.
        reason: Reason,
        /// The VR that it waited for, if it was one.
        on: Option<VrId>,
        /// The duration in nanoseconds.
        nanos: u64,
    },
    /// It started another VR.
    Deploy {
        /// That VR.
        child: VrId,
    },
    /// It was told that a VR is gone; the label says why.
    Down {
        /// That VR.
        who: VrId,
    },
    /// It spent time on what the label says.
    Span {
        /// The duration in nanoseconds.
        nanos: u64,
    },
}

/// Something that happened to a VR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it happened or began, in nanoseconds.
    pub at: u64,
    /// What it was.
    pub what: What,
    /// The number of its label among the VR's, from 1; 0 if it has none.
    pub label: u32,
}

/// The length of an event in words.
pub(crate) const WORDS: usize = 6;

impl Event {
    /// When it ended.
    #[must_use]
    pub fn end(&self) -> u64 {
        match self.what {
            What::Wait { nanos, .. } | What::Span { nanos } => self.at.saturating_add(nanos),
            _ => self.at,
        }
    }

    pub(crate) fn to_words(self) -> [u64; WORDS] {
        let nobody = VrId::from_uuid(Uuid::nil());
        let (kind, peer, number, bytes) = match self.what {
            What::Send { to, seq, bytes } => (0, to, seq, bytes),
            What::Receive { from, seq, bytes } => (1, from, seq, bytes),
            What::Wait { reason, on, nanos } => (2 | (reason as u64) << 8, on.unwrap_or(nobody), nanos, 0),
            What::Deploy { child } => (3, child, 0, 0),
            What::Down { who } => (4, who, 0, 0),
            What::Span { nanos } => (5, nobody, nanos, 0),
        };
        let (high, low) = peer.as_uuid().as_u64_pair();
        [self.at, kind | u64::from(self.label) << 32, high, low, number, bytes]
    }

    /// Returns `None` if the words are not an event.
    pub(crate) fn from_words(words: [u64; WORDS]) -> Option<Self> {
        let [at, kind, high, low, number, bytes] = words;
        let peer = VrId::from_uuid(Uuid::from_u64_pair(high, low));
        let what = match kind & 0xff {
            0 => What::Send { to: peer, seq: number, bytes },
            1 => What::Receive { from: peer, seq: number, bytes },
            2 => {
                let on = (!peer.as_uuid().is_nil()).then_some(peer);
                What::Wait { reason: Reason::from_byte((kind >> 8) as u8)?, on, nanos: number }
            }
            3 => What::Deploy { child: peer },
            4 => What::Down { who: peer },
            5 => What::Span { nanos: number },
            _ => return None,
        };
        Some(Self { at, what, label: (kind >> 32) as u32 })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vr() -> impl Strategy<Value = VrId> {
        (1..=u128::MAX).prop_map(|bits| VrId::from_uuid(Uuid::from_u128(bits)))
    }

    pub(crate) fn event() -> impl Strategy<Value = Event> {
        let reason = prop::sample::select(Reason::ALL.to_vec());
        let what = prop_oneof![
            (vr(), any::<u64>(), any::<u64>()).prop_map(|(to, seq, bytes)| What::Send { to, seq, bytes }),
            (vr(), any::<u64>(), any::<u64>()).prop_map(|(from, seq, bytes)| What::Receive {
                from,
                seq,
                bytes
            }),
            (reason, prop::option::of(vr()), any::<u64>()).prop_map(|(reason, on, nanos)| What::Wait {
                reason,
                on,
                nanos
            }),
            vr().prop_map(|child| What::Deploy { child }),
            vr().prop_map(|who| What::Down { who }),
            any::<u64>().prop_map(|nanos| What::Span { nanos }),
        ];
        (any::<u64>(), what, any::<u32>()).prop_map(|(at, what, label)| Event { at, what, label })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(event in event()) {
            prop_assert_eq!(Event::from_words(event.to_words()), Some(event));
        }

        #[test]
        fn other_words_do_no_harm(words: [u64; WORDS]) {
            let _ = Event::from_words(words);
        }
    }
}
