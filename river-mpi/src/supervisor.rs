//! The supervisor of a job: a state machine that receives reports from ranks and returns actions.
//!
//! It finds deadlocks. A rank that has waited for a second reports what it waits for, and how many envelopes it has
//! sent to and received from each other rank. If all ranks that still run have reported so, and every envelope that
//! one of them has sent was received, then nothing is under way that could end a wait: the first rank to go on would
//! need an envelope that was sent and not received. As a wait may also end because somebody has died, all are asked
//! once more whether they are still in the same wait.

use std::fmt::Write as _;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::error::MpiError;
use crate::job::{Agreement, AgreementKey, Order, Report, Waiting};

/// What the supervisor hears.
#[derive(Debug)]
pub(crate) enum Event {
    Report(Report),
    /// The rank is gone, with whatever is known of the reason.
    Gone {
        why: String,
    },
}

/// What it says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Tell this rank.
    Tell(u32, Message),
    /// The job is over: what each rank has returned.
    Over(Vec<Result<Vec<u8>, MpiError>>),
    /// The job has failed.
    Failed(MpiError),
}

/// An [`Order`] that the supervisor gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    StillWaiting,
    Agreed(Agreement),
    End,
}

impl From<Message> for Order {
    fn from(message: Message) -> Self {
        match message {
            Message::StillWaiting => Order::StillWaiting,
            Message::Agreed(agreement) => Order::Agreed(agreement),
            Message::End => Order::End,
        }
    }
}

#[derive(Debug)]
struct Rank {
    /// What it returned, or how it failed; `None` while it runs.
    end: Option<Result<Vec<u8>, String>>,
    /// How many envelopes it had sent to each other when it ended.
    sent: Vec<u64>,
    waiting: Option<Waiting>,
    /// It has confirmed that it still waits.
    confirmed: bool,
}

#[derive(Debug)]
struct Vote {
    members: Vec<u32>,
    flags: u64,
    highest: u32,
    voted: FxHashSet<u32>,
}

#[derive(Debug)]
pub(crate) struct Supervisor {
    ranks: Vec<Rank>,
    /// Whether the ranks that are left go on when one fails.
    survive: bool,
    /// Ranks that failed because of another, of which nothing is known yet: (rank, text, the other).
    victims: Vec<(u32, String, u32)>,
    confirming: bool,
    votes: FxHashMap<AgreementKey, Vote>,
}

impl Supervisor {
    pub(crate) fn new(ranks: usize, survive: bool) -> Self {
        let rank = || Rank { end: None, sent: Vec::new(), waiting: None, confirmed: false };
        Self {
            ranks: std::iter::repeat_with(rank).take(ranks).collect(),
            survive,
            victims: Vec::new(),
            confirming: false,
            votes: FxHashMap::default(),
        }
    }

    /// Hears something of a rank.
    pub(crate) fn hear(&mut self, rank: u32, event: Event) -> Vec<Action> {
        // Of a victim everything is known: it repeats itself, and ends.
        if !self.runs(rank) {
            return Vec::new();
        }
        let because_of_one_that_runs = match &event {
            Event::Report(Report::Failed { because_of: Some(other), .. }) => {
                self.has_no_end(*other) && self.first_cause(*other) != rank
            }
            _ => false,
        };
        let will_hear = match &event {
            Event::Report(Report::StillWaiting { on, .. }) => on.iter().any(|&other| !self.runs(other)),
            _ => false,
        };
        let state = &mut self.ranks[rank as usize];
        match event {
            Event::Report(Report::Finished { result, sent }) => {
                state.sent = sent;
                self.ended(rank, Ok(result))
            }
            Event::Report(Report::Failed { text, because_of: Some(other) })
                if because_of_one_that_runs && !self.survive =>
            {
                // The other one's own words are worth more.
                self.victims.push((rank, text, other));
                Vec::new()
            }
            Event::Report(Report::Failed { text, .. }) => {
                let mut actions = self.ended(rank, Err(text));
                // The program may have got the error as a value and go on, which nobody expects of it any more.
                actions.extend(self.survive.then_some(Action::Tell(rank, Message::End)));
                actions
            }
            Event::Report(Report::Aborted { text, code }) => {
                vec![Action::Failed(MpiError::Aborted { rank: rank as usize, text, code })]
            }
            Event::Gone { why } => self.ended(rank, Err(why)),
            Event::Report(Report::Waiting(waiting)) => {
                state.waiting = Some(waiting);
                self.look_for_deadlock()
            }
            Event::Report(Report::StillWaiting { number, .. }) => {
                let same = state.waiting.as_ref().is_some_and(|waiting| Some(waiting.number) == number);
                // Who waits for a rank that has ended is about to be told, which ends this wait; the next one is reported again.
                if !same || will_hear {
                    state.waiting = None;
                    self.confirming = false;
                    return Vec::new();
                }
                state.confirmed = true;
                self.conclude()
            }
            Event::Report(Report::Agree { key, members, proposal }) => {
                let new = || Vote { members, flags: u64::MAX, highest: 0, voted: FxHashSet::default() };
                let vote = self.votes.entry(key).or_insert_with(new);
                vote.flags &= proposal.flags;
                vote.highest = vote.highest.max(proposal.highest);
                vote.voted.insert(rank);
                self.count_votes()
            }
        }
    }

    fn has_no_end(&self, rank: u32) -> bool {
        self.ranks.get(rank as usize).is_some_and(|rank| rank.end.is_none())
    }

    /// Whether it may still do something: a victim has ended, though nobody knows yet why.
    fn runs(&self, rank: u32) -> bool {
        self.has_no_end(rank) && !self.victims.iter().any(|&(victim, ..)| victim == rank)
    }

    /// Because of whom a rank failed in the end: itself, unless it is a victim. Ranks that have lost sight of each other are no
    /// victims, as they would never say more.
    fn first_cause(&self, mut rank: u32) -> u32 {
        while let Some(&(_, _, other)) = self.victims.iter().find(|&&(victim, ..)| victim == rank) {
            rank = other;
        }
        rank
    }

    fn ended(&mut self, rank: u32, end: Result<Vec<u8>, String>) -> Vec<Action> {
        let failure = end.as_ref().err().cloned();
        let state = &mut self.ranks[rank as usize];
        state.end = Some(end);
        state.waiting = None;
        if let Some(text) = failure
            && !self.survive
        {
            return vec![Action::Failed(MpiError::Job { rank: rank as usize, text })];
        }
        if let Some(at) = self.victims.iter().position(|&(_, _, other)| other == rank) {
            let (rank, text, _) = self.victims.swap_remove(at);
            return vec![Action::Failed(MpiError::Job { rank: rank as usize, text })];
        }
        if self.ranks.iter().all(|rank| rank.end.is_some()) {
            let ends = (0..).zip(&mut self.ranks).map(|(rank, state)| match state.end.take() {
                Some(Ok(result)) => Ok(result),
                Some(Err(text)) => Err(MpiError::Job { rank, text }),
                None => Err(MpiError::Stopped),
            });
            return vec![Action::Over(ends.collect())];
        }
        // It will not answer any more, if it was asked.
        self.confirming = false;
        let mut actions = self.count_votes();
        actions.extend(self.look_for_deadlock());
        actions
    }

    // ---- deadlocks ----

    fn running(&self) -> impl Iterator<Item = (usize, &Rank)> {
        self.ranks.iter().enumerate().filter(|&(at, _)| self.runs(at as u32))
    }

    fn look_for_deadlock(&mut self) -> Vec<Action> {
        if self.confirming || !self.nothing_is_under_way() {
            return Vec::new();
        }
        self.confirming = true;
        self.ranks.iter_mut().for_each(|rank| rank.confirmed = false);
        self.running().map(|(rank, _)| Action::Tell(rank as u32, Message::StillWaiting)).collect()
    }

    /// Whether all that run wait, and all that was sent to them was received.
    fn nothing_is_under_way(&self) -> bool {
        self.running().all(|(to, rank)| {
            let Some(waiting) = &rank.waiting else { return false };
            self.ranks.iter().enumerate().all(|(from, sender)| {
                let sent = sender.waiting.as_ref().map_or(&sender.sent, |waiting| &waiting.sent);
                // Of a rank that died nothing is known, nor matters: who waits for it is told.
                sent.get(to).is_none_or(|sent| waiting.received.get(from) == Some(sent))
            })
        })
    }

    fn conclude(&mut self) -> Vec<Action> {
        if !self.confirming || !self.running().all(|(_, rank)| rank.confirmed) {
            return Vec::new();
        }
        self.confirming = false;
        if !self.nothing_is_under_way() {
            return Vec::new();
        }
        let mut text = String::new();
        for (rank, state) in self.running() {
            let what = state.waiting.as_ref().map_or("", |waiting| &waiting.what);
            let _ = writeln!(text, "    rank {rank} waits for {what}");
        }
        let ended = self.ranks.len() - self.running().count();
        if ended > 0 {
            let _ = writeln!(text, "    ranks that have ended: {ended}");
        }
        vec![Action::Failed(MpiError::Deadlock(text.trim_end().to_owned()))]
    }

    // ---- agreements ----

    fn count_votes(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        let ranks = &self.ranks;
        self.votes.retain(|&key, vote| {
            let runs = |member: &&u32| ranks.get(**member as usize).is_some_and(|rank| rank.end.is_none());
            let missing: Vec<u32> =
                vote.members.iter().filter(|member| !vote.voted.contains(member)).copied().collect();
            if missing.iter().any(|member| runs(&member)) {
                return true;
            }
            let agreement = Agreement { key, flags: vote.flags, highest: vote.highest, gone: missing };
            let told = vote.members.iter().filter(|member| vote.voted.contains(member)).filter(runs);
            actions.extend(told.map(|&member| Action::Tell(member, Message::Agreed(agreement.clone()))));
            false
        });
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Proposal;

    fn waiting(number: u64, sent: &[u64], received: &[u64]) -> Event {
        let what = "a receive".to_owned();
        Event::Report(Report::Waiting(Waiting {
            number,
            what,
            sent: sent.to_vec(),
            received: received.to_vec(),
        }))
    }

    fn still(number: u64) -> Event {
        Event::Report(Report::StillWaiting { number: Some(number), on: Vec::new() })
    }

    fn finished(result: u8) -> Event {
        Event::Report(Report::Finished { result: vec![result], sent: vec![0, 0] })
    }

    #[test]
    fn the_job_is_over_when_all_have_finished() {
        let mut supervisor = Supervisor::new(2, false);
        assert_eq!(supervisor.hear(1, finished(1)), []);
        // The notice of its end comes after its report.
        assert_eq!(supervisor.hear(1, Event::Gone { why: "has finished".into() }), []);
        assert_eq!(supervisor.hear(0, finished(0)), [Action::Over(vec![Ok(vec![0]), Ok(vec![1])])]);
    }

    #[test]
    fn all_wait_and_nothing_is_under_way() {
        let mut supervisor = Supervisor::new(2, false);
        assert_eq!(supervisor.hear(0, waiting(1, &[0, 3], &[0, 2])), []);
        let asked = supervisor.hear(1, waiting(5, &[2, 0], &[3, 0]));
        assert_eq!(asked.len(), 2);
        assert_eq!(supervisor.hear(0, still(1)), []);
        let end = supervisor.hear(1, still(5));
        assert!(
            matches!(&end[..], [Action::Failed(MpiError::Deadlock(text))] if text.contains("rank 1 waits"))
        );
    }

    #[test]
    fn a_message_under_way_is_no_deadlock() {
        let mut supervisor = Supervisor::new(2, false);
        supervisor.hear(0, waiting(1, &[0, 3], &[0, 2]));
        assert_eq!(supervisor.hear(1, waiting(1, &[2, 0], &[2, 0])), []);
    }

    fn failed(because_of: u32) -> Event {
        Event::Report(Report::Failed {
            text: format!("rank {because_of} is gone"),
            because_of: Some(because_of),
        })
    }

    #[test]
    fn two_that_have_lost_sight_of_each_other_end_the_job() {
        for between in 0..2 {
            let mut supervisor = Supervisor::new(3, false);
            assert_eq!(supervisor.hear(0, failed(1)), []);
            assert_eq!(supervisor.hear(0, Event::Gone { why: "has ended".into() }), []);
            if between > 0 {
                assert_eq!(supervisor.hear(1, failed(2)), []);
            }
            let end = supervisor.hear(1 + between, failed(0));
            assert!(
                matches!(&end[..], [Action::Failed(MpiError::Job { text, .. })] if text.contains("rank 0"))
            );
        }
    }

    #[test]
    fn who_waits_beside_a_victim_is_in_a_deadlock() {
        let mut supervisor = Supervisor::new(3, false);
        supervisor.hear(0, failed(1));
        supervisor.hear(1, waiting(1, &[0, 0, 0], &[0, 0, 0]));
        assert_eq!(supervisor.hear(2, waiting(1, &[0, 0, 0], &[0, 0, 0])).len(), 2);
        supervisor.hear(1, still(1));
        assert!(matches!(&supervisor.hear(2, still(1))[..], [Action::Failed(MpiError::Deadlock(_))]));
    }

    #[test]
    fn a_deadlock_is_found_after_one_that_was_asked_has_ended() {
        let mut supervisor = Supervisor::new(3, true);
        for rank in 0..3 {
            supervisor.hear(rank, waiting(1, &[0; 3], &[0; 3]));
        }
        supervisor.hear(1, still(1));
        let result = Event::Report(Report::Finished { result: Vec::new(), sent: vec![0; 3] });
        assert_eq!(supervisor.hear(0, result).len(), 2, "those that are left are asked");
        supervisor.hear(1, still(1));
        assert!(matches!(&supervisor.hear(2, still(1))[..], [Action::Failed(MpiError::Deadlock(_))]));
    }

    #[test]
    fn a_rank_that_waits_for_one_that_has_just_ended_is_in_no_deadlock() {
        let mut supervisor = Supervisor::new(3, true);
        supervisor.hear(1, waiting(1, &[0; 3], &[0; 3]));
        supervisor.hear(2, waiting(1, &[0; 3], &[0; 3]));
        assert_eq!(supervisor.hear(0, Event::Gone { why: "panicked".into() }).len(), 2);
        supervisor.hear(1, still(1));
        let on = |on| Event::Report(Report::StillWaiting { number: Some(1), on });
        assert_eq!(supervisor.hear(2, on(vec![0])), [], "it has not heard of the end yet");
        // It has, and now waits for another rank.
        assert_eq!(supervisor.hear(2, waiting(2, &[0; 3], &[0; 3])).len(), 2);
        supervisor.hear(1, still(1));
        let end = supervisor.hear(2, Event::Report(Report::StillWaiting { number: Some(2), on: vec![1] }));
        assert!(matches!(&end[..], [Action::Failed(MpiError::Deadlock(_))]));
    }

    #[test]
    fn who_goes_on_is_no_deadlock() {
        let mut supervisor = Supervisor::new(2, false);
        supervisor.hear(0, waiting(1, &[0, 0], &[0, 0]));
        assert_eq!(supervisor.hear(1, waiting(1, &[0, 0], &[0, 0])).len(), 2);
        assert_eq!(
            supervisor.hear(0, Event::Report(Report::StillWaiting { number: None, on: Vec::new() })),
            []
        );
        assert_eq!(supervisor.hear(1, still(1)), []);
        // Later they do wait for each other.
        assert_eq!(supervisor.hear(0, waiting(2, &[0, 0], &[0, 0])).len(), 2);
    }

    #[test]
    fn the_first_cause_is_told() {
        let mut supervisor = Supervisor::new(2, false);
        let victim = Report::Failed { text: "rank 1 is gone".into(), because_of: Some(1) };
        assert_eq!(supervisor.hear(0, Event::Report(victim)), []);
        assert_eq!(supervisor.hear(0, Event::Gone { why: "has finished".into() }), []);
        let end = supervisor.hear(1, Event::Gone { why: "panicked".into() });
        assert_eq!(end, [Action::Failed(MpiError::Job { rank: 1, text: "panicked".into() })]);
    }

    #[test]
    fn those_that_are_left_agree_without_the_dead() {
        let mut supervisor = Supervisor::new(3, true);
        let key = AgreementKey { context: 0, first: 0, number: 0 };
        let agree = |flags, highest| {
            let proposal = Proposal { flags, highest };
            Event::Report(Report::Agree { key, members: vec![0, 1, 2], proposal })
        };
        assert_eq!(supervisor.hear(0, agree(0b110, 4)), []);
        assert_eq!(supervisor.hear(2, agree(0b011, 2)), []);
        let agreement = Agreement { key, flags: 0b010, highest: 4, gone: vec![1] };
        let told = |rank| Action::Tell(rank, Message::Agreed(agreement.clone()));
        assert_eq!(supervisor.hear(1, Event::Gone { why: "died".into() }), [told(0), told(2)]);
    }
}
