//! Encoded arguments.

use std::marker::PhantomData;

use crate::body::{self, Body};
use crate::data::RemoteSend;
use crate::error::CallError;

/// The arguments of a call, encoded.
///
/// For layers that may have to repeat a call on another server: cloning copies nothing, and the values themselves need
/// not be kept.
#[derive(Debug)]
pub struct Packed<Args> {
    pub(crate) body: Body,
    kind: PhantomData<fn(Args)>,
}

impl<Args: RemoteSend> Packed<Args> {
    /// Encodes arguments.
    ///
    /// # Errors
    /// [`CallError::Encode`] if their `Serialize` implementation fails.
    pub fn new(args: Args) -> Result<Self, CallError> {
        Self::for_function(args, std::any::type_name::<Args>())
    }

    #[allow(clippy::needless_pass_by_value)] // Callers write a tuple, and should not have to write `&(1, 2)`.
    pub(crate) fn for_function(args: Args, function: &str) -> Result<Self, CallError> {
        match body::encode(&args) {
            Ok(body) => Ok(Self { body, kind: PhantomData }),
            Err(error) => {
                let (function, error) = (function.to_owned(), error.to_string());
                Err(CallError::Encode { what: "the arguments", function, error })
            }
        }
    }
}

impl<T: RemoteSend> Packed<(Vec<T>,)> {
    /// Combines the values of several calls into a list for one call.
    #[must_use]
    pub fn list(values: &[Packed<(T,)>]) -> Self {
        // An encoded list is its length followed by its elements; the length is encoded like an integer.
        let length = postcard::to_stdvec(&values.len()).unwrap_or_default();
        let size = values.iter().map(|value| value.body.encoded.len()).sum::<usize>();
        let mut encoded = Vec::with_capacity(length.len() + size);
        encoded.extend(length);
        values.iter().for_each(|value| encoded.extend_from_slice(&value.body.encoded));
        let blobs = values.iter().flat_map(|value| &value.body.blobs).cloned().collect();
        Self { body: Body { encoded: encoded.into(), blobs }, kind: PhantomData }
    }
}

impl<Args: RemoteSend> Packed<Args> {
    /// Decodes the arguments.
    ///
    /// # Errors
    /// [`CallError::Decode`] if their `Serialize` and `Deserialize` implementations disagree.
    pub fn unpack(&self) -> Result<Args, CallError> {
        body::decode(&self.body).map_err(|error| {
            let (function, error) = (std::any::type_name::<Args>().to_owned(), error.to_string());
            CallError::Decode { what: "the arguments", function, error }
        })
    }

    /// The length in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.body.len()
    }
}

impl<Args> Clone for Packed<Args> {
    fn clone(&self) -> Self {
        Self { body: self.body.clone(), kind: PhantomData }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_packed_values_is_the_packed_list() {
        for length in [0, 1, 3, 200] {
            let values: Vec<Vec<u32>> = (0..length).map(|n| (0..n).collect()).collect();
            let packed: Vec<_> = values.iter().map(|value| Packed::new((value.clone(),)).unwrap()).collect();
            assert_eq!(Packed::list(&packed).unpack(), Ok((values,)));
        }
    }
}
