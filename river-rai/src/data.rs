//! Types whose values can be sent.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value that a call can carry to another machine and back: any owned serde type.
///
/// Implemented for every suitable type; there is no need to implement it by hand.
pub trait RemoteSend: Serialize + DeserializeOwned + Send + 'static {}

impl<T: Serialize + DeserializeOwned + Send + 'static> RemoteSend for T {}
