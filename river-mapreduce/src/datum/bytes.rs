//! Text and bytes, which are their own encoding.

use std::io;

use super::{Datum, DecodeError, Key};

impl Datum for String {
    type Ref<'a> = &'a str;

    #[inline]
    fn encode(value: &&str, out: &mut Vec<u8>) {
        out.extend_from_slice(value.as_bytes());
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<&str, DecodeError> {
        std::str::from_utf8(bytes)
            .map_err(|error| DecodeError::new("valid UTF-8", bytes).because(error.to_string()))
    }

    #[inline]
    fn own(value: &str) -> Self {
        value.to_owned()
    }

    #[inline]
    fn view(&self) -> &str {
        self
    }

    fn write_text(value: &&str, out: &mut Vec<u8>) -> io::Result<()> {
        out.extend_from_slice(value.as_bytes());
        Ok(())
    }

    #[inline]
    fn bytes<'r>(value: &'r &str, _scratch: &'r mut Vec<u8>) -> &'r [u8] {
        value.as_bytes()
    }

    #[inline]
    fn heap_bytes(&self) -> usize {
        self.capacity()
    }
}

impl Key for String {}

/// The text form is the bytes themselves.
impl Datum for Vec<u8> {
    type Ref<'a> = &'a [u8];

    #[inline]
    fn encode(value: &&[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(value);
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<&[u8], DecodeError> {
        Ok(bytes)
    }

    #[inline]
    fn own(value: &[u8]) -> Self {
        value.to_owned()
    }

    #[inline]
    fn view(&self) -> &[u8] {
        self
    }

    fn write_text(value: &&[u8], out: &mut Vec<u8>) -> io::Result<()> {
        out.extend_from_slice(value);
        Ok(())
    }

    #[inline]
    fn bytes<'r>(value: &'r &[u8], _scratch: &'r mut Vec<u8>) -> &'r [u8] {
        value
    }

    #[inline]
    fn heap_bytes(&self) -> usize {
        self.capacity()
    }
}

impl Key for Vec<u8> {}

/// Exactly `N` bytes, so no length is stored.
impl<const N: usize> Datum for [u8; N] {
    type Ref<'a> = &'a [u8; N];

    const WIDTH: Option<usize> = Some(N);

    #[inline]
    fn encode(value: &&[u8; N], out: &mut Vec<u8>) {
        out.extend_from_slice(*value);
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<&[u8; N], DecodeError> {
        bytes.try_into().map_err(|_| DecodeError::new(format!("{N} bytes"), bytes))
    }

    #[inline]
    fn own(value: &[u8; N]) -> Self {
        *value
    }

    #[inline]
    fn view(&self) -> &[u8; N] {
        self
    }

    fn write_text(value: &&[u8; N], out: &mut Vec<u8>) -> io::Result<()> {
        out.extend_from_slice(*value);
        Ok(())
    }

    #[inline]
    fn bytes<'r>(value: &'r &[u8; N], _scratch: &'r mut Vec<u8>) -> &'r [u8] {
        *value
    }
}

impl<const N: usize> Key for [u8; N] {}

impl Datum for () {
    type Ref<'a> = ();

    const WIDTH: Option<usize> = Some(0);

    #[inline]
    fn encode((): &(), _out: &mut Vec<u8>) {}

    fn decode(bytes: &[u8]) -> Result<(), DecodeError> {
        if bytes.is_empty() { Ok(()) } else { Err(DecodeError::new("nothing", bytes)) }
    }

    #[inline]
    fn own((): ()) -> Self {}

    fn view(&self) {}

    fn write_text((): &(), _out: &mut Vec<u8>) -> io::Result<()> {
        Ok(())
    }
}

impl Key for () {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::datum::Datum;
    use crate::datum::testing::check;

    proptest! {
        #[test]
        fn text_and_bytes_order_as_themselves(a: String, b: String, x in any::<[u8; 3]>(), y in any::<[u8; 3]>()) {
            check(&a, &b);
            check(&a.into_bytes(), &b.into_bytes());
            check(&x, &y);
        }
    }

    #[test]
    fn what_is_no_encoding_is_an_error() {
        let error = String::decode(b"a\xffb").unwrap_err().to_string();
        assert!(error.starts_with("3 bytes are not valid UTF-8"), "{error}");
        assert!(<[u8; 4]>::decode(b"abc").is_err());
        assert!(<()>::decode(b"a").is_err());
    }
}
