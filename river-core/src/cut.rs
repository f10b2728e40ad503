//! A process's part in a checkpoint of its program or in a migration, and how it adopts VRs from one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::down::{Down, Why};
use crate::error::MigrateError;
use crate::id::{HostId, VrId};
use crate::inbox::{Event, Inbox};
use crate::node::Node;
use crate::protocol::{Counts, Report};
use crate::rt;
use crate::state::{Recorder, Saved};

/// How many bytes of a copy are sent at a time.
pub(crate) const PIECE: usize = 1 << 20;
/// How often the records of VRs are written to their recordings.
pub(crate) const FLUSH: Duration = Duration::from_millis(100);
/// How often to check whether everything has arrived.
const LOOK: Duration = Duration::from_micros(200);

/// Reports what all VRs of this process, which is frozen, have sent. Waits for sends of which it is not yet decided whether
/// they are accepted, since a refused one never arrives. `None` if the process was thawed meanwhile.
pub(crate) async fn frozen(node: &Node) -> Option<Report> {
    while node.states.is_undecided() {
        rt::sleep(LOOK).await;
        if !node.states.is_frozen() {
            return None;
        }
    }
    let unrecorded = node.states.unrecorded();
    let mut sent = node.states.sent();
    // What has already arrived in this process concerns nobody else.
    let mut arrived = HashMap::new();
    sent.retain(|(to, from, count)| match arrived.entry(*to).or_insert_with(|| node.received_counts(*to)) {
        Some(counts) => counts.get(from).is_none_or(|arrived| arrived < count),
        None => true,
    });
    Some(Report::Frozen { sent, unrecorded })
}

/// Whether all of these envelopes have arrived.
fn is_settled(node: &Node, expected: &Counts) -> bool {
    let mut arrived = HashMap::new();
    expected.iter().all(|(to, from, count)| {
        let counts = arrived.entry(*to).or_insert_with(|| node.received_counts(*to));
        // A VR that has ended receives nothing more.
        counts.as_ref().is_none_or(|counts| counts.get(from).is_some_and(|arrived| arrived >= count))
    })
}

/// Waits until all of these envelopes have arrived. Returns `false` if the process was thawed meanwhile.
pub(crate) async fn settled(node: &Node, expected: &Counts) -> bool {
    while node.states.is_frozen() {
        if is_settled(node, expected) {
            return true;
        }
        rt::sleep(LOOK).await;
    }
    false
}

/// Copies all VRs of this process, which is frozen, and returns the report about it.
pub(crate) fn copy(node: &Node) -> (Vec<Saved>, Report) {
    node.states.settled();
    let (mut saved, mut ended, mut unheard) = (Vec::new(), Vec::new(), Vec::new());
    for recorder in node.states.all() {
        let id = recorder.origin.id;
        let copy = recorder.look(|record, why| match why {
            None => Ok(record.clone()),
            Some(why) => Err(why.clone()),
        });
        match copy {
            Ok(record) => {
                let inbox = node.inbox(id);
                let pending = inbox.as_ref().map(|inbox| inbox.waiting()).unwrap_or_default();
                let pending = pending.into_iter().filter(|event| !matches!(event, Event::Stop)).collect();
                let losses = inbox.map(|inbox| inbox.losses()).unwrap_or_default();
                unheard.extend(losses.into_iter().map(|lost| (id, lost)));
                saved.push(Saved { origin: recorder.origin.clone(), record, pending });
            }
            Err(why) => ended.push((id, why)),
        }
    }
    (saved, Report::Copied { ended, unheard })
}

/// Copies VRs of this process, which is frozen, so that another process can adopt them.
pub(crate) fn give(node: &Node, vrs: &[VrId]) -> Result<Vec<Saved>, MigrateError> {
    if cfg!(panic = "abort") {
        // The thread that a VR leaves behind must be unwound.
        return Err(MigrateError::GivenUp("the program is built with panic = \"abort\"".into()));
    }
    let give = |vr: &VrId| {
        let ended = |why: &Why| MigrateError::Ended(Down { who: *vr, why: why.clone() });
        let recorder = node.states.get(*vr).ok_or_else(|| ended(&Why::Unknown))?;
        let record = recorder.give(|record, why| match (why, record.is_busy_with()) {
            (Some(why), _) => Err(ended(why)),
            (None, Some(call)) => Err(MigrateError::Busy { vr: *vr, call: call.to_string() }),
            (None, None) => Ok(()),
        })?;
        let pending = node.inbox(*vr).map(|inbox| inbox.waiting()).unwrap_or_default();
        let pending = pending.into_iter().filter(|event| !matches!(event, Event::Stop)).collect();
        Ok(Saved { origin: recorder.origin.clone(), record, pending })
    };
    vrs.iter().map(give).collect()
}

/// Waits until nothing more from a dead process can arrive, and reports what has arrived from these VRs.
pub(crate) async fn mourned(node: &Node, host: HostId, vrs: &[VrId]) -> Report {
    while !node.is_buried(host) {
        rt::sleep(LOOK).await;
    }
    Report::Mourned(host, node.mourn(vrs))
}

/// Reports at intervals, for as long as the process lives, what has arrived from mirrored VRs.
pub(crate) async fn report_arrivals(node: Arc<Node>) {
    loop {
        rt::sleep(FLUSH).await;
        if node.has_mirrors() {
            let node = node.clone();
            rt::blocking(move || node.report_arrivals()).await;
        }
    }
}

/// Adopts a VR, with its queue and its record as they were.
pub(crate) fn adopt(node: &Node, saved: Saved) -> (Arc<Inbox>, Arc<Recorder>) {
    let Saved { origin, record, pending } = saved;
    let id = origin.id;
    let recorder = node.states.add(origin, record);
    let inbox = node.add(id);
    for event in pending {
        let _ = inbox.push(event);
    }
    (inbox, recorder)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::envelope::{Channel, Envelope, Payload};
    use crate::error::RecvError;
    use crate::id::ProgramId;
    use crate::link::SimNet;
    use crate::mailbox::Selector;
    use crate::protocol::Place;
    use crate::state::{Base, Origin, Record, Sending, Sent};
    use crate::vr::Vr;

    /// A receive swaps everything out of the inbox, and may return with an envelope before it has examined a notice.
    #[test]
    fn a_loss_is_unheard_until_a_receive_has_reported_it_or_it_is_no_longer_watched() {
        const CHANNEL: Channel = Channel::named("test");
        let place = Place { host: HostId::fresh(), address: ([127, 0, 0, 1], 1).into() };
        let (node, _notices) = Node::simulated(place, &Arc::new(SimNet::default()), Arc::new(|_| None));
        let [id, lost, unwatched] = [(); 3].map(|()| VrId::fresh());
        // They live as far as this process knows, so that a watch does not report them at once.
        let _others = [lost, unwatched].map(|vr| node.add(vr));
        let origin =
            Origin { id, parent: None, code: None, name: "master".into(), program: ProgramId::fresh() };
        let recorder = node.states.add(origin, Record::new(Base::new(id, Bytes::new())));
        let inbox = node.add(id);
        let vr = Vr::recorded(node.clone(), inbox.clone(), recorder);
        let unheard = || match copy(&node).1 {
            Report::Copied { unheard, .. } => unheard,
            report => panic!("{report:?}"),
        };
        let arrive = |lane| {
            let payload = vec![1].into();
            let envelope = Envelope { src: id, dst: id, seq: lane, channel: CHANNEL, lane, payload };
            inbox.push(Event::Envelope(envelope)).unwrap();
        };
        let dies = |who| {
            let why = Why::LostLink { vm: "test".into(), error: "broken".into() };
            inbox.push(Event::Down(Down { who, why })).unwrap();
        };
        vr.watch(lost);
        arrive(0);
        arrive(1);
        dies(lost);
        arrive(2);
        // With the notice in the inbox, then swapped out, then examined.
        for lane in [1, 2, 0] {
            assert_eq!(unheard(), [(id, lost)]);
            vr.receive(Selector::on(CHANNEL).lane(lane)).unwrap();
        }
        assert_eq!(unheard(), [(id, lost)]);
        let reported = vr.receive(Selector::on(CHANNEL));
        assert!(matches!(reported, Err(RecvError::Down(ref down)) if down.who == lost), "{reported:?}");
        assert_eq!(unheard(), []);
        vr.watch(unwatched);
        dies(unwatched);
        assert_eq!(unheard(), [(id, unwatched)]);
        assert_eq!(vr.queue().messages, 0);
        assert_eq!(unheard(), [(id, unwatched)]);
        vr.unwatch(unwatched);
        assert_eq!(unheard(), []);
    }

    /// Other processes must wait for such an envelope until it has arrived, and no longer.
    #[test]
    fn what_a_vr_had_sent_that_has_ended_counts_until_it_has_arrived() {
        let place = Place { host: HostId::fresh(), address: ([127, 0, 0, 1], 1).into() };
        let (node, _notices) = Node::simulated(place, &Arc::new(SimNet::default()), Arc::new(|_| None));
        let (id, to) = (VrId::fresh(), VrId::fresh());
        let (name, program) = ("sender".into(), ProgramId::fresh());
        let origin = Origin { id, parent: None, code: None, name, program };
        let recorder = node.states.add(origin, Record::new(Base::new(id, Bytes::new())));
        let sent = Sent::new(to, Channel::named("test"), 0, &Payload::from(Vec::new()));
        assert_eq!(recorder.send(sent), Ok(Sending::Due(0)));
        node.states.remove(id);
        for (settled, left) in [(false, 1), (true, 0)] {
            node.freeze();
            assert_eq!(node.states.sent(), [(to, id, 1)]);
            node.thaw(settled);
            assert_eq!(node.states.sent().len(), left);
        }
    }
}
