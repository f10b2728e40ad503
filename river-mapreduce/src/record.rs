//! The layout of a record in buffers, runs and segments: the lengths that its types do not fix, the key, the value.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::datum::Datum;
use crate::varint;

/// Which lengths are stored: those that the types do not fix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layout {
    key: Option<usize>,
    value: Option<usize>,
}

/// The positions of the parts of a record, relative to its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    key: u32,
    value: u32,
    end: u32,
}

impl Span {
    #[inline]
    pub(crate) fn key(self) -> Range<usize> {
        self.key as usize..self.value as usize
    }

    #[inline]
    pub(crate) fn value(self) -> Range<usize> {
        self.value as usize..self.end as usize
    }

    /// The length of the record.
    #[inline]
    pub(crate) fn len(self) -> usize {
        self.end as usize
    }
}

impl Layout {
    #[inline]
    pub(crate) const fn of<K: Datum, V: Datum>() -> Self {
        match (K::WIDTH, V::WIDTH) {
            // A record has at least one byte: the number of empty records could not be told.
            (Some(0), Some(0)) => Self { key: Some(0), value: None },
            (key, value) => Self { key, value },
        }
    }

    /// The positions of the parts, if they are the same for all records. For a layout made from types they are
    /// constants, so the compiler knows the lengths of slices.
    #[inline]
    pub(crate) const fn fixed(self) -> Option<Span> {
        match (self.key, self.value) {
            (Some(key), Some(value)) if key < 1 << 20 && value < 1 << 20 => {
                Some(Span { key: 0, value: key as u32, end: (key + value) as u32 })
            }
            _ => None,
        }
    }

    /// Appends a record.
    #[inline]
    pub(crate) fn put(self, key: &[u8], value: &[u8], out: &mut Vec<u8>) {
        if self.key.is_none() {
            varint::put(key.len(), out);
        }
        if self.value.is_none() {
            varint::put(value.len(), out);
        }
        out.extend_from_slice(key);
        out.extend_from_slice(value);
    }

    /// Finds the parts of the record at the start of the bytes; `None` if the record is incomplete.
    #[inline]
    pub(crate) fn parse(self, bytes: &[u8]) -> Option<Span> {
        let mut at = 0;
        let mut length = |fixed: Option<usize>| match fixed {
            Some(width) => Some(width),
            None => {
                let (length, used) = varint::get(&bytes[at..])?;
                at += used;
                Some(length)
            }
        };
        let (key, value) = (length(self.key)?, length(self.value)?);
        let end = at.checked_add(key)?.checked_add(value)?;
        if end > bytes.len() {
            return None;
        }
        let start = u32::try_from(at).ok()?;
        Some(Span { key: start, value: u32::try_from(at + key).ok()?, end: u32::try_from(end).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(layout: Layout, key: &[u8], value: &[u8]) {
        let mut bytes = Vec::new();
        layout.put(key, value, &mut bytes);
        let length = bytes.len();
        assert!(length > 0);
        for cut in 0..length {
            assert_eq!(layout.parse(&bytes[..cut]), None);
        }
        bytes.extend(b"more");
        let span = layout.parse(&bytes).unwrap();
        assert_eq!((&bytes[span.key()], &bytes[span.value()], span.len()), (key, value, length));
    }

    proptest! {
        #[test]
        fn records_come_back(key in prop::collection::vec(any::<u8>(), 0..300), value: Vec<u8>) {
            check(Layout::of::<Vec<u8>, Vec<u8>>(), &key, &value);
            check(Layout::of::<Vec<u8>, u64>(), &key, &[7; 8]);
            check(Layout::of::<[u8; 10], Vec<u8>>(), &[3; 10], &value);
            check(Layout::of::<u32, u8>(), &[3; 4], &[1]);
            check(Layout::of::<(), ()>(), &[], &[]);
        }

        #[test]
        fn any_bytes_are_a_record_or_none(bytes: Vec<u8>) {
            if let Some(span) = Layout::of::<String, String>().parse(&bytes) {
                assert!(span.len() <= bytes.len());
            }
        }
    }
}
