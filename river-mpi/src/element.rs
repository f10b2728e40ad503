//! The elements of typed buffers.

use std::any::{Any, TypeId, type_name};

use bytemuck::{CheckedBitPattern, NoUninit, Pod, Zeroable};
use bytes::Bytes;
pub use num_complex::{Complex, Complex32, Complex64};
use river_core::aliasing;

use crate::error::{MpiError, Result};

/// A type whose values are sent as their bytes in memory: integers, floats, [`Complex`], `bool`, `char`, [`Located`], arrays
/// of them, and every struct that derives bytemuck's `Pod`.
///
/// ```
/// use bytemuck::{Pod, Zeroable};
///
/// #[derive(Clone, Copy, Pod, Zeroable)]
/// #[repr(C)]
/// struct Particle {
///     position: [f64; 3],
///     mass: f64,
/// }
///
/// fn is_element<T: river_mpi::Element>() {}
/// is_element::<Particle>();
/// is_element::<bool>();
/// ```
///
/// # Standard section
/// MPI 1.3, section 3.2.2.
pub trait Element: NoUninit + CheckedBitPattern + Send + Sync + 'static {}

impl<T: NoUninit + CheckedBitPattern + Send + Sync + 'static> Element for T {}

/// A value and its location, for `MINLOC` and `MAXLOC`. Packed, so that it has no padding for any `T`.
///
/// # Standard section
/// MPI 1.3, section 4.9.3.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C, packed)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// The location: usually a rank.
    pub index: u32,
}

/// Returns the bytes of a slice.
#[must_use]
pub(crate) fn bytes_of<T: Element>(slice: &[T]) -> &[u8] {
    bytemuck::cast_slice(slice)
}

/// Returns the bytes of a slice for writing, if `T` is known to accept every bit pattern, as all numbers do. For other types
/// there is [`fill`].
pub(crate) fn bytes_of_mut<T: Element>(slice: &mut [T]) -> Option<&mut [u8]> {
    // In generic code `T` may or may not be `Pod`, and stable Rust cannot ask. But the identity on `&mut [T]` is a value
    // whose type can be compared with that of the identity on `&mut [f64]`: if they are equal, the slices have the same type.
    fn identity<T>(slice: &mut [T]) -> &mut [T] {
        slice
    }
    macro_rules! one_of {
        ($($known:ty)*) => {
            $(if TypeId::of::<T>() == TypeId::of::<$known>() {
                let identity: fn(&mut [T]) -> &mut [T] = identity;
                let same = (&identity as &dyn Any).downcast_ref::<fn(&mut [T]) -> &mut [$known]>()?;
                return Some(bytemuck::cast_slice_mut(same(slice)));
            })*
        };
    }
    one_of!(f64 f32 i32 i64 u8 u32 u64 usize i8 i16 u16 isize i128 u128 Complex64 Complex32);
    one_of!([f64; 2] [f64; 3] [f64; 4] [f32; 2] [f32; 3] [f32; 4]);
    one_of!(Located<f64> Located<f32> Located<i32> Located<i64> Located<u32> Located<u64>);
    None
}

/// Fills the slice with elements given as bytes, whose number must match exactly.
pub(crate) fn fill<T: Element>(slice: &mut [T], bytes: &[u8]) -> Result {
    debug_assert_eq!(size_of_val(slice), bytes.len());
    if let Some(target) = bytes_of_mut(slice) {
        aliasing::copy(bytes, target);
        return Ok(());
    }
    for (element, bytes) in slice.iter_mut().zip(bytes.chunks_exact(size_of::<T>().max(1))) {
        *element = bytemuck::checked::try_pod_read_unaligned(bytes).map_err(|_| not_a::<T>())?;
    }
    Ok(())
}

/// Converts bytes to elements.
pub(crate) fn elements<T: Element>(bytes: &[u8]) -> Result<Vec<T>> {
    let size = size_of::<T>();
    if size == 0 || !bytes.len().is_multiple_of(size) {
        return Err(MpiError::Type(format!(
            "{} bytes are no whole number of elements of type {}, which have {size} bytes",
            bytes.len(),
            type_name::<T>()
        )));
    }
    if let Ok(slice) = bytemuck::checked::try_cast_slice(bytes) {
        return Ok(slice.to_vec());
    }
    let read = |bytes| bytemuck::checked::try_pod_read_unaligned(bytes).map_err(|_| not_a::<T>());
    bytes.chunks_exact(size).map(read).collect()
}

/// Returns a vector's memory as bytes that can be sent without a copy.
pub(crate) fn into_bytes<T: Element>(vector: Vec<T>) -> Bytes {
    struct Owner<T>(Vec<T>);
    impl<T: Element> AsRef<[u8]> for Owner<T> {
        fn as_ref(&self) -> &[u8] {
            bytes_of(&self.0)
        }
    }
    Bytes::from_owner(Owner(vector))
}

fn not_a<T>() -> MpiError {
    MpiError::Type(format!("the bytes that came are no value of type {}", type_name::<T>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_filled_in_place_and_other_types_are_checked() {
        let mut numbers = [0_i32; 2];
        assert!(bytes_of_mut(&mut numbers).is_some());
        fill(&mut numbers, bytes_of(&[7_i32, -7])).unwrap();
        assert_eq!(numbers, [7, -7]);
        let mut flags = [false; 3];
        assert!(bytes_of_mut(&mut flags).is_none());
        fill(&mut flags, &[1, 0, 1]).unwrap();
        assert_eq!(flags, [true, false, true]);
        assert!(fill(&mut flags, &[1, 2, 1]).is_err());
        assert!(elements::<bool>(&[3]).is_err());
    }

    #[test]
    fn unaligned_bytes_and_odd_lengths() {
        let bytes: Vec<u8> = std::iter::once(0).chain(bytes_of(&[1.5_f64, 2.5]).iter().copied()).collect();
        assert_eq!(elements::<f64>(&bytes[1..]).unwrap(), [1.5, 2.5]);
        assert!(elements::<f64>(&bytes).is_err());
        let pair = Located { value: 2.5_f64, index: 3 };
        assert_eq!(elements::<Located<f64>>(bytes_of(&[pair])).unwrap(), [pair]);
    }

    #[test]
    fn a_vector_is_sent_where_it_stands() {
        let vector = vec![1_u64, 2];
        let at = vector.as_ptr().addr();
        assert_eq!(into_bytes(vector).as_ptr().addr(), at);
    }
}
