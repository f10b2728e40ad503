//! The k-way merge, by a tournament tree of losers (Knuth, The Art of Computer Programming 3, 5.4.1): log2 k
//! comparisons per record, most of them of two numbers.

use std::cmp::Ordering;
use std::hint::select_unpredictable;
use std::marker::PhantomData;

use bytes::Bytes;

use super::ValueOrder;
use crate::datum::{Datum, Key};
use crate::inline_key::is_same;
use crate::record::{Layout, Span};

/// The source of the sorted segments that are merged.
pub(crate) trait Source {
    /// Why a segment cannot be read any further.
    type Error: Truncated;

    /// Returns the next bytes of a segment, never empty; `None` at its end. May block.
    fn next_chunk(&mut self, segment: usize) -> Result<Option<Bytes>, Self::Error>;
}

impl<S: Source + ?Sized> Source for &mut S {
    type Error = S::Error;

    fn next_chunk(&mut self, segment: usize) -> Result<Option<Bytes>, S::Error> {
        (**self).next_chunk(segment)
    }
}

/// An error type that can represent a segment that ends within a record.
pub(crate) trait Truncated {
    fn truncated(segment: usize) -> Self;
}

/// The current record of a segment.
#[derive(Debug, Default)]
struct Cursor {
    chunk: Bytes,
    /// Where in the chunk the next record begins.
    next: usize,
    /// Assembles a record that extends over several chunks.
    carry: Vec<u8>,
    in_carry: bool,
    /// Where in the chunk the current record begins.
    start: usize,
    span: Span,
}

impl Cursor {
    #[inline]
    fn record(&self) -> &[u8] {
        if self.in_carry { &self.carry } else { &self.chunk[self.start..] }
    }

    #[inline]
    fn key<K: Datum, V: Datum>(&self) -> &[u8] {
        &self.record()[Layout::of::<K, V>().fixed().unwrap_or(self.span).key()]
    }

    #[inline]
    fn value<K: Datum, V: Datum>(&self) -> &[u8] {
        &self.record()[Layout::of::<K, V>().fixed().unwrap_or(self.span).value()]
    }

    /// Moves to the next record. Returns `false` at the end of the segment.
    #[inline]
    fn advance<K: Datum, V: Datum, S: Source>(
        &mut self,
        source: &mut S,
        segment: usize,
    ) -> Result<bool, S::Error> {
        let layout = Layout::of::<K, V>();
        if let Some(span) = layout.parse(&self.chunk[self.next..]) {
            (self.start, self.span, self.in_carry) = (self.next, span, false);
            self.next += span.len();
            return Ok(true);
        }
        self.refill(layout, source, segment)
    }

    #[cold]
    fn refill<S: Source>(
        &mut self,
        layout: Layout,
        source: &mut S,
        segment: usize,
    ) -> Result<bool, S::Error> {
        self.carry.clear();
        self.carry.extend_from_slice(&self.chunk[self.next..]);
        let mut carried = self.carry.len();
        loop {
            let Some(chunk) = source.next_chunk(segment)? else {
                (self.chunk, self.next) = (Bytes::new(), 0);
                return if carried == 0 { Ok(false) } else { Err(S::Error::truncated(segment)) };
            };
            if carried == 0 {
                (self.chunk, self.next) = (chunk, 0);
                if let Some(span) = layout.parse(&self.chunk) {
                    (self.start, self.span, self.in_carry) = (0, span, false);
                    self.next = span.len();
                    return Ok(true);
                }
                self.carry.extend_from_slice(&self.chunk);
                carried = self.carry.len();
                continue;
            }
            // Takes as much of the chunk as the record needs, found by doubling.
            let (mut taken, mut step) = (0, 128);
            loop {
                let more = step.min(chunk.len() - taken);
                self.carry.extend_from_slice(&chunk[taken..taken + more]);
                taken += more;
                if let Some(span) = layout.parse(&self.carry) {
                    (self.span, self.in_carry) = (span, true);
                    (self.chunk, self.next) = (chunk, span.len() - carried);
                    return Ok(true);
                }
                if taken == chunk.len() {
                    break;
                }
                step *= 2;
            }
            carried = self.carry.len();
        }
    }
}

/// A segment's current record as the tree compares it.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    /// The prefix of its key; the maximum if the segment has ended.
    prefix: u64,
    segment: u64,
}

/// Merges sorted segments. Records with equal keys come in the order of their segments.
pub(crate) struct Merge<K, V, S> {
    pub(crate) source: S,
    cursors: Vec<Cursor>,
    /// Which segments have ended.
    ended: Vec<bool>,
    /// `tree[0]` is the first record; `tree[n]` the loser of the game at inner node `n`.
    tree: Vec<Head>,
    value_order: Option<ValueOrder>,
    kind: PhantomData<fn() -> (K, V)>,
}

impl<K: Key, V: Datum, S: Source> Merge<K, V, S> {
    /// Reads the first record of each of this many segments.
    pub(crate) fn new(source: S, segments: usize, value_order: Option<ValueOrder>) -> Result<Self, S::Error> {
        let mut cursors: Vec<Cursor> = Vec::new();
        cursors.resize_with(segments, Cursor::default);
        let (ended, tree) = (vec![false; segments], vec![Head::default(); segments]);
        let mut merge = Self { source, cursors, ended, tree, value_order, kind: PhantomData };
        let heads = (0..segments).map(|segment| merge.advance(segment)).collect::<Result<Vec<Head>, _>>()?;
        if segments > 0 {
            merge.tree[0] = merge.play(&heads, 1);
        }
        Ok(merge)
    }

    /// Moves to a segment's next record.
    #[inline]
    fn advance(&mut self, segment: usize) -> Result<Head, S::Error> {
        let cursor = &mut self.cursors[segment];
        let some = cursor.advance::<K, V, S>(&mut self.source, segment)?;
        if !some {
            self.ended[segment] = true;
        }
        let prefix = if some { K::prefix(cursor.key::<K, V>()) } else { u64::MAX };
        Ok(Head { prefix, segment: segment as u64 })
    }

    /// Plays all games below an inner node and returns the winner. Leaves are the nodes from `k` to `2k - 1`.
    fn play(&mut self, heads: &[Head], node: usize) -> Head {
        let leaves = heads.len();
        if node >= leaves {
            return heads[node - leaves];
        }
        let (a, b) = (self.play(heads, 2 * node), self.play(heads, 2 * node + 1));
        let (winner, loser) = if self.before(a, b) { (a, b) } else { (b, a) };
        self.tree[node] = loser;
        winner
    }

    #[inline]
    fn before(&self, a: Head, b: Head) -> bool {
        if a.prefix == b.prefix { self.before_by_record(a, b) } else { a.prefix < b.prefix }
    }

    fn before_by_record(&self, a: Head, b: Head) -> bool {
        let (a, b) = (a.segment as usize, b.segment as usize);
        if self.ended[a] || self.ended[b] {
            return self.ended[b] && (!self.ended[a] || a < b);
        }
        let (x, y) = (&self.cursors[a], &self.cursors[b]);
        let (x_key, y_key) = (x.key::<K, V>(), y.key::<K, V>());
        let mut order = match K::WIDTH.is_none() && is_same(x_key, y_key) {
            true => Ordering::Equal,
            false => K::compare(x_key, y_key),
        };
        if let Some(value_order) = self.value_order {
            order = order.then_with(|| value_order(x.value::<K, V>(), y.value::<K, V>()));
        }
        order.then(a.cmp(&b)).is_lt()
    }

    /// The key and value of the first record; `None` if there are none left.
    #[inline]
    pub(crate) fn first(&self) -> Option<(&[u8], &[u8])> {
        let winner = self.tree.first()?.segment as usize;
        if self.ended[winner] {
            return None;
        }
        let cursor = &self.cursors[winner];
        Some((cursor.key::<K, V>(), cursor.value::<K, V>()))
    }

    /// Drops the first record.
    #[inline]
    pub(crate) fn pop(&mut self) -> Result<(), S::Error> {
        let Some(first) = self.tree.first() else { return Ok(()) };
        let segment = first.segment as usize;
        let mut winner = self.advance(segment)?;
        let mut node = (segment + self.cursors.len()) / 2;
        while node > 0 {
            let other = self.tree[node];
            // No processor can predict the winner, but it can predict that the prefixes differ.
            let beaten = self.before(other, winner);
            self.tree[node] = Head {
                prefix: select_unpredictable(beaten, winner.prefix, other.prefix),
                segment: select_unpredictable(beaten, winner.segment, other.segment),
            };
            winner = Head {
                prefix: select_unpredictable(beaten, other.prefix, winner.prefix),
                segment: select_unpredictable(beaten, other.segment, winner.segment),
            };
            node /= 2;
        }
        self.tree[0] = winner;
        Ok(())
    }
}

/// The values of one key, one after the other, from a merge.
pub(crate) trait Group {
    /// Returns the next value's encoding; `None` after the last, and after an error, which is kept for the code that
    /// drives the merge.
    fn next_value(&mut self) -> Option<&[u8]>;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Segments cut into chunks of a given size.
    struct Chunks(Vec<(Bytes, usize)>);

    #[derive(Debug)]
    struct Cut;

    impl Truncated for Cut {
        fn truncated(_: usize) -> Self {
            Self
        }
    }

    impl Source for Chunks {
        type Error = Cut;

        fn next_chunk(&mut self, segment: usize) -> Result<Option<Bytes>, Cut> {
            let (rest, size) = &mut self.0[segment];
            let chunk = rest.split_to((*size).min(rest.len()));
            Ok((!chunk.is_empty()).then_some(chunk))
        }
    }

    fn segment(records: &[(String, u16)]) -> Bytes {
        let mut bytes = Vec::new();
        for (key, value) in records {
            Layout::of::<String, u16>().put(key.as_bytes(), &value.to_be_bytes(), &mut bytes);
        }
        bytes.into()
    }

    proptest! {
        #[test]
        fn merging_is_a_stable_sort(
            mut segments in prop::collection::vec(
                (prop::collection::vec(("[ab]{0,12}", any::<u16>()), 0..40), 1usize..50), 0..9),
            ordered: bool,
        ) {
            let order: Option<ValueOrder> = ordered.then_some(u16::compare);
            for (records, _) in &mut segments {
                if ordered { records.sort() } else { records.sort_by(|a, b| a.0.cmp(&b.0)) }
            }
            let chunks = segments.iter().map(|(records, size)| (segment(records), *size)).collect();
            let mut expected: Vec<_> = segments.iter().flat_map(|(records, _)| records.clone()).collect();
            if ordered { expected.sort() } else { expected.sort_by(|a, b| a.0.cmp(&b.0)) }
            let mut merge = Merge::<String, u16, _>::new(Chunks(chunks), segments.len(), order).unwrap();
            let mut merged = Vec::new();
            while let Some((key, value)) = merge.first() {
                let key = String::from_utf8(key.to_vec()).unwrap();
                merged.push((key, u16::from_be_bytes(value.try_into().unwrap())));
                merge.pop().unwrap();
            }
            prop_assert_eq!(merged, expected);
        }
    }

    #[test]
    fn a_segment_that_ends_within_a_record_is_an_error() {
        let mut bytes = segment(&[("a".into(), 1), ("b".into(), 2)]);
        bytes.truncate(bytes.len() - 1);
        let mut merge = Merge::<String, u16, _>::new(Chunks(vec![(bytes, 100)]), 1, None).unwrap();
        assert!(merge.pop().is_err());
    }
}
