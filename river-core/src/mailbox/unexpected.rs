//! MPI's *unexpected queue*: envelopes that no receive has asked for yet, in order of arrival, indexed by lane.

use std::collections::BTreeMap;
use std::time::Duration;

use super::lanes::Lanes;
use super::selector::Selector;
use crate::envelope::Envelope;
use crate::inbox::Moment;

#[derive(Debug, Default)]
pub(super) struct Unexpected {
    /// By the numbers of their arrival.
    held: BTreeMap<u64, Held>,
    /// The bytes of their payloads.
    bytes: usize,
    lanes: Lanes,
}

#[derive(Debug)]
struct Held {
    envelope: Envelope,
    since: Moment,
}

impl Unexpected {
    pub(super) fn hold(&mut self, number: u64, envelope: Envelope, since: Moment) {
        if envelope.lane != 0 {
            self.lanes.insert(envelope.channel, envelope.lane, number);
        }
        self.bytes += envelope.payload.len();
        self.held.insert(number, Held { envelope, since });
    }

    /// Takes the earliest envelope that the selector and the predicate accept, with its number.
    pub(super) fn take(
        &mut self,
        selector: &Selector,
        accept: &mut dyn FnMut(&Envelope) -> bool,
    ) -> Option<(u64, Envelope)> {
        if self.held.is_empty() {
            return None;
        }
        let held = &self.held;
        let number = match selector.lane.filter(|&lane| lane != 0) {
            None => {
                let mut held = held.iter();
                *held.find(|(_, held)| selector.admits(&held.envelope) && accept(&held.envelope))?.0
            }
            Some(lane) => {
                let admitted = |number| {
                    let envelope = held.get(&number).map(|held| &held.envelope);
                    envelope.is_some_and(|envelope| selector.admits(envelope) && accept(envelope))
                };
                self.lanes.take(selector.channel, lane, |number| !held.contains_key(&number), admitted)?
            }
        };
        let Held { envelope, .. } = self.held.remove(&number)?;
        self.bytes -= envelope.payload.len();
        Some((number, envelope))
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// The bytes of all payloads.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// For how long the oldest has been there.
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.held.values().next().map(|held| held.since.age())
    }

    /// All of them, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Envelope)> {
        self.held.iter().map(|(number, held)| (*number, &held.envelope))
    }
}
