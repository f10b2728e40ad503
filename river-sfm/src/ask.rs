//! Questions and their replies.
//!
//! A question carries the attribute `ask`, which holds the asker's id and a number. The reply travels on a channel of
//! its own, in the lane of that number, so no other receive sees it and it is found at once.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use river_core::{Channel, Envelope, Selector, Vr, VrId};
use serde::{Deserialize, Serialize};

use crate::error::{AskError, RecvError, SendError};
use crate::message::{ASK, Message, SFM, Sealed};
use crate::receive::open;
use crate::traced;

const REPLIES: Channel = Channel::named("sfm reply");

/// The value of `ask`.
#[derive(Debug, Serialize, Deserialize)]
struct Ticket {
    asker: VrId,
    number: u64,
}

/// The questions of a VR that await a reply: several if handlers ask while the VR waits.
#[derive(Default)]
struct Open {
    numbers: Rc<RefCell<Vec<u64>>>,
    /// Whether late replies are dropped.
    drops: Cell<bool>,
}

impl Open {
    /// Called when a question was given up: from now on, replies that nobody waits for are dropped on arrival.
    fn drop_late(&self, vr: &Vr) {
        if self.drops.replace(true) {
            return;
        }
        let open = self.numbers.clone();
        let is_late = move |reply: &Envelope| !open.borrow().contains(&reply.lane);
        vr.handle(Selector::on(REPLIES), is_late, |_, _| {}).detach();
    }
}

/// A question that awaits its reply.
struct Waiting {
    open: Rc<Open>,
    number: u64,
}

impl Waiting {
    fn new(open: &Rc<Open>, number: u64) -> Self {
        open.numbers.borrow_mut().push(number);
        Self { open: open.clone(), number }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.open.numbers.borrow_mut().retain(|number| *number != self.number);
    }
}

pub(crate) fn ask(
    vr: &Vr,
    dest: VrId,
    question: Message,
    deadline: Option<Instant>,
) -> Result<Message, AskError> {
    let ticket = Ticket { asker: vr.id(), number: vr.fresh_number() };
    let text = deadline.map(|_| question.to_string());
    traced::describe(vr);
    traced::describe_replies(vr, REPLIES);
    let Sealed { payload, lane } = question.without(ASK).with_any(ASK, &ticket).seal()?;
    let questions = vr.slot::<Open>();
    let waiting = Waiting::new(&questions, ticket.number);
    vr.send_bytes(dest, SFM, lane, payload).map_err(SendError::Core)?;
    let selector = Selector::on(REPLIES).lane(ticket.number).awaiting(dest);
    let received = vr.receive_until(selector, deadline, |_| true);
    drop(waiting);
    match received {
        Ok(envelope) => Ok(open(envelope)?),
        Err(error) => {
            // Also if the destination is gone: it may have forwarded the question.
            if matches!(error, river_core::RecvError::Timeout { .. } | river_core::RecvError::Down(_)) {
                questions.drop_late(vr);
            }
            Err(AskError::Recv(match error {
                river_core::RecvError::Timeout { waited, queued } => {
                    let pattern = format!("the reply to {}", text.unwrap_or_default());
                    RecvError::Timeout { waited, pattern, queued, near: Vec::new() }
                }
                error => error.into(),
            }))
        }
    }
}

pub(crate) fn reply(vr: &Vr, question: &Message, reply: Message) -> Result<(), SendError> {
    let ticket: Ticket = question.get(ASK).map_err(|_| SendError::NotAsked)?;
    traced::describe_replies(vr, REPLIES);
    let Sealed { payload, .. } = reply.seal()?;
    Ok(vr.send_bytes(ticket.asker, REPLIES, ticket.number, payload)?)
}
