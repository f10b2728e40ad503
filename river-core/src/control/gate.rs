//! The gate of a process: admits a bounded number of connections that have not finished their handshake.
//!
//! When there are too many, the oldest one that has sent nothing valid is dropped first; a peer that holds the key (or
//! replays a recording of one that does) is dropped only if there is no other. So a flood of connections from strangers,
//! however large, costs a bounded amount of memory and keeps out nobody who has the key.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long a connection may be silent before it may be dropped for lack of files, not only for lack of room at the gate.
const PATIENCE: Duration = Duration::from_secs(1);

/// Connections whose handshake is under way; `T` is a handle to end one.
#[derive(Debug)]
pub(super) struct Gate<T> {
    limit: usize,
    next: u64,
    /// Oldest first, with their arrival times.
    silent: VecDeque<(u64, Instant, T)>,
    /// Connections whose first message was valid.
    known: VecDeque<(u64, T)>,
}

impl<T> Gate<T> {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, next: 0, silent: VecDeque::new(), known: VecDeque::new() }
    }

    /// Admits a connection under a number; returns the one that must be dropped for it.
    pub(super) fn enter(&mut self, connection: T, now: Instant) -> (u64, Option<T>) {
        let full = self.silent.len() + self.known.len() >= self.limit;
        let evicted = if full { self.pop_silent().or_else(|| self.pop_known()) } else { None };
        self.next += 1;
        self.silent.push_back((self.next, now, connection));
        (self.next, evicted)
    }

    /// Drops the oldest connection that has sent nothing valid, because the process has no file left for a new one; unless it
    /// has had little time for that. The last file may be its own, and nobody else may want one.
    pub(super) fn evict(&mut self, now: Instant) -> Option<T> {
        let (_, since, _) = self.silent.front()?;
        if now.saturating_duration_since(*since) >= PATIENCE { self.pop_silent() } else { None }
    }

    fn pop_silent(&mut self) -> Option<T> {
        self.silent.pop_front().map(|(_, _, connection)| connection)
    }

    fn pop_known(&mut self) -> Option<T> {
        self.known.pop_front().map(|(_, connection)| connection)
    }

    /// Records that the connection's first message was valid.
    pub(super) fn recognize(&mut self, number: u64) {
        if let Some(at) = self.silent.iter().position(|(n, ..)| *n == number) {
            self.known.extend(self.silent.remove(at).map(|(number, _, connection)| (number, connection)));
        }
    }

    /// The connection's handshake is over. Returns `false` if the connection was dropped before.
    pub(super) fn leave(&mut self, number: u64) -> bool {
        let waiting = self.silent.len() + self.known.len();
        self.silent.retain(|(n, ..)| *n != number);
        self.known.retain(|(n, _)| *n != number);
        self.silent.len() + self.known.len() < waiting
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn strangers_go_first_and_the_oldest_of_them() {
        let (mut gate, now) = (Gate::new(3), Instant::now());
        let (friend, none) = gate.enter("friend", now);
        assert_eq!(none, None);
        gate.recognize(friend);
        assert_eq!(gate.enter("a", now).1, None);
        assert_eq!(gate.enter("b", now).1, None);
        assert_eq!(gate.enter("c", now).1, Some("a"));
        assert_eq!(gate.enter("d", now).1, Some("b"));
        let later = now + PATIENCE;
        assert_eq!([gate.evict(later), gate.evict(later), gate.evict(later)], [Some("c"), Some("d"), None]);
        assert!(gate.leave(friend));
        assert!(!gate.leave(friend));
    }

    #[test]
    fn even_friends_are_not_without_limit() {
        let (mut gate, now) = (Gate::new(2), Instant::now());
        for name in ["a", "b"] {
            let (number, _) = gate.enter(name, now);
            gate.recognize(number);
        }
        assert_eq!(gate.enter("c", now).1, Some("a"));
    }

    #[test]
    fn who_has_just_come_does_not_go_for_want_of_files() {
        let (mut gate, now) = (Gate::new(3), Instant::now());
        let (friend, _) = gate.enter("friend", now);
        assert_eq!(gate.evict(now + PATIENCE / 2), None);
        assert!(gate.leave(friend));
    }

    proptest! {
        #[test]
        fn no_more_wait_than_allowed(steps in prop::collection::vec((0..3, 0..100_u64), 0..300)) {
            let mut gate = Gate::new(5);
            let mut waiting = std::collections::HashSet::new();
            for (step, number) in steps {
                match step {
                    0 => {
                        let (number, evicted) = gate.enter(gate.next + 1, Instant::now());
                        if let Some(evicted) = evicted {
                            prop_assert!(waiting.remove(&evicted));
                        }
                        waiting.insert(number);
                    }
                    1 => gate.recognize(number),
                    _ => prop_assert_eq!(gate.leave(number), waiting.remove(&number)),
                }
                prop_assert!(waiting.len() <= 5);
                prop_assert_eq!(waiting.len(), gate.silent.len() + gate.known.len());
            }
        }
    }
}
