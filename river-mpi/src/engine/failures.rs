//! What a rank knows of the ends of others, and which operations fail because of them.

use river_core::{Channel, Down, RecvError, Selector};

use super::{Ask, Engine, Gone, LANE, State};
use crate::error::{MpiError, Result};

/// Nothing is ever sent on this channel: receiving on it only asks whether the named VR is dead.
pub(super) const DEATHS: Channel = Channel::named("mpi.deaths");

impl Engine<'_> {
    pub(super) fn check_wait(&self, whom: &[u32], ask: Option<&Ask>) -> Result {
        let state = self.state.borrow();
        if state.ended {
            return Err(MpiError::Stopped);
        }
        state.refuse(ask.map(|ask| ask.pattern.context))?;
        state.mourn(whom, self.me)
    }

    /// Returns an error if a context was revoked.
    #[inline]
    pub(crate) fn check(&self, context: u32) -> Result {
        self.state.borrow().refuse(Some(context))
    }

    /// Has this rank notified of the ends of these ranks, once each.
    pub(super) fn watch(&self, whom: &[u32]) {
        let mut state = self.state.borrow_mut();
        for &rank in whom {
            if rank != self.me && !std::mem::replace(&mut state.watched[rank as usize], true) {
                self.vr.watch(self.id_of(rank));
            }
        }
    }

    /// Checks for deaths whose notice another layer has received. Returns `true` if there was one.
    pub(super) fn ask_about(&self, whom: &[u32]) -> Result<bool> {
        let mut news = false;
        for &rank in whom {
            if rank == self.me || self.state.borrow().gone.contains_key(&rank) {
                continue;
            }
            let selector = Selector::on(DEATHS).lane(LANE).from(self.id_of(rank));
            if let Err(error) = self.vr.try_receive_where(selector, |_| false) {
                self.trouble(error)?;
                news = true;
            }
        }
        Ok(news)
    }

    pub(super) fn trouble(&self, error: RecvError) -> Result {
        match error {
            RecvError::Down(down) => {
                // First, everything that the dead one had sent.
                while self.poll_queues(&mut None, &mut None) {}
                match self.by_id.get(&down.who) {
                    Some(&rank) => drop(self.state.borrow_mut().bury(rank, &down)),
                    None => tracing::debug!(%down, "somebody who is no rank is gone"),
                }
                Ok(())
            }
            RecvError::Reentrant => Err(MpiError::Reentrant),
            RecvError::Timeout { .. } => Ok(()),
            _ => Err(MpiError::Stopped),
        }
    }
}

impl State {
    /// Whether nothing but a message can end a wait.
    pub(super) fn is_calm(&self) -> bool {
        self.gone.is_empty() && self.revoked.is_empty() && !self.ended
    }

    pub(super) fn bury(&mut self, rank: u32, down: &Down) -> Gone {
        // No answer comes that would remove these, and nobody asks for their outcome; but for buffered ones, of which the program is
        // told when it detaches the buffer.
        self.ops.retain(|_, op| !op.detached || op.buffered > 0 || op.state.receiver() != Some(rank));
        self.gone.entry(rank).or_insert_with(|| Gone::of(down)).clone()
    }

    #[inline]
    pub(super) fn refuse(&self, context: Option<u32>) -> Result {
        match context {
            // Both contexts of a communicator are revoked under the first one.
            Some(context) if !self.revoked.is_empty() && self.revoked.contains(&(context & !1)) => {
                Err(MpiError::Revoked(self.name_of(context & !1)))
            }
            _ => Ok(()),
        }
    }

    /// Returns an error if none of these ranks can send any more, or if one has failed and its failure was not acknowledged.
    pub(super) fn mourn(&self, whom: &[u32], me: u32) -> Result {
        if self.gone.is_empty() || whom.is_empty() {
            return Ok(());
        }
        let failed = |rank: &&u32| {
            let gone = self.gone.get(rank);
            gone.is_some_and(|gone| whom.len() == 1 || !gone.normal && !self.acknowledged.contains(rank))
        };
        let all_gone = || whom.iter().all(|rank| *rank == me || self.gone.contains_key(rank));
        let culprit = whom.iter().find(failed).or_else(|| {
            let last = whom.iter().rev().find(|&&rank| rank != me);
            last.filter(|_| whom.len() > 1 && all_gone())
        });
        match culprit.and_then(|rank| Some((rank, self.gone.get(rank)?))) {
            Some((&rank, gone)) => Err(gone.error(rank)),
            None => Ok(()),
        }
    }

    /// Returns an error if one of these ranks has failed and its failure was not acknowledged.
    pub(super) fn check_failed(&self, whom: &[u32]) -> Result {
        let failed = |rank: &u32| Some((*rank, self.gone.get(rank).filter(|gone| !gone.normal)?));
        match whom.iter().filter(|rank| !self.acknowledged.contains(rank)).find_map(failed) {
            Some((rank, gone)) => Err(gone.error(rank)),
            None => Ok(()),
        }
    }
}
