//! How work is cut into chunks.

use std::time::Duration;

/// How many items are sent together: a plain number, such as `10`, is a fixed size; see [`Chunk::guided`] and
/// [`Chunk::auto`] for sizes that adapt while the farm runs.
///
/// Larger chunks cost fewer messages; smaller chunks balance better between VMs of different speed, and less must be
/// redone when a VM dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Chunk {
    /// This many items; the last chunk may be smaller.
    Fixed(usize),
    /// A fraction of what is left, but at least `least`: large chunks first, small ones at the end. If the work does
    /// not know how many items it has, all chunks have the smallest size.
    Guided {
        /// The smallest size.
        least: usize,
    },
    /// As many items as take about `time`, as measured while the farm runs.
    Adaptive {
        /// How long a chunk should take.
        time: Duration,
    },
}

impl Chunk {
    /// Guided self-scheduling (Polychronopoulos and Kuck, 1987), halved as in factoring (Hummel, Schonberg and Flynn,
    /// 1992): each chunk is half of an even share of what is left.
    #[must_use]
    pub fn guided() -> Self {
        Chunk::Guided { least: 1 }
    }

    /// Chunks that take about 5 ms.
    #[must_use]
    pub fn auto() -> Self {
        Chunk::Adaptive { time: Duration::from_millis(5) }
    }
}

impl From<usize> for Chunk {
    fn from(size: usize) -> Self {
        Chunk::Fixed(size)
    }
}

/// Decides on chunk sizes, given measurements.
#[derive(Debug)]
pub(crate) struct Sizer {
    chunk: Chunk,
    /// The last size, which may at most double.
    last: usize,
}

impl Sizer {
    pub(crate) fn new(chunk: Chunk) -> Option<Self> {
        let valid = !matches!(chunk, Chunk::Fixed(0) | Chunk::Guided { least: 0 });
        valid.then_some(Self { chunk, last: 1 })
    }

    /// Returns how many items the next chunk has. `left`: how many items are left, if that is known; `per_item`: the
    /// time per item, if measured.
    pub(crate) fn next(&mut self, left: Option<u64>, vms: usize, per_item: Option<Duration>) -> usize {
        let share = |left: u64| usize::try_from(left.div_ceil(2 * vms.max(1) as u64)).unwrap_or(usize::MAX);
        match self.chunk {
            Chunk::Fixed(size) => size,
            Chunk::Guided { least } => left.map_or(least, share).max(least),
            Chunk::Adaptive { time } => {
                let Some(per_item) = per_item else { return 1 };
                let wanted = time.as_nanos() / per_item.as_nanos().max(1);
                let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
                let size = wanted.min(2 * self.last).min(left.map_or(usize::MAX, share)).clamp(1, MOST);
                self.last = size;
                size
            }
        }
    }
}

/// The maximum size of a measured chunk: even this many empty items take milliseconds.
const MOST: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(chunk: Chunk, total: u64, vms: usize, per_item: Option<Duration>) -> Vec<usize> {
        let (mut sizer, mut left, mut sizes) = (Sizer::new(chunk).unwrap(), total, Vec::new());
        while left > 0 {
            let size = sizer.next(Some(left), vms, per_item).min(left as usize);
            left -= size as u64;
            sizes.push(size);
        }
        sizes
    }

    #[test]
    fn guided_chunks_shrink_to_the_least() {
        assert_eq!(sizes(Chunk::guided(), 100, 2, None), [25, 19, 14, 11, 8, 6, 5, 3, 3, 2, 1, 1, 1, 1]);
        assert!(
            sizes(Chunk::Guided { least: 10 }, 100, 2, None).iter().rev().skip(1).all(|&size| size >= 10)
        );
        assert_eq!(Sizer::new(Chunk::guided()).unwrap().next(None, 2, None), 1);
    }

    #[test]
    fn adaptive_chunks_double_until_they_take_the_time_and_shrink_at_the_end() {
        let time = Duration::from_millis(1);
        let sizes = sizes(Chunk::Adaptive { time }, 10_000, 2, Some(Duration::from_micros(10)));
        assert_eq!(sizes[..8], [2, 4, 8, 16, 32, 64, 100, 100]);
        assert_eq!(sizes.last(), Some(&1));
        assert_eq!(Sizer::new(Chunk::auto()).unwrap().next(None, 2, None), 1);
        assert!(Sizer::new(Chunk::Fixed(0)).is_none() && Sizer::new(Chunk::Guided { least: 0 }).is_none());
    }
}
