//! What to do when a host prints faster than anybody reads: forget lines rather than fill the memory or stop the host,
//! and say how many.

/// Bytes of output that may wait between a host and a terminal.
const LIMIT: u64 = 64 << 20;

/// Decides which lines of a stream are forwarded.
#[derive(Debug, Default)]
pub(crate) struct Flood {
    lines: u64,
    bytes: u64,
    forgotten: u64,
}

/// What is to become of a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Forward it, after a note that so many lines before it were forgotten, if any were.
    Forward {
        forgotten: u64,
    },
    Forget,
}

impl Flood {
    /// The fate of a line of that many bytes while `queued` lines of this kind wait.
    pub(crate) fn line(&mut self, length: usize, queued: usize) -> Fate {
        self.lines += 1;
        self.bytes += length as u64;
        // What waits is like what has come so far; a queue has no count of bytes.
        let mean = self.bytes / self.lines + 100;
        if queued as u64 * mean > LIMIT {
            self.forgotten += 1;
            return Fate::Forget;
        }
        Fate::Forward { forgotten: std::mem::take(&mut self.forgotten) }
    }
}

/// The note that takes the place of forgotten lines.
pub(crate) fn note(forgotten: u64) -> Vec<u8> {
    format!("[river: {forgotten} lines were not shown, as they came faster than they could be]").into_bytes()
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
        let mut flood = Flood::default();
        assert_eq!(flood.line(80, 0), Fate::Forward { forgotten: 0 });
        assert_eq!(flood.line(80, 1_000_000), Fate::Forget);
        assert_eq!(flood.line(80, 1_000_000), Fate::Forget);
        assert_eq!(flood.line(80, 10), Fate::Forward { forgotten: 2 });
        assert_eq!(flood.line(80, 10), Fate::Forward { forgotten: 0 });
    }

    #[test]
    fn long_lines_count_by_their_length() {
        let mut flood = Flood::default();
        assert_eq!(flood.line(64 << 10, 500), Fate::Forward { forgotten: 0 });
        assert_eq!(flood.line(64 << 10, 2000), Fate::Forget);
    }
}
