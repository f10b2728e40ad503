//! Taking in messages, wherever they lie: in memory of their own, in memory shared with their sender, or still arriving on a
//! connection. While a rank waits, the data is copied from there straight into the buffer of its receive; otherwise, the
//! message is kept.

use river_core::Intake;

use super::arrival::{Arrival, Message};
use super::incoming::Incoming;
use super::{Ask, Engine, OpId, OpState, State};
use crate::header::{HEADER, Header, Kind};

/// A blocking receive. It is always the receive that was posted last, so every posted receive has precedence over it, and it
/// needs no place in the posted queue.
pub(super) struct Hook<'a> {
    pub(super) ask: &'a Ask,
    /// The caller's buffer, used if the data fits.
    pub(super) out: Option<&'a mut [u8]>,
    pub(super) got: Option<Got>,
}

/// What a blocking receive has got.
pub(super) enum Got {
    /// A message whose data is in the caller's buffer.
    Landed(Header),
    Message(Message),
}

/// The buffers of operations that the caller waits for: where their data goes, or comes from.
pub(crate) trait Landing {
    /// Returns the memory for the message of this operation, which was given this seat; `None` if the message is to be kept
    /// until the caller asks for it.
    fn memory(&mut self, op: OpId, seat: u32) -> Option<&mut [u8]>;

    /// Returns the slice that this operation sends, if the caller shows it.
    fn source(&self, _: OpId, _seat: u32) -> Option<&[u8]> {
        None
    }

    /// Whether the wait is over once this operation is complete.
    fn is_last(&self, op: OpId) -> bool;
}

/// Memory for one operation.
pub(super) struct One<'a> {
    pub(super) op: OpId,
    pub(super) memory: &'a mut [u8],
}

impl Landing for One<'_> {
    fn memory(&mut self, op: OpId, _: u32) -> Option<&mut [u8]> {
        (op == self.op).then_some(&mut *self.memory)
    }

    fn is_last(&self, op: OpId) -> bool {
        op == self.op
    }
}

impl State {
    /// Takes in a message of which only the beginning has arrived. It is matched when it is complete; if that takes too long,
    /// it is delivered later like any other message, and a message from another rank may be matched before it. So it may be
    /// copied only into the buffer of a receive that will get it even then: one that names its source.
    fn take_coming(
        &mut self,
        header: Header,
        arriving: &impl Incoming,
        hook: Option<&mut Hook<'_>>,
        landing: Option<&mut dyn Landing>,
    ) -> Intake {
        let bytes = arriving.len() - HEADER;
        let Some(op) = self.matching.wants(&header.key).map(OpId) else {
            let Some(hook) = hook.filter(|hook| hook.got.is_none() && hook.ask.pattern.will_get(&header.key))
            else {
                return Intake::Left;
            };
            let place = hook.out.as_deref_mut().and_then(|out| out.get_mut(..bytes));
            if !place.is_some_and(|place| arriving.copy_data(place)) {
                return Intake::Left;
            }
            hook.got = Some(Got::Landed(header));
            return Intake::Done;
        };
        let (Some(posted), Some(landing)) = (self.ops.get_mut(op.key()), landing) else {
            return Intake::Left;
        };
        if !matches!(&posted.state, OpState::Posted(ask) if ask.pattern.will_get(&header.key)) {
            return Intake::Left;
        }
        let last = landing.is_last(op);
        let place = landing.memory(op, posted.seat).and_then(|memory| memory.get_mut(..bytes));
        let Some(place) = place else { return Intake::Left };
        if !arriving.copy_data(place) {
            posted.torn = true;
            return Intake::Left;
        }
        posted.state = OpState::Landed(header.receipt());
        self.matching.claim(&header.key);
        if last { Intake::Done } else { Intake::Taken }
    }

    /// Gives a message that no posted receive wants to the hook, if the hook matches it; `get` is told where its data fits.
    /// Otherwise keeps it.
    fn pass_on(
        &mut self,
        header: Header,
        hook: Option<&mut Hook<'_>>,
        get: impl FnOnce(Option<&mut [u8]>) -> Got,
    ) -> Intake {
        match hook.filter(|hook| hook.got.is_none() && hook.ask.pattern.matches(&header.key)) {
            Some(hook) => {
                let place = hook.out.as_deref_mut().and_then(|out| out.get_mut(..header.len()));
                hook.got = Some(get(place));
                Intake::Done
            }
            None => {
                if let Got::Message(message) = get(None) {
                    self.matching.keep(header.key, message);
                }
                Intake::Taken
            }
        }
    }

    /// Copies a piece to where its operation's owner waits for it. Returns `None` if nobody does, or the piece does not fit or
    /// did not arrive in time.
    fn land_piece(
        &mut self,
        op: OpId,
        message: &impl Incoming,
        landing: Option<&mut dyn Landing>,
    ) -> Option<Intake> {
        let receive = self.ops.get_mut(op.key()).filter(|receive| !receive.detached)?;
        let (OpState::Arriving(arrival), Some(landing)) = (&mut receive.state, landing) else { return None };
        let bytes = message.len() - HEADER;
        let last = landing.is_last(op);
        let place = arrival.place(landing.memory(op, receive.seat)?, bytes)?;
        if !message.copy_data(place) || arrival.count(bytes).is_err() {
            return None;
        }
        arrival.landed += bytes;
        if !arrival.is_whole() {
            return Some(Intake::Taken);
        }
        receive.arrive();
        Some(if last { Intake::Done } else { Intake::Taken })
    }
}

impl Engine<'_> {
    /// Takes in one message. What no posted receive wants goes to the hook, if the hook matches it. Returns whether it was
    /// taken, and whether the caller has what it waits for.
    pub(super) fn take_in(
        &self,
        message: &impl Incoming,
        hook: Option<&mut Hook<'_>>,
        landing: Option<&mut dyn Landing>,
    ) -> Intake {
        let Some(header) = message.header() else { return Intake::Left };
        let state = &mut *self.state.borrow_mut();
        let from = header.from as usize;
        if from >= state.received.len() {
            // The supervisor's orders are taken by `handle`.
            if message.is_final() {
                tracing::warn!(from, "a message from a rank that does not exist");
            }
            return Intake::Left;
        }
        let intake = match header.kind {
            Kind::Eager | Kind::EagerSync if (message.len() - HEADER) as u64 != header.length => {
                tracing::warn!(from, "a message of another length than it says");
                Intake::Taken
            }
            Kind::Eager if !message.is_here() => state.take_coming(header, message, hook, landing),
            Kind::Eager => self.take_whole(state, header, message, hook, landing),
            Kind::Fragment => self.take_piece(state, OpId(header.ticket), message, landing),
            Kind::RequestToSend if message.is_here() => self.take_offer(state, header, message, hook),
            Kind::Ack if message.is_here() => {
                state.matched(OpId(header.ticket).key());
                Intake::Done
            }
            Kind::Revoke if message.is_here() => {
                state.revoked.insert(header.key.context);
                Intake::Taken
            }
            // The other kinds may be answered, which is forbidden while the link is held.
            _ if !message.is_final() => Intake::Left,
            Kind::EagerSync => self.take_whole(state, header, message, hook, landing),
            kind => {
                match kind {
                    Kind::ClearToSend => self.granted(state, &header),
                    Kind::CancelRequest => self.answer_cancel(state, &header),
                    Kind::CancelGranted => state.recalled(OpId(header.length), true),
                    Kind::CancelDenied => state.recalled(OpId(header.length), false),
                    _ => {}
                }
                Intake::Taken
            }
        };
        if intake != Intake::Left {
            state.received[from] += 1;
            state.arrivals += 1;
        }
        intake
    }

    /// Takes in a message that has arrived as a whole.
    fn take_whole(
        &self,
        state: &mut State,
        header: Header,
        message: &impl Incoming,
        hook: Option<&mut Hook<'_>>,
        landing: Option<&mut dyn Landing>,
    ) -> Intake {
        let Some(op) = state.matching.claim(&header.key).map(OpId) else {
            return state.pass_on(header, hook, |place| {
                // The receive confirms a synchronous message itself.
                let lands = header.kind == Kind::Eager && place.is_some_and(|place| message.copy_data(place));
                if lands {
                    Got::Landed(header)
                } else {
                    Got::Message(Message { header, payload: message.kept(self) })
                }
            });
        };
        let Some(posted) = state.ops.get_mut(op.key()) else { return Intake::Taken };
        let (mut landing, mut last) = (landing, true);
        if let Some(landing) = landing.as_deref_mut() {
            last = landing.is_last(op);
        }
        let memory = landing.and_then(|landing| landing.memory(op, posted.seat));
        let place = memory.and_then(|memory| memory.get_mut(..header.len()));
        posted.state = if place.is_some_and(|place| message.copy_data(place)) {
            OpState::Landed(header.receipt())
        } else {
            let payload = message.kept(self);
            OpState::Arrived(Arrival::new(Message { header, payload }))
        };
        if header.kind == Kind::EagerSync {
            self.confirm(state, &header);
        }
        if last { Intake::Done } else { Intake::Taken }
    }

    /// Takes in an offer. Its data is read by this rank, or requested if this rank cannot read it.
    fn take_offer(
        &self,
        state: &mut State,
        header: Header,
        message: &impl Incoming,
        hook: Option<&mut Hook<'_>>,
    ) -> Intake {
        let offer = Message { header, payload: message.kept(self) };
        let reads = self.can_read(state, &offer);
        if !reads && !message.is_final() {
            return Intake::Left;
        }
        let Some(op) = state.matching.claim(&header.key).map(OpId) else {
            return state.pass_on(header, hook, |_| Got::Message(offer));
        };
        if reads {
            state.expect(op, offer);
            return Intake::Done;
        }
        if let Some(posted) = state.ops.get_mut(op.key()) {
            posted.state = OpState::Arriving(Arrival::coming(header));
        }
        self.go(state, &header, op.0);
        Intake::Taken
    }

    /// Takes in a piece of the message of an operation.
    fn take_piece(
        &self,
        state: &mut State,
        op: OpId,
        message: &impl Incoming,
        landing: Option<&mut dyn Landing>,
    ) -> Intake {
        if let Some(intake) = state.land_piece(op, message, landing) {
            return intake;
        }
        if !message.is_final() {
            return Intake::Left;
        }
        state.add_piece(op, message.kept(self));
        Intake::Taken
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use river_core::Payload;

    use super::*;
    use crate::engine::{Op, Sources};
    use crate::matching::{Key, Pattern};

    const KEY: Key = Key { context: 0, source: 1, tag: 3 };
    const HEAD: Header = Header { kind: Kind::Eager, from: 1, key: KEY, ticket: 0, length: 6 };

    /// A message of which all arrives in time, or only the beginning.
    struct Coming {
        in_time: bool,
        asked: Cell<bool>,
    }

    impl Incoming for Coming {
        fn len(&self) -> usize {
            HEADER + 6
        }

        fn head(&self) -> [u8; HEADER] {
            HEAD.encode()
        }

        fn is_here(&self) -> bool {
            false
        }

        fn copy_data(&self, out: &mut [u8]) -> bool {
            self.asked.set(true);
            out[..3].fill(1);
            self.in_time && {
                out[3..].fill(2);
                true
            }
        }

        fn kept(&self, _: &Engine<'_>) -> Payload {
            unreachable!("it is not here")
        }
    }

    fn ask(source: Option<u32>, tag: Option<i32>) -> Ask {
        Ask { pattern: Pattern { context: 0, source, tag }, sources: Sources::Any([0, 1, 2].into()) }
    }

    fn coming(in_time: bool) -> Coming {
        Coming { in_time, asked: Cell::new(false) }
    }

    #[test]
    fn a_message_that_is_coming_is_matched_when_all_of_it_is_there() {
        for in_time in [true, false] {
            let mut state = State::new(2);
            let ask = ask(Some(1), None);
            let op = OpId::from(state.ops.insert(Op::new(OpState::Posted(ask.clone()))));
            state.matching.post(op.0, &ask.pattern);
            let mut memory = [0; 8];
            let landing: &mut dyn Landing = &mut One { op, memory: &mut memory };
            let intake = state.take_coming(HEAD, &coming(in_time), None, Some(landing));
            assert_eq!(intake, if in_time { Intake::Done } else { Intake::Left });
            assert_eq!(state.is_complete(op), in_time);
            assert_eq!(state.ops[op.key()].torn, !in_time, "so that it is not cancelled any more");
            assert_eq!(state.matching.claim(&KEY).is_some(), !in_time);
            assert_eq!(memory, if in_time { [1, 1, 1, 2, 2, 2, 0, 0] } else { [1, 1, 1, 0, 0, 0, 0, 0] });
        }
    }

    #[test]
    fn it_is_not_written_where_another_message_may_come_first() {
        let mut memory = [0; 8];
        let ask = ask(None, Some(3));
        let (mut state, message) = (State::new(3), coming(true));
        let hook = &mut Hook { ask: &ask, out: Some(&mut memory), got: None };
        assert_eq!(state.take_coming(HEAD, &message, Some(hook), None), Intake::Left);
        let op = OpId::from(state.ops.insert(Op::new(OpState::Posted(ask.clone()))));
        state.matching.post(op.0, &ask.pattern);
        let landing: &mut dyn Landing = &mut One { op, memory: &mut memory };
        assert_eq!(state.take_coming(HEAD, &message, None, Some(landing)), Intake::Left);
        assert!(!message.asked.get());
    }
}
