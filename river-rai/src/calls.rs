//! The calls of one VR that have no answer yet, and the answers that have not been taken.
//!
//! Replies are filed by ticket as they arrive, so waiting for one call costs the same however many others are
//! outstanding. Every call gets exactly one answer: the reply, or the notice that its server is gone. The reply to a
//! call that was given up has no entry here, and is dropped.

use std::collections::VecDeque;

use river_core::{Down, VrId};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::protocol::{Failure, Ticket};
use crate::wire::Outcome;

/// Identifies a set of calls that are waited for together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GroupId(pub(crate) u64);

/// How a call was answered.
pub(crate) enum Answer {
    Result(crate::body::Body),
    Failure(Failure),
    Down(Down),
}

/// Hashed deterministically: a VR that is replayed from its record gets notices in the same order.
#[derive(Default)]
pub(crate) struct Calls {
    open: FxHashMap<Ticket, Open>,
    groups: FxHashMap<GroupId, Group>,
    /// Calls that were given up but whose replies may still arrive, and their servers.
    abandoned: FxHashMap<Ticket, VrId>,
    /// Servers whose death this VR will be told of.
    servers: FxHashSet<VrId>,
    /// Servers that were told to stop: only an operation that waits for them learns of their end.
    dismissed: FxHashSet<VrId>,
    /// The VRs whose death this VR, as a server, must learn of.
    clients: FxHashSet<VrId>,
}

struct Open {
    server: VrId,
    answer: Option<Answer>,
    group: Option<GroupId>,
}

#[derive(Default)]
struct Group {
    /// Calls without an answer.
    waiting: FxHashSet<Ticket>,
    /// Calls with an answer, in order of arrival. Some may have been taken or given up since.
    ready: VecDeque<Ticket>,
}

impl Calls {
    /// Adds a server; returns `true` if it is new.
    pub(crate) fn add_server(&mut self, server: VrId) -> bool {
        self.servers.insert(server)
    }

    pub(crate) fn is_server(&self, who: VrId) -> bool {
        self.servers.contains(&who)
    }

    pub(crate) fn dismiss(&mut self, server: VrId) {
        self.dismissed.insert(server);
    }

    /// Notes that a server that had ended is back.
    pub(crate) fn take_back(&mut self, server: VrId) {
        self.dismissed.remove(&server);
    }

    /// Whether the server was told to stop, so that only an operation that waits for it learns of its end.
    pub(crate) fn is_dismissed(&self, who: VrId) -> bool {
        self.dismissed.contains(&who) && !self.is_client(who)
    }

    /// Adds a client; returns `true` if it is new.
    pub(crate) fn add_client(&mut self, client: VrId) -> bool {
        self.clients.insert(client)
    }

    pub(crate) fn is_client(&self, who: VrId) -> bool {
        self.clients.contains(&who)
    }

    pub(crate) fn remove_client(&mut self, client: VrId) {
        self.clients.remove(&client);
    }

    /// Adds a call that is about to be sent.
    pub(crate) fn open(&mut self, ticket: Ticket, server: VrId) {
        self.open.insert(ticket, Open { server, answer: None, group: None });
    }

    /// Whether replies may be in transit that nothing will wait for.
    pub(crate) fn has_abandoned(&self) -> bool {
        !self.abandoned.is_empty()
    }

    /// Forgets a call, whether it has an answer or not.
    pub(crate) fn give_up(&mut self, ticket: Ticket) {
        let Some(call) = self.open.remove(&ticket) else { return };
        if let Some(group) = call.group.and_then(|id| self.groups.get_mut(&id)) {
            group.waiting.remove(&ticket);
        }
        if call.answer.is_none() {
            self.abandoned.insert(ticket, call.server);
        }
    }

    /// Whether the call is known and its answer has not been taken.
    pub(crate) fn is_open(&self, ticket: Ticket) -> bool {
        self.open.contains_key(&ticket)
    }

    /// The server of a call that has not been answered.
    pub(crate) fn waits_for(&self, ticket: Ticket) -> Option<VrId> {
        self.open.get(&ticket).filter(|call| call.answer.is_none()).map(|call| call.server)
    }

    /// Takes the answer to a call, if it has arrived, and forgets the call.
    pub(crate) fn take(&mut self, ticket: Ticket) -> Option<Answer> {
        let answer = self.open.get_mut(&ticket)?.answer.take()?;
        self.open.remove(&ticket);
        Some(answer)
    }

    // ---- arrivals ----

    /// Files a reply.
    pub(crate) fn reply(&mut self, ticket: Ticket, outcome: Outcome) {
        if self.abandoned.remove(&ticket).is_none() {
            self.answer(ticket, outcome.map_or_else(Answer::Failure, Answer::Result));
        }
    }

    /// Answers all calls to a server that is gone. Its replies must have been filed before.
    pub(crate) fn down(&mut self, down: &Down) {
        self.abandoned.retain(|_, server| *server != down.who);
        let lost: Vec<Ticket> = self
            .open
            .iter()
            .filter(|(_, call)| call.server == down.who && call.answer.is_none())
            .map(|(&ticket, _)| ticket)
            .collect();
        for ticket in lost {
            self.answer(ticket, Answer::Down(down.clone()));
        }
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer) {
        let Some(call) = self.open.get_mut(&ticket) else {
            tracing::debug!(?ticket, "a reply that nobody waits for");
            return;
        };
        call.answer = Some(answer);
        if let Some(group) = call.group.and_then(|id| self.groups.get_mut(&id))
            && group.waiting.remove(&ticket)
        {
            group.ready.push_back(ticket);
        }
    }

    // ---- groups ----

    pub(crate) fn open_group(&mut self, id: GroupId) {
        self.groups.insert(id, Group::default());
    }

    pub(crate) fn close_group(&mut self, id: GroupId) {
        self.groups.remove(&id);
    }

    /// Moves a call into a group, out of any other group.
    pub(crate) fn join_group(&mut self, ticket: Ticket, id: GroupId) {
        let (Some(call), true) = (self.open.get_mut(&ticket), self.groups.contains_key(&id)) else { return };
        let before = call.group.replace(id);
        if let Some(group) = before.and_then(|id| self.groups.get_mut(&id)) {
            group.waiting.remove(&ticket);
            group.ready.retain(|ready| *ready != ticket);
        }
        if let Some(group) = self.groups.get_mut(&id) {
            if call.answer.is_some() {
                group.ready.push_back(ticket);
            } else {
                group.waiting.insert(ticket);
            }
        }
    }

    /// Returns the call of the group that was answered first and has not been returned yet.
    pub(crate) fn next_ready(&mut self, id: GroupId) -> Option<Ticket> {
        let group = self.groups.get_mut(&id)?;
        while let Some(ticket) = group.ready.pop_front() {
            if self.open.contains_key(&ticket) {
                return Some(ticket);
            }
        }
        None
    }

    /// Whether a group has neither unanswered calls nor calls to return.
    pub(crate) fn is_done(&self, id: GroupId) -> bool {
        self.groups.get(&id).is_none_or(|group| group.waiting.is_empty() && group.ready.is_empty())
    }

    /// The servers for which a group still waits, each once.
    pub(crate) fn servers_of(&self, id: GroupId) -> FxHashSet<VrId> {
        self.waiting_in(id).collect()
    }

    /// Whether a group waits for no other server.
    pub(crate) fn waits_only_for(&self, id: GroupId, server: VrId) -> bool {
        self.waiting_in(id).all(|other| other == server)
    }

    fn waiting_in(&self, id: GroupId) -> impl Iterator<Item = VrId> {
        let waiting = self.groups.get(&id).map(|group| &group.waiting);
        let calls = waiting.into_iter().flatten().filter_map(|ticket| self.open.get(ticket));
        calls.map(|call| call.server)
    }
}

#[cfg(test)]
mod tests {
    use river_core::Why;

    use super::*;

    fn ok(byte: u8) -> Outcome {
        Ok(crate::body::Body { encoded: vec![byte].into(), blobs: Vec::new() })
    }

    fn down(who: VrId) -> Down {
        Down { who, why: Why::Finished }
    }

    #[test]
    fn an_answer_is_taken_once() {
        let (mut calls, server) = (Calls::default(), VrId::fresh());
        calls.open(Ticket(1), server);
        assert_eq!(calls.waits_for(Ticket(1)), Some(server));
        calls.reply(Ticket(1), ok(7));
        assert_eq!(calls.waits_for(Ticket(1)), None);
        assert!(matches!(calls.take(Ticket(1)), Some(Answer::Result(body)) if body.encoded[..] == [7]));
        assert!(calls.take(Ticket(1)).is_none());
    }

    #[test]
    fn a_dead_server_answers_its_own_open_calls_only() {
        let (mut calls, dead, alive) = (Calls::default(), VrId::fresh(), VrId::fresh());
        for (ticket, server) in [(1, dead), (2, dead), (3, alive)] {
            calls.open(Ticket(ticket), server);
        }
        calls.reply(Ticket(1), ok(1));
        calls.down(&down(dead));
        assert!(matches!(calls.take(Ticket(1)), Some(Answer::Result(_))));
        assert!(matches!(calls.take(Ticket(2)), Some(Answer::Down(_))));
        assert!(calls.take(Ticket(3)).is_none());
    }

    #[test]
    fn a_reply_to_a_call_that_was_given_up_leaves_nothing_behind() {
        let (mut calls, server) = (Calls::default(), VrId::fresh());
        calls.open(Ticket(1), server);
        calls.open(Ticket(2), server);
        calls.give_up(Ticket(1));
        calls.give_up(Ticket(2));
        calls.reply(Ticket(1), ok(1));
        assert!(calls.has_abandoned());
        calls.down(&down(server));
        assert!(!calls.has_abandoned());
        assert!(calls.open.is_empty());
    }

    #[test]
    fn a_group_names_each_answered_call_once_in_order_of_arrival() {
        let (mut calls, server, group) = (Calls::default(), VrId::fresh(), GroupId(1));
        calls.open_group(group);
        for ticket in 1..=5 {
            calls.open(Ticket(ticket), server);
        }
        calls.reply(Ticket(5), ok(5));
        for ticket in 1..=5 {
            calls.join_group(Ticket(ticket), group);
        }
        calls.reply(Ticket(3), ok(3));
        calls.reply(Ticket(1), ok(1));
        calls.give_up(Ticket(3));
        calls.give_up(Ticket(4));
        assert_eq!(calls.next_ready(group), Some(Ticket(5)));
        assert_eq!(calls.next_ready(group), Some(Ticket(1)));
        assert_eq!(calls.next_ready(group), None);
        assert_eq!(calls.servers_of(group), FxHashSet::from_iter([server]));
        calls.down(&down(server));
        assert_eq!(calls.next_ready(group), Some(Ticket(2)));
        assert!(calls.servers_of(group).is_empty());
    }
}
