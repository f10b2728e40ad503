//! A failure detector: judges whether a peer is alive by how long it has been silent. Suspicion is not death: a machine may
//! be overloaded for a while.
//!
//! A state machine without a clock: the caller passes the current time.

use std::time::{Duration, Instant};

/// After a silence of this length, a peer is suspected, and the user is told.
pub(super) const SUSPECT: Duration = Duration::from_secs(3);
/// After a silence of this length, a peer counts as dead, whatever it does later.
pub(super) const DEAD: Duration = Duration::from_secs(8);

#[derive(Clone, Copy, Debug)]
pub(super) struct Pulse {
    heard: Instant,
    suspected: bool,
}

/// What has changed since the last judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Suspected,
    Recovered,
    Dead,
}

impl Pulse {
    pub(super) fn new(now: Instant) -> Self {
        Self { heard: now, suspected: false }
    }

    /// Notes a sign of life from the peer.
    pub(super) fn beat(&mut self, now: Instant) {
        self.heard = now;
    }

    /// How long the peer has been silent, and whether that is suspicious.
    pub(super) fn silence(&self, now: Instant) -> (Duration, bool) {
        let silence = now.saturating_duration_since(self.heard);
        (silence, silence >= SUSPECT)
    }

    /// Judges the peer. `deaf` is how much longer than usual this process itself was not running: silence during that time
    /// is not held against the peer.
    pub(super) fn look(&mut self, now: Instant, deaf: Duration) -> Change {
        self.heard += deaf;
        let silence = now.saturating_duration_since(self.heard);
        let suspected = silence >= SUSPECT;
        if silence >= DEAD {
            return Change::Dead;
        }
        let change = match (self.suspected, suspected) {
            (false, true) => Change::Suspected,
            (true, false) => Change::Recovered,
            _ => Change::None,
        };
        self.suspected = suspected;
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn silence_is_suspected_first_and_then_is_death() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        let changes: Vec<Change> = (1..=8).map(|i| pulse.look(start + SECOND * i, Duration::ZERO)).collect();
        assert_eq!(changes[..2], [Change::None; 2]);
        assert_eq!(changes[2], Change::Suspected);
        assert_eq!(changes[3..7], [Change::None; 4]);
        assert_eq!(changes[7], Change::Dead);
    }

    #[test]
    fn who_is_heard_of_again_has_recovered() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        assert_eq!(pulse.look(start + SECOND * 5, Duration::ZERO), Change::Suspected);
        pulse.beat(start + SECOND * 6);
        assert_eq!(pulse.look(start + SECOND * 7, Duration::ZERO), Change::Recovered);
    }

    #[test]
    fn who_did_not_listen_suspects_nobody() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        assert_eq!(pulse.look(start + SECOND * 61, SECOND * 60), Change::None);
        assert_eq!(pulse.look(start + SECOND * 64, Duration::ZERO), Change::Suspected);
    }
}
