//! What a recoverable VR uses instead of nondeterministic operations: the time, random numbers, and everything else that it
//! reads from the outside world or does to it.

use std::convert::Infallible;
use std::time::{Duration, Instant, SystemTime};

use rand_core::TryRng;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Vr;
use crate::error::StateError;
use crate::state::Call;

impl Vr {
    /// Returns the time. A recoverable VR must use no other clock.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.remember(Call::Now, SystemTime::now).unwrap_or_else(|_| SystemTime::now())
    }

    /// Returns for how long this VR has been running: a monotonic clock, for measuring. A recoverable VR must use no other
    /// one. The time between a checkpoint and its restoration does not count.
    ///
    /// ```
    /// # river_core::testing::threads(1, |vr, _, _| {
    /// let start = vr.uptime();
    /// std::thread::sleep(std::time::Duration::from_millis(2));
    /// assert!((vr.uptime() - start).as_millis() >= 2);
    /// # });
    /// ```
    #[must_use]
    pub fn uptime(&self) -> Duration {
        let (before, then) = self.clock.get();
        let Some(journal) = &self.journal else { return before + then.elapsed() };
        // A divergence is reported by the next call.
        let Ok((uptime, live)) = journal.recorder.uptime(|| before + then.elapsed()) else { return before };
        if live {
            self.go_live(journal);
        } else {
            self.clock.set((uptime, Instant::now()));
        }
        uptime
    }

    /// Returns a random number generator, for use with the crates `rand` and `rand_distr`. It is seeded differently for every
    /// VR, and repeats its numbers when a recoverable VR is replayed. Not for secrets.
    ///
    /// ```
    /// use rand_core::Rng;
    ///
    /// # river_core::testing::threads(1, |vr, _, _| {
    /// let (a, b) = (vr.rng().next_u64(), vr.rng().next_u64());
    /// assert_ne!(a, b);
    /// # });
    /// ```
    #[must_use]
    pub fn rng(&self) -> Random<'_> {
        Random(self)
    }

    /// Does something that is not deterministic, or that must not be repeated: reads a file, queries the machine, prints.
    /// When a recoverable VR is replayed it gets the recorded result, and `act` is not called.
    ///
    /// If the VR is restored from a state in which `act` was running, `act` is called again.
    ///
    /// # Errors
    /// [`StateError::Value`] if the result cannot be encoded; [`StateError::Diverged`].
    ///
    /// ```
    /// # river_core::testing::threads(1, |vr, _, _| {
    /// let cores = vr.effect(|| std::thread::available_parallelism().map_or(1, |n| n.get())).unwrap();
    /// assert!(cores >= 1);
    /// # });
    /// ```
    pub fn effect<T: Serialize + DeserializeOwned>(&self, act: impl FnOnce() -> T) -> Result<T, StateError> {
        self.remember(Call::Effect, act)
    }
}

/// A VR's random number generator: see [`Vr::rng`].
#[derive(Debug)]
pub struct Random<'a>(&'a Vr);

impl TryRng for Random<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.0.random.borrow_mut().try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0.random.borrow_mut().try_next_u64()
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.0.random.borrow_mut().try_fill_bytes(out)
    }
}
