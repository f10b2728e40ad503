//! Sorting references to records by the first eight bytes of their keys, which stand beside the reference: the records
//! are looked at only where these are equal.

use std::cmp::Ordering;

/// A record in a buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// The key's prefix ([`Key::prefix`](crate::datum::Key::prefix)).
    pub(super) prefix: u64,
    /// Where the record starts; what was emitted earlier starts earlier.
    pub(super) start: u32,
    /// How long it is.
    pub(super) len: u32,
}

/// Sorts by prefix, then as `compare` says, then by start. `compare` is not called if prefixes never tie.
pub(super) fn sort(entries: &mut [Entry], compare: impl FnMut(&Entry, &Entry) -> Ordering) {
    // One number to compare makes this sort free of branches; ties, in order of start, are few with most keys.
    entries.sort_unstable_by_key(number);
    sort_ties(entries, compare);
}

/// As [`sort`], for entries most of which are in order already.
pub(super) fn sort_again(entries: &mut [Entry], compare: impl FnMut(&Entry, &Entry) -> Ordering) {
    // The stable sort finds runs and merges them.
    entries.sort_by_key(number);
    sort_ties(entries, compare);
}

#[inline]
fn number(entry: &Entry) -> u128 {
    u128::from(entry.prefix) << 32 | u128::from(entry.start)
}

fn sort_ties(entries: &mut [Entry], mut compare: impl FnMut(&Entry, &Entry) -> Ordering) {
    for ties in entries.chunk_by_mut(|a, b| a.prefix == b.prefix) {
        if ties.len() > 1 {
            ties.sort_unstable_by(|a, b| compare(a, b).then(a.start.cmp(&b.start)));
        }
    }
}
