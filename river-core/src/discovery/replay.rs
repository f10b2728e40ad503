//! Limits how often a VM answers the same probe.
//!
//! A searcher sends its probe several times, over several paths, with one nonce. An attacker who has recorded the probe can
//! replay it from any address; the answers, which it could have recorded as well, then go there. So a VM counts answers per
//! nonce, and after a fixed number of them ignores the nonce. A probe carries no timestamp, since the clocks of machines
//! differ, and a VM that is not found because of its clock would be a riddle. The memory for nonces is bounded, so a
//! recorded probe is answered again once enough other probes have been answered; so replays never cause more answers than
//! the cluster's own searches do.

use std::collections::{HashMap, VecDeque};

use crate::discovery::probe::HEADER_LEN;

/// The number of sendings of one search, times the number of paths to a VM with a few interfaces.
const ANSWERS: u8 = 32;
const REMEMBERED: usize = 4096;

/// The nonces of the probes that were answered most recently.
#[derive(Debug, Default)]
pub(crate) struct Replays {
    answered: HashMap<[u8; 16], u8>,
    order: VecDeque<[u8; 16]>,
}

impl Replays {
    /// Whether an authentic probe may be answered (again).
    pub(crate) fn admit(&mut self, probe: &[u8]) -> bool {
        let Some(nonce) = probe.get(..HEADER_LEN).and_then(|header| header.last_chunk::<16>()) else {
            return false;
        };
        if let Some(count) = self.answered.get_mut(nonce) {
            *count = count.saturating_add(1);
            return *count <= ANSWERS;
        }
        if self.order.len() == REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.answered.remove(&oldest);
        }
        self.order.push_back(*nonce);
        self.answered.insert(*nonce, 1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(number: u64) -> Vec<u8> {
        let mut probe = vec![0; HEADER_LEN + 100];
        probe[HEADER_LEN - 8..HEADER_LEN].copy_from_slice(&number.to_le_bytes());
        probe
    }

    #[test]
    fn a_replayed_probe_is_answered_a_handful_of_times() {
        let mut replays = Replays::default();
        let answers = (0..10_000).filter(|_| replays.admit(&probe(7))).count();
        assert_eq!(answers, usize::from(ANSWERS));
        assert!(replays.admit(&probe(8)));
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut replays = Replays::default();
        for number in 0..3 * REMEMBERED as u64 {
            assert!(replays.admit(&probe(number)));
        }
        assert_eq!((replays.answered.len(), replays.order.len()), (REMEMBERED, REMEMBERED));
        assert!(!replays.admit(&[0; 3]));
    }
}
