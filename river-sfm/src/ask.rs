//! Questions and their replies.
//!
//! A question carries the attribute `ask`, which names who asked and a number; its reply travels on a channel of its own,
//! in the lane of that number, so that no other receive sees it and it is found at once.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Instant;

use river_core::{Channel, Selector, Vr, VrId};
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

/// So many questions are remembered whose replies may yet come; of more of them, not those that were looked for longest ago.
const REMEMBERED: usize = 256;
/// So many of their replies are looked for with each new question.
const LOOKS: usize = 8;

/// The questions of a VR whose replies nobody waits for any more; next is looked for the first.
#[derive(Default)]
struct GivenUp(RefCell<VecDeque<u64>>);

impl GivenUp {
    fn add(&self, number: u64) {
        let mut numbers = self.0.borrow_mut();
        if numbers.len() == REMEMBERED {
            numbers.pop_front();
        }
        numbers.push_back(number);
    }

    /// Drops replies that have come. Handlers may run meanwhile, and ask.
    fn drop_replies(&self, vr: &Vr) {
        let looks = self.0.borrow().len().min(LOOKS);
        for _ in 0..looks {
            let next = self.0.borrow_mut().pop_front();
            if let Some(number) = next.filter(|&number| !drop_reply(vr, number)) {
                self.add(number);
            }
        }
    }
}

pub(crate) fn ask(
    vr: &Vr,
    dest: VrId,
    question: Message,
    deadline: Option<Instant>,
) -> Result<Message, AskError> {
    let given_up = vr.slot::<GivenUp>();
    given_up.drop_replies(vr);
    let ticket = Ticket { asker: vr.id(), number: vr.fresh_number() };
    let text = deadline.map(|_| question.to_string());
    traced::describe(vr);
    traced::describe_replies(vr, REPLIES);
    let Sealed { payload, lane } = question.without(ASK).with_any(ASK, &ticket).seal()?;
    vr.send_bytes(dest, SFM, lane, payload).map_err(SendError::Core)?;
    let selector = Selector::on(REPLIES).lane(ticket.number).awaiting(dest);
    match vr.receive_until(selector, deadline, |_| true) {
        Ok(envelope) => Ok(open(envelope)?),
        Err(error) => {
            // Also of who is gone: it may have forwarded the question.
            given_up.add(ticket.number);
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

/// Drops a reply if it has come. A receive that finds nothing would hear of other news instead: hence the look before.
fn drop_reply(vr: &Vr, number: u64) -> bool {
    let selector = Selector::on(REPLIES).lane(number);
    vr.peek_where(selector, |_| Some(())).is_some()
        && matches!(vr.try_receive_where(selector, |_| true), Ok(Some(_)))
}
