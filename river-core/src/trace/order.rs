//! Corrects the remaining clock errors, so that no arrow goes back in time.
//!
//! A receive that seems to be earlier than its send is moved behind it, and so are the following events of the same VR that
//! it would otherwise overtake: Lamport's rule applied to measured times, as in Rolf Rabenseifner's controlled logical
//! clock (1997). Events that are late enough keep their times. Nothing is moved to an earlier time.

use std::collections::HashMap;

use super::event::{Event, What};
use crate::id::VrId;

/// The least time that an arrow takes.
const LEAST: u64 = 1;

/// Corrects the events of all VRs, which must be sorted by [`Event::end`] within each VR. Returns how many were moved.
/// Takes time linear in the number of events.
pub(crate) fn correct(vrs: &mut [(VrId, Vec<Event>)]) -> usize {
    let index: HashMap<VrId, usize> = vrs.iter().enumerate().map(|(i, (id, _))| (*id, i)).collect();
    let number_of = |id: &VrId| index.get(id).map(|i| *i as u32);
    // A VR that has moved has more than one line.
    let own: Vec<u32> = vrs.iter().map(|(id, _)| index[id] as u32).collect();
    // The sends whose receives may be in the trace; none has a corrected time yet.
    let mut sent: HashMap<(u32, u32, u64), Option<u64>> = HashMap::new();
    for (from, (_, events)) in vrs.iter().enumerate() {
        for event in events {
            if let What::Send { to, seq, .. } = event.what
                && let Some(to) = number_of(&to)
            {
                sent.insert((own[from], to, seq), None);
            }
        }
    }
    let mut next = vec![0; vrs.len()];
    let mut last = vec![0; vrs.len()];
    let mut blocked: HashMap<(u32, u32, u64), usize> = HashMap::new();
    let mut ready: Vec<usize> = (0..vrs.len()).collect();
    let mut moved = 0;
    while let Some(vr) = ready.pop() {
        while let Some(event) = vrs[vr].1.get(next[vr]).copied() {
            let mut earliest: u64 = last[vr];
            let mut key = None;
            match event.what {
                What::Receive { from, seq, .. } => {
                    if let Some(from) = number_of(&from) {
                        let arrow = (from, own[vr], seq);
                        match sent.get(&arrow) {
                            Some(None) if blocked.insert(arrow, vr).is_none() => break,
                            Some(Some(at)) => earliest = earliest.max(at.saturating_add(LEAST)),
                            // Its send was dropped from the trace; or there are two receives of it, which is invalid.
                            _ => {}
                        }
                    }
                }
                What::Send { to, seq, .. } => key = number_of(&to).map(|to| (own[vr], to, seq)),
                _ => {}
            }
            let later = earliest.saturating_sub(event.end());
            if later > 0 {
                shift(&mut vrs[vr].1, next[vr], later);
                moved += 1;
            }
            last[vr] = vrs[vr].1[next[vr]].end();
            next[vr] += 1;
            if let Some(key) = key {
                sent.insert(key, Some(last[vr]));
                ready.extend(blocked.remove(&key));
            }
        }
    }
    moved
}

/// Moves an event to a later time. If what a wait was for is moved, the wait is extended.
fn shift(events: &mut [Event], index: usize, later: u64) {
    let event = &mut events[index];
    match &mut event.what {
        What::Wait { nanos, .. } | What::Span { nanos } => *nanos = nanos.saturating_add(later),
        _ => event.at = event.at.saturating_add(later),
    }
    let at = event.at;
    if let What::Receive { .. } = event.what
        && let Some(before) = index.checked_sub(1)
        && let What::Wait { nanos, .. } = &mut events[before].what
    {
        let end = events[before].at.saturating_add(*nanos);
        *nanos = nanos.saturating_add(at.saturating_sub(end).min(later));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::trace::event::Reason;

    /// A possible run: (who, what) in the order of true time, where `what` is a send to somebody, a receive of the oldest
    /// message that is there, or a wait.
    fn run(steps: &[(usize, usize, u64)], vrs: usize, skew: &[i64]) -> Vec<(VrId, Vec<Event>)> {
        let mut run: Vec<(VrId, Vec<Event>)> = (0..vrs).map(|_| (VrId::fresh(), Vec::new())).collect();
        let ids: Vec<VrId> = run.iter().map(|(id, _)| *id).collect();
        let mut under_way: HashMap<(usize, usize), (u64, u64)> = HashMap::new();
        let mut now = 1_000_000;
        for &(who, action, pause) in steps {
            let who = who % vrs;
            now += pause;
            let peer = action % vrs;
            let at = now.checked_add_signed(skew[who]).unwrap();
            let what = match action % 3 {
                0 => {
                    let sent = under_way.entry((who, peer)).or_default();
                    sent.0 += 1;
                    What::Send { to: ids[peer], seq: sent.0 - 1, bytes: 1 }
                }
                1 => {
                    let sent = under_way.entry((peer, who)).or_default();
                    if sent.0 == sent.1 {
                        continue;
                    }
                    sent.1 += 1;
                    What::Receive { from: ids[peer], seq: sent.1 - 1, bytes: 1 }
                }
                _ => What::Wait { reason: Reason::Receive, on: None, nanos: 0 },
            };
            run[who].1.push(Event { at, what, label: 0 });
        }
        run
    }

    fn violations(run: &[(VrId, Vec<Event>)]) -> usize {
        let mut sent = HashMap::new();
        for (from, events) in run {
            for event in events {
                if let What::Send { to, seq, .. } = event.what {
                    sent.insert((*from, to, seq), event.at);
                }
            }
        }
        let backward = |to: VrId, event: &&Event| match event.what {
            What::Receive { from, seq, .. } => sent.get(&(from, to, seq)).is_some_and(|at| *at >= event.at),
            _ => false,
        };
        run.iter().map(|(to, events)| events.iter().filter(|event| backward(*to, event)).count()).sum()
    }

    proptest! {
        #[test]
        fn no_arrow_goes_back_and_nothing_gets_earlier(
            steps in prop::collection::vec((0..5usize, 0..60usize, 0..50u64), 0..200),
            skew in prop::collection::vec(-1000i64..1000, 5),
        ) {
            let before = run(&steps, 5, &skew);
            let mut after = before.clone();
            correct(&mut after);
            prop_assert_eq!(violations(&after), 0);
            for ((_, before), (_, after)) in before.iter().zip(&after) {
                prop_assert_eq!(before.len(), after.len());
                prop_assert!(before.iter().zip(after).all(|(before, after)| before.end() <= after.end()));
                prop_assert!(after.windows(2).all(|pair| pair[0].end() <= pair[1].end()));
            }
            let corrected = after.clone();
            prop_assert_eq!(correct(&mut after), 0);
            prop_assert_eq!(after, corrected);
        }

        #[test]
        fn what_is_right_stays_as_it_is(
            steps in prop::collection::vec((0..5usize, 0..60usize, 2..50u64), 0..200),
        ) {
            let before = run(&steps, 5, &[0; 5]);
            let mut after = before.clone();
            prop_assert_eq!(correct(&mut after), 0);
            prop_assert_eq!(before, after);
        }
    }

    #[test]
    fn receives_of_each_other_that_cannot_be_end_the_correction_all_the_same() {
        let (a, b) = (VrId::fresh(), VrId::fresh());
        let exchange = |peer| {
            vec![
                Event { at: 1, what: What::Receive { from: peer, seq: 0, bytes: 0 }, label: 0 },
                Event { at: 2, what: What::Send { to: peer, seq: 0, bytes: 0 }, label: 0 },
            ]
        };
        let mut run = vec![(a, exchange(b)), (b, exchange(a))];
        correct(&mut run);
        assert_eq!(run[0].1.len(), 2);
    }
}
