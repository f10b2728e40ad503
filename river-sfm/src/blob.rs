//! Plain memory as the value of an attribute.

use std::borrow::Cow;
use std::fmt;

use bytemuck::{Pod, PodCastError};
use bytes::Bytes;
use river_core::naming::without_paths;

use crate::decode::{DecodeError, FromAttr};
use crate::encode::{EncodeError, Encoded, ToAttr};
use crate::error::BlobError;
use crate::typename::{TypeName, shorten};
use crate::value::{Elem, Kind};
use crate::wire::Attr;

/// Plain memory: bytes, and the type of the elements that they were made from.
///
/// As the value of an attribute it is not encoded element by element, and within a process it is not even copied: the
/// receiver sees the sender's memory. Clones share it too. Memory is sent in the machine's byte order.
///
/// ```
/// use river_sfm::{Blob, Message, msg};
///
/// let m: Message = msg! { row: Blob::from(vec![1.0, 2.0, 3.0]) };
/// let row: Blob = m.get("row")?;
/// assert_eq!(row.as_slice::<f64>()?, [1.0, 2.0, 3.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Blob {
    bytes: Bytes,
    element: Cow<'static, str>,
}

/// The element type of blobs whose elements are unknown. Such a blob can be viewed as elements of any type.
const UNTYPED: &str = "u8";

impl Blob {
    /// The memory as bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The memory as bytes, without copying.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The memory as a slice, without copying.
    ///
    /// # Errors
    /// [`BlobError::Type`] if it was made from elements of another type (untyped bytes can be viewed as any type),
    /// [`BlobError::Size`] if it is not a whole number of elements, [`BlobError::Misaligned`] if its address is not
    /// aligned for the type. Blobs that were sent as blobs are aligned to 64 bytes, or as the sender's memory was.
    pub fn as_slice<T: Pod>(&self) -> Result<&[T], BlobError> {
        self.check::<T>()?;
        bytemuck::try_cast_slice(&self.bytes).map_err(|error| match error {
            PodCastError::TargetAlignmentGreaterAndInputNotAligned => {
                BlobError::Misaligned { wanted: without_paths(&TypeName::of::<T>().name) }
            }
            _ => self.wrong_size(format!("a whole number of {}", without_paths(&TypeName::of::<T>().name))),
        })
    }

    /// A copy of the memory as elements, whatever its alignment.
    ///
    /// # Errors
    /// As [`as_slice`](Self::as_slice), without [`BlobError::Misaligned`].
    pub fn to_vec<T: Pod>(&self) -> Result<Vec<T>, BlobError> {
        self.check::<T>()?;
        let size = size_of::<T>();
        if size == 0 || !self.bytes.len().is_multiple_of(size) {
            return Err(
                self.wrong_size(format!("a whole number of {}", without_paths(&TypeName::of::<T>().name)))
            );
        }
        Ok(bytemuck::pod_collect_to_vec(&self.bytes))
    }

    /// Copies the memory into a slice of the same length.
    ///
    /// # Errors
    /// [`BlobError::Type`] as [`as_slice`](Self::as_slice), [`BlobError::Size`] if the lengths differ.
    pub fn copy_to<T: Pod>(&self, into: &mut [T]) -> Result<(), BlobError> {
        self.check::<T>()?;
        let count = into.len();
        let into: &mut [u8] = bytemuck::cast_slice_mut(into);
        if into.len() != self.bytes.len() {
            return Err(self.wrong_size(format!("{count} {}", without_paths(&TypeName::of::<T>().name))));
        }
        into.copy_from_slice(&self.bytes);
        Ok(())
    }

    fn check<T: Pod>(&self) -> Result<(), BlobError> {
        let wanted = &TypeName::of::<T>().name;
        if self.element == *wanted || self.element == UNTYPED || wanted == UNTYPED {
            return Ok(());
        }
        let (sent, wanted) = shorten(&self.element, wanted);
        Err(BlobError::Type { sent, wanted })
    }

    fn wrong_size(&self, wanted: String) -> BlobError {
        BlobError::Size { bytes: self.bytes.len(), wanted }
    }

    /// Does not allocate for the element's name if it is that of a number.
    fn named(bytes: Bytes, element: &str) -> Self {
        let element = match Elem::from_name(element) {
            Some(elem) if elem.name() == element => Cow::Borrowed(elem.name()),
            _ => Cow::Owned(element.to_owned()),
        };
        Self { bytes, element }
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob<{}>({} bytes)", without_paths(&self.element), self.bytes.len())
    }
}

/// Lends a vector's memory to `Bytes`.
struct Memory<T>(Vec<T>);

impl<T: Pod> AsRef<[u8]> for Memory<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// Takes ownership of the vector's memory, without copying it.
impl<T: Pod + Send> From<Vec<T>> for Blob {
    fn from(elements: Vec<T>) -> Self {
        Self { bytes: Bytes::from_owner(Memory(elements)), element: Cow::Borrowed(&TypeName::of::<T>().name) }
    }
}

/// Copies the slice.
impl<T: Pod + Send> From<&[T]> for Blob {
    fn from(elements: &[T]) -> Self {
        elements.to_vec().into()
    }
}

/// Untyped memory.
impl From<Bytes> for Blob {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, element: Cow::Borrowed(UNTYPED) }
    }
}

impl ToAttr for Blob {
    fn encode(&self, _: &mut Vec<u8>) -> Result<Encoded, EncodeError> {
        Ok(Encoded { kind: Kind::Blob, ty: self.element.clone(), blob: Some(self.bytes.clone()) })
    }
}

impl ToAttr for &Blob {
    fn encode(&self, out: &mut Vec<u8>) -> Result<Encoded, EncodeError> {
        (**self).encode(out)
    }
}

impl FromAttr for Blob {
    fn decode(attr: &Attr<'_>) -> Result<Self, DecodeError> {
        match attr.kind {
            Kind::Blob => {
                let memory = attr.memory();
                let memory = memory.ok_or_else(|| DecodeError::Failed("the bytes are damaged".into()))?;
                Ok(Self::named(memory, attr.ty()))
            }
            // Sent as a numeric sequence: the same bytes, but they are aligned only in a copy.
            Kind::Array(elem) => Ok(Self::named(Bytes::copy_from_slice(attr.body), elem.name())),
            _ => Err(DecodeError::Type),
        }
    }
}
