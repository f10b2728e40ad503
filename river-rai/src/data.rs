//! Types whose values can be sent.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value that a call can carry to another machine and back: any owned serde type.
///
/// The encoding contains no names or types. What needs these is sent but cannot be read (`serde_json::Value`, enums with
/// `tag` or `untagged`) or cannot be sent (`flatten`), and `skip_serializing_if` must not be used.
///
/// Implemented for every suitable type; there is no need to implement it by hand.
pub trait RemoteSend: Serialize + DeserializeOwned + Send + 'static {}

impl<T: Serialize + DeserializeOwned + Send + 'static> RemoteSend for T {}
