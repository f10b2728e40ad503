//! An allgather of serde values, by which communicators are created. Deliberately simple, and independent of the collective
//! operations: the values are gathered at rank 0, which sends all of them to everybody.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::communicator::Communicator;
use crate::error::{MpiError, Result};

impl Communicator<'_> {
    /// What each rank has given, in their order. Not for intercommunicators.
    pub(crate) fn tell_all<T: Serialize + DeserializeOwned>(&self, mine: &T) -> Result<Vec<T>> {
        let tag = self.next_collective();
        let mine = encode(mine)?;
        let everything: Vec<Vec<u8>> = if self.rank() == 0 {
            let mut all = vec![mine];
            for rank in 1..self.size() {
                all.push(self.receive_internal(rank, tag)?.to_vec());
            }
            let bytes = Bytes::from(encode(&all)?);
            for rank in 1..self.size() {
                self.send_internal(rank, tag, bytes.clone())?;
            }
            all
        } else {
            self.send_internal(0, tag, mine.into())?;
            decode(&self.receive_internal(0, tag)?)?
        };
        everything.iter().map(|bytes| decode(bytes)).collect()
    }

    /// What rank `other` of the other group of an intercommunicator has given, if it calls this too, with the same tag.
    pub(crate) fn swap_with<T>(&self, other: usize, tag: i32, mine: &T) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
    {
        self.send_internal(other, tag, encode(mine)?.into())?;
        decode(&self.receive_internal(other, tag)?)
    }
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(|error| broken::<T>(&error))
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    postcard::from_bytes(bytes).map_err(|error| broken::<T>(&error))
}

fn broken<T>(error: &postcard::Error) -> MpiError {
    MpiError::Value { kind: std::any::type_name::<T>(), error: error.to_string() }
}
