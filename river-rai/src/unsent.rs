//! Replies for which their clients had no room: kept until the client has room, or is gone.
//!
//! There is no notification when a mailbox has room again. So one reply is retried after each request that the server
//! executes, and all of them after it was idle for an interval, which grows as long as none is accepted.

use std::collections::VecDeque;
use std::time::Duration;

use river_core::VrId;

use crate::wire::Reply;

const SHORTEST: Duration = Duration::from_millis(1);
/// How many times the interval is doubled: up to 64 ms.
const DOUBLED: u32 = 6;
/// How many times a server that is stopping retries without success: for five seconds.
const LAST: u32 = 80;

#[derive(Default)]
pub(crate) struct Unsent {
    replies: VecDeque<Reply>,
    /// How many retries in a row failed.
    misses: u32,
}

impl Unsent {
    pub(crate) fn keep(&mut self, reply: Reply) {
        self.replies.push_back(reply);
        self.misses = 0;
    }

    /// How long the server may wait for a request; `None`: forever.
    pub(crate) fn patience(&self) -> Option<Duration> {
        (!self.replies.is_empty()).then(|| SHORTEST * 2_u32.pow(self.misses.min(DOUBLED)))
    }

    /// Begins the time that clients have left when the server is stopping.
    pub(crate) fn begin_last(&mut self) {
        self.misses = 0;
    }

    /// Like [`patience`](Self::patience), for a server that is stopping; `None` if there is nothing left to send, or it
    /// has given up.
    pub(crate) fn last_patience(&self) -> Option<Duration> {
        self.patience().filter(|_| self.misses < LAST)
    }

    /// Retries the reply whose last try is longest ago. `send` returns the reply if it is refused.
    pub(crate) fn try_next(&mut self, send: impl FnOnce(Reply) -> Option<Reply>) {
        let Some(reply) = self.replies.pop_front() else { return };
        match send(reply) {
            Some(refused) => self.replies.push_back(refused),
            None => self.misses = 0,
        }
    }

    /// Retries all of them, as the server is idle.
    pub(crate) fn try_all(&mut self, mut send: impl FnMut(Reply) -> Option<Reply>) {
        self.misses = self.misses.saturating_add(1);
        for _ in 0..self.replies.len() {
            self.try_next(&mut send);
        }
    }

    /// Drops the replies to a client that is gone.
    pub(crate) fn forget(&mut self, client: VrId) {
        self.replies.retain(|reply| reply.client != client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Body;
    use crate::protocol::Ticket;

    #[test]
    fn all_are_tried_in_turn_and_more_and_more_seldom_while_none_is_taken() {
        let (client, gone) = (VrId::fresh(), VrId::fresh());
        let mut unsent = Unsent::default();
        assert_eq!(unsent.patience(), None);
        for number in 0..3 {
            unsent.keep(Reply { client, ticket: Ticket(number), outcome: Ok(Body::default()) });
        }
        unsent.keep(Reply { client: gone, ticket: Ticket(7), outcome: Ok(Body::default()) });
        unsent.forget(gone);
        let mut tried = Vec::new();
        unsent.try_next(|reply| {
            tried.push(reply.ticket.0);
            Some(reply)
        });
        let mut pauses = Vec::new();
        for _ in 0..10 {
            pauses.push(unsent.patience().unwrap().as_millis());
            unsent.try_all(|reply| {
                tried.push(reply.ticket.0);
                Some(reply)
            });
        }
        assert_eq!(tried[..7], [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64, 64, 64]);
        unsent.try_next(|_| None);
        assert_eq!(unsent.patience(), Some(SHORTEST));
        unsent.try_all(|_| None);
        assert_eq!(unsent.patience(), None);
    }

    #[test]
    fn who_ends_gives_up_when_none_is_taken_for_long() {
        let mut unsent = Unsent::default();
        for number in 0..2 {
            unsent.keep(Reply {
                client: VrId::fresh(),
                ticket: Ticket(number),
                outcome: Ok(Body::default()),
            });
        }
        (0..2 * LAST).for_each(|_| unsent.try_all(Some));
        unsent.begin_last();
        let in_vain = |unsent: &mut Unsent| {
            let mut waited = Duration::ZERO;
            while let Some(patience) = unsent.last_patience() {
                waited += patience;
                unsent.try_all(Some);
            }
            waited.as_secs()
        };
        assert_eq!(in_vain(&mut unsent), 4);
        unsent.try_next(|_| None);
        assert_eq!(in_vain(&mut unsent), 4);
        unsent.try_next(|_| None);
        assert_eq!(unsent.last_patience(), None);
    }
}
