//! The pieces of an image as they travel to other machines: each compressed on its own, by LZ4.
//!
//! A receiver holds one piece at a time, and takes memory for it only if its announced length is one that a piece can have.

use bytes::Bytes;

/// How many bytes of an image are sent at a time.
pub(crate) const PIECE: usize = 256 << 10;

/// A piece of an image.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    /// How many bytes of the image these are.
    pub(crate) length: u32,
    /// They themselves if there are as many, otherwise compressed.
    pub(crate) bytes: Bytes,
}

/// Why a piece was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnpackError {
    #[error("a piece of the image is to have {0} bytes, more than the {PIECE} of the longest")]
    TooLong(u32),
    #[error("a piece of the image was altered: it does not have the {0} bytes that it is to have")]
    Altered(u32),
}

/// Splits an image into pieces, without copying.
pub(crate) fn pieces(image: &Bytes) -> impl Iterator<Item = Bytes> {
    (0..image.len()).step_by(PIECE).map(|start| image.slice(start..image.len().min(start + PIECE)))
}

/// Splits an image into pieces, and compresses those that become shorter by that.
pub(super) fn pack(image: &Bytes) -> Vec<Packed> {
    let pack = |piece: Bytes| {
        let length = piece.len() as u32;
        let compressed = lz4_flex::block::compress(&piece);
        Packed { length, bytes: if compressed.len() < piece.len() { compressed.into() } else { piece } }
    };
    pieces(image).map(pack).collect()
}

impl Packed {
    /// Returns the bytes of the image.
    ///
    /// # Errors
    ///
    /// When the piece is not one that [`pack`] makes.
    pub(crate) fn unpack(self) -> Result<Bytes, UnpackError> {
        let Self { length, bytes } = self;
        if length as usize > PIECE {
            return Err(UnpackError::TooLong(length));
        }
        if bytes.len() == length as usize {
            return Ok(bytes);
        }
        let mut piece = vec![0; length as usize];
        match lz4_flex::block::decompress_into(&bytes, &mut piece) {
            Ok(written) if written == piece.len() => Ok(piece.into()),
            _ => Err(UnpackError::Altered(length)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image::own_image;

    #[test]
    fn an_image_is_packed_into_less_and_comes_out_the_same() {
        let image = own_image().unwrap().bytes;
        let packed = pack(&image);
        let sent: usize = packed.iter().map(|piece| piece.bytes.len()).sum();
        assert!(sent < image.len() * 9 / 10, "{sent} of {} bytes", image.len());
        let unpacked: Vec<Bytes> = packed.into_iter().map(|piece| piece.unpack().unwrap()).collect();
        assert!(unpacked.concat() == image);
    }

    #[test]
    fn what_cannot_be_compressed_travels_as_it_is() {
        let mut noise = vec![0; PIECE + 1];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        let image = Bytes::from(noise);
        let packed = pack(&image);
        assert_eq!(packed.iter().map(|piece| piece.bytes.len()).collect::<Vec<_>>(), [PIECE, 1]);
        let unpacked: Vec<Bytes> = packed.into_iter().map(|piece| piece.unpack().unwrap()).collect();
        assert!(unpacked.concat() == image);
    }

    #[test]
    fn a_piece_that_would_become_longer_than_announced_is_refused() {
        let bytes: Bytes = lz4_flex::block::compress(&vec![0; 64 << 20]).into();
        assert!(bytes.len() < PIECE + (64 << 10));
        let unpack = |length| Packed { length, bytes: bytes.clone() }.unpack().map(|piece| piece.len());
        assert_eq!(unpack(64 << 20), Err(UnpackError::TooLong(64 << 20)));
        assert_eq!(unpack(u32::MAX), Err(UnpackError::TooLong(u32::MAX)));
        for length in [PIECE as u32, 1, 0] {
            assert_eq!(unpack(length), Err(UnpackError::Altered(length)));
        }
    }

    #[test]
    fn a_piece_that_is_shorter_than_announced_is_refused() {
        let bytes: Bytes = lz4_flex::block::compress(&[7; 1000]).into();
        let unpack = |length| Packed { length, bytes: bytes.clone() }.unpack().map(|piece| piece.len());
        assert_eq!(unpack(1000), Ok(1000));
        assert_eq!(unpack(1001), Err(UnpackError::Altered(1001)));
    }

    proptest! {
        #[test]
        fn whatever_arrives_has_the_announced_length_or_is_refused(
            length in 0..1000_u32,
            bytes in proptest::collection::vec(any::<u8>(), 0..1000),
        ) {
            if let Ok(piece) = (Packed { length, bytes: bytes.into() }).unpack() {
                prop_assert_eq!(piece.len(), length as usize);
            }
        }
    }
}
