//! How work is cut into pieces.

use std::time::Duration;

/// How many items travel together: a plain number, such as `10`, is a fixed size; see [`Chunk::guided`] and
/// [`Chunk::auto`] for sizes that change while the farm works.
///
/// A larger chunk costs fewer messages, a smaller one balances better between VMs of different speed, and less has to be
/// done again when one dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Chunk {
    /// So many items; the last chunk may be smaller.
    Fixed(usize),
    /// A fraction of what is left, but not fewer than that: large chunks first, small ones at the end. If the work does
    /// not know how many items it has, chunks are of the smallest size.
    Guided {
        /// The smallest size.
        least: usize,
    },
    /// As many items as take about that time, as measured while the farm works.
    Adaptive {
        /// How long a chunk should take.
        time: Duration,
    },
}

impl Chunk {
    /// Guided self-scheduling (Polychronopoulos and Kuck, 1987), in the halved form of factoring (Hummel, Schonberg and
    /// Flynn, 1992): each chunk is half of an even share of what is left.
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

/// Decides on sizes, given what was measured.
#[derive(Debug)]
pub(crate) struct Sizer {
    chunk: Chunk,
    /// The size that was decided on last, which may at most double.
    last: usize,
}

impl Sizer {
    pub(crate) fn new(chunk: Chunk) -> Option<Self> {
        let valid = !matches!(chunk, Chunk::Fixed(0) | Chunk::Guided { least: 0 });
        valid.then_some(Self { chunk, last: 1 })
    }

    /// How many items the next chunk has. `left`: how many there are, if that is known; `per_item`: how long one takes,
    /// if any was measured.
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

/// Items that a measured chunk has at most: so many empty ones still take milliseconds.
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
