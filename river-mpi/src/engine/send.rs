//! Sending, in all modes.

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;
use river_core::Payload;

use super::cma::Seal;
use super::{EAGER_SHM, Engine, GRAIN, INLINE, Landing, Mode, Op, OpId, OpState, PIECE, PIECES, Sending};
use crate::error::{MpiError, Result};
use crate::header::Kind;
use crate::job::Report;
use crate::matching::Key;

/// About how many bytes are copied in a nanosecond.
const COPIED: u64 = 8;
/// About how long it takes until an answer arrives.
const ANSWER: Duration = Duration::from_micros(5);
/// How much longer a rank waits for the reader of lent memory, which may have other work to do first.
const PEACE: Duration = Duration::from_micros(50);
/// A rank that waits for readers polls no longer than this before it sleeps.
const AWAKE: Duration = Duration::from_millis(1);
/// A shorter slice is copied in less time than it takes to ask the receiver.
const WORTH_WAITING: usize = 256 << 10;
/// At most this many slices in a row are copied without checking again whether the receiver is waiting for them.
const MOST: u8 = 128;

/// Returns about how long a receiver that waits for data takes to read it, but no more than [`AWAKE`].
fn reading_time(len: usize) -> Duration {
    (ANSWER + Duration::from_nanos(len as u64 / COPIED)).min(AWAKE)
}

/// Decides whether it pays to wait briefly for the receiver to ask for a slice. A receiver that did not ask in time will most
/// likely not ask in time for the next slices either: after an unsuccessful wait they are copied at once, twice as many each
/// time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hurry {
    /// How many more slices are copied at once.
    left: u8,
    /// How many were to be copied at once after the last wait; 0 if it was successful.
    next: u8,
}

impl Hurry {
    /// Whether to copy the next slice at once, which is counted.
    fn is_on(self, cell: &Cell<Self>) -> bool {
        cell.set(Self { left: self.left.saturating_sub(1), ..self });
        self.left > 0
    }

    /// Returns the state after a wait.
    fn after(self, wanted: bool) -> Self {
        let next = if wanted { 0 } else { self.next.saturating_mul(2).clamp(4, MOST) };
        Self { left: next, next }
    }
}

impl Engine<'_> {
    /// About how long the receivers need to read what these operations offer them. It is not worth sleeping for less than that:
    /// waking this rank up would interrupt the reader.
    pub(super) fn time_to_read(&self, ops: &[OpId]) -> Duration {
        let state = self.state.borrow();
        let exposed = ops.iter().filter_map(|op| {
            let op = state.ops.get(op.key())?;
            let OpState::Offered { to, .. } = op.state else { return None };
            op.seal.as_ref().map(Seal::len).filter(|&len| self.exposes(to, len))
        });
        let bytes: usize = exposed.sum();
        if bytes == 0 { Duration::ZERO } else { (PEACE + reading_time(bytes)).min(AWAKE) }
    }

    /// Sends a message. Returns when the slice can be used again or, in synchronous mode, when the message was matched.
    pub(crate) fn send(&self, to: u32, key: Key, data: &[u8], mode: Mode) -> Result {
        let eager = data.len() <= self.eager(to);
        if eager && mode == Mode::Standard {
            return self.send_eager(to, key, Kind::Eager, 0, data);
        }
        let op = if eager {
            self.send_unmatched(to, key, data)?
        } else {
            self.prepare_offer(to, key, data, None, 0)
        };
        self.show([(op, data)], || {
            if !eager {
                self.announce(op, to, key, data.len())?;
                if self.exposes(to, data.len()) {
                    // Polls longer than other waits do before they sleep, as reading may take longer.
                    self.spin_until(op, reading_time(data.len()));
                }
            }
            let outcome = if self.is_complete(op) { Ok(()) } else { self.wait_for(&[op]) };
            let state = self.state.borrow_mut().ops.remove(op.key()).map(|op| op.state);
            outcome?;
            let Some(OpState::Granted { receive }) = state else { return Ok(()) };
            self.send_pieces(to, key, receive, data)
        })
    }

    /// Returns the length of the pieces of a message.
    pub(super) fn piece_of(&self, to: u32, length: usize) -> usize {
        let most = self.piece(to);
        let pieces = if most < PIECE { PIECES } else { 1 };
        (length / pieces).next_multiple_of(GRAIN).clamp(2 * GRAIN, most.max(2 * GRAIN))
    }

    fn send_pieces(&self, to: u32, key: Key, receive: u64, data: &[u8]) -> Result {
        data.chunks(self.piece_of(to, data.len())).try_for_each(|piece| {
            self.transmit_slice(to, &self.header(Kind::Fragment, key, receive, piece.len()), piece)
        })
    }

    /// Starts to send a message, and keeps its data for as long as necessary.
    pub(crate) fn isend(&self, to: u32, key: Key, data: Bytes, mode: Mode) -> Result<Sending> {
        self.isend_buffered(to, key, data, mode, 0)
    }

    /// Like [`isend`](Self::isend), for a slice: a short one is copied only once, and a long one only if the receiver does
    /// not ask for it within the time that a copy would take.
    pub(crate) fn isend_slice(&self, to: u32, key: Key, data: &[u8], mode: Mode) -> Result<Sending> {
        if data.len() > self.eager(to) {
            let hurry = &self.hurry[to as usize];
            let short = self.exposes(to, data.len()) && data.len() < WORTH_WAITING;
            if short || to == self.me || self.vr.is_recoverable() || hurry.get().is_on(hurry) {
                // The receiver reads this copy while the next one is made. (A replay could not reproduce whether the receiver
                // asks in time.)
                return self.isend(to, key, self.pool.join(&[], data), mode);
            }
            let op = self.offer(to, key, data, None, 0)?;
            self.show([(op, data)], || self.spin_until(op, reading_time(data.len())));
            let mut state = self.state.borrow_mut();
            let Some(sending) = state.ops.get_mut(op.key()) else { return Ok(Sending::UnderWay(op)) };
            hurry.set(hurry.get().after(!matches!(sending.state, OpState::Offered { .. })));
            match &mut sending.state {
                OpState::Offered { data: later, .. } => {
                    *later = Some(self.pool.join(&[], data));
                    // From now on, the caller may change the slice.
                    sending.seal = None;
                }
                OpState::Granted { receive } => {
                    let receive = *receive;
                    sending.state = OpState::Sent { to };
                    drop(state);
                    self.send_pieces(to, key, receive, data).inspect_err(|_| self.forget(op))?;
                }
                _ => {}
            }
            return Ok(Sending::UnderWay(op));
        }
        if mode == Mode::Synchronous {
            return self.send_unmatched(to, key, data).map(Sending::UnderWay);
        }
        let ticket = self.next_ticket();
        self.send_eager(to, key, Kind::Eager, ticket, data)?;
        Ok(Sending::Gone { to, ticket })
    }

    /// Sends a short message in standard mode. Returns `None` if it is not short or cannot be sent; another kind of send then
    /// says why.
    ///
    /// Its result is returned in registers. A larger result, such as one that may be an error, is written in parts and then
    /// copied; right after a send that copy stalls until the store buffer has drained, that is, until the receiver's core has
    /// given up the cache line of the message.
    #[inline]
    pub(crate) fn send_at_once(&self, to: u32, key: Key, data: &[u8]) -> Option<Sending> {
        if data.len() > self.eager(to) {
            return None;
        }
        let ticket = self.next_ticket();
        let sent = self.send_eager(to, key, Kind::Eager, ticket, data).is_ok();
        sent.then_some(Sending::Gone { to, ticket })
    }

    /// Numbers a message that needs no operation.
    fn next_ticket(&self) -> u64 {
        let mut state = self.state.borrow_mut();
        state.ticket += 1;
        state.ticket
    }

    /// Like [`isend`](Self::isend), for a slice that stays as it is until the operation is taken or detached: a long one is
    /// not copied, but read by its receiver, or sent from where it lies while this rank waits for the operation.
    pub(crate) fn isend_lent(&self, to: u32, key: Key, data: &[u8], mode: Mode) -> Result<Sending> {
        if !self.borrows(to, data.len()) {
            return self.isend_slice(to, key, data, mode);
        }
        let op = self.prepare_offer(to, key, data, None, 0);
        if let Some(op) = self.state.borrow_mut().ops.get_mut(op.key()) {
            op.lent = true;
            // So that this rank can read it, even if the receiver cannot.
            op.seal.get_or_insert_with(|| Seal::of(data));
        }
        self.announce(op, to, key, data.len())?;
        Ok(Sending::UnderWay(op))
    }

    /// Sends lent slices that are wanted: from where they lie if `landing` has them, as the caller waits for them, otherwise
    /// from copies. Returns `true` if there were any.
    pub(super) fn send_wanted(&self, landing: Option<&dyn Landing>) -> bool {
        if self.state.borrow().wanted.is_empty() {
            return false;
        }
        let wanted = std::mem::take(&mut self.state.borrow_mut().wanted);
        wanted.iter().for_each(|&op| self.send_if_wanted(op, landing));
        true
    }

    pub(super) fn send_if_wanted(&self, op: OpId, landing: Option<&dyn Landing>) {
        let state = self.state.borrow();
        let Some(Op { state: OpState::Wanted { to, key, receive }, seat, seal, .. }) =
            state.ops.get(op.key())
        else {
            return;
        };
        let (to, key, receive) = (*to, *key, *receive);
        let slice = landing.and_then(|landing| landing.source(op, *seat));
        let copy = || self.copy_of_lent(seal.as_ref()?);
        let copy = if slice.is_none() { copy() } else { None };
        drop(state);
        let after = match slice.or(copy.as_deref()) {
            Some(data) => {
                // A rank that is gone needs nothing any more.
                let _ = self.send_pieces(to, key, receive, data);
                OpState::Sent { to }
            }
            None => {
                let text = "the memory that a message was sent from is not there any more";
                tracing::error!(to, "{text}: it is lost");
                OpState::Broken(text.to_owned())
            }
        };
        if let Some(op) = self.state.borrow_mut().ops.get_mut(op.key()) {
            (op.state, op.seal, op.lent) = (after, None, false);
        }
    }

    /// Like [`isend_lent`](Self::isend_lent), for data that [`lends`](Self::lends) has allowed to be lent, until it is
    /// settled. Returns the number of the offer.
    pub(crate) fn offer_lent(&self, to: u32, key: Key, data: &[u8]) -> Result<u64> {
        if !self.lends(to, data.len()) {
            // The last piece of longer data.
            return self.send_eager(to, key, Kind::Eager, 0, data).map(|()| OpId::NONE.0);
        }
        self.isend_lent(to, key, data, Mode::Standard).map(|sending| sending.op().unwrap_or(OpId::NONE).0)
    }

    /// Ends the lending of data: if it has not been read (after a short wait, if `patiently`), it is copied. Returns `true`
    /// if it was read.
    pub(crate) fn settle(&self, offer: u64, patiently: bool) -> bool {
        let op = OpId(offer);
        let len = self.state.borrow().ops.get(op.key()).map(|op| op.seal.as_ref().map_or(0, Seal::len));
        let Some(len) = len else { return true };
        if patiently {
            // The reader may first have to read what others have offered.
            self.spin_until(op, PEACE + 16 * reading_time(len));
        } else {
            // The next wait reports errors.
            let _ = self.poll_all();
            self.send_wanted(None);
        }
        let read = self.take(op).is_some();
        if !read {
            self.detach(op);
        }
        read
    }

    /// [Settles](Self::settle) all of these offers, and helps receivers that read these bytes meanwhile.
    pub(crate) fn settle_all(&self, offers: &[(u64, &[u8])], mut patiently: bool) {
        self.show(offers.iter().map(|&(offer, bytes)| (OpId(offer), bytes)), || {
            for &(offer, _) in offers {
                patiently &= self.settle(offer, patiently);
            }
        });
    }

    pub(super) fn isend_buffered(
        &self,
        to: u32,
        key: Key,
        data: Bytes,
        mode: Mode,
        buffered: usize,
    ) -> Result<Sending> {
        if data.len() > self.eager(to) {
            return self.offer(to, key, &data.clone(), Some(data), buffered).map(Sending::UnderWay);
        }
        if self.copies(to, data.len()) || mode == Mode::Synchronous {
            return self.isend_slice(to, key, &data, mode);
        }
        let ticket = self.next_ticket();
        self.send_parts(to, key, ticket, data)?;
        Ok(Sending::Gone { to, ticket })
    }

    /// Sends a message of any length eagerly and without copying it; for messages that are known to be wanted.
    pub(crate) fn send_shared(&self, to: u32, key: Key, data: Bytes) -> Result {
        if self.copies(to, data.len()) {
            return self.send_eager(to, key, Kind::Eager, 0, &data);
        }
        self.send_parts(to, key, 0, data)
    }

    /// Whether data of this length is copied behind its header even if it could be handed over: that is cheaper, or it is
    /// copied anyway.
    fn copies(&self, to: u32, len: usize) -> bool {
        len <= INLINE || (len <= EAGER_SHM && self.local(to).is_none() && self.shares_memory(to))
    }

    /// Sends a whole message with its data as a part of its own.
    fn send_parts(&self, to: u32, key: Key, ticket: u64, data: Bytes) -> Result {
        let mut payload = Payload::from(self.header(Kind::Eager, key, ticket, data.len()).with(&[]));
        payload.push(data);
        let sent = self.transmit(to, payload);
        sent.map_err(|error| error.while_waiting_for(|| self.describe_send(to, key)))
    }

    /// Returns a copy, in memory from the pool.
    pub(crate) fn copy_of(&self, data: &[u8]) -> Bytes {
        self.pool.join(&[], data)
    }

    /// Like [`send_shared`](Self::send_shared), but sends a copy.
    pub(crate) fn send_copy(&self, to: u32, key: Key, data: &[u8]) -> Result {
        self.send_eager(to, key, Kind::Eager, 0, data)
    }

    /// Sends in buffered mode: the message leaves at once, or waits in the attached buffer.
    pub(crate) fn send_buffered(&self, to: u32, key: Key, data: &[u8]) -> Result<Sending> {
        if data.len() <= self.eager(to) {
            let free = self.state.borrow().buffer_free;
            if data.len() > free {
                return Err(MpiError::Buffer { wanted: data.len(), free });
            }
            return self.isend_slice(to, key, data, Mode::Standard);
        }
        self.progress()?;
        {
            let mut state = self.state.borrow_mut();
            if data.len() > state.buffer_free {
                return Err(MpiError::Buffer { wanted: data.len(), free: state.buffer_free });
            }
            state.buffer_free -= data.len();
        }
        self.isend_buffered(to, key, self.pool.join(&[], data), Mode::Standard, data.len())
    }

    /// Attaches a buffer of this size for buffered sends. Returns the previous size.
    pub(crate) fn attach_buffer(&self, bytes: usize) -> usize {
        let mut state = self.state.borrow_mut();
        let before = state.buffer_size;
        state.buffer_size = bytes;
        state.buffer_free = bytes;
        before
    }

    pub(crate) fn buffer_size(&self) -> usize {
        self.state.borrow().buffer_size
    }

    /// Waits until no buffered send is under way.
    pub(crate) fn drain_buffer(&self) -> Result {
        self.drain(|op| op.buffered > 0)
    }

    /// Waits for all detached sends and background operations, and tells the supervisor that this rank has finished.
    pub(crate) fn finish(&self, result: Vec<u8>) -> Result {
        let failed = self.state.borrow().failed.clone();
        let is_wanted = |key: &Key| !failed.contains(&key.context);
        loop {
            match self.drain(
                |op| matches!(&op.state, OpState::Offered { key, .. } if op.detached && is_wanted(key)),
            ) {
                Ok(()) => break,
                Err(MpiError::ProcFailed { rank, why, .. }) => {
                    tracing::warn!("rank {rank} {why}, and has not received what was sent to it");
                }
                Err(MpiError::Revoked(context)) => {
                    tracing::debug!("{context} was revoked, and what was sent there is not received");
                }
                Err(error) => return Err(error),
            }
        }
        self.finish_background()?;
        let sent = self.state.borrow().sent.clone();
        self.report(&Report::Finished { result, sent });
        Ok(())
    }

    /// Notes that a collective operation of this context has failed on this rank.
    pub(crate) fn note_failure(&self, context: u32) {
        self.state.borrow_mut().failed.insert(context);
    }

    /// Waits for some operations. Returns the error of the first one that fails, which is then over; the caller may call
    /// again to wait for the others.
    pub(super) fn drain(&self, concerns: impl Fn(&Op) -> bool) -> Result {
        loop {
            let pending: Vec<OpId> = {
                let state = self.state.borrow();
                state.ops.iter().filter(|(_, op)| concerns(op)).map(|(key, _)| key.into()).collect()
            };
            match pending.first() {
                Some(&op) => self.wait_for(&[op]).inspect_err(|_| self.forget(op))?,
                None => return Ok(()),
            }
        }
    }

    pub(super) fn send_unmatched(&self, to: u32, key: Key, data: &[u8]) -> Result<OpId> {
        let op = self.add(OpState::Unmatched { to, key });
        self.send_eager(to, key, Kind::EagerSync, op.0, data).inspect_err(|_| self.forget(op))?;
        Ok(op)
    }

    #[inline]
    pub(super) fn send_eager(&self, to: u32, key: Key, kind: Kind, ticket: u64, data: &[u8]) -> Result {
        self.transmit_slice(to, &self.header(kind, key, ticket, data.len()), data)
    }

    /// Offers a message. `owned` is the same data, if the engine is to send it without the caller.
    pub(super) fn offer(
        &self,
        to: u32,
        key: Key,
        data: &[u8],
        owned: Option<Bytes>,
        buffered: usize,
    ) -> Result<OpId> {
        let op = self.prepare_offer(to, key, data, owned, buffered);
        self.announce(op, to, key, data.len())?;
        Ok(op)
    }

    fn prepare_offer(&self, to: u32, key: Key, data: &[u8], owned: Option<Bytes>, buffered: usize) -> OpId {
        let seal = self.exposes(to, data.len()).then(|| self.seal(to, data, owned.as_ref()));
        let mut op = Op::new(OpState::Offered { to, key, data: owned });
        (op.seal, op.buffered) = (seal, buffered);
        self.state.borrow_mut().ops.insert(op).into()
    }

    /// Sends the request to send of an offer. Forgets the offer if that fails.
    fn announce(&self, op: OpId, to: u32, key: Key, len: usize) -> Result {
        let header = self.header(Kind::RequestToSend, key, op.0, len);
        let exposure = {
            let state = self.state.borrow();
            let seal = state.ops.get(op.key()).and_then(|op| op.seal.as_ref());
            seal.filter(|_| self.exposes(to, len)).map(Seal::exposure)
        };
        let exposure = exposure.as_ref().map_or(&[][..], bytemuck::bytes_of);
        self.transmit_slice(to, &header, exposure).inspect_err(|_| self.forget(op))
    }
}
