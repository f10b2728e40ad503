//! Encodes lengths: seven bits per byte, least significant first.

/// Appends a length.
#[inline]
pub(crate) fn put(mut length: usize, out: &mut Vec<u8>) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

/// Reads a length and the number of its bytes; `None` if the bytes end too early, or it is beyond 2^56.
#[inline]
pub(crate) fn get(bytes: &[u8]) -> Option<(usize, usize)> {
    let first = usize::from(*bytes.first()?);
    if first < 0x80 {
        return Some((first, 1));
    }
    let mut length = first & 0x7f;
    for (used, &byte) in bytes.iter().enumerate().take(8).skip(1) {
        length |= (usize::from(byte) & 0x7f) << (7 * used);
        if byte < 0x80 {
            return Some((length, used + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lengths_come_back(length in 0usize..1 << 56, tail: Vec<u8>) {
            let mut bytes = Vec::new();
            put(length, &mut bytes);
            let used = bytes.len();
            prop_assert_eq!(get(&bytes[..used - 1]), None);
            bytes.extend(tail);
            prop_assert_eq!(get(&bytes), Some((length, used)));
        }
    }
}
