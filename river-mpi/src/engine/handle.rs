//! What arrives, and what is to be done with it.

use river_core::{Envelope, Payload};

use super::arrival::{Arrival, Message};
use super::{Engine, OpState, PIECE, State};
use crate::header::{HEADER, Header, Kind};
use crate::job::{Order, Report};
use crate::matching::Pattern;

impl Engine<'_> {
    /// Handles one envelope. A message that no posted receive wants and that matches `hook` is returned.
    pub(super) fn handle(&self, envelope: Envelope, hook: Option<&Pattern>) -> Option<Message> {
        let payload = envelope.payload;
        let short;
        let head = if payload.head().len() >= HEADER {
            payload.head()
        } else {
            short = payload.slice(0, payload.len().min(HEADER)).unwrap_or_default();
            &short
        };
        let Some(header) = Header::decode(head) else {
            tracing::warn!(src = %envelope.src, "an envelope that is no MPI message");
            return None;
        };
        if header.kind == Kind::Job {
            if envelope.src == self.supervisor {
                self.obey(&payload);
            }
            return None;
        }
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        match state.received.get_mut(header.from as usize) {
            Some(count) => *count += 1,
            None => {
                tracing::warn!(src = %envelope.src, "a message from a rank that does not exist");
                return None;
            }
        }
        match header.kind {
            Kind::Eager | Kind::EagerSync | Kind::Offer => {
                let length = header.length;
                if header.kind != Kind::Offer && length != (payload.len() - HEADER) as u64 {
                    tracing::warn!(src = %envelope.src, "a message of another length than it says");
                    return None;
                }
                let message = Message { header, payload };
                let Some(id) = state.matching.claim(&header.key) else {
                    if hook.is_some_and(|pattern| pattern.matches(&header.key)) {
                        return Some(message);
                    }
                    state.matching.keep(header.key, message);
                    return None;
                };
                let arrival = Arrival::new(message);
                let arrived =
                    if arrival.is_whole() { OpState::Arrived(arrival) } else { OpState::Arriving(arrival) };
                if let Some(op) = state.ops.get_mut(&id) {
                    op.state = arrived;
                }
                match header.kind {
                    Kind::Offer => self.go(state, &header, id),
                    Kind::EagerSync => {
                        let answer = Header { kind: Kind::Matched, from: self.me, ..header };
                        let _ = self.transmit_with(state, header.from, answer.with(&[]).into());
                    }
                    _ => {}
                }
            }
            Kind::Piece => state.add_piece(header.ticket, payload),
            Kind::Go => self.granted(state, &header),
            Kind::Matched => {
                if let Some(op) = state.ops.get_mut(&header.ticket)
                    && let OpState::Unmatched { to, .. } = op.state
                {
                    op.state = OpState::Sent { to };
                }
            }
            Kind::Withdraw => {
                let is_it = |m: &Message| m.header.from == header.from && m.header.ticket == header.ticket;
                let found = state.matching.withdraw(is_it).is_some();
                let kind = if found { Kind::Withdrawn } else { Kind::TooLate };
                let answer = Header { kind, from: self.me, ..header };
                let _ = self.transmit_with(state, header.from, answer.with(&[]).into());
            }
            Kind::Withdrawn | Kind::TooLate => {
                if let Some(op) = state.ops.get_mut(&header.ticket) {
                    op.recalled = false;
                    if header.kind == Kind::Withdrawn {
                        op.state = OpState::Cancelled;
                        state.buffer_free += std::mem::take(&mut op.buffered);
                    }
                }
            }
            Kind::Revoke => drop(state.revoked.insert(header.key.context)),
            Kind::Job => {}
        }
        None
    }

    /// The receiver wants a message that was offered.
    pub(super) fn granted(&self, state: &mut State, header: &Header) {
        let Some(op) = state.ops.get_mut(&header.ticket) else { return };
        let OpState::Offered { to, key, data } = &mut op.state else { return };
        let (to, key) = (*to, *key);
        let Some(data) = data.take() else {
            op.state = OpState::Granted { receive: header.length };
            return;
        };
        op.state = OpState::Sent { to };
        state.buffer_free += std::mem::take(&mut op.buffered);
        if op.detached {
            state.ops.remove(&header.ticket);
        }
        for at in (0..data.len()).step_by(PIECE) {
            let piece = data.slice(at..data.len().min(at + PIECE));
            let header = self.header(Kind::Piece, key, header.length, piece.len());
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
            Ok(Order::StillWaiting) => self.report(&Report::StillWaiting(self.reported.get())),
            Ok(Order::Agreed(agreement)) => {
                self.state.borrow_mut().agreements.insert(agreement.key, agreement);
            }
            Ok(Order::Start { .. }) => {}
            Err(error) => tracing::warn!(%error, "an order that cannot be read"),
        }
    }
}

impl State {
    pub(super) fn add_piece(&mut self, id: u64, payload: Payload) {
        let Some(op) = self.ops.get_mut(&id) else { return };
        let OpState::Arriving(arrival) = &mut op.state else { return };
        if op.detached {
            arrival.here += payload.len() - HEADER;
        } else {
            arrival.push(payload);
        }
        if !arrival.is_whole() {
            return;
        }
        if op.detached {
            self.ops.remove(&id);
        } else if let OpState::Arriving(arrival) = std::mem::replace(&mut op.state, OpState::Cancelled) {
            op.state = OpState::Arrived(arrival);
        }
    }
}
