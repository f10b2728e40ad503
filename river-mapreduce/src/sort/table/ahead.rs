//! Short keys with small values are looked up some records after they were emitted. Their slots are fetched at once, and are in
//! the cache by then: to wait for memory at each key would take as long as all the rest.

use crate::datum::Datum;
use crate::inline_key::InlineKey;

/// So many keys wait: as many as are emitted, about, while a line comes from the last cache.
const AHEAD: usize = 8;

/// A key and its value, or none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waiting {
    pub(super) key: InlineKey,
    pub(super) small: u32,
    pub(super) hash: u64,
}

impl Waiting {
    /// `None` if the value is not small.
    #[inline]
    pub(crate) fn of<V: Datum>(key: InlineKey, value: &V) -> Option<Self> {
        // A value that could not be made again must not wait: it would be lost.
        let small = value.to_small().filter(|small| V::from_small(*small).is_some())?;
        Some(Self { key, small, hash: key.hash() })
    }

    #[inline]
    pub(super) fn is_none(&self) -> bool {
        self.key == InlineKey::default()
    }
}

/// What waits, in the order in which it came.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    waiting: [Waiting; AHEAD],
    oldest: usize,
}

impl Ahead {
    /// Puts one in, or none, in place of the oldest, which is returned.
    #[inline]
    pub(crate) fn exchange(&mut self, new: Waiting) -> Waiting {
        let at = self.oldest % AHEAD;
        self.oldest = at + 1;
        std::mem::replace(&mut self.waiting[at], new)
    }

    /// All that waits. Nothing does afterwards.
    #[inline]
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Waiting> + use<> {
        let mut all = std::mem::take(self);
        (0..AHEAD).map(move |_| all.exchange(Waiting::default()))
    }
}
