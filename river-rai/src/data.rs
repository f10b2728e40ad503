//! What can travel.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value that a call can carry to another machine and back: any owned serde type.
///
/// Implemented for every type that fits; nobody implements it by hand.
pub trait RemoteSend: Serialize + DeserializeOwned + Send + 'static {}

impl<T: Serialize + DeserializeOwned + Send + 'static> RemoteSend for T {}
