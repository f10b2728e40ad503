//! Assigns keys to reducers.

use crate::datum::{Key, Ref};

/// A job's own partitioner: returns the reducer for a key, or `None` for the default.
pub(crate) type Partitioner<'a, K> = &'a (dyn Fn(&Ref<'_, K>, usize) -> Option<usize> + Sync);

/// How keys are assigned to reducers: by the job's partitioner; else by range, if the output is sorted as a whole; else
/// by hash.
pub(crate) struct Partition<'a, K: Key> {
    pub(crate) by_job: Partitioner<'a, K>,
    pub(crate) bounds: &'a Bounds<'a>,
}

/// The first keys of all ranges but the first, if there are ranges, and their prefixes, which are contiguous and nearly
/// always decide.
#[derive(Debug, Default)]
pub(crate) struct Bounds<'a> {
    prefixes: Vec<u64>,
    keys: Option<&'a [Vec<u8>]>,
}

impl<'a> Bounds<'a> {
    pub(crate) fn of<K: Key>(keys: Option<&'a [Vec<u8>]>) -> Self {
        Self { prefixes: keys.unwrap_or_default().iter().map(|key| K::prefix(key)).collect(), keys }
    }
}

impl<K: Key> Partition<'_, K> {
    /// The reducer for an encoded key with that hash, below `reducers`, which must be at least one.
    pub(crate) fn of(&self, key: &[u8], hash: u64, reducers: usize) -> usize {
        match K::decode(key) {
            Ok(view) if reducers > 1 => self.of_view(&view, key, || hash, reducers),
            _ => 0,
        }
    }

    /// Like [`of`](Self::of), for a key of which there is a view.
    #[inline]
    pub(crate) fn of_view(
        &self,
        view: &Ref<'_, K>,
        key: &[u8],
        hash: impl FnOnce() -> u64,
        reducers: usize,
    ) -> usize {
        if reducers == 1 {
            return 0;
        }
        if let Some(reducer) = (self.by_job)(view, reducers) {
            return reducer % reducers;
        }
        let Bounds { prefixes, keys: Some(keys) } = self.bounds else {
            return ((u128::from(hash()) * reducers as u128) >> 64) as usize;
        };
        let prefix = K::prefix(key);
        let first = prefixes.partition_point(|bound| *bound < prefix);
        let ties = prefixes[first..].partition_point(|bound| *bound == prefix);
        let reducer =
            first + keys[first..first + ties].partition_point(|bound| K::compare(bound, key).is_le());
        reducer.min(reducers - 1)
    }
}

/// Divides a sample into up to `reducers` ranges that are as equal as possible; returns the first key of each but the
/// first.
pub(crate) fn bounds<K: Key>(mut sample: Vec<Vec<u8>>, reducers: usize) -> Vec<Vec<u8>> {
    sample.sort_unstable_by(|a, b| K::compare(a, b));
    let mut bounds: Vec<Vec<u8>> =
        (1..reducers).filter_map(|i| sample.get(i * sample.len() / reducers).cloned()).collect();
    bounds.dedup();
    bounds
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::inline_key::hash;

    fn of<K: Key + Copy>(partition: &Partition<'_, K>, key: K, reducers: usize) -> usize {
        let mut bytes = Vec::new();
        K::encode(&key.view(), &mut bytes);
        partition.of(&bytes, hash(&bytes), reducers)
    }

    proptest! {
        #[test]
        fn ranges_are_in_order(sample: Vec<u32>, keys: Vec<u32>, reducers in 1usize..6) {
            let bounds = bounds::<u32>(sample.iter().map(|key| key.to_be_bytes().to_vec()).collect(), reducers);
            let partition = Partition::<u32> { by_job: &|_, _| None, bounds: &Bounds::of::<u32>(Some(&bounds)) };
            let mut keys = keys;
            keys.sort_unstable();
            let parts: Vec<usize> = keys.iter().map(|key| of(&partition, *key, reducers)).collect();
            prop_assert!(parts.is_sorted() && parts.iter().all(|part| *part < reducers));
        }
    }

    #[test]
    fn hashes_spread_keys_evenly() {
        let partition = Partition::<u64> { by_job: &|_, _| None, bounds: &Bounds::default() };
        let mut counts = [0; 7];
        for key in 0..7000u64 {
            counts[of(&partition, key, 7)] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_job_has_the_first_word() {
        let odd = |key: &u64, _: usize| (key % 2 == 1).then_some(5);
        let keys = [vec![0; 8]];
        let partition = Partition::<u64> { by_job: &odd, bounds: &Bounds::of::<u64>(Some(&keys)) };
        assert_eq!([1u64, 2].map(|key| of(&partition, key, 3)), [2, 1]);
    }
}
