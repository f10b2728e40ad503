//! What has arrived at a server and has not been handled: requests in order, and the deaths of clients.
//!
//! A server moves everything that has arrived into this queue before it executes the first request, so that a
//! cancellation finds its call, and a running function can check whether its result is still wanted.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use river_core::{RecvError, Vr, VrId};

use crate::connection::from_now;
use crate::handed_out::HandedOut;
use crate::protocol::{Op, Order, Ticket};
use crate::wire::{self, Request};

/// An event that a server must handle.
pub(crate) enum Arrival {
    Request(Request),
    /// A call that was cancelled in time.
    Cancelled {
        client: VrId,
        ticket: Ticket,
    },
    News(RecvError),
    /// Nothing arrived in time.
    Nothing,
}

/// The queue of a server, kept with its VR.
#[derive(Default)]
pub(crate) struct Intake(RefCell<Queue>);

#[derive(Default)]
struct Queue {
    arrived: VecDeque<Arrival>,
    /// The call that is being executed, if its client wants an answer.
    current: Option<Current>,
    cancelled: HashSet<(VrId, Ticket)>,
    /// The last call of each client that was begun. Tickets increase, so a cancellation of an earlier call comes too
    /// late.
    begun: HashMap<VrId, Ticket>,
    /// Nothing more can be received.
    over: bool,
    /// The VR with which the server ends.
    guardian: Option<VrId>,
    /// Calls that were begun and that helpers execute.
    handed_out: HandedOut,
}

struct Current {
    call: (VrId, Ticket),
    cancelled: bool,
}

impl Intake {
    /// Calls that were begun and that helpers of the server execute.
    pub(crate) fn handed_out(&self) -> HandedOut {
        self.0.borrow().handed_out.clone()
    }

    /// Has the server end with that VR: the results of calls that are being executed then are no longer wanted.
    pub(crate) fn ends_with(&self, guardian: VrId) {
        self.0.borrow_mut().guardian = Some(guardian);
    }

    /// Returns the next event. Blocks until there is one, at most for `patience`.
    pub(crate) fn next(&self, vr: &Vr, patience: Option<Duration>) -> Arrival {
        let mut queue = self.0.borrow_mut();
        queue.current = None;
        queue.take_all(vr);
        loop {
            if let Some(arrival) = queue.pop() {
                return arrival;
            }
            if queue.over {
                return Arrival::News(RecvError::Stopped);
            }
            match wire::recv_request(vr, patience.and_then(from_now)) {
                Err(RecvError::Timeout { .. }) => return Arrival::Nothing,
                received => queue.file(vr, received),
            }
            queue.take_all(vr);
        }
    }

    /// Whether the call that is being executed has been cancelled, its client is gone, or the server is to end.
    pub(crate) fn is_cancelled(&self, vr: &Vr) -> bool {
        let Ok(mut queue) = self.0.try_borrow_mut() else { return false };
        queue.take_all(vr);
        queue.handed_out.is_over() || queue.current.as_ref().is_some_and(|current| current.cancelled)
    }

    /// Forgets a client that is gone.
    pub(crate) fn forget(&self, client: VrId) {
        let mut queue = self.0.borrow_mut();
        queue.handed_out.forget(client);
        queue.begun.remove(&client);
        queue.cancelled.retain(|(by, _)| *by != client);
    }
}

impl Queue {
    /// Moves everything that has arrived into the queue; does not block.
    fn take_all(&mut self, vr: &Vr) {
        while !self.over {
            match wire::try_recv_request(vr) {
                // Called from within a receive's predicate, where nothing can be received.
                Ok(None) | Err(RecvError::Reentrant) => return,
                Ok(Some(request)) => self.file(vr, Ok(request)),
                Err(error) => self.file(vr, Err(error)),
            }
        }
    }

    fn file(&mut self, vr: &Vr, received: Result<Request, RecvError>) {
        if let Ok(Request { client, .. }) = received
            && vr.is_foreign(client)
        {
            // The client may have been lost and be back; then the loss must be handled first, with everything that it
            // frees.
            while let Err(error @ RecvError::Down(_)) = wire::ask_about(vr, client) {
                self.file(vr, Err(error));
            }
        }
        match received {
            Ok(Request { client, order: Order { op: Op::Cancel(ticket), .. }, .. }) => {
                self.cancel(client, ticket);
            }
            Ok(Request { client, order: Order { op: Op::Withdraw(ticket), .. }, .. }) => {
                self.withdraw(client, ticket);
            }
            Ok(request) => self.arrived.push_back(Arrival::Request(request)),
            Err(error) => {
                match &error {
                    RecvError::Down(down) => {
                        if let Some(current) = &mut self.current {
                            current.cancelled |= current.call.0 == down.who;
                        }
                        self.handed_out.lose(down.who);
                        if self.guardian == Some(down.who) {
                            self.handed_out.end();
                        }
                    }
                    _ => {
                        self.over = true;
                        self.handed_out.end();
                    }
                }
                self.arrived.push_back(Arrival::News(error));
            }
        }
    }

    fn cancel(&mut self, client: VrId, ticket: Ticket) {
        if let Some(current) = self.current.as_mut().filter(|current| current.call == (client, ticket)) {
            current.cancelled = true;
        } else if !self.withdraw(client, ticket) {
            self.handed_out.cancel((client, ticket));
        }
    }

    /// Prevents a call from being begun; returns `false` if it has been.
    fn withdraw(&mut self, client: VrId, ticket: Ticket) -> bool {
        let waits = self.begun.get(&client).is_none_or(|begun| *begun < ticket);
        if waits {
            self.cancelled.insert((client, ticket));
        }
        waits
    }

    fn pop(&mut self) -> Option<Arrival> {
        let arrival = self.arrived.pop_front()?;
        if let Arrival::Request(Request { client, order: Order { ticket: Some(ticket), .. }, .. }) = arrival {
            self.begun.insert(client, ticket);
            self.current =
                Some(Current { call: (client, ticket), cancelled: self.handed_out.is_lost(client) });
            if !self.cancelled.is_empty() && self.cancelled.remove(&(client, ticket)) {
                return Some(Arrival::Cancelled { client, ticket });
            }
        }
        Some(arrival)
    }
}
