//! Serialization of records: bytes as bytes, and payloads aligned again when they are read.

use bytes::Bytes;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::ser::{SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};

use crate::down::{Down, Why};
use crate::envelope::{Channel, Envelope, Payload};
use crate::frame::aligned_copy;
use crate::id::VrId;
use crate::inbox::Event;
use crate::mailbox::Queue;

/// Byte strings as one memory copy instead of element by element.
pub(crate) mod octets {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        struct Body;
        impl Visitor<'_> for Body {
            type Value = Bytes;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a byte string")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(aligned_copy(bytes))
            }
        }
        deserializer.deserialize_bytes(Body)
    }
}

mod payload {
    use super::*;

    pub(super) fn serialize<S: Serializer>(payload: &Payload, serializer: S) -> Result<S::Ok, S::Error> {
        octets::serialize(&payload.to_bytes(), serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Payload, D::Error> {
        octets::deserialize(deserializer).map(Payload::from)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Envelope")]
pub(crate) struct EnvelopeBody {
    src: VrId,
    dst: VrId,
    seq: u64,
    channel: Channel,
    lane: u64,
    #[serde(with = "payload")]
    payload: Payload,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Event")]
pub(crate) enum EventBody {
    Envelope(#[serde(with = "EnvelopeBody")] Envelope),
    Down(Down),
    Stop,
}

/// A list of events.
pub(crate) mod events {
    use super::*;

    #[derive(Serialize)]
    struct Borrowed<'a>(#[serde(with = "EventBody")] &'a Event);

    #[derive(Deserialize)]
    struct Owned(#[serde(with = "EventBody")] Event);

    pub(crate) fn serialize<S: Serializer>(events: &[Event], serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(events.len()))?;
        events.iter().try_for_each(|event| seq.serialize_element(&Borrowed(event)))?;
        seq.end()
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Event>, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Vec<Event>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("events")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Event>, A::Error> {
                // Do not preallocate: the claimed length is untrusted.
                let mut events = Vec::new();
                while let Some(Owned(event)) = seq.next_element()? {
                    events.push(event);
                }
                Ok(events)
            }
        }
        deserializer.deserialize_seq(All)
    }
}

/// Envelopes with their arrival numbers.
mod held {
    use super::*;

    #[derive(Serialize)]
    struct Borrowed<'a>(u64, #[serde(with = "EnvelopeBody")] &'a Envelope);

    #[derive(Deserialize)]
    struct Owned(u64, #[serde(with = "EnvelopeBody")] Envelope);

    pub(super) fn serialize<S: Serializer>(
        held: &[(u64, Envelope)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(held.iter().map(|(number, envelope)| Borrowed(*number, envelope)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(u64, Envelope)>, D::Error> {
        let held = Vec::<Owned>::deserialize(deserializer)?;
        Ok(held.into_iter().map(|Owned(number, envelope)| (number, envelope)).collect())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Queue")]
pub(crate) struct QueueBody {
    #[serde(with = "events")]
    fresh: Vec<Event>,
    #[serde(with = "held")]
    held: Vec<(u64, Envelope)>,
    arrivals: u64,
    watched: Vec<VrId>,
    children: Vec<VrId>,
    down: Vec<(VrId, Why)>,
    notices: Vec<Down>,
    stopped: bool,
}
