//! Messages between processes about mirrored VRs: the log of what a VR was told, and which of its envelopes have arrived
//! where.

use super::Here;
use crate::envelope::{Envelope, Payload};
use crate::frame::Kind;
use crate::id::{HostId, VrId};
use crate::node::{Node, Notice, SYSTEM};
use crate::state::{Recorder, Shipment};

/// The meaning of the lane of a [`Kind::Mirror`] frame.
mod lane {
    /// A part of the VR's log for its twin.
    pub(super) const LOG: u64 = 1;
    /// The twin has the log up to this number.
    pub(super) const LOGGED: u64 = 2;
    /// The twin is unusable.
    pub(super) const USELESS: u64 = 3;
    /// This many envelopes of the VR have arrived at a receiver, whose id is the payload.
    pub(super) const ARRIVED: u64 = 4;
    /// This many have arrived at the receiver's twin.
    pub(super) const ARRIVED_AT_TWIN: u64 = 5;
}

impl Node {
    /// Waits, before an effect of a VR of this process can be seen outside, until its twin, if it has one, knows all that the
    /// VR was told.
    pub(crate) fn commit(&self, recorder: &Recorder) {
        if !self.mirrors.any() {
            return;
        }
        if let Some((to, number)) = self.ship(recorder) {
            recorder.wait_logged(to, number);
        }
    }

    /// Sends the log of a VR to its twin. Returns which process must confirm it, and up to which number, before an effect is
    /// seen.
    pub(crate) fn ship(&self, recorder: &Recorder) -> Option<(HostId, u64)> {
        let Shipment { to, number, bytes, binding } = recorder.due()?;
        if !self.tell_mirror(to, recorder.origin.id, lane::LOG, number, bytes) {
            // The program decides whether that process is dead; if so, nobody waits for it.
            self.report(to, "the connection broke".into());
        }
        binding.then_some((to, number))
    }

    fn tell_mirror(&self, to: HostId, vr: VrId, lane: u64, seq: u64, payload: Vec<u8>) -> bool {
        let payload = Payload::from(payload);
        let envelope = Envelope { src: vr, dst: vr, seq, channel: SYSTEM, lane, payload };
        if to == self.place.host {
            self.mirror_frame(to, &envelope);
            return true;
        }
        self.connect(to).is_ok_and(|link| link.notify(Kind::Mirror, &envelope).is_ok())
    }

    /// Sends a message about a mirrored VR. May block.
    pub(in crate::node) fn carry_mirror(&self, to: HostId, vr: VrId, lane: u64, number: u64) {
        let _ = self.tell_mirror(to, vr, lane, number, Vec::new());
    }

    /// Handles a message about a mirrored VR. Must not block.
    pub(in crate::node) fn mirror_frame(&self, from: HostId, envelope: &Envelope) {
        let vr = envelope.dst;
        match envelope.lane {
            lane::LOG => {
                let mut here = self.mirrors.here();
                let logged = match here.get_mut(&vr) {
                    Some(Here::Twin(twin)) => twin.log(envelope.seq, &envelope.payload.to_bytes()),
                    // The VR lives here already: its former process is no longer listened to.
                    Some(Here::Main(_)) => return,
                    None => None,
                };
                let (lane, number) = match logged {
                    Some(number) => (lane::LOGGED, number),
                    None => {
                        tracing::error!(%vr, "the record of a mirrored VR is invalid: it has no twin any more");
                        here.remove(&vr);
                        (lane::USELESS, 0)
                    }
                };
                let _ = self.courier.send(Notice::Mirror { to: from, vr, lane, number });
            }
            lane::LOGGED => {
                if let Some(recorder) = self.states.get(vr) {
                    recorder.acknowledge(from, envelope.seq);
                }
            }
            lane::USELESS => {
                if let Some(recorder) = self.states.get(vr) {
                    recorder.unlead(Some(from));
                }
            }
            lane::ARRIVED | lane::ARRIVED_AT_TWIN => {
                let at_twin = envelope.lane == lane::ARRIVED_AT_TWIN;
                let Ok(bytes) = <[u8; 16]>::try_from(&envelope.payload.to_bytes()[..]) else { return };
                if let Some(Here::Twin(twin)) = self.mirrors.here().get_mut(&vr) {
                    twin.acknowledge(VrId::from_uuid(uuid::Uuid::from_bytes(bytes)), at_twin, envelope.seq);
                }
            }
            _ => {}
        }
    }

    /// Tells the processes of twins how many envelopes of their VRs have arrived here, so that they can forget what need not
    /// be sent again. May block.
    pub(crate) fn report_arrivals(&self) {
        let mirrored = self.mirrors.all();
        let mut news = Vec::new();
        {
            let said = &mut *self.mirrors.said();
            let is_known =
                |vr: VrId, twin| mirrored.iter().any(|(other, at)| *other == vr && at.twin == twin);
            said.counts.retain(|(vr, twin, _, _), _| is_known(*vr, *twin));
            for (vr, to) in said.last.drain(..) {
                if let Some((_, at)) = mirrored.iter().find(|(other, _)| *other == vr) {
                    news.push((at.twin, vr, lane::ARRIVED, u64::MAX, to));
                    news.push((at.twin, vr, lane::ARRIVED_AT_TWIN, u64::MAX, to));
                }
            }
            let mut note = |vr: VrId, twin: HostId, to: VrId, at_twin: bool, count: u64| {
                if count > 0 && said.counts.insert((vr, twin, to, at_twin), count) != Some(count) {
                    let lane = if at_twin { lane::ARRIVED_AT_TWIN } else { lane::ARRIVED };
                    news.push((twin, vr, lane, count, to));
                }
            };
            for recorder in self.states.all() {
                let to = recorder.origin.id;
                let Some(counts) = self.received_counts(to) else { continue };
                for (vr, at) in &mirrored {
                    note(*vr, at.twin, to, false, counts.get(vr).copied().unwrap_or_default());
                }
            }
            for (to, here) in &*self.mirrors.here() {
                if let Here::Twin(twin) = here {
                    mirrored.iter().for_each(|(vr, at)| note(*vr, at.twin, *to, true, twin.arrived(*vr)));
                }
            }
        }
        for (twin, vr, lane, count, to) in news {
            let _ = self.tell_mirror(twin, vr, lane, count, to.as_uuid().as_bytes().to_vec());
        }
        let places = |vr| self.mirrors.places(vr).is_some();
        for here in self.mirrors.here().values_mut() {
            if let Here::Twin(twin) = here {
                twin.trim(places);
            }
        }
    }
}
