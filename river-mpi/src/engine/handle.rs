//! Envelopes, the supervisor's orders, and what the kinds of messages do that carry no data.

use river_core::{Envelope, Payload};
use slotmap::DefaultKey;

use super::arrival::{Message, Overrun};
use super::incoming::Incoming as _;
use super::intake::Hook;
use super::{Engine, OpId, OpState, State};
use crate::header::{HEADER, Header, Kind};
use crate::job::Order;

impl Engine<'_> {
    /// Handles one envelope. A message that no posted receive wants goes to the hook, if the hook matches it.
    pub(super) fn handle(&self, envelope: Envelope, mut hook: Option<&mut Hook<'_>>) {
        let payload = envelope.payload;
        let Some(header) = payload.header() else {
            tracing::warn!(src = %envelope.src, "an envelope that is no MPI message");
            return;
        };
        match header.kind {
            Kind::Job if envelope.src == self.supervisor => self.obey(&payload),
            // A wake-up needs no handling: the rank that waits then polls for the message.
            Kind::Job | Kind::Wake => {}
            Kind::OfferRing if self.by_id.get(&envelope.src) == Some(&header.from) => {
                self.meet(header.from, &payload.to_bytes()[HEADER..]);
            }
            Kind::OfferRing => {}
            _ => {
                // Messages that the same rank put into its ring earlier come first. The hook gets none of these, nor this one
                // if there are any: a probe puts back what it has got, and that would be behind the rest.
                while self.poll_shm(Some(header.from), &mut None, &mut None).is_some() {
                    hook = None;
                }
                self.take_in(&payload, hook, None);
            }
        }
    }

    /// Answers a rank that wants to cancel a message that it has sent to this one.
    pub(super) fn answer_cancel(&self, state: &mut State, header: &Header) {
        let is_it = |m: &Message| {
            m.header.from == header.from
                && m.header.ticket == header.ticket
                && (m.header.kind == Kind::Eager) == (header.length != header.ticket)
        };
        let found = state.matching.withdraw(is_it).is_some();
        let kind = if found { Kind::CancelGranted } else { Kind::CancelDenied };
        let _ = self.tell(state, header.from, &Header { kind, from: self.me, ..*header });
    }

    /// Handles a clear to send: the receiver wants a message that was offered.
    pub(super) fn granted(&self, state: &mut State, header: &Header) {
        let ticket = OpId(header.ticket).key();
        let Some(op) = state.ops.get_mut(ticket) else { return };
        let OpState::Offered { to, key, data } = &mut op.state else { return };
        let (to, key, receive) = (*to, *key, header.length);
        let Some(data) = data.take() else {
            op.state = match op.lent {
                false => OpState::Granted { receive },
                true => OpState::Wanted { to, key, receive },
            };
            state.wanted.extend(op.lent.then_some(OpId(header.ticket)));
            return;
        };
        op.seal = None;
        op.state = OpState::Sent { to };
        state.buffer_free += std::mem::take(&mut op.buffered);
        state.drop_detached(OpId(header.ticket));
        let step = self.piece_of(to, data.len());
        for at in (0..data.len()).step_by(step) {
            let piece = data.slice(at..data.len().min(at + step));
            let header = self.header(Kind::Fragment, key, receive, piece.len());
            let mut payload = Payload::from(header.with(&[]));
            payload.push(piece);
            if self.transmit_with(state, to, payload).is_err() {
                return;
            }
        }
    }

    pub(super) fn obey(&self, payload: &Payload) {
        let bytes = payload.slice(HEADER, payload.len()).unwrap_or_default();
        match postcard::from_bytes(&bytes) {
            Ok(Order::End) => self.state.borrow_mut().ended = true,
            Ok(Order::StillWaiting) => self.confirm_wait(),
            Ok(Order::Agreed(agreement)) => {
                self.state.borrow_mut().agreements.insert(agreement.key, agreement);
            }
            Ok(Order::Start { .. }) => {}
            Err(error) => tracing::warn!(%error, "an order that cannot be read"),
        }
    }
}

impl State {
    /// Notes that an offer was matched, and that this rank will read its data.
    pub(super) fn expect(&mut self, id: OpId, offer: Message) {
        if let Some(op) = self.ops.get_mut(id.key()) {
            op.state = OpState::Due(Box::new(offer));
            self.due.push(id);
        }
    }

    /// Completes a send whose message was matched, or whose data was read.
    pub(super) fn matched(&mut self, ticket: DefaultKey) {
        if let Some(op) = self.ops.get_mut(ticket)
            && let OpState::Unmatched { to, .. } | OpState::Offered { to, .. } = op.state
        {
            op.state = OpState::Sent { to };
            op.seal = None;
            self.matched += 1;
            self.buffer_free += std::mem::take(&mut op.buffered);
            self.drop_detached(ticket.into());
        }
    }

    /// Handles the answer to [`Kind::CancelRequest`].
    pub(super) fn recalled(&mut self, id: OpId, granted: bool) {
        if let Some(op) = self.ops.get_mut(id.key()) {
            op.recalled = false;
            if granted {
                op.state = OpState::Cancelled;
                self.buffer_free += std::mem::take(&mut op.buffered);
            }
        }
        self.drop_detached(id);
    }

    /// Drops an operation that is complete, if nobody will ask for its outcome.
    fn drop_detached(&mut self, id: OpId) {
        if self.ops.get(id.key()).is_some_and(|op| op.detached) && self.is_complete(id) {
            self.ops.remove(id.key());
        }
    }

    pub(super) fn add_piece(&mut self, id: OpId, payload: Payload) {
        let Some(op) = self.ops.get_mut(id.key()) else { return };
        let OpState::Arriving(arrival) = &mut op.state else { return };
        let counted = if op.detached { arrival.count(payload.len() - HEADER) } else { arrival.push(payload) };
        if let Err(Overrun) = counted {
            let Header { from, length, .. } = arrival.header;
            if op.detached {
                self.ops.remove(id.key());
                return;
            }
            op.state = OpState::Broken(format!(
                "a message from rank {from} of {length} bytes came in pieces that are longer together"
            ));
            return;
        }
        if !arrival.is_whole() {
            return;
        }
        if op.detached {
            self.ops.remove(id.key());
        } else {
            op.arrive();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Arrival, Op};
    use crate::matching::Key;

    #[test]
    fn pieces_that_are_longer_than_their_message_are_an_error_of_its_receive() {
        let key = Key { context: 0, source: 1, tag: 0 };
        let header = Header { kind: Kind::RequestToSend, from: 1, key, ticket: 1, length: 10 };
        for lengths in [[6, 5], [11, 0]] {
            let mut state = State::new(2);
            let op = Op::new(OpState::Arriving(Arrival::coming(header)));
            let id: OpId = state.ops.insert(op).into();
            for length in lengths {
                state.add_piece(id, vec![0; HEADER + length].into());
            }
            assert!(matches!(&state.ops[id.key()].state, OpState::Broken(text) if text.contains("10 bytes")));
        }
    }
}
