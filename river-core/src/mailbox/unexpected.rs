//! MPI's *unexpected queue*: envelopes that no receive has asked for yet, in order of arrival, indexed by lane.

use std::collections::BTreeMap;
use std::time::Duration;

use super::lanes::Lanes;
use super::selector::Selector;
use crate::envelope::Envelope;
use crate::inbox::Moment;

#[derive(Debug, Default)]
pub(super) struct Unexpected {
    /// By arrival number.
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
                let wanted =
                    |(_, held): &(&u64, &Held)| selector.admits(&held.envelope) && accept(&held.envelope);
                let (&number, Held { envelope, .. }) = held.find(wanted)?;
                if envelope.lane != 0 {
                    self.lanes.remove(envelope.channel, envelope.lane, number);
                }
                number
            }
            Some(lane) => {
                let admitted = |number| {
                    let envelope = held.get(&number).map(|held| &held.envelope);
                    envelope.is_some_and(|envelope| selector.admits(envelope) && accept(envelope))
                };
                self.lanes.take(selector.channel, lane, admitted)?
            }
        };
        let Held { envelope, .. } = self.held.remove(&number)?;
        self.bytes -= envelope.payload.len();
        Some((number, envelope))
    }

    /// Shows the envelopes that the selector admits, oldest first, until the visitor returns `Some`.
    pub(super) fn visit<R>(
        &self,
        selector: &Selector,
        visitor: &mut dyn FnMut(&Envelope) -> Option<R>,
    ) -> Option<R> {
        let mut show = |Held { envelope, .. }: &Held| {
            if selector.admits(envelope) { visitor(envelope) } else { None }
        };
        match selector.lane.filter(|&lane| lane != 0) {
            None => self.held.values().find_map(show),
            Some(lane) => {
                let numbers = self.lanes.of(selector.channel, lane);
                numbers.filter_map(|number| self.held.get(&number)).find_map(&mut show)
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Returns the bytes of all payloads.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns how long the oldest envelope has been waiting.
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.held.values().next().map(|held| held.since.age())
    }

    /// Returns all envelopes, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Envelope)> {
        self.held.iter().map(|(number, held)| (*number, &held.envelope))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Channel;
    use crate::id::VrId;

    #[test]
    fn the_index_forgets_what_is_taken_without_a_lane() {
        let (channel, mut unexpected) = (Channel::named("test"), Unexpected::default());
        for number in 0..100 {
            let (src, dst) = (VrId::fresh(), VrId::fresh());
            let envelope =
                Envelope { src, dst, seq: 0, channel, lane: 1 + number % 7, payload: vec![].into() };
            unexpected.hold(number, envelope, Moment::default());
        }
        for number in 0..100 {
            let taken = unexpected.take(&Selector::on(channel), &mut |_| true);
            assert_eq!(taken.map(|(number, _)| number), Some(number));
        }
        assert!((1..8).all(|lane| unexpected.lanes.of(channel, lane).next().is_none()));
    }
}
