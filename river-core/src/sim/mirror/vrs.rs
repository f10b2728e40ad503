//! The behaviour of VRs, which depends only on what they are told.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{CHANNEL, VRS, World};
use crate::envelope::{Envelope, Payload};
use crate::id::HostId;
use crate::inbox::{Event, Inbox};
use crate::mailbox::Selector;
use crate::node::Node;
use crate::state::{Base, Call, Recorder, Saved, Sending, Sent};

/// The complete state of a VR.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Value {
    pub(super) hash: u64,
    pub(super) rounds: u64,
    pub(super) sent: [u64; VRS],
    pub(super) taken: [u64; VRS],
    /// What has arrived and was not examined: (sender, number, value).
    pub(super) queue: VecDeque<(usize, u64, u64)>,
    /// What it has yet to send: (receiver, value).
    pub(super) outbox: VecDeque<(usize, u64)>,
}

/// A running VR.
pub(super) struct Running {
    pub(super) host: usize,
    pub(super) value: Value,
    pub(super) recorder: Arc<Recorder>,
    pub(super) inbox: Arc<Inbox>,
    /// An envelope that is sent as soon as the twin has confirmed the log.
    pub(super) bound: Option<((HostId, u64), Envelope)>,
}

fn mix(a: u64, b: u64) -> u64 {
    (a ^ b).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23)
}

pub(super) fn begin(host: usize, node: &Node, saved: Saved) -> Running {
    let Saved { origin, record, pending } = saved;
    let (id, value) = (origin.id, postcard::from_bytes(&record.base().state).expect("a value"));
    let recorder = node.states.add(origin, record);
    let inbox = node.add(id);
    pending.into_iter().for_each(|event| drop(inbox.push(event)));
    Running { host, value, recorder, inbox, bound: None }
}

impl World {
    /// Makes some calls of a VR, up to one at which it must wait.
    pub(super) fn run(&mut self, index: usize) {
        let (vr, mut running) = self.running.remove(index);
        if let Some(((to, number), envelope)) = running.bound.take() {
            if !running.recorder.is_logged(to, number) {
                running.bound = Some(((to, number), envelope));
                self.running.push((vr, running));
                return;
            }
            self.dispatch(running.host, &envelope);
        }
        for _ in 0..=self.rng.below(3) {
            if !self.call(vr, &mut running) {
                break;
            }
        }
        self.running.push((vr, running));
    }

    /// Makes the next call of a VR. Returns `false` if the VR must wait.
    pub(super) fn call(&mut self, vr: usize, running: &mut Running) -> bool {
        let Running { value, recorder, inbox, host, .. } = running;
        let node = self.nodes[*host].clone();
        if let Some((to, what)) = value.outbox.pop_front() {
            let number = value.sent[to];
            value.sent[to] += 1;
            let payload: Payload = [number.to_le_bytes(), what.to_le_bytes()].concat().into();
            let (src, dst, channel, lane) = (self.ids[vr], self.ids[to], CHANNEL, 0);
            let sending =
                recorder.send(Sent::new(dst, channel, lane, &payload)).expect("it is deterministic");
            let envelope = |seq| Envelope { src, dst, seq, channel, lane, payload };
            let seq = match sending {
                Sending::Made(_) => return true,
                Sending::Again(seq) | Sending::Due(seq) => seq,
            };
            assert_eq!(seq, number);
            let envelope = envelope(seq);
            if let Sending::Again(_) = sending {
                self.note(&envelope);
                node.send_again(&envelope);
            } else if let Some(bond) = node.ship(recorder) {
                running.bound = Some((bond, envelope));
                return false;
            } else {
                self.dispatch(*host, &envelope);
            }
            return true;
        }
        if value.rounds % 7 == 6 {
            let state: Bytes = postcard::to_stdvec(value).expect("a value").into();
            recorder.restart(Base { state, ..Base::new(self.ids[vr], Bytes::new()) }).expect("deterministic");
        }
        value.rounds += 1;
        if value.rounds.is_multiple_of(5) {
            // A value that nobody could predict.
            recorder.call(Call::Effect).expect("it is deterministic");
            let answer = recorder.recorded_answer().expect("it is deterministic");
            let answer = answer.unwrap_or_else(|| {
                let new = Bytes::from((self.rng.below(1000) as u64).to_le_bytes().to_vec());
                recorder.answer(new.clone());
                new
            });
            value.hash = mix(value.hash, u64::from_le_bytes(answer[..].try_into().expect("eight bytes")));
        }
        recorder.call(Call::TryReceive(Selector::on(CHANNEL))).expect("it is deterministic");
        if value.queue.is_empty() {
            let mut events = Vec::new();
            recorder.arrivals(&mut events, inbox);
            for event in events {
                let Event::Envelope(envelope) = event else { continue };
                let from = self.ids.iter().position(|id| *id == envelope.src).expect("a known sender");
                let bytes = envelope.payload.to_bytes();
                let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
                value.queue.push_back((from, word(0), word(8)));
            }
        }
        let Some((from, number, what)) = value.queue.pop_front() else {
            // That nothing was there affects the state.
            value.hash = mix(value.hash, 1);
            if value.hash.is_multiple_of(3) && value.rounds < 60 {
                let to = (value.hash >> 8) as usize % VRS;
                value.outbox.push_back((to, value.hash));
            }
            return true;
        };
        assert_eq!(number, value.taken[from], "in order, no gap, none twice: from {from} to {vr}");
        value.taken[from] += 1;
        value.hash = mix(mix(value.hash, from as u64), what);
        if value.rounds < 60 {
            for part in 0..value.hash % 3 {
                let to = (value.hash >> (8 * (part + 1))) as usize % VRS;
                value.outbox.push_back((to, mix(value.hash, part)));
            }
        }
        true
    }

    /// Records that an effect of a VR was seen.
    fn note(&mut self, envelope: &Envelope) {
        let Envelope { src, dst, seq, .. } = *envelope;
        let what = envelope.payload.to_bytes();
        assert_eq!(
            *self.said.entry((src, dst, seq)).or_insert_with(|| what.clone()),
            what,
            "it says two things"
        );
    }

    pub(super) fn dispatch(&mut self, host: usize, envelope: &Envelope) {
        self.note(envelope);
        let node = &self.nodes[host];
        if node.send_mirrored(envelope).is_none()
            && let Ok(link) = node.route(envelope.dst)
        {
            let _ = link.send(envelope.clone());
        }
    }
}
