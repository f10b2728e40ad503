//! Arguments and results as bytes: encoded values, and the large blocks of memory in them, which are neither encoded
//! nor copied.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;
use std::thread::LocalKey;

use bytes::Bytes;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value in encoded form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) encoded: Bytes,
    /// The blobs in the value, in the order in which the encoder met them.
    pub(crate) blobs: Vec<Bytes>,
}

impl Body {
    pub(crate) fn len(&self) -> usize {
        self.encoded.len() + self.blobs.iter().map(Bytes::len).sum::<usize>()
    }
}

thread_local! {
    /// The blobs of the value that is being encoded, if any.
    static OUT: RefCell<Option<Vec<Bytes>>> = const { RefCell::new(None) };
    /// The blobs of the value that is being decoded.
    static IN: RefCell<VecDeque<Bytes>> = const { RefCell::new(VecDeque::new()) };
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Body, postcard::Error> {
    let _restored = Restore { of: &OUT, before: OUT.replace(Some(Vec::new())) };
    let encoded = postcard::to_stdvec(value)?;
    Ok(Body { encoded: encoded.into(), blobs: OUT.take().unwrap_or_default() })
}

pub(crate) fn decode<T: DeserializeOwned>(body: &Body) -> Result<T, postcard::Error> {
    let _restored = Restore { of: &IN, before: IN.replace(body.blobs.iter().cloned().collect()) };
    postcard::from_bytes(&body.encoded)
}

/// Restores the previous content, even if the user's code, which encodes and decodes, panics.
struct Restore<T: Default + 'static> {
    of: &'static LocalKey<RefCell<T>>,
    before: T,
}

impl<T: Default> Drop for Restore<T> {
    fn drop(&mut self) {
        self.of.set(std::mem::take(&mut self.before));
    }
}

/// Memory that is sent as it is, for large arguments and results: a `Vec<u8>` is encoded byte by byte, a `Blob` is not
/// even copied, except between processes.
///
/// ```no_run
/// # fn example(r: river_rai::Rai<'_>) -> Result<(), river_rai::CallError> {
/// use river_rai::Blob;
///
/// fn brighten(image: Blob) -> Blob {
///     image.iter().map(|pixel| pixel.saturating_add(10)).collect::<Vec<u8>>().into()
/// }
/// let brighter = r.call(brighten, (vec![7; 64 << 20].into(),))?;
/// assert_eq!(brighter[0], 17);
/// # Ok(()) }
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Blob(pub Bytes);

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<Bytes> for Blob {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl From<Blob> for Vec<u8> {
    fn from(blob: Blob) -> Self {
        blob.0.into()
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.len())
    }
}

/// How a blob is represented in the encoded value.
#[derive(Serialize, Deserialize)]
enum Stand<'a> {
    /// Sent separately.
    Beside,
    /// Sent inline, since nothing collects blobs: the value is neither an argument nor a result.
    Here(#[serde(borrow)] &'a [u8]),
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let taken = OUT.with_borrow_mut(|out| out.as_mut().map(|blobs| blobs.push(self.0.clone())).is_some());
        if taken { Stand::Beside } else { Stand::Here(&self.0) }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Stand::deserialize(deserializer)? {
            Stand::Here(bytes) => Ok(Self(Bytes::copy_from_slice(bytes))),
            Stand::Beside => {
                let blob = IN.with_borrow_mut(VecDeque::pop_front);
                blob.map(Self).ok_or_else(|| D::Error::custom("a blob is missing"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_travel_beside_in_order_and_are_not_copied() {
        let value = (1_u8, vec![Blob::from(vec![1; 3]), Blob::default()], Some(Blob::from(vec![2; 1000])));
        let body = encode(&value).unwrap();
        assert!(body.encoded.len() < 10 && body.len() > 1000);
        let back: (u8, Vec<Blob>, Option<Blob>) = decode(&body).unwrap();
        assert_eq!(back, value);
        assert_eq!(back.2.unwrap().as_ptr(), value.2.unwrap().as_ptr());
        let missing = Body { blobs: body.blobs[..2].to_vec(), ..body };
        assert!(decode::<(u8, Vec<Blob>, Option<Blob>)>(&missing).is_err());
    }

    /// Contains a blob, then panics.
    struct Bad;

    impl Serialize for Bad {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let _ = Blob::from(vec![1]).serialize(serializer);
            panic!("a bad value")
        }
    }

    #[test]
    fn a_value_that_panics_takes_no_blobs_along_afterwards() {
        assert!(river_core::catch_panic(|| encode(&Bad)).is_err());
        let bytes = postcard::to_stdvec(&Blob::from(vec![1, 2, 3])).unwrap();
        assert_eq!(postcard::from_bytes::<Blob>(&bytes).unwrap(), Blob::from(vec![1, 2, 3]));
    }

    #[test]
    fn elsewhere_a_blob_is_encoded_like_any_value() {
        let blob = Blob::from(vec![1, 2, 3]);
        let bytes = postcard::to_stdvec(&blob).unwrap();
        assert_eq!(postcard::from_bytes::<Blob>(&bytes).unwrap(), blob);
    }
}
