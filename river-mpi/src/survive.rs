//! Going on after a failure: revoke, shrink, agree, as MPI 5 has them (User-Level Failure Mitigation). The job must
//! have been started with [`Launch::survive_failures`](crate::Launch::survive_failures).
//!
//! The ranks agree through the job's supervisor, the one process that all of them end with; so there is no case in
//! which some have heard the outcome and others cannot.

use crate::communicator::Communicator;
use crate::error::{MpiError, Result};
use crate::group::Group;
use crate::job::{Agreement, AgreementKey, Proposal};

impl Communicator<'_> {
    /// Makes every pending and future operation on this communicator fail with [`MpiError::Revoked`], on all ranks (of both
    /// groups). Use it when one rank has seen a failure that others, who may wait for something else, would not notice.
    ///
    /// Does not block. If this rank dies while it tells the others, some may not hear of it.
    pub fn revoke(&self) {
        let everybody = self.everybody();
        self.engine().revoke(self.context(), &everybody);
        if let Some(own) = self.local_comm() {
            // That of the other group has the same context.
            self.engine().revoke(own.context(), &everybody);
        }
    }

    /// The members of its group, or of both, in the same order on all.
    fn everybody(&self) -> Vec<u32> {
        let mut members = self.local().members().to_vec();
        if self.is_inter() {
            members.extend_from_slice(self.peers().members());
            members.sort_unstable();
        }
        members
    }

    /// Whether it was revoked.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        // A job that is ending says so elsewhere.
        let _ = self.engine().progress();
        self.engine().check(self.context()).is_err()
    }

    /// A communicator of the ranks that are left, in their order. Works on a revoked one.
    ///
    /// # Errors
    /// [`MpiError::Comm`] on an intercommunicator.
    ///
    /// # Blocking
    /// Until all that are left have called it.
    pub fn shrink(&self) -> Result<Self> {
        let shrink = || {
            if self.is_inter() {
                return Err(MpiError::Comm(
                    "an intercommunicator cannot be shrunk: shrink its groups".into(),
                ));
            }
            let agreement = self.settle(u64::MAX)?;
            let left = self.group().difference(&Group::of(agreement.gone));
            self.derive(agreement.highest, left).ok_or(MpiError::Stopped)
        };
        self.guard(shrink())
    }

    /// The flags of all ranks that are left, combined by AND: the same on all of them, whoever fails meanwhile. Works
    /// on a revoked communicator.
    ///
    /// # Errors
    /// [`MpiError::Stopped`] if the job is ending.
    ///
    /// # Blocking
    /// Until all that are left have called it.
    pub fn agree(&self, flags: u64) -> Result<u64> {
        self.guard(self.settle(flags)).map(|agreement| agreement.flags)
    }

    /// The ranks of this communicator that have failed, as far as this rank knows. From now on receives from any source ignore
    /// them instead of failing.
    #[must_use]
    pub fn acknowledge_failures(&self) -> Vec<usize> {
        let failed = self.engine().acknowledge_failures(self.peers().members());
        failed.into_iter().filter_map(|member| self.peers().rank_of(member)).collect()
    }

    fn settle(&self, flags: u64) -> Result<Agreement> {
        let members = self.everybody();
        let first = members.iter().copied().min().unwrap_or_default();
        let key = AgreementKey { context: self.context(), first, number: self.next_agreement() };
        let proposal = Proposal { flags, highest: self.engine().next_context() };
        self.engine().agree(key, &members, proposal)
    }
}
