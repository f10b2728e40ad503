//! The critical path: the chain of work, messages and deployments that the program's end had to wait for. Only making
//! something on it faster makes the program faster.
//!
//! It is found by walking backward, as by Barton Miller and others (1988): from the end of the initiator to the last
//! receive that had to wait for its message; from there to the message's send, on the other VR; and so on, up to a VR's
//! beginning, and from there to its deployment.

use river_core::trace::{Reason, What};

use super::flow::Flow;

/// A step of the critical path. VRs are indices into [`Run::vrs`](river_core::trace::Run::vrs).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// A VR was at work, or waited for something other than a message.
    Run {
        /// That VR.
        vr: usize,
        /// When this step begins.
        from: u64,
        /// When this step ends.
        to: u64,
        /// How long it waited in between, in nanoseconds.
        waited: u64,
    },
    /// A message was on its way to a VR that waited for it.
    Message {
        /// The sender.
        from: usize,
        /// The receiver.
        to: usize,
        /// When it was sent.
        sent: u64,
        /// When it was received.
        received: u64,
        /// Its label: an index into [`Flow::labels`].
        label: usize,
    },
    /// A VR was being started.
    Deploy {
        /// The VR that started it.
        parent: usize,
        /// That VR.
        child: usize,
        /// When it was requested.
        from: u64,
        /// When it began.
        to: u64,
    },
}

impl Step {
    /// When it begins and ends.
    #[must_use]
    pub fn times(&self) -> (u64, u64) {
        match *self {
            Step::Run { from, to, .. } | Step::Deploy { from, to, .. } => (from, to),
            Step::Message { sent, received, .. } => (sent, received),
        }
    }
}

/// Returns the critical path, from the beginning to the end. Each step begins when the one before it ends. Visits each
/// event only a few times.
#[must_use]
pub fn critical_path(flow: &Flow) -> Vec<Step> {
    let vrs = &flow.run.vrs;
    let mut steps = Vec::new();
    let last = |vr: &usize| (vrs[*vr].name == "initiator", vrs[*vr].ended);
    let Some(mut vr) = (0..vrs.len()).filter(|vr| !vrs[*vr].lost).max_by_key(last) else { return steps };
    let mut time = vrs[vr].ended;
    loop {
        if let Some((message, received)) = last_awaited(flow, vr, time) {
            let (from, sent) = (message.0, message.1);
            steps.push(run(flow, vr, received, time));
            steps.push(Step::Message { from, to: vr, sent, received, label: message.2 });
            (vr, time) = (from, sent);
            continue;
        }
        let began = vrs[vr].began.min(time);
        steps.push(run(flow, vr, began, time));
        let Some((parent, at)) = deployment(flow, vr).filter(|(_, at)| *at < began) else { break };
        steps.push(Step::Deploy { parent, child: vr, from: at, to: began });
        (vr, time) = (parent, at);
    }
    steps.reverse();
    steps.retain(|step| step.times().0 < step.times().1);
    steps
}

/// The last receive of a VR, at that time or earlier, that had to wait for its message: (sender, sent, label), and its
/// time.
fn last_awaited(flow: &Flow, vr: usize, time: u64) -> Option<((usize, u64, usize), u64)> {
    let events = &flow.run.vrs[vr].events;
    let after = events.partition_point(|event| event.end() <= time);
    (1..after).rev().find_map(|number| {
        let received = events[number].at;
        let waited = matches!(events[number - 1].what, What::Wait { reason: Reason::Receive, .. });
        let message = flow.message(vr, number).filter(|_| waited)?;
        // A VR does not wait for its own messages, and time must decrease with every step.
        let sent = message.sent.filter(|sent| *sent < received && message.from != vr)?;
        Some(((message.from, sent, message.label), received))
    })
}

/// Who deployed a VR, and when. For a VR that has moved here: the same VR in its former place, and when it left.
fn deployment(flow: &Flow, vr: usize) -> Option<(usize, u64)> {
    let child = &flow.run.vrs[vr];
    let same = (0..flow.run.vrs.len()).filter(|other| *other != vr && flow.run.vrs[*other].id == child.id);
    let left = same.map(|other| (other, flow.run.vrs[other].ended)).filter(|(_, left)| *left < child.began);
    if let Some(before) = left.max_by_key(|(_, left)| *left) {
        return Some(before);
    }
    let parent = flow.index(child.parent?)?;
    let deploys = flow.run.vrs[parent].events.iter();
    let mut deploys = deploys.filter(|event| event.what == What::Deploy { child: child.id });
    deploys.next().map(|event| (parent, event.at))
}

fn run(flow: &Flow, vr: usize, from: u64, to: u64) -> Step {
    let events = &flow.run.vrs[vr].events;
    let first = events.partition_point(|event| event.end() <= from);
    let mut waited: u64 = 0;
    for event in &events[first..] {
        if event.at >= to && event.end() > to {
            break;
        }
        if let What::Wait { .. } = event.what {
            waited += event.end().min(to).saturating_sub(event.at.max(from));
        }
    }
    Step::Run { vr, from, to, waited: waited.min(to - from) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use river_core::VrId;
    use river_core::trace::{Event, Run, VrTrace};

    use super::*;

    /// A possible run, in the order of time: VR 0 starts the others; then a VR sends, or waits for and receives a message
    /// that is there, or computes.
    fn run_of(steps: &[(usize, usize, u64)], count: usize) -> Run {
        let ids: Vec<VrId> = (0..count).map(|_| VrId::fresh()).collect();
        let mut run = Run::default();
        run.vms.push(Default::default());
        let mut now = 10;
        for (index, id) in ids.iter().enumerate() {
            let mut vr = VrTrace::new(*id, (index > 0).then_some(ids[0]), 0, 0);
            vr.name = if index == 0 { "initiator".into() } else { "Worker".into() };
            if index > 0 {
                vr.began = now + 3;
                run.vrs[0].events.push(Event { at: now, what: What::Deploy { child: *id }, label: 0 });
            }
            now += 5;
            run.vrs.push(vr);
        }
        let mut under_way: HashMap<(usize, usize), (u64, u64)> = HashMap::new();
        let mut free = vec![now; count];
        for &(who, action, pause) in steps {
            let (who, peer) = (who % count, action % count);
            now += pause + 1;
            let mut push = |at, what| run.vrs[who].events.push(Event { at, what, label: 0 });
            match action % 3 {
                0 => {
                    let sent = under_way.entry((who, peer)).or_default();
                    sent.0 += 1;
                    push(now, What::Send { to: ids[peer], seq: sent.0 - 1, bytes: 8 });
                }
                action => {
                    let sent = under_way.entry((peer, who)).or_default();
                    if sent.0 == sent.1 {
                        continue;
                    }
                    sent.1 += 1;
                    if action == 1 && now > free[who] {
                        let wait = What::Wait { reason: Reason::Receive, on: None, nanos: now - free[who] };
                        push(free[who], wait);
                    }
                    push(now, What::Receive { from: ids[peer], seq: sent.1 - 1, bytes: 8 });
                }
            }
            free[who] = now;
        }
        for (vr, free) in run.vrs.iter_mut().zip(free) {
            vr.ended = free + 1;
        }
        run.vrs[0].ended = now + 2;
        run.end = now + 2;
        run
    }

    proptest! {
        /// The path leads from the beginning to the end without a gap, and each of its messages was waited for.
        #[test]
        fn leads_from_the_beginning_to_the_end(
            steps in prop::collection::vec((0..4usize, 0..60usize, 0..50u64), 0..150),
        ) {
            let flow = Flow::new(run_of(&steps, 4));
            let path = critical_path(&flow);
            prop_assert_eq!(path.first().unwrap().times().0, 0);
            prop_assert_eq!(path.last().unwrap().times().1, flow.run.end);
            for pair in path.windows(2) {
                prop_assert_eq!(pair[0].times().1, pair[1].times().0);
            }
            let mut at = 0;
            for step in &path {
                match *step {
                    Step::Run { vr, from, to, waited } => {
                        prop_assert_eq!(vr, at);
                        prop_assert!(waited <= to - from);
                    }
                    Step::Message { from, to, sent, received, .. } => {
                        prop_assert_eq!(from, at);
                        let arrow = flow.messages.iter().position(|m| {
                            (m.from, m.to, m.sent, m.received) == (from, to, Some(sent), Some(received))
                        });
                        prop_assert!(flow.waits.iter().any(|wait| wait.ended_by == arrow && wait.vr == to));
                        at = to;
                    }
                    Step::Deploy { parent, child, .. } => {
                        prop_assert_eq!(parent, at);
                        at = child;
                    }
                }
            }
        }
    }

    #[test]
    fn a_run_without_vrs_has_none() {
        assert!(critical_path(&Flow::new(Run::default())).is_empty());
    }
}
