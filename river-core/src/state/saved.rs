//! A VR in serialized form.

use serde::{Deserialize, Serialize};

use super::base::Origin;
use super::codec;
use super::record::Record;
use crate::error::StateError;
use crate::inbox::Event;

/// Everything about a VR: it can be started from this wherever its image is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Saved {
    pub(crate) origin: Origin,
    pub(crate) record: Record,
    /// What had arrived and was not looked at.
    #[serde(with = "codec::events")]
    pub(crate) pending: Vec<Event>,
}

impl Saved {
    /// Encodes the VR.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, StateError> {
        postcard::to_stdvec(self).map_err(|error| StateError::Value {
            name: format!("VR {} ({})", self.origin.id.short(), self.origin.name),
            error: error.to_string(),
        })
    }

    /// Decodes what [`encode`](Self::encode) made; the VR is replayed from the beginning of its record.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, postcard::Error> {
        postcard::from_bytes(bytes)
    }
}
