//! An index of the waiting envelopes by lane: those of one lane are found without a scan of the others.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::slice;

use crate::envelope::Channel;

/// Arrival numbers per lane, oldest first.
#[derive(Debug, Default)]
pub(super) struct Lanes(HashMap<LaneKey, Lane, BuildHasherDefault<LaneHasher>>);

impl Lanes {
    pub(super) fn insert(&mut self, channel: Channel, lane: u64, number: u64) {
        let lane = self.0.entry(LaneKey::new(channel, lane));
        lane.and_modify(|lane| lane.insert(number)).or_insert(Lane::One(number));
    }

    /// Returns the numbers of a lane.
    pub(super) fn of(&self, channel: Channel, lane: u64) -> impl Iterator<Item = u64> {
        let (first, second) = match self.0.get(&LaneKey::new(channel, lane)) {
            None => (&[][..], &[][..]),
            Some(Lane::One(number)) => (slice::from_ref(number), &[][..]),
            Some(Lane::Many(numbers)) => numbers.as_slices(),
        };
        first.iter().chain(second).copied()
    }

    /// Removes and returns the first number of a lane for which `take` returns `true`.
    pub(super) fn take(&mut self, channel: Channel, lane: u64, take: impl FnMut(u64) -> bool) -> Option<u64> {
        let Entry::Occupied(mut entry) = self.0.entry(LaneKey::new(channel, lane)) else { return None };
        let (number, is_empty) = entry.get_mut().take(take);
        if is_empty {
            entry.remove();
        }
        number
    }

    /// Removes a number of a lane.
    pub(super) fn remove(&mut self, channel: Channel, lane: u64, number: u64) {
        self.take(channel, lane, |other| other == number);
    }
}

/// The key of a lane of a channel. Two lanes with the same key only cost time, as every envelope is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct LaneKey(u64);

impl LaneKey {
    fn new(channel: Channel, lane: u64) -> Self {
        Self(lane ^ (u64::from(channel.to_wire()) << 32))
    }
}

/// Lanes are hashes or counters, so one multiplication spreads them. Only a holder of the cluster key can choose one.
#[derive(Debug, Default)]
struct LaneHasher(u64);

impl Hasher for LaneHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(byte.into()));
    }

    fn write_u64(&mut self, key: u64) {
        let mixed = u128::from(self.0 ^ key) * 0x9e37_79b9_7f4a_7c15;
        self.0 = mixed as u64 ^ (mixed >> 64) as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The arrival numbers of a lane's envelopes, oldest first. Most lanes hold one, which needs no allocation.
#[derive(Debug)]
enum Lane {
    One(u64),
    #[expect(clippy::box_collection, reason = "most lanes are not this, and the index of many stays small")]
    Many(Box<VecDeque<u64>>),
}

impl Lane {
    fn insert(&mut self, number: u64) {
        match self {
            Lane::One(other) if *other == number => {}
            Lane::One(other) => {
                *self = Lane::Many(Box::new([number.min(*other), number.max(*other)].into()));
            }
            Lane::Many(numbers) => {
                // At the end, unless the envelope was given back.
                let at = numbers.partition_point(|&other| other < number);
                if numbers.get(at) != Some(&number) {
                    numbers.insert(at, number);
                }
            }
        }
    }

    /// Removes and returns the first number for which `take` returns `true`, and whether it was the last one.
    fn take(&mut self, mut take: impl FnMut(u64) -> bool) -> (Option<u64>, bool) {
        match self {
            Lane::One(number) => {
                let found = take(*number);
                (found.then_some(*number), found)
            }
            Lane::Many(numbers) => {
                let index = numbers.iter().position(|&number| take(number));
                (index.and_then(|index| numbers.remove(index)), numbers.is_empty())
            }
        }
    }
}
