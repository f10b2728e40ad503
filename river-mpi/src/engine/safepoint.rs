//! The part of a rank's engine that survives a safepoint: unexpected messages, and which ranks have ended.

use serde::{Deserialize, Serialize};
use slotmap::SlotMap;

use super::{Engine, Gone, Message, State};
use crate::error::{MpiError, Result};
use crate::header::Header;

/// The state of an engine that has nothing under way.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Kept {
    sent: Vec<u64>,
    received: Vec<u64>,
    watched: Vec<bool>,
    gone: Vec<(u32, String, bool)>,
    matched: u64,
    ticket: u64,
    reports: u64,
    /// Unexpected messages, as they arrived.
    unexpected: Vec<Vec<u8>>,
}

impl Engine<'_> {
    /// Returns what must be kept. Operations get new ids from here on, as they do in a rank that goes on from this.
    pub(crate) fn keep(&self) -> Result<Kept> {
        let mut state = self.state.borrow_mut();
        let busy = [
            (
                !state.ops.is_empty(),
                "requests are pending: complete or cancel them first; a send whose request was dropped has to be received",
            ),
            (self.has_background(), "a collective operation is under way: complete it first"),
            (self.next_context() > 2, "the job has more communicators than the world, which would be lost"),
            (state.buffer_size > 0, "a buffer is attached: detach it first"),
            (
                !(state.acknowledged.is_empty() && state.revoked.is_empty() && state.agreements.is_empty()),
                "the job goes on after a failure",
            ),
        ];
        if let Some((_, why)) = busy.iter().find(|(is_so, _)| *is_so) {
            return Err(MpiError::Safepoint((*why).to_owned()));
        }
        state.ops = SlotMap::new();
        let mut gone: Vec<_> =
            state.gone.iter().map(|(rank, gone)| (*rank, gone.why.clone(), gone.normal)).collect();
        gone.sort_unstable();
        Ok(Kept {
            sent: state.sent.clone(),
            received: state.received.clone(),
            watched: state.watched.clone(),
            gone,
            matched: state.matched,
            ticket: state.ticket,
            reports: self.reports.get(),
            unexpected: state
                .matching
                .unexpected()
                .map(|message| message.payload.to_bytes().to_vec())
                .collect(),
        })
    }

    /// Goes on from the state of another engine.
    pub(crate) fn take_up(&self, kept: Kept) -> Result {
        let lengths = [kept.sent.len(), kept.received.len(), kept.watched.len()];
        if lengths != [self.world_size(); 3] {
            return Err(MpiError::Safepoint("it is of a job with another number of ranks".into()));
        }
        let mut state = self.state.borrow_mut();
        let State { sent, received, watched, matched, ticket, gone, matching, .. } = &mut *state;
        (*sent, *received, *watched) = (kept.sent, kept.received, kept.watched);
        (*matched, *ticket) = (kept.matched, kept.ticket);
        gone.extend(kept.gone.into_iter().map(|(rank, why, normal)| (rank, Gone { why, normal })));
        for payload in kept.unexpected {
            let header = Header::decode(&payload);
            let header =
                header.ok_or_else(|| MpiError::Safepoint("a message in it makes no sense".into()))?;
            matching.keep(header.key, Message { header, payload: payload.into() });
        }
        self.reports.set(kept.reports);
        Ok(())
    }
}
