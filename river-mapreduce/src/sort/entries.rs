//! Sorts references to records by the first eight bytes of their keys, which are stored with the reference: the records
//! themselves are read only where these are equal.

use std::cmp::Ordering;

/// A reference to a record in a buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// The key's prefix ([`Key::prefix`](crate::datum::Key::prefix)).
    pub(super) prefix: u64,
    /// The position of the record; records emitted earlier have lower positions.
    pub(super) start: u32,
    /// The length of the record.
    pub(super) len: u32,
}

/// Sorts by prefix, then by `compare`, then by start. `compare` is not called if no prefixes are equal.
pub(super) fn sort(entries: &mut [Entry], compare: impl FnMut(&Entry, &Entry) -> Ordering) {
    sort_by_number(entries);
    // Ties, which are in order of start by now, are few with most keys.
    sort_ties(entries, compare);
}

/// Like [`sort`], for entries that are mostly in order already.
pub(super) fn sort_again(entries: &mut [Entry], compare: impl FnMut(&Entry, &Entry) -> Ordering) {
    // The stable sort detects runs and merges them.
    entries.sort_by_key(number);
    sort_ties(entries, compare);
}

/// Distributes entries into buckets, in place (American flag sort), by the highest bits in which their prefixes differ,
/// so that few are left to compare. If most prefixes are in few buckets, nothing is gained.
fn sort_by_number(entries: &mut [Entry]) {
    /// The approximate number of entries in a bucket.
    const BUCKET: usize = 16;
    /// More buckets than this do not fit into the cache.
    const MOST: u32 = 12;
    if entries.len() < 16 * BUCKET {
        entries.sort_unstable_by_key(number);
        return;
    }
    let (least, most) = entries
        .iter()
        .fold((u64::MAX, 0), |(least, most), entry| (entry.prefix.min(least), entry.prefix.max(most)));
    let bits = (entries.len() / BUCKET).ilog2().min(MOST);
    let shift = (u64::BITS - (most - least).leading_zeros()).saturating_sub(bits);
    let bucket = |entry: &Entry| ((entry.prefix - least) >> shift) as usize;
    let mut ends = vec![0; 1 << bits];
    entries.iter().for_each(|entry| ends[bucket(entry)] += 1);
    let mut free = Vec::with_capacity(ends.len());
    let mut sum = 0;
    for end in &mut ends {
        free.push(sum);
        sum += *end;
        *end = sum;
    }
    let mut start = 0;
    for (this, &end) in ends.iter().enumerate() {
        while free[this] < end {
            let at = free[this];
            let other = bucket(&entries[at]);
            entries.swap(at, free[other]);
            free[other] += 1;
        }
        // Comparing single numbers makes this sort branch-free.
        entries[start..end].sort_unstable_by_key(number);
        start = end;
    }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn many_entries_are_sorted_however_their_prefixes_lie(
            count in 0usize..3000, seed: u64, shift in 0u32..64, least in 0u64..1 << 40, few: bool,
        ) {
            let mut state = seed;
            let mut entries: Vec<Entry> = (0..count as u32)
                .map(|start| {
                    state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                    let random = if few { state >> 62 } else { state >> shift };
                    Entry { prefix: random.saturating_add(least), start, len: 1 }
                })
                .collect();
            let mut expected: Vec<(u64, u32)> = entries.iter().map(|entry| (entry.prefix, entry.start)).collect();
            expected.sort_unstable();
            sort(&mut entries, |_, _| Ordering::Equal);
            prop_assert_eq!(entries.iter().map(|entry| (entry.prefix, entry.start)).collect::<Vec<_>>(), expected);
        }
    }
}
