//! Translates another process's clock to the initiator's, by exchanges of messages as in NTP.
//!
//! An exchange has four times: asked (our clock), heard and answered (theirs), told (ours). The other clock is ahead by
//! `(heard - asked + answered - told) / 2`, with an error of at most half of the time that the messages took. So only the
//! fastest exchange of each stretch of time counts (more than one is needed since clocks drift), and the offset is
//! interpolated in between.

use serde::{Deserialize, Serialize};

/// One exchange with another process, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// When we asked, by our clock.
    pub(crate) asked: u64,
    /// When the question arrived, by their clock.
    pub(crate) heard: u64,
    /// When it was answered, by their clock.
    pub(crate) answered: u64,
    /// When the answer arrived, by our clock.
    pub(crate) told: u64,
}

impl Sample {
    /// How far their clock is ahead.
    fn offset(&self) -> i128 {
        let [asked, heard, answered, told] =
            [self.asked, self.heard, self.answered, self.told].map(i128::from);
        (heard - asked + answered - told) / 2
    }

    /// How long the messages took, both ways.
    fn on_the_way(&self) -> u64 {
        self.told.saturating_sub(self.asked).saturating_sub(self.answered.saturating_sub(self.heard))
    }

    fn makes_sense(&self) -> bool {
        self.told >= self.asked
            && self.answered >= self.heard
            && self.told - self.asked >= self.answered - self.heard
    }
}

/// The length of a stretch, of which only the best exchange counts.
const STRETCH: u64 = 10_000_000_000;

/// Another process's clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    /// (their time, how far they are ahead), by time.
    known: Vec<(u64, i128)>,
    /// The maximum error of the offset.
    error: u64,
}

impl Clock {
    /// `same` means that both processes report the same kernel. If so, they share one clock, unless the exchanges
    /// contradict that.
    pub(crate) fn new(samples: &[Sample], same: bool) -> Self {
        let sound = samples.iter().filter(|sample| sample.makes_sense());
        let one = same
            && sound
                .clone()
                .all(|sample| sample.offset().unsigned_abs() <= u128::from(sample.on_the_way() / 2 + 1));
        if one {
            return Self::default();
        }
        let mut best: Vec<Sample> = Vec::new();
        let mut sorted: Vec<&Sample> = sound.collect();
        sorted.sort_by_key(|sample| sample.heard);
        let begin = sorted.first().map_or(0, |sample| sample.heard);
        let mut stretch = None;
        for sample in sorted {
            let number = (sample.heard - begin) / STRETCH;
            match best.last_mut() {
                Some(last) if stretch == Some(number) => {
                    if sample.on_the_way() < last.on_the_way() {
                        *last = *sample;
                    }
                }
                _ => best.push(*sample),
            }
            stretch = Some(number);
        }
        let error = best.iter().map(|sample| sample.on_the_way() / 2).max().unwrap_or(0);
        let middle = |sample: &Sample| sample.heard + (sample.answered - sample.heard) / 2;
        Self { known: best.iter().map(|sample| (middle(sample), sample.offset())).collect(), error }
    }

    /// Translates their time to our clock.
    pub(crate) fn ours(&self, theirs: u64) -> u64 {
        let next = self.known.partition_point(|(at, _)| *at <= theirs);
        let offset = match (next.checked_sub(1).map(|i| self.known[i]), self.known.get(next)) {
            (None, None) => 0,
            (Some((_, offset)), None) | (None, Some(&(_, offset))) => offset,
            (Some((a, before)), Some(&(b, after))) => {
                before + (after - before).saturating_mul(i128::from(theirs - a)) / i128::from((b - a).max(1))
            }
        };
        u64::try_from((i128::from(theirs) - offset).max(0)).unwrap_or(u64::MAX)
    }

    /// The maximum error of [`ours`](Self::ours), in nanoseconds.
    pub(crate) fn error(&self) -> u64 {
        self.error
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Another clock: ahead by `ahead`, and fast by `drift` parts per million.
    fn theirs(ours: u64, ahead: i64, drift: i64) -> u64 {
        let ours = i128::from(ours);
        u64::try_from(ours + i128::from(ahead) + ours * i128::from(drift) / 1_000_000).unwrap()
    }

    proptest! {
        /// Whatever the delays, the error of a translated time is within what the delays and the drift between exchanges
        /// allow.
        #[test]
        fn is_right_within_the_bound_that_it_tells(
            ahead in -(50 * SECOND as i64)..50 * SECOND as i64,
            drift in -50i64..50,
            delays in prop::collection::vec((1_000u64..5_000_000, 1_000u64..5_000_000, 0u64..100_000), 1..120),
        ) {
            let samples: Vec<Sample> = delays.iter().enumerate().map(|(i, (there, back, inside))| {
                let asked = 100 * SECOND + i as u64 * SECOND;
                let at = |ours| theirs(ours, ahead, drift);
                let told = asked + there + inside + back;
                Sample { asked, heard: at(asked + there), answered: at(asked + there + inside), told }
            }).collect();
            let clock = Clock::new(&samples, false);
            // Drift moves the best exchanges of two neighbouring stretches apart by at most this much.
            let bound = clock.error() + 20 * SECOND / 1_000_000 * 50 + 1_000;
            for second in 100..100 + delays.len() as u64 {
                let ours = second * SECOND;
                let told = clock.ours(theirs(ours, ahead, drift));
                prop_assert!(told.abs_diff(ours) <= bound, "{told} for {ours}, allowed {bound}");
            }
        }

        #[test]
        fn what_makes_no_sense_does_no_harm(
            samples in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()), 0..20),
            same: bool, at: u64,
        ) {
            let sample = |(asked, heard, answered, told)| Sample { asked, heard, answered, told };
            let samples: Vec<Sample> = samples.into_iter().map(sample).collect();
            Clock::new(&samples, same).ours(at);
        }
    }

    #[test]
    fn one_kernel_has_one_clock_unless_it_cannot_be() {
        let near = Sample { asked: 1000, heard: 1900, answered: 1950, told: 2000 };
        assert_eq!(Clock::new(&[near], true).ours(5000), 5000);
        assert_ne!(Clock::new(&[near], false).ours(5000), 5000);
        let shifted = Sample { asked: 1000, heard: 9_001_100, answered: 9_001_150, told: 1250 };
        assert_eq!(Clock::new(&[shifted], true).ours(9_001_125), 1125);
    }
}
