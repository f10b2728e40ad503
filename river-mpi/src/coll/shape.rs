//! What a collective operation looks like: all that an algorithm may know.

use std::hash::Hash;
use std::ops::Range;
use std::sync::Arc;

use rustc_hash::FxHashMap;

/// The facts of one call, from which an algorithm makes its plan: who takes part, how much there is, how it
/// is laid out.
///
/// Except for the layout of the `v` operations, all of it is equal on all ranks; an algorithm is chosen by
/// that part only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    pub(super) size: usize,
    pub(super) root: usize,
    pub(super) count: usize,
    pub(super) element: usize,
    pub(super) commutative: bool,
    pub(super) blocks: Layout,
    pub(super) incoming: Layout,
    pub(super) hosts: Arc<Hosts>,
}

/// How a buffer is divided among the ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Blocks of `count` elements, one after the other.
    Equal,
    /// A block for each rank.
    Each(Arc<[Range<usize>]>),
}

/// What tells a call from others on the same ranks if its blocks are equal: with it its plan is found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) count: usize,
    pub(crate) element: usize,
    pub(crate) root: usize,
    pub(crate) commutative: bool,
}

impl Shape {
    /// Of such a call.
    pub(super) fn of_call(size: usize, call: Call, hosts: Arc<Hosts>) -> Self {
        let Call { count, element, root, commutative } = call;
        Self { root, commutative, ..Self::of(size, count, element, hosts) }
    }

    /// Whether it is that of such a call.
    pub(super) fn is_of(&self, size: usize, call: Call) -> bool {
        let Self { count, element, root, commutative, .. } = *self;
        self.size == size && Call { count, element, root, commutative } == call && self.is_regular()
    }

    /// Whether all blocks are equal, as all ranks know.
    pub(super) fn is_regular(&self) -> bool {
        matches!((&self.blocks, &self.incoming), (Layout::Equal, Layout::Equal))
    }

    /// Of an operation of `size` ranks on `count` elements of so many bytes each; rank 0 is the root, the
    /// operator commutes, and every rank is a host of its own.
    #[must_use]
    pub fn new(size: usize, count: usize, element: usize) -> Self {
        Self::of(size, count, element, Arc::new(Hosts::apart(size)))
    }

    pub(super) fn of(size: usize, count: usize, element: usize, hosts: Arc<Hosts>) -> Self {
        let (blocks, incoming) = (Layout::Equal, Layout::Equal);
        Self { size, root: 0, count, element, commutative: true, blocks, incoming, hosts }
    }

    /// With another root.
    #[must_use]
    pub fn with_root(mut self, root: usize) -> Self {
        self.root = root;
        self
    }

    /// With an operator that commutes or not.
    #[must_use]
    pub fn with_commutative(mut self, commutative: bool) -> Self {
        self.commutative = commutative;
        self
    }

    /// With ranks that share hosts.
    #[must_use]
    pub fn with_hosts(mut self, hosts: Arc<Hosts>) -> Self {
        self.hosts = hosts;
        self
    }

    /// With a block of its own for each rank, as the `v` operations have them.
    #[must_use]
    pub fn with_blocks(mut self, blocks: impl IntoIterator<Item = Range<usize>>) -> Self {
        self.blocks = Layout::Each(blocks.into_iter().collect());
        self
    }

    /// With blocks for what is received that differ from those for what is sent, as alltoallv has them.
    #[must_use]
    pub fn with_incoming(mut self, blocks: impl IntoIterator<Item = Range<usize>>) -> Self {
        self.incoming = Layout::Each(blocks.into_iter().collect());
        self
    }

    /// The number of ranks, at least 1.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// The root, in operations that have one.
    #[must_use]
    pub fn root(&self) -> usize {
        self.root
    }

    /// Elements: all of them in operations on a vector (bcast, reduce, allreduce, scan), those of one block
    /// otherwise. In `v` operations 0.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes of an element, at least 1.
    #[must_use]
    pub fn element(&self) -> usize {
        self.element
    }

    /// Bytes of [`count`](Self::count) elements.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.count.saturating_mul(self.element)
    }

    /// Whether the operator commutes. It always is associative.
    #[must_use]
    pub fn commutative(&self) -> bool {
        self.commutative
    }

    /// The elements of a rank's block, in the buffer that has a block for each rank.
    ///
    /// In gatherv and scatterv only the root knows all blocks; the others know the length of their own.
    #[must_use]
    pub fn block(&self, rank: usize) -> Range<usize> {
        self.blocks.of(rank, self.count)
    }

    /// In alltoall and alltoallv: the elements that come from a rank, in the output. [`block`](Self::block)
    /// are those that go there, in the input.
    #[must_use]
    pub fn incoming(&self, rank: usize) -> Range<usize> {
        self.incoming.of(rank, self.count)
    }

    /// Where the last block ends.
    #[must_use]
    pub fn total(&self) -> usize {
        self.blocks.end(self.size, self.count)
    }

    pub(super) fn total_incoming(&self) -> usize {
        self.incoming.end(self.size, self.count)
    }

    /// Which ranks share memory.
    #[must_use]
    pub fn hosts(&self) -> &Hosts {
        &self.hosts
    }
}

impl Layout {
    fn of(&self, rank: usize, count: usize) -> Range<usize> {
        match self {
            Layout::Equal => rank * count..(rank + 1) * count,
            Layout::Each(blocks) => blocks[rank].clone(),
        }
    }

    fn end(&self, size: usize, count: usize) -> usize {
        match self {
            Layout::Equal => size * count,
            Layout::Each(blocks) => blocks.iter().map(|block| block.end).max().unwrap_or(0),
        }
    }
}

/// Which ranks share a host. A host is a *process* here, not a machine: its ranks are threads, which can pass memory to each
/// other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts {
    /// The host of each rank, numbered in the order of their lowest ranks.
    of: Vec<usize>,
    /// The ranks of each host, ascending.
    members: Vec<Vec<usize>>,
    /// All of them are processes of one machine.
    together: bool,
}

impl Hosts {
    /// From something that is equal for ranks that share a host.
    pub fn new<T: Eq + Hash>(of: impl IntoIterator<Item = T>) -> Self {
        let mut numbers: FxHashMap<T, usize> = FxHashMap::default();
        let mut hosts = Self { of: Vec::new(), members: Vec::new(), together: false };
        for (rank, name) in of.into_iter().enumerate() {
            let next = numbers.len();
            let host = *numbers.entry(name).or_insert(next);
            if host == next {
                hosts.members.push(Vec::new());
            }
            hosts.of.push(host);
            hosts.members[host].push(rank);
        }
        hosts
    }

    /// Each rank for itself.
    #[must_use]
    pub fn apart(size: usize) -> Self {
        let members = (0..size).map(|rank| vec![rank]).collect();
        Self { of: (0..size).collect(), members, together: false }
    }

    /// The same, of which it is known whether all of them are processes of one machine.
    #[must_use]
    pub fn on_one_machine(self, together: bool) -> Self {
        Self { together, ..self }
    }

    /// Whether all of them are known to be processes of one machine.
    #[must_use]
    pub fn is_one_machine(&self) -> bool {
        self.together || self.count() == 1
    }

    /// How many hosts there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// The host of a rank.
    #[must_use]
    pub fn of(&self, rank: usize) -> usize {
        self.of[rank]
    }

    /// The ranks of a host, ascending. The first is its leader.
    #[must_use]
    pub fn members(&self, host: usize) -> &[usize] {
        &self.members[host]
    }

    /// The lowest rank of each host.
    pub fn leaders(&self) -> impl Iterator<Item = usize> {
        self.members.iter().map(|members| members[0])
    }

    /// Whether some host has several ranks, and there are several hosts: then two levels are worth a thought.
    #[must_use]
    pub fn is_two_level(&self) -> bool {
        self.count() > 1 && self.count() < self.of.len()
    }

    /// Whether the ranks of each host follow one another.
    #[must_use]
    pub fn is_consecutive(&self) -> bool {
        self.of.is_sorted()
    }
}

/// Part `index` of `count` elements that are divided among so many parts as evenly as possible.
#[must_use]
pub fn share(count: usize, parts: usize, index: usize) -> Range<usize> {
    let start = |index| count / parts * index + (count % parts).min(index);
    start(index)..start(index + 1)
}

/// Parts `from..to` of them, which lie side by side.
#[must_use]
pub fn shares(count: usize, parts: usize, range: Range<usize>) -> Range<usize> {
    share(count, parts, range.start).start..share(count, parts, range.end).start
}

/// Blocks of these lengths, one after the other: what the `v` operations take.
///
/// ```
/// assert_eq!(river_mpi::coll::consecutive(&[2, 0, 3]), [0..2, 2..2, 2..5]);
/// ```
#[must_use]
pub fn consecutive(counts: &[usize]) -> Vec<Range<usize>> {
    let mut end = 0;
    let block = |count: &usize| {
        let start = end;
        end += count;
        start..end
    };
    counts.iter().map(block).collect()
}

/// The smallest `k` with `2^k >= n`.
#[must_use]
pub fn log2_ceil(n: usize) -> u32 {
    n.next_power_of_two().trailing_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_everything_once_and_evenly() {
        for count in 0..20 {
            for parts in 1..8 {
                let all: Vec<usize> = (0..parts).flat_map(|index| share(count, parts, index)).collect();
                assert_eq!(all, (0..count).collect::<Vec<_>>());
                assert!((0..parts).all(|i| share(count, parts, i).len().abs_diff(count / parts) <= 1));
                assert_eq!(shares(count, parts, 0..parts), 0..count);
            }
        }
    }

    #[test]
    fn hosts_are_numbered_by_their_lowest_rank() {
        let hosts = Hosts::new(["b", "a", "b", "c"]);
        assert_eq!((0..4).map(|rank| hosts.of(rank)).collect::<Vec<_>>(), [0, 1, 0, 2]);
        assert_eq!(hosts.members(0), [0, 2]);
        assert_eq!(hosts.leaders().collect::<Vec<_>>(), [0, 1, 3]);
        assert!(hosts.is_two_level() && !hosts.is_consecutive());
        assert!(!Hosts::apart(3).is_two_level() && !Hosts::new([0, 0, 0]).is_two_level());
        assert_eq!(Hosts::apart(3), Hosts::new([7, 8, 9]));
    }

    #[test]
    fn logarithms() {
        assert_eq!([1, 2, 3, 4, 5, 8, 9].map(log2_ceil), [0, 1, 2, 2, 3, 3, 4]);
    }
}
