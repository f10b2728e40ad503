//! Reduces the number of ranks to a power of two, for algorithms that need one.
//!
//! Let `r` be the number of ranks minus the largest power of two that is not larger. The first `2 r` ranks form pairs of
//! neighbours; in each pair one rank sends its data to the other, which takes part for both. Since pairs are neighbours, the
//! order of the ranks is kept.
//!
//! R. Thakur, R. Rabenseifner, W. Gropp: Optimization of Collective Communication Operations in MPICH (2005),
//! 4.4.

use super::plan::{Plan, Side};
use super::span::Span;

/// Which ranks take part, and under which numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fold {
    extra: usize,
    /// The number of ranks that take part: the largest power of two that is not larger than the number of ranks.
    pub(super) size: usize,
    /// This rank takes part if it belongs to a pair; of every other pair the higher rank does.
    kept: Option<usize>,
}

impl Fold {
    pub(super) fn new(ranks: usize) -> Self {
        let size = 1 << ranks.ilog2();
        Self { extra: ranks - size, size, kept: None }
    }

    /// A fold in which that rank takes part.
    pub(super) fn keeping(ranks: usize, rank: usize) -> Self {
        Self { kept: Some(rank), ..Self::new(ranks) }
    }

    /// The other rank of a rank's pair.
    pub(super) fn partner(&self, rank: usize) -> Option<usize> {
        (rank < 2 * self.extra).then_some(rank ^ 1)
    }

    /// The number under which a rank takes part.
    pub(super) fn number(&self, rank: usize) -> Option<usize> {
        match self.partner(rank) {
            None => Some(rank - self.extra),
            Some(_) => (self.rank(rank / 2) == rank).then_some(rank / 2),
        }
    }

    /// The rank that takes part under a number.
    pub(super) fn rank(&self, number: usize) -> usize {
        if number >= self.extra {
            return number + self.extra;
        }
        match self.kept {
            Some(kept) if kept / 2 == number => kept,
            _ => 2 * number + 1,
        }
    }

    /// Begins a reduction: the ranks that do not take part hand over their input. Returns the number of this rank and where
    /// its data then lies; `None` if it does not take part.
    pub(super) fn reduce(
        &self,
        plan: &mut Plan,
        rank: usize,
        data: Span,
        into: Span,
    ) -> Option<(usize, Span)> {
        let Some(number) = self.number(rank) else {
            plan.send(data, rank ^ 1);
            return None;
        };
        let Some(partner) = self.partner(rank) else { return Some((number, data)) };
        plan.recv_reduce(Side::of(partner, rank), data, into, partner);
        Some((number, into))
    }

    /// Ends an operation whose result all ranks get.
    pub(super) fn give_back(&self, plan: &mut Plan, rank: usize, result: Span) {
        match (self.partner(rank), self.number(rank)) {
            (Some(partner), Some(_)) => plan.send(result, partner),
            (Some(partner), None) => plan.recv(result, partner),
            (None, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_of_two_takes_part_in_the_order_of_the_ranks() {
        for ranks in 1..40 {
            for kept in 0..ranks {
                let fold = Fold::keeping(ranks, kept);
                assert!(fold.size.is_power_of_two() && fold.size <= ranks && 2 * fold.size > ranks);
                assert!(fold.number(kept).is_some());
                let taking: Vec<usize> = (0..ranks).filter(|&rank| fold.number(rank).is_some()).collect();
                assert_eq!(taking, (0..fold.size).map(|number| fold.rank(number)).collect::<Vec<_>>());
                assert!(taking.iter().enumerate().all(|(number, &rank)| fold.number(rank) == Some(number)));
            }
        }
    }
}
