//! The representation of a datatype: pieces of memory, in order.

/// `count` pieces of `len` bytes. The first begins at `at`, each further one `stride` bytes after the previous one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) at: isize,
    pub(super) len: usize,
    pub(super) count: usize,
    pub(super) stride: isize,
}

impl Run {
    /// Where piece `index` begins.
    pub(super) fn piece(&self, index: usize) -> isize {
        self.at.saturating_add(self.stride.saturating_mul(super::signed(index)))
    }

    /// The first byte of all pieces, and the end of the last.
    fn ends(&self) -> (isize, isize) {
        let (first, last) = (self.at, self.piece(self.count - 1));
        (first.min(last), first.max(last).saturating_add(super::signed(self.len)))
    }
}

/// Pieces in order, as a list of runs that is kept short where that is easy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Runs(pub(super) Vec<Run>);

impl Runs {
    /// Adds a piece; joins it to the last one if they are adjacent.
    pub(super) fn push(&mut self, at: isize, len: usize) {
        if len == 0 {
            return;
        }
        if let Some(last) = self.0.last_mut()
            && last.count == 1
            && last.at.saturating_add(super::signed(last.len)) == at
        {
            last.len += len;
            return;
        }
        self.0.push(Run { at, len, count: 1, stride: 0 });
    }

    /// Adds `count` copies of other runs: the first at `at`, each further one `extent` bytes after the previous one.
    pub(super) fn push_copies(&mut self, other: &Self, at: isize, count: usize, extent: isize) {
        if let [Run { at: offset, len, count: 1, .. }] = other.0[..]
            && super::signed(len) == extent
        {
            // Copies without gaps are one piece.
            return self.push(at.saturating_add(offset), len.saturating_mul(count));
        }
        for copy in 0..count {
            let base = at.saturating_add(extent.saturating_mul(super::signed(copy)));
            for run in &other.0 {
                if run.count == 1 {
                    self.push(base.saturating_add(run.at), run.len);
                } else {
                    self.0.push(Run { at: base.saturating_add(run.at), ..*run });
                }
            }
        }
    }

    /// Merges pieces of equal length at equal distances into one run.
    pub(super) fn compress(&mut self) {
        let mut kept: Vec<Run> = Vec::with_capacity(self.0.len().min(64));
        for &run in &self.0 {
            if let Some(last) = kept.last_mut()
                && last.len == run.len
                && run.count == 1
            {
                if last.count == 1 {
                    last.stride = run.at.saturating_sub(last.at);
                }
                if last.piece(last.count) == run.at {
                    last.count += 1;
                    continue;
                }
            }
            kept.push(run);
        }
        self.0 = kept;
    }

    /// Whether two pieces overlap.
    pub(super) fn overlap(&self) -> bool {
        if self.0.iter().any(|run| run.count > 1 && run.stride.unsigned_abs() < run.len) {
            return true;
        }
        if !crossed(self.0.iter().map(Run::ends).collect()) {
            return false;
        }
        // The columns of a matrix interleave: they do not overlap if they do not overlap within a row.
        if let Some(&Run { stride, .. }) = self.0.first()
            && self.0.iter().all(|run| run.count > 1 && run.stride == stride)
        {
            let row = stride.saturating_abs();
            let within = self.0.iter().map(|run| {
                let at = run.at.rem_euclid(row);
                (at, at.saturating_add(super::signed(run.len)))
            });
            let within: Vec<_> = within.collect();
            let wraps = within.iter().any(|&(_, end)| end > row);
            if !wraps && !crossed(within) {
                return false;
            }
        }
        let pieces = self.0.iter().flat_map(|run| {
            (0..run.count).map(|index| {
                let at = run.piece(index);
                (at, at.saturating_add(super::signed(run.len)))
            })
        });
        crossed(pieces.collect())
    }

    /// The first byte and the end of the last; `None` if there are no bytes.
    pub(super) fn reach(&self) -> Option<(isize, isize)> {
        self.0.iter().map(Run::ends).reduce(|(a, b), (c, d)| (a.min(c), b.max(d)))
    }
}

/// Whether two of these spans, given as (first byte, end), overlap.
fn crossed(mut spans: Vec<(isize, isize)>) -> bool {
    spans.sort_unstable();
    spans.windows(2).any(|pair| pair[1].0 < pair[0].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_joined_and_strides_are_found() {
        let mut runs = Runs::default();
        for at in [0, 8, 64, 72, 128, 136] {
            runs.push(at, 8);
        }
        runs.compress();
        assert_eq!(runs.0, [Run { at: 0, len: 16, count: 3, stride: 64 }]);
        assert_eq!(runs.reach(), Some((0, 144)));
        let mut twice = Runs::default();
        twice.push_copies(&runs, 1000, 2, 500);
        twice.compress();
        assert_eq!(twice.0.len(), 2);
        assert_eq!(twice.reach(), Some((1000, 1644)));
    }

    #[test]
    fn columns_interleave_without_overlap() {
        let column = |at, len| Run { at, len, count: 1_000_000_000, stride: 24 };
        assert!(!Runs(vec![column(0, 8), column(16, 8), column(8, 8)]).overlap());
        assert!(Runs(vec![Run { at: 0, len: 8, count: 3, stride: 4 }]).overlap());
        let few = |at, len| Run { at, len, count: 3, stride: 24 };
        assert!(Runs(vec![few(0, 8), few(7, 8)]).overlap());
        assert!(Runs(vec![few(0, 8), few(20, 8)]).overlap(), "its end is in the next row");
        assert!(!Runs(vec![few(0, 8), few(72, 8)]).overlap());
    }
}
