//! Compresses data that is sent to another machine, if it pays.

use bytes::Bytes;

/// Packed bytes are used if they are shorter than this many tenths of the plain ones.
const TENTHS: usize = 8;
/// After a chunk that was not worth compressing, this many are sent plain before the next try.
const PAUSE: u32 = 15;

/// Compresses with LZ4, and pauses when that turns out to be useless.
#[derive(Debug, Default)]
pub(crate) struct Packer {
    pause: u32,
}

impl Packer {
    /// The compressed bytes; `None` if the bytes must be sent plain.
    pub(crate) fn pack(&mut self, bytes: &[u8]) -> Option<Bytes> {
        if self.pause > 0 {
            self.pause -= 1;
            return None;
        }
        let packed = lz4_flex::block::compress(bytes);
        if packed.len() >= bytes.len() / 10 * TENTHS {
            self.pause = PAUSE;
            return None;
        }
        Some(packed.into())
    }
}

/// The plain bytes, whose length is `len`, at most `most`; `None` if `packed` is malformed.
pub(crate) fn unpack(packed: &[u8], len: u64, most: u64) -> Option<Bytes> {
    let len = usize::try_from(len).ok().filter(|_| len <= most)?;
    let bytes = lz4_flex::block::decompress(packed, len).ok()?;
    (bytes.len() == len).then(|| bytes.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_comes_back(word: Vec<u8>, times in 1usize..200) {
            let bytes = word.repeat(times);
            if let Some(packed) = Packer::default().pack(&bytes) {
                prop_assert!(packed.len() < bytes.len());
                let len = bytes.len() as u64;
                prop_assert_eq!(unpack(&packed, len, len).unwrap(), bytes);
                prop_assert_eq!(unpack(&packed, len, len - 1), None);
                prop_assert_eq!(unpack(&packed, len + 1, len + 1), None);
            }
        }

        #[test]
        fn any_bytes_are_refused_or_unpacked(bytes: Vec<u8>, len in 0u64..1000) {
            if let Some(plain) = unpack(&bytes, len, 1000) {
                prop_assert_eq!(plain.len() as u64, len);
            }
        }
    }

    #[test]
    fn what_does_not_shrink_is_not_tried_each_time() {
        let (text, noise) =
            (vec![b'x'; 1000], (0..1000u64).map(|i| ((i * i * 7919) >> 7) as u8).collect::<Vec<_>>());
        let mut packer = Packer::default();
        assert!(packer.pack(&text).is_some());
        assert!(packer.pack(&noise).is_none());
        for _ in 0..PAUSE {
            assert!(packer.pack(&text).is_none());
        }
        assert!(packer.pack(&text).is_some());
    }
}
