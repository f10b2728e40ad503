//! The compact form of a table, for messages: one byte string.
//!
//! The number of distinct words, then for each word its length, its bytes and its count. Numbers are LEB128 varints:
//! seven bits per byte, lowest first. 200,000 words of ordinary text take about 2 MB, a quarter of the table itself.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::counts::Counts;

/// The shortest form of a word: length, one byte, count.
const SHORTEST: usize = 3;

/// Appends a number.
#[inline]
pub(super) fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Decodes a number at the front of `bytes`; `None` if the bytes end within it or it does not fit.
#[inline]
pub(super) fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn encode(counts: &Counts) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + counts.distinct() * 12);
    write_varint(&mut out, counts.distinct() as u64);
    for (word, count) in counts {
        write_varint(&mut out, word.len() as u64);
        out.extend_from_slice(word);
        write_varint(&mut out, count);
    }
    out
}

/// Decodes a table. Allocates in proportion to the number of bytes, whatever they contain.
fn decode(mut bytes: &[u8]) -> Result<Counts, &'static str> {
    const ENDED: &str = "the word counts end too early";
    let distinct = read_varint(&mut bytes).and_then(|n| usize::try_from(n).ok()).ok_or(ENDED)?;
    if distinct > bytes.len() / SHORTEST {
        return Err(ENDED);
    }
    let mut counts = Counts::new();
    // The words come in the order of the sender's table, which would be quadratic in a smaller table.
    counts.reserve(distinct);
    for _ in 0..distinct {
        let len = read_varint(&mut bytes).and_then(|n| usize::try_from(n).ok()).ok_or(ENDED)?;
        let (word, rest) = bytes.split_at_checked(len).ok_or(ENDED)?;
        bytes = rest;
        counts.add_word(word, read_varint(&mut bytes).ok_or(ENDED)?);
    }
    if !bytes.is_empty() {
        return Err("bytes are left over after the word counts");
    }
    if counts.distinct() != distinct {
        return Err("the word counts name a word twice, an empty word or a word that does not occur");
    }
    Ok(counts)
}

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&encode(self))
    }
}

impl<'de> Deserialize<'de> for Counts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(CountsVisitor)
    }
}

struct CountsVisitor;

impl<'de> Visitor<'de> for CountsVisitor {
    type Value = Counts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("word counts in their compact form")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Counts, E> {
        decode(bytes).map_err(E::custom)
    }

    /// For formats without a byte string type, such as JSON.
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Counts, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = seq.next_element()? {
            bytes.push(byte);
        }
        self.visit_bytes(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::words::testing::text;

    #[test]
    fn the_form_is_fixed() {
        let mut counts = Counts::new();
        counts.add_word(b"hello", 300);
        assert_eq!(encode(&counts), b"\x01\x05hello\xac\x02");
        assert_eq!(encode(&Counts::new()), [0]);
    }

    #[test]
    fn large_tables_survive() {
        let mut counts = Counts::new();
        (0..100_000_u64).for_each(|i| counts.add_word(format!("{i} as a word").as_bytes(), i * i * i + 1));
        assert_eq!(decode(&encode(&counts)), Ok(counts));
    }

    #[test]
    fn lies_are_errors() {
        let lies: [&[u8]; 8] = [
            b"",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
            b"\x01\xff\xff\xff\xff\x0fx\x01",
            b"\x01\x00\x01\x01",
            b"\x01\x01x\x00",
            b"\x02\x01x\x01\x01x\x01",
            b"\x01\x01x\x01\x01",
        ];
        for lie in lies {
            assert!(decode(lie).is_err(), "{lie:?}");
        }
    }

    #[test]
    fn json_has_no_bytes_but_works() {
        let mut counts = Counts::new();
        counts.add_text(b"to be or not to be");
        let json = serde_json::to_string(&counts).expect("counts are always serializable");
        assert_eq!(serde_json::from_str::<Counts>(&json).expect("what was written"), counts);
    }

    proptest! {
        #[test]
        fn numbers_survive(value: u64, tail: u8) {
            let mut bytes = Vec::new();
            write_varint(&mut bytes, value);
            bytes.push(tail);
            let mut rest = bytes.as_slice();
            prop_assert_eq!(read_varint(&mut rest), Some(value));
            prop_assert_eq!(rest, [tail]);
        }

        #[test]
        fn tables_survive(text in text()) {
            let mut counts = Counts::new();
            counts.add_text(&text);
            prop_assert_eq!(decode(&encode(&counts)), Ok(counts));
        }

        #[test]
        fn garbage_is_an_error_or_a_table(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(counts) = decode(&bytes) {
                prop_assert!(counts.distinct() <= bytes.len() / SHORTEST);
            }
        }

        #[test]
        fn a_damaged_table_does_no_harm(text in text(), at: prop::sample::Index, byte: u8) {
            let mut counts = Counts::new();
            counts.add_text(&text);
            let mut bytes = encode(&counts);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _: Result<Counts, _> = decode(&bytes);
            prop_assert!(at == 0 || decode(&bytes[..at]).is_err());
        }
    }
}
