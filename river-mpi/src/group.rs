//! Groups: ordered sets of ranks.

use std::fmt;
use std::rc::Rc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::error::{MpiError, Result};

/// The result of comparing two groups, or the groups of two communicators (MPI 1.3, sections 5.3.1 and 5.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The same communicator, or groups with the same members in the same order.
    Identical,
    /// Two communicators with the same members in the same order.
    Congruent,
    /// The same members in another order.
    Similar,
    /// Different members.
    Unequal,
}

/// An ordered set of processes; a member's position is its rank. Cheap to clone.
///
/// ```
/// # river_mpi::testing::world(4, |world| {
/// let even = world.group().include(&[0, 2])?;
/// let odd = world.group().difference(&even);
/// assert_eq!((even.size(), odd.size()), (2, 2));
/// assert_eq!(odd.translate(&[1], &world.group())?, [Some(3)]);
/// # Ok(()) });
/// ```
///
/// # Standard section
/// MPI 1.3, section 5.3.
#[derive(Clone, PartialEq, Eq)]
pub struct Group {
    /// The members' ranks in the world.
    members: Rc<[u32]>,
}

impl Group {
    pub(crate) fn of(members: impl Into<Rc<[u32]>>) -> Self {
        Self { members: members.into() }
    }

    /// Returns a group without members.
    #[must_use]
    pub fn empty() -> Self {
        Self::of([])
    }

    /// The number of members.
    #[must_use]
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// Whether the group has no members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(crate) fn members(&self) -> &Rc<[u32]> {
        &self.members
    }

    pub(crate) fn world_rank(&self, rank: usize) -> Option<u32> {
        self.members.get(rank).copied()
    }

    pub(crate) fn rank_of(&self, world_rank: u32) -> Option<usize> {
        // Usually the group is the world itself.
        if self.members.get(world_rank as usize) == Some(&world_rank) {
            return Some(world_rank as usize);
        }
        self.members.iter().position(|&member| member == world_rank)
    }

    /// The members of at least one of the groups: first those of this group, then those that are only in the other.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let (mut members, mine) = (self.members.to_vec(), self.set());
        members.extend(other.members.iter().filter(|member| !mine.contains(member)));
        Self::of(members)
    }

    /// The members of both, in this group's order.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let theirs = other.set();
        self.filter(|member| theirs.contains(&member))
    }

    /// The members of this group that are not in the other, in this group's order.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let theirs = other.set();
        self.filter(|member| !theirs.contains(&member))
    }

    /// The members with these ranks, in the order of `ranks`.
    ///
    /// # Errors
    /// [`MpiError::Group`] if a rank is not in the group, or named twice.
    pub fn include(&self, ranks: &[usize]) -> Result<Self> {
        self.check(ranks)?;
        Ok(Self::of(ranks.iter().filter_map(|&rank| self.world_rank(rank)).collect::<Vec<_>>()))
    }

    /// All members except those with these ranks, in this group's order.
    ///
    /// # Errors
    /// Those of [`include`](Self::include).
    pub fn exclude(&self, ranks: &[usize]) -> Result<Self> {
        let without = self.include(ranks)?;
        Ok(self.difference(&without))
    }

    /// Like [`include`](Self::include), for ranks given as triplets (first, last, stride).
    ///
    /// # Errors
    /// Those of [`include`](Self::include), and if a stride is 0.
    pub fn range_include(&self, ranges: &[(usize, usize, isize)]) -> Result<Self> {
        self.include(&self.expand(ranges)?)
    }

    /// Like [`exclude`](Self::exclude), for ranks given as triplets (first, last, stride).
    ///
    /// # Errors
    /// Those of [`range_include`](Self::range_include).
    pub fn range_exclude(&self, ranges: &[(usize, usize, isize)]) -> Result<Self> {
        self.exclude(&self.expand(ranges)?)
    }

    /// The ranks of members of this group in another group; `None` for those that are not in it.
    ///
    /// # Errors
    /// [`MpiError::Group`] if a rank is not in this group.
    pub fn translate(&self, ranks: &[usize], other: &Self) -> Result<Vec<Option<usize>>> {
        let theirs: FxHashMap<u32, usize> = other.members.iter().copied().zip(0..).collect();
        let translate = |&rank: &usize| {
            let member = self.world_rank(rank).ok_or_else(|| self.missing(rank))?;
            Ok(theirs.get(&member).copied())
        };
        ranks.iter().map(translate).collect()
    }

    /// Compares two groups: the result is identical, similar or unequal.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Comparison {
        if self.members == other.members {
            Comparison::Identical
        } else if self.size() == other.size() && self.set() == other.set() {
            Comparison::Similar
        } else {
            Comparison::Unequal
        }
    }

    fn set(&self) -> FxHashSet<u32> {
        self.members.iter().copied().collect()
    }

    fn filter(&self, keep: impl Fn(u32) -> bool) -> Self {
        Self::of(self.members.iter().copied().filter(|&member| keep(member)).collect::<Vec<_>>())
    }

    fn check(&self, ranks: &[usize]) -> Result {
        let mut seen = vec![false; self.size()];
        for &rank in ranks {
            let seen = seen.get_mut(rank).ok_or_else(|| self.missing(rank))?;
            if std::mem::replace(seen, true) {
                return Err(MpiError::Group(format!("rank {rank} is named twice")));
            }
        }
        Ok(())
    }

    fn expand(&self, ranges: &[(usize, usize, isize)]) -> Result<Vec<usize>> {
        let mut ranks = Vec::new();
        for &(first, last, stride) in ranges {
            if stride == 0 {
                return Err(MpiError::Arg("the stride of a range of ranks is 0".into()));
            }
            let mut rank = first;
            while if stride > 0 { rank <= last } else { rank >= last } {
                ranks.push(rank);
                if rank >= self.size() || ranks.len() > self.size() {
                    // The caller reports the error. Checking here keeps an invalid range from filling the memory.
                    return Ok(ranks);
                }
                match rank.checked_add_signed(stride) {
                    Some(next) => rank = next,
                    None => break,
                }
            }
        }
        Ok(ranks)
    }

    fn missing(&self, rank: usize) -> MpiError {
        MpiError::Group(format!("there is no rank {rank} in a group of {}", self.size()))
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Group{:?}", self.members)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn group() -> impl Strategy<Value = Group> {
        prop::sample::subsequence((0..8_u32).collect::<Vec<_>>(), 0..8).prop_shuffle().prop_map(Group::of)
    }

    proptest! {
        #[test]
        fn set_operations_are_those_of_sets(a in group(), b in group()) {
            let set = |group: &Group| group.members.iter().copied().collect::<std::collections::BTreeSet<u32>>();
            prop_assert_eq!(set(&a.union(&b)), &set(&a) | &set(&b));
            prop_assert_eq!(set(&a.intersection(&b)), &set(&a) & &set(&b));
            prop_assert_eq!(set(&a.difference(&b)), &set(&a) - &set(&b));
            prop_assert_eq!(a.union(&b).size(), a.size() + b.size() - a.intersection(&b).size());
            // The members of the first group come first, in their order, and then those of the second.
            prop_assert!(a.union(&b).members.starts_with(&a.members));
            prop_assert_eq!(a.compare(&b) != Comparison::Unequal, set(&a) == set(&b));
        }
    }

    #[test]
    fn ranges_go_both_ways() {
        let group = Group::of((0..10_u32).collect::<Vec<_>>());
        assert_eq!(&*group.range_include(&[(0, 8, 4), (9, 7, -2)]).unwrap().members, [0, 4, 8, 9, 7]);
        assert_eq!(&*group.range_exclude(&[(1, 9, 2)]).unwrap().members, [0, 2, 4, 6, 8]);
        assert!(group.range_include(&[(0, 1, 0)]).is_err());
        assert!(group.include(&[1, 1]).is_err());
        assert!(group.include(&[10]).is_err());
        assert_eq!(Group::empty().size(), 0);
    }
}
