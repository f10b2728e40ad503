//! What to do when a host prints faster than anybody reads: drop lines and say how many, rather than fill the memory or stop
//! the host.

use std::collections::VecDeque;

/// Bytes of output that may be queued between a host and a terminal.
const LIMIT: u64 = 64 << 20;
/// The memory that a line takes besides its text.
const OVERHEAD: usize = 100;

/// Decides which lines of a stream are forwarded.
#[derive(Debug, Default)]
pub(crate) struct Flood {
    /// The lengths of the lines that were forwarded last, some of which may still be queued.
    waiting: VecDeque<usize>,
    /// Their sum.
    bytes: u64,
    forgotten: u64,
}

/// What happens to a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Forward it, after a note that this many lines before it were dropped, if any were.
    Forward {
        forgotten: u64,
    },
    Forget,
}

impl Flood {
    /// Decides about a line of this length while `queued` lines of this kind are queued.
    pub(crate) fn line(&mut self, length: usize, queued: usize) -> Fate {
        // The queue does not count bytes. It is emptied from the front.
        while self.waiting.len() > queued {
            self.bytes -= self.waiting.pop_front().unwrap_or_default() as u64;
        }
        let length = length + OVERHEAD;
        if self.bytes + length as u64 > LIMIT {
            self.forgotten += 1;
            return Fate::Forget;
        }
        self.waiting.push_back(length);
        self.bytes += length as u64;
        Fate::Forward { forgotten: std::mem::take(&mut self.forgotten) }
    }
}

/// Returns the note that takes the place of dropped lines.
pub(crate) fn note(forgotten: u64) -> Vec<u8> {
    format!("[river: {forgotten} lines were dropped: they came faster than they could be printed]")
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_is_read_loses_nothing() {
        let mut flood = Flood::default();
        assert!((0..100_000).all(|i| flood.line(80, i % 1000) == Fate::Forward { forgotten: 0 }));
    }

    #[test]
    fn what_is_forgotten_is_counted_and_told_once() {
        let (mut flood, long) = (Flood::default(), 1 << 20);
        let mut queued = 0;
        while flood.line(long, queued) == (Fate::Forward { forgotten: 0 }) {
            queued += 1;
        }
        assert_eq!(queued, 63, "64 MiB, with what lines take beside their text");
        assert_eq!(flood.line(long, queued), Fate::Forget);
        assert_eq!(flood.line(long, queued - 1), Fate::Forward { forgotten: 2 });
        assert_eq!(flood.line(long, 10), Fate::Forward { forgotten: 0 });
    }

    #[test]
    fn short_lines_that_came_before_do_not_make_room_for_long_ones() {
        let mut flood = Flood::default();
        assert!((0..1_000_000).all(|_| flood.line(1, 10) == Fate::Forward { forgotten: 0 }));
        let forwarded = (10..).take_while(|&queued| flood.line(64 << 10, queued) != Fate::Forget).count();
        assert_eq!(forwarded, 1022);
    }
}
