//! Arguments as bytes.

use std::marker::PhantomData;

use bytes::Bytes;

use crate::data::RemoteSend;
use crate::error::CallError;

/// The arguments of a call, encoded.
///
/// For layers that may have to make the same call again, on another server: cloning this copies nothing, and the
/// values themselves are not needed any more.
#[derive(Debug)]
pub struct Packed<Args> {
    pub(crate) bytes: Bytes,
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
        match postcard::to_stdvec(&args) {
            Ok(bytes) => Ok(Self { bytes: bytes.into(), kind: PhantomData }),
            Err(error) => {
                let (function, error) = (function.to_owned(), error.to_string());
                Err(CallError::Encode { what: "the arguments", function, error })
            }
        }
    }
}

impl<Args> Clone for Packed<Args> {
    fn clone(&self) -> Self {
        Self { bytes: self.bytes.clone(), kind: PhantomData }
    }
}
