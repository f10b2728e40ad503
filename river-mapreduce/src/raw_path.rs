//! Paths as they are sent.

use std::ffi::OsString;
use std::ops::Deref;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A path that serde encodes whatever its bytes; serde itself encodes only paths that are UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawPath(PathBuf);

impl<P: Into<PathBuf>> From<P> for RawPath {
    fn from(path: P) -> Self {
        Self(path.into())
    }
}

impl Deref for RawPath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Serialize for RawPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0.as_os_str().as_bytes())
    }
}

impl<'de> Deserialize<'de> for RawPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        Ok(Self(OsString::from_vec(bytes).into()))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn paths_arrive_as_they_were(bytes: Vec<u8>) {
            let path = RawPath::from(OsStr::from_bytes(&bytes));
            let encoded = postcard::to_stdvec(&path).unwrap();
            let (arrived, rest) = postcard::take_from_bytes::<RawPath>(&encoded).unwrap();
            prop_assert!(arrived == path && rest.is_empty());
        }
    }
}
