//! Iteration over a table, and the traits that are based on it.

use std::fmt;

use super::counts::Counts;
use super::slot::Slot;

/// Iterator over the words of a [`Counts`] and how often each occurs.
#[derive(Clone)]
pub struct Iter<'a> {
    counts: &'a Counts,
    slots: std::slice::Iter<'a, Slot>,
    left: usize,
}

impl<'a> Iter<'a> {
    pub(super) fn new(counts: &'a Counts, slots: &'a [Slot]) -> Self {
        Self { counts, slots: slots.iter(), left: counts.distinct() }
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], u64);

    fn next(&mut self) -> Option<Self::Item> {
        let slot = self.slots.find(|slot| !slot.is_empty())?;
        self.left -= 1;
        let word = match slot.key().offset() {
            None => slot.short_word().unwrap_or_default(),
            Some(offset) => self.counts.long_word(offset).1,
        };
        Some((word, self.counts.count(slot)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl fmt::Debug for Iter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").field("left", &self.left).finish_non_exhaustive()
    }
}

impl<'a> IntoIterator for &'a Counts {
    type Item = (&'a [u8], u64);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The same words with the same counts.
impl PartialEq for Counts {
    fn eq(&self, other: &Self) -> bool {
        (self.distinct(), self.total()) == (other.distinct(), other.total())
            && self.iter().all(|(word, count)| other.get(word) == count)
    }
}

impl Eq for Counts {}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counts")
            .field("total", &self.total())
            .field("distinct", &self.distinct())
            .finish_non_exhaustive()
    }
}
