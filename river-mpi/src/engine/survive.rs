//! Failure mitigation: revoke, acknowledge and agree.

use super::Engine;
use super::describe::WaitReason;
use crate::error::Result;
use crate::header::Kind;
use crate::job::{Agreement, AgreementKey, Proposal, Report};
use crate::matching::Key;

impl Engine<'_> {
    /// Revokes a context here and tells these ranks.
    pub(crate) fn revoke(&self, context: u32, whom: &[u32]) {
        let mut state = self.state.borrow_mut();
        if !state.revoked.insert(context) {
            return;
        }
        for &rank in whom.iter().filter(|&&rank| rank != self.me) {
            let header = self.header(Kind::Revoke, Key { context, source: 0, tag: 0 }, 0, 0);
            // A dead rank need not know.
            let _ = self.tell(&mut state, rank, &header);
        }
    }

    /// Lets wildcard receives ignore the failures among these ranks. Returns the ranks that have failed.
    pub(crate) fn acknowledge_failures(&self, among: &[u32]) -> Vec<u32> {
        let mut state = self.state.borrow_mut();
        let failed: Vec<u32> = among
            .iter()
            .copied()
            .filter(|rank| state.gone.get(rank).is_some_and(|gone| !gone.normal))
            .collect();
        state.acknowledged.extend(&failed);
        failed
    }

    /// Agrees with the surviving members: on the AND of all flags, and on which members are gone.
    pub(crate) fn agree(&self, key: AgreementKey, members: &[u32], proposal: Proposal) -> Result<Agreement> {
        self.report(&Report::Agree { key, members: members.to_vec(), proposal });
        loop {
            self.progress()?;
            if let Some(agreement) = self.state.borrow_mut().agreements.remove(&key) {
                return Ok(agreement);
            }
            self.block(WaitReason::Agreement, &[], None, None)?;
        }
    }
}
