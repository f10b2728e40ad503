//! Who may wait at the gate of a process: a bounded number of connections that have not finished their handshake.
//!
//! When there are too many, the oldest that has said nothing valid goes first; who holds the key (or a recording of
//! somebody who does) is sent away only when there are none of these. So a flood of connections from strangers, however
//! large, costs a bounded amount of memory and keeps nobody out who has the key.

use std::collections::VecDeque;

/// Connections whose handshake is under way; `T` is how to end one.
#[derive(Debug)]
pub(super) struct Gate<T> {
    limit: usize,
    next: u64,
    /// Oldest first.
    silent: VecDeque<(u64, T)>,
    /// Those whose first message was valid.
    known: VecDeque<(u64, T)>,
}

impl<T> Gate<T> {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, next: 0, silent: VecDeque::new(), known: VecDeque::new() }
    }

    /// Lets a connection wait, under a number; returns the one that has to go for it.
    pub(super) fn enter(&mut self, connection: T) -> (u64, Option<T>) {
        let full = self.silent.len() + self.known.len() >= self.limit;
        let evicted = if full { self.silent.pop_front().or_else(|| self.known.pop_front()) } else { None };
        self.next += 1;
        self.silent.push_back((self.next, connection));
        (self.next, evicted.map(|(_, connection)| connection))
    }

    /// The oldest that has said nothing valid has to go, as there is no room for what comes.
    pub(super) fn evict(&mut self) -> Option<T> {
        self.silent.pop_front().map(|(_, connection)| connection)
    }

    /// The connection's first message was valid.
    pub(super) fn recognize(&mut self, number: u64) {
        if let Some(at) = self.silent.iter().position(|(n, _)| *n == number) {
            self.known.extend(self.silent.remove(at));
        }
    }

    /// The connection's handshake is over. False: it had to go before.
    pub(super) fn leave(&mut self, number: u64) -> bool {
        for queue in [&mut self.silent, &mut self.known] {
            if let Some(at) = queue.iter().position(|(n, _)| *n == number) {
                queue.remove(at);
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn strangers_go_first_and_the_oldest_of_them() {
        let mut gate = Gate::new(3);
        let (friend, none) = gate.enter("friend");
        assert_eq!(none, None);
        gate.recognize(friend);
        assert_eq!(gate.enter("a").1, None);
        assert_eq!(gate.enter("b").1, None);
        assert_eq!(gate.enter("c").1, Some("a"));
        assert_eq!(gate.enter("d").1, Some("b"));
        assert_eq!([gate.evict(), gate.evict(), gate.evict()], [Some("c"), Some("d"), None]);
        assert!(gate.leave(friend));
        assert!(!gate.leave(friend));
    }

    #[test]
    fn even_friends_are_not_without_limit() {
        let mut gate = Gate::new(2);
        for name in ["a", "b"] {
            let (number, _) = gate.enter(name);
            gate.recognize(number);
        }
        assert_eq!(gate.enter("c").1, Some("a"));
    }

    proptest! {
        #[test]
        fn no_more_wait_than_allowed(steps in prop::collection::vec((0..3, 0..100_u64), 0..300)) {
            let mut gate = Gate::new(5);
            let mut waiting = std::collections::HashSet::new();
            for (step, number) in steps {
                match step {
                    0 => {
                        let (number, evicted) = gate.enter(gate.next + 1);
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
