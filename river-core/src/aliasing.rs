//! Copies between addresses that alias.
//!
//! Some processors compare only the last twelve bits of addresses to find out whether a load needs what was just stored. If a
//! target begins less than 32 bytes behind its source, counted within a page, `rep movsb` is slow there, by which the GNU C
//! library and Linux copy long slices: an AMD EPYC copies 64 KiB in 23 us instead of 1.4. Buffers of a power of two that were
//! allocated one after the other lie like that, as the allocator puts 16 bytes between them. Shorter copies use other
//! instructions, so an aliasing copy is made in short parts.

use std::ops::Range;

const PAGE: usize = 4096;
/// A target that begins less than this behind its source aliases it.
const NEAR: usize = 32;
/// The GNU C library copies slices of this length without `rep movsb`.
const PART: usize = 1024;

/// Whether `rep movsb` may be slow from one address to another.
#[must_use]
pub fn aliases(from: usize, to: usize) -> bool {
    cfg!(target_arch = "x86_64") && (1..NEAR).contains(&(to.wrapping_sub(from) % PAGE))
}

/// Returns the parts, one after the other, in which `len` bytes are copied fastest from one address to another. It is one
/// part, unless the addresses alias.
pub fn parts(from: usize, to: usize, len: usize) -> impl Iterator<Item = Range<usize>> {
    let part = if aliases(from, to) { PART } else { len.max(1) };
    (0..len).step_by(part).map(move |at| at..len.min(at + part))
}

/// Copies a slice to another one, as [`copy_from_slice`](slice::copy_from_slice) does, but fast even if they alias.
///
/// ```
/// let from = [1.0, 2.0, 3.0];
/// let mut to = [0.0; 3];
/// river_core::aliasing::copy(&from, &mut to);
/// assert_eq!(to, from);
/// ```
///
/// # Panics
/// If the slices do not have the same length.
pub fn copy<T: Copy>(from: &[T], to: &mut [T]) {
    assert_eq!(from.len(), to.len(), "copied slices have the same length");
    if !aliases(from.as_ptr().addr(), to.as_ptr().addr()) {
        return to.copy_from_slice(from);
    }
    let part = (PART / size_of::<T>().max(1)).max(1);
    for (from, to) in from.chunks(part).zip(to.chunks_mut(part)) {
        to.copy_from_slice(from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_complete_wherever_the_slices_lie() {
        let data: Vec<u8> = (0..3 * PAGE).map(|at| (at % 251) as u8).collect();
        for len in [0, 1, PART - 1, PART, PART + 1, 3 * PAGE] {
            for behind in 0..64 {
                let mut out = vec![0; 5 * PAGE];
                let start = (data.as_ptr().addr() + behind).wrapping_sub(out.as_ptr().addr()) % PAGE;
                copy(&data[..len], &mut out[start..start + len]);
                assert_eq!(out[start..start + len], data[..len], "{len} bytes, {behind} behind");
                assert!(out[..start].iter().chain(&out[start + len..]).all(|&byte| byte == 0));
            }
        }
    }

    #[test]
    fn elements_of_any_size_are_copied() {
        let data: Vec<[u32; 5]> = (0..1000).map(|at| [at; 5]).collect();
        for shift in 0..8 {
            let mut out = vec![[0; 5]; 1000];
            copy(&data[..900], &mut out[shift..shift + 900]);
            assert_eq!(out[shift..shift + 900], data[..900]);
        }
        copy(&[(); 3], &mut [(); 3]);
    }

    #[test]
    fn parts_cover_everything_once_and_are_short_only_if_they_have_to_be() {
        assert!(parts(0x1000, 0x5000, 0).next().is_none());
        for to in [0x5000, 0x5010, 0x5030] {
            assert!(parts(0x1010, to, 100_000).eq(std::iter::once(0..100_000)));
        }
        let mut at = 0;
        for part in parts(0x1010, 0x5020, 10_000) {
            assert_eq!(part.start, at);
            assert!(part.len() <= PART || !aliases(0x1010, 0x5020));
            at = part.end;
        }
        assert_eq!(at, 10_000);
        assert_eq!(aliases(0xfff, 0x1003), cfg!(target_arch = "x86_64"));
    }
}
