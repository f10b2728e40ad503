//! Types that serde can encode.

use std::cmp::Ordering;
use std::io;
use std::ops::{Deref, DerefMut};

use postcard::ser_flavors::Size;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Datum, DecodeError, Key};

/// A value of any serde type as part of a record, encoded by postcard; its text form is JSON.
///
/// It can be a key if `T` is ordered; its order is that of `T`, and each comparison decodes both values. A type that is
/// sorted in large numbers deserves a [`Key`] implementation of its own. Equal values must have equal encodings, which
/// rules out `HashMap` in keys.
///
/// ```
/// use river_mapreduce::Serde;
/// # use river_mapreduce::Datum;
///
/// #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
/// struct Point {
///     x: f64,
///     y: f64,
/// }
/// type Value = Serde<Point>; // and emit(key, Serde(Point { .. }))
/// # let mut text = Vec::new();
/// # Value::write_text(&Serde(Point { x: 1.0, y: 2.0 }), &mut text).unwrap();
/// # assert_eq!(text, br#"{"x":1.0,"y":2.0}"#);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serde<T>(pub T);

impl<T> Deref for Serde<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Serde<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Serialize + DeserializeOwned + Clone + Send + 'static> Datum for Serde<T> {
    type Ref<'a> = Serde<T>;

    const MEASURING_IS_SLOW: bool = true;

    fn encode(value: &Self, out: &mut Vec<u8>) {
        // If serde refuses a value, the bytes cannot be decoded; that is reported where they are read.
        let _ = postcard::to_io(&value.0, out);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        postcard::from_bytes(bytes)
            .map(Serde)
            .map_err(|error| DecodeError::new(std::any::type_name::<T>(), bytes).because(error.to_string()))
    }

    fn own(value: Self) -> Self {
        value
    }

    fn view(&self) -> Self {
        self.clone()
    }

    fn write_text(value: &Self, out: &mut Vec<u8>) -> io::Result<()> {
        serde_json::to_writer(out, &value.0).map_err(io::Error::from)
    }

    fn heap_bytes(&self) -> usize {
        // Unknown; the length of the encoding is about right for vectors and strings.
        postcard::serialize_with_flavor(&self.0, Size::default()).unwrap_or(0)
    }
}

impl<T: Serialize + DeserializeOwned + Clone + Ord + Send + 'static> Key for Serde<T> {
    fn compare(a: &[u8], b: &[u8]) -> Ordering {
        match (Self::decode(a), Self::decode(b)) {
            (Ok(x), Ok(y)) => x.cmp(&y),
            _ => a.cmp(b),
        }
    }

    fn prefix(_bytes: &[u8]) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::datum::testing::check;

    proptest! {
        #[test]
        fn values_order_as_themselves(a: (i64, Option<String>), b: (i64, Option<String>)) {
            check(&Serde(a), &Serde(b));
        }
    }

    #[test]
    fn what_is_no_encoding_is_an_error() {
        let error = Serde::<String>::decode(&[200]).unwrap_err().to_string();
        assert!(error.contains("String"), "{error}");
    }
}
