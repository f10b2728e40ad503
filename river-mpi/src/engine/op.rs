//! The state of an operation under way.

use bytes::Bytes;
use slotmap::{DefaultKey, Key as _, KeyData};

use super::Ask;
use super::arrival::{Arrival, Message};
use super::cma::Seal;
use crate::header::Receipt;
use crate::matching::Key;

/// Identifies a pending operation: its key in `State::ops`. It may come from another rank, so it may be stale or invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct OpId(pub(super) u64);

impl OpId {
    /// Identifies no operation.
    pub(super) const NONE: Self = Self(0);

    pub(super) fn key(self) -> DefaultKey {
        KeyData::from_ffi(self.0).into()
    }
}

impl From<DefaultKey> for OpId {
    fn from(key: DefaultKey) -> Self {
        Self(key.data().as_ffi())
    }
}

/// A send that was started.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sending {
    /// The message has left: all that is known of it here is its number.
    Gone {
        to: u32,
        ticket: u64,
    },
    UnderWay(OpId),
}

impl Sending {
    /// Returns its operation, if it is still under way.
    pub(crate) fn op(self) -> Option<OpId> {
        match self {
            Self::Gone { .. } => None,
            Self::UnderWay(op) => Some(op),
        }
    }
}

/// An operation under way.
#[derive(Debug)]
pub(super) struct Op {
    pub(super) state: OpState,
    /// Nobody will ask for its outcome.
    pub(super) detached: bool,
    /// The sender has asked to cancel the message, and has no answer yet.
    pub(super) recalled: bool,
    /// How many bytes of the attached buffer it occupies.
    pub(super) buffered: usize,
    /// Its place among the operations that are waited for together.
    pub(super) seat: u32,
    /// Vouches that the data is where the offer says.
    pub(super) seal: Option<Seal>,
    /// The data is a slice that the operation's request borrows.
    pub(super) lent: bool,
    /// A part of its message was written to the memory that was given for it, and the rest arrives later.
    pub(super) torn: bool,
}

/// Every message passes through an `Op`, so it must be cheap to move.
const _: () = assert!(size_of::<Op>() <= 128);

impl Op {
    pub(super) fn new(state: OpState) -> Self {
        Self {
            state,
            detached: false,
            recalled: false,
            buffered: 0,
            seat: 0,
            seal: None,
            lent: false,
            torn: false,
        }
    }

    /// Notes that all of its message has arrived.
    pub(super) fn arrive(&mut self) {
        if let OpState::Arriving(arrival) = std::mem::replace(&mut self.state, OpState::Cancelled) {
            self.state = OpState::Arrived(arrival);
        }
    }
}

#[derive(Debug)]
pub(super) enum OpState {
    Posted(Ask),
    /// An offer was matched, and this rank reads its data as soon as it knows where the data belongs.
    Due(Box<Message>),
    Arriving(Arrival),
    Arrived(Arrival),
    /// Its message arrived as a whole, and is in the memory that the caller gave when it waited.
    Landed(Receipt),
    /// Waits for [`Kind::ClearToSend`]; without data, the caller will send the pieces.
    Offered {
        to: u32,
        key: Key,
        data: Option<Bytes>,
    },
    /// The receiver waits for the pieces of a slice that the operation's request borrows.
    Wanted {
        to: u32,
        key: Key,
        receive: u64,
    },
    /// The caller may send the pieces, for this receive.
    Granted {
        receive: u64,
    },
    /// Waits for [`Kind::Ack`].
    Unmatched {
        to: u32,
        key: Key,
    },
    Sent {
        to: u32,
    },
    Cancelled,
    /// It has failed: its message did not arrive as announced, or could not be sent.
    Broken(String),
}

impl OpState {
    /// Returns the rank that an operation sends to.
    pub(super) fn receiver(&self) -> Option<u32> {
        match *self {
            Self::Offered { to, .. }
            | Self::Wanted { to, .. }
            | Self::Unmatched { to, .. }
            | Self::Sent { to } => Some(to),
            _ => None,
        }
    }
}

impl From<Arrival> for OpState {
    fn from(arrival: Arrival) -> Self {
        if arrival.is_whole() { Self::Arrived(arrival) } else { Self::Arriving(arrival) }
    }
}

/// What a completed operation was.
#[derive(Debug)]
pub(crate) enum Outcome {
    Received(Arrival),
    Sent,
    Cancelled,
}
