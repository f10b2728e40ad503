//! Receiving and probing.

use bytes::Bytes;

use super::arrival::{Arrival, Message};
use super::cma::Owner;
use super::describe::WaitReason;
use super::intake::{Got, Hook, Landing, One};
use super::{Ask, Engine, Op, OpId, OpState, Sources, State};
use crate::error::{MpiError, Result};
use crate::header::{Header, Kind};
use crate::matching::{Key, Pattern};

impl Engine<'_> {
    /// Receives one message: into `out` if that was given and has room for it, and then returns no arrival; otherwise as it
    /// arrived.
    pub(crate) fn receive(&self, ask: &Ask, mut out: Option<&mut [u8]>) -> Result<(Header, Option<Arrival>)> {
        let message = match self.next_message(ask, out.as_deref_mut())? {
            Got::Landed(header) => return Ok((header, None)),
            Got::Message(message) => message,
        };
        let header = message.header;
        let mut fits = out.filter(|out| out.len() as u64 >= header.length);
        if header.kind != Kind::RequestToSend {
            let arrival = Arrival::new(message);
            let Some(out) = fits else { return Ok((header, Some(arrival))) };
            arrival.copy_to(out);
            return Ok((header, None));
        }
        let len = header.len();
        let op = match fits.as_deref_mut().and_then(|out| out.get_mut(..len)) {
            Some(out) => {
                if self.read_offered(&mut self.state.borrow_mut(), &message, out, Owner::Caller) {
                    return Ok((header, None));
                }
                let op = self.add(OpState::Arriving(Arrival::coming(header)));
                self.go(&mut self.state.borrow_mut(), &header, op.0);
                op
            }
            None => {
                let op = self.accept(message);
                self.read_due(None);
                op
            }
        };
        let result = self.collect(op, header.from, fits);
        let arrival = result.inspect_err(|_| self.forget(op))?;
        Ok((header, arrival))
    }

    /// Waits for all pieces of an accepted message, and copies them to `out` as they arrive, if that was given.
    pub(super) fn collect(&self, op: OpId, from: u32, out: Option<&mut [u8]>) -> Result<Option<Arrival>> {
        let mut out = out.map(|memory| One { op, memory });
        loop {
            let context = {
                let mut state = self.state.borrow_mut();
                let Some(Op { state: OpState::Arriving(arrival) | OpState::Arrived(arrival), .. }) =
                    state.ops.get_mut(op.key())
                else {
                    drop(state);
                    return Err(self.failure(op).err().unwrap_or(MpiError::Stopped));
                };
                if let Some(out) = &mut out {
                    arrival.unload(out.memory);
                }
                if arrival.is_whole() {
                    let Some(Op { state: OpState::Arrived(arrival) | OpState::Arriving(arrival), .. }) =
                        state.ops.remove(op.key())
                    else {
                        return Err(MpiError::Stopped);
                    };
                    return Ok(out.is_none().then_some(arrival));
                }
                arrival.header.key.context
            };
            self.check(context)?;
            let landing = out.as_mut().map(|out| -> &mut dyn Landing { out });
            self.block(WaitReason::Ops(&[op]), Sources::One(from).as_slice(), None, landing)?;
        }
    }

    /// Waits for the message of a blocking receive.
    fn next_message(&self, ask: &Ask, out: Option<&mut [u8]>) -> Result<Got> {
        let mut hook = Hook { ask, out, got: None };
        loop {
            // A background operation may have taken it in.
            let found = self.find(ask)?;
            if let Some((_, message)) = found {
                hook.got = Some(Got::Message(message));
            } else {
                self.block(WaitReason::Ops(&[]), ask.sources.as_slice(), Some(&mut hook), None)?;
            }
            match hook.got {
                Some(Got::Message(message)) => {
                    self.acknowledge(&message);
                    return Ok(Got::Message(message));
                }
                Some(landed) => return Ok(landed),
                None => {}
            }
        }
    }

    /// Takes the earliest unexpected message that matches, if there is one.
    #[inline]
    fn find(&self, ask: &Ask) -> Result<Option<(Key, Message)>> {
        let mut state = self.state.borrow_mut();
        state.refuse(Some(ask.pattern.context))?;
        Ok(state.matching.take(&ask.pattern))
    }

    /// Posts a receive.
    #[inline]
    pub(crate) fn post(&self, ask: &Ask) -> Result<OpId> {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        state.refuse(Some(ask.pattern.context))?;
        if let Some((_, message)) = state.matching.take(&ask.pattern) {
            drop(guard);
            self.acknowledge(&message);
            return Ok(self.accept(message));
        }
        // Constructed in place, as in `add`.
        let op = OpId::from(state.ops.insert_with_key(|_| Op::new(OpState::Posted(ask.clone()))));
        state.matching.post(op.0, &ask.pattern);
        Ok(op)
    }

    /// Begins to receive an unexpected message that was just matched.
    pub(super) fn accept(&self, message: Message) -> OpId {
        let offer = (message.header.kind == Kind::RequestToSend).then_some(message.header);
        if offer.is_some() && self.can_read(&self.state.borrow(), &message) {
            let op = self.add(OpState::Due(Box::new(message)));
            self.state.borrow_mut().due.push(op);
            return op;
        }
        let op = self.add(Arrival::new(message).into());
        if let Some(offer) = offer {
            self.go(&mut self.state.borrow_mut(), &offer, op.0);
        }
        op
    }

    pub(super) fn go(&self, state: &mut State, offer: &Header, receive: u64) {
        let header = Header { kind: Kind::ClearToSend, from: self.me, length: receive, ..*offer };
        // If the sender is dead, the wait for the pieces reports it.
        let _ = self.tell(state, offer.from, &header);
    }

    /// Tells the sender of a synchronous message that it was matched.
    pub(super) fn acknowledge(&self, message: &Message) {
        if message.header.kind == Kind::EagerSync {
            self.confirm(&mut self.state.borrow_mut(), &message.header);
        }
    }

    /// Receives the earliest message that matches, if one has arrived.
    pub(crate) fn try_receive(&self, ask: &Ask) -> Result<Option<Arrival>> {
        self.progress()?;
        let found = self.find(ask).map_err(|error| self.while_asking(ask, error))?;
        let Some((_, message)) = found else {
            let sources = ask.sources.as_slice();
            // A caller that polls must be told of failures, too.
            self.watch(sources);
            let checked = self.check_wait(sources, Some(ask));
            return checked.map(|()| None).map_err(|error| self.while_asking(ask, error));
        };
        if message.header.kind == Kind::RequestToSend {
            let from = message.header.from;
            let op = self.accept(message);
            self.read_due(None);
            return self.collect(op, from, None).inspect_err(|_| self.forget(op));
        }
        self.acknowledge(&message);
        Ok(Some(Arrival::new(message)))
    }

    #[cold]
    fn while_asking(&self, ask: &Ask, error: MpiError) -> MpiError {
        error.while_waiting_for(|| self.describe_ask(ask))
    }

    /// Takes the earliest message that matches and returns its bytes, if they are here already.
    pub(crate) fn arrived(&self, pattern: &Pattern) -> Option<Bytes> {
        let matching = &mut self.state.borrow_mut().matching;
        if matching.peek(pattern)?.1.header.kind != Kind::Eager {
            return None;
        }
        matching.take(pattern).map(|(_, message)| Arrival::new(message).into_bytes())
    }

    /// Returns an error if a rank is known to have failed. From now on, this rank is notified of its end.
    pub(crate) fn check_alive(&self, rank: u32) -> Result {
        self.watch(&[rank]);
        self.state.borrow().check_failed(&[rank])
    }

    /// Returns the header of the earliest message that matches, without taking the message.
    pub(crate) fn probe(&self, ask: &Ask) -> Result<Option<Header>> {
        self.progress()?;
        self.check(ask.pattern.context)?;
        let found = self.state.borrow_mut().matching.peek(&ask.pattern).map(|(_, message)| message.header);
        if found.is_none() {
            // As in `try_receive`.
            self.watch(ask.sources.as_slice());
            let checked = self.state.borrow().check_failed(ask.sources.as_slice());
            checked.map_err(|error| self.while_asking(ask, error))?;
        }
        Ok(found)
    }

    /// Waits for a message without taking it.
    pub(crate) fn probe_wait(&self, ask: &Ask) -> Result<Header> {
        loop {
            if let Some(header) = self.probe(ask)? {
                return Ok(header);
            }
            let mut hook = Hook { ask, out: None, got: None };
            self.block(WaitReason::Ops(&[]), ask.sources.as_slice(), Some(&mut hook), None)?;
            if let Some(Got::Message(message)) = hook.got {
                let header = message.header;
                self.state.borrow_mut().matching.keep(header.key, message);
                return Ok(header);
            }
        }
    }
}
