//! The binomial tree, which many algorithms use.
//!
//! Ranks are numbered from the root. The parent of a rank is the rank without its lowest set bit; its children are the ranks
//! with one more bit set, below its lowest. So the subtree of a rank is a range of ranks.

use std::ops::Range;

/// A rank's place in the tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Binomial {
    size: usize,
    root: usize,
    /// The rank, counted from the root.
    relative: usize,
}

impl Binomial {
    pub(super) fn new(rank: usize, root: usize, size: usize) -> Self {
        Self { size, root, relative: (rank + size - root) % size }
    }

    fn absolute(&self, relative: usize) -> usize {
        (relative + self.root) % self.size
    }

    /// The width of the subtree in an infinite tree.
    fn width(&self) -> usize {
        match self.relative {
            0 => self.size.next_power_of_two(),
            relative => 1 << relative.trailing_zeros(),
        }
    }

    /// The parent; `None` for the root.
    pub(super) fn parent(&self) -> Option<usize> {
        (self.relative != 0).then(|| self.absolute(self.relative & (self.relative - 1)))
    }

    /// The children, in ascending order of the size of their subtrees.
    pub(super) fn children(self) -> impl DoubleEndedIterator<Item = Self> {
        (0..self.width().trailing_zeros())
            .map(move |bit| Self { relative: self.relative + (1 << bit), ..self })
            .filter(|child| child.relative < child.size)
    }

    pub(super) fn rank(&self) -> usize {
        self.absolute(self.relative)
    }

    /// The ranks of its subtree, counted from the root.
    pub(super) fn subtree(&self) -> Range<usize> {
        self.relative..(self.relative + self.width()).min(self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rank_is_once_in_the_tree_and_subtrees_are_ranges() {
        fn ranks_below(node: Binomial) -> Vec<usize> {
            let mut all = vec![node.relative];
            all.extend(node.children().flat_map(ranks_below));
            all
        }
        for size in 1..20 {
            for root in 0..size {
                for rank in 0..size {
                    let node = Binomial::new(rank, root, size);
                    let mut below = ranks_below(node);
                    below.sort_unstable();
                    assert_eq!(below, node.subtree().collect::<Vec<_>>());
                    assert!(node.children().all(|child| child.parent() == Some(rank)));
                }
                assert_eq!(Binomial::new(root, root, size).subtree(), 0..size);
            }
        }
    }
}
