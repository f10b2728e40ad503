//! Creation of communicators from others (MPI 1.3, sections 5.4, 5.6 and 5.7).

use std::rc::Rc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::attribute::Keyval;
use crate::communicator::Communicator;
use crate::engine::Arrival;
use crate::error::{MpiError, Result};
use crate::exchange::{decode, encode};
use crate::group::Group;
use crate::peer::Peer;

impl<'v> Communicator<'v> {
    /// Creates a communicator with the same group, whose messages never match those of this one. Attributes are copied as
    /// their keys define. All ranks call it.
    ///
    /// # Errors
    /// [`MpiError::ProcFailed`] if a rank is gone, and errors of the functions that copy attributes.
    ///
    /// # Blocking
    /// Until all ranks have called it.
    ///
    /// # Standard section
    /// 5.4.2
    pub fn dup(&self) -> Result<Self> {
        let dup = || {
            let context = self.agree_on_context()?;
            let new = match (self.local_comm(), self.remote_group()) {
                (Some(own), Some(remote)) => self.derive_inter(context, &own, remote),
                _ => self.derive(context, self.group()),
            };
            new.ok_or_else(not_a_member)
        };
        let new = self.guard(dup())?;
        let copied = self.attributes().borrow().copied();
        *new.attributes().borrow_mut() = self.guard(copied)?;
        Ok(new)
    }

    /// Creates a communicator of the ranks in `group`, a subset of this communicator's; returns `None` on other ranks. All
    /// ranks of this communicator call it, with equal groups.
    ///
    /// # Errors
    /// [`MpiError::Group`] if `group` has members that this communicator does not have, [`MpiError::Comm`] on an
    /// intercommunicator.
    ///
    /// # Blocking
    /// Until all ranks have called it.
    ///
    /// # Standard section
    /// 5.4.2
    pub fn create(&self, group: &Group) -> Result<Option<Self>> {
        let create = || {
            self.must_be_intra("create")?;
            let mine = self.group();
            if !group.difference(&mine).is_empty() {
                return Err(MpiError::Group(format!(
                    "a group has members that {} does not have",
                    self.name()
                )));
            }
            let context = self.agree_on_context()?;
            Ok(self.derive(context, group.clone()))
        };
        self.guard(create())
    }

    /// Creates a communicator for each color, of the ranks with that color in the order of their keys, then of their ranks.
    /// Returns `None` on ranks whose color is `None` (`MPI_UNDEFINED`).
    ///
    /// ```
    /// # river_mpi::testing::world(5, |world| {
    /// let row = world.split(Some(world.rank() % 2), 0)?.unwrap();
    /// assert_eq!(row.size(), if world.rank() % 2 == 0 { 3 } else { 2 });
    /// assert_eq!(row.rank(), world.rank() / 2);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [`MpiError::Comm`] on an intercommunicator, [`MpiError::ProcFailed`] if a rank is gone.
    ///
    /// # Blocking
    /// Until all ranks have called it.
    ///
    /// # Standard section
    /// 5.4.2
    pub fn split(&self, color: Option<usize>, key: i64) -> Result<Option<Self>> {
        let split = || {
            self.must_be_intra("split")?;
            let all = self.tell_all(&(color, key, self.engine().next_context()))?;
            let context = all.iter().map(|&(_, _, next)| next).max().unwrap_or_default();
            self.engine().use_contexts_below(context + 2);
            let Some(mine) = color else { return Ok(None) };
            let members = self.local().members().iter().zip(&all);
            let mut together: Vec<(i64, u32)> = members
                .filter(|(_, (color, _, _))| *color == Some(mine))
                .map(|(&member, &(_, key, _))| (key, member))
                .collect();
            // The sort is stable, so equal keys keep the order of ranks.
            together.sort_by_key(|&(key, _)| key);
            Ok(self.derive(context, Group::of(together.into_iter().map(|(_, m)| m).collect::<Vec<_>>())))
        };
        self.guard(split())
    }

    /// Creates an intercommunicator between the group of this communicator and another group, whose members call this on
    /// their own communicator. The two leaders are ranks in their groups and reach each other through `peer`, which is
    /// significant only on the leaders.
    ///
    /// ```
    /// # river_mpi::testing::world(4, |world| {
    /// let low = world.rank() < 2;
    /// let half = world.split(Some(usize::from(low)), 0)?.unwrap();
    /// let inter = half.create_intercomm(0, world, if low { 2 } else { 0 }, 0)?;
    /// inter.send(&[world.rank()], inter.rank(), 0)?; // to the same rank of the other half
    /// assert_eq!(inter.recv::<usize>(inter.rank(), 0)?.0, [(world.rank() + 2) % 4]);
    /// let all = inter.merge(!low)?;
    /// assert_eq!(all.rank(), world.rank());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [`MpiError::Comm`] on an intercommunicator or if the groups are not disjoint, [`MpiError::Rank`] if a leader does
    /// not exist.
    ///
    /// # Blocking
    /// Until all ranks of both groups have called it.
    ///
    /// # Standard section
    /// 5.6.2
    pub fn create_intercomm(
        &self,
        local_leader: usize,
        peer: &Communicator<'v>,
        remote_leader: usize,
        tag: i32,
    ) -> Result<Self> {
        let create = || {
            self.must_be_intra("create_intercomm")?;
            if local_leader >= self.size() {
                let (rank, comm) = (local_leader.to_string(), self.name());
                return Err(MpiError::Rank { rank, comm, size: self.size() });
            }
            let next = self.tell_all(&self.engine().next_context())?.into_iter().max().unwrap_or_default();
            let mine = (next, self.local().members().to_vec());
            let leads = self.rank() == local_leader;
            let theirs = leads.then(|| peer.swap_value(&mine, remote_leader, tag));
            let (their_next, members) = self.hear_from(local_leader, theirs)?;
            let remote = Group::of(members);
            if !remote.intersection(self.local()).is_empty() {
                return Err(MpiError::Comm("the groups of an intercommunicator must be disjoint".into()));
            }
            self.derive_inter(next.max(their_next), self, remote).ok_or_else(not_a_member)
        };
        self.guard(create())
    }

    /// Creates one communicator of both groups of an intercommunicator. The group that passes `high: false` comes first. If
    /// both pass the same value, the group that contains the lowest rank of the world comes first.
    ///
    /// # Errors
    /// [`MpiError::Comm`] on a communicator with one group.
    ///
    /// # Blocking
    /// Until all ranks of both groups have called it.
    ///
    /// # Standard section
    /// 5.6.2
    pub fn merge(&self, high: bool) -> Result<Self> {
        let merge = || {
            let (Some(own), Some(remote)) = (self.local_comm(), self.remote_group()) else {
                return Err(MpiError::Comm(format!(
                    "{} has one group: there is nothing to merge",
                    self.name()
                )));
            };
            let context = self.agree_on_context()?;
            let their_high = self.through_leader(&own, &high)?;
            let lowest = |group: &Group| group.members().iter().min().copied();
            let after = match (high, their_high) {
                (true, false) => true,
                (false, true) => false,
                _ => lowest(&self.group()) > lowest(&remote),
            };
            let both = if after { remote.union(&self.group()) } else { self.group().union(&remote) };
            self.derive(context, both).ok_or_else(not_a_member)
        };
        self.guard(merge())
    }

    /// Sets the attribute of this communicator for a key, replacing the previous value.
    ///
    /// # Errors
    /// The error of the function that deletes the previous value, which is kept then.
    ///
    /// # Standard section
    /// 5.7.1
    pub fn set_attribute<T: 'static>(&self, key: &Keyval<T>, value: T) -> Result {
        let set = self.attributes().borrow_mut().set(key, value);
        self.guard(set)
    }

    /// The attribute of this communicator for a key.
    ///
    /// # Standard section
    /// 5.7.1
    #[must_use]
    pub fn attribute<T: 'static>(&self, key: &Keyval<T>) -> Option<Rc<T>> {
        self.attributes().borrow().get(key)
    }

    /// Deletes the attribute for a key. Returns `false` if there was none.
    ///
    /// # Errors
    /// The error of the function that deletes the attribute, which is kept then.
    ///
    /// # Standard section
    /// 5.7.1
    pub fn delete_attribute<T: 'static>(&self, key: &Keyval<T>) -> Result<bool> {
        let removed = self.attributes().borrow_mut().remove(key);
        self.guard(removed)
    }

    /// Finds a context that no rank of the groups involved has used.
    pub(crate) fn agree_on_context(&self) -> Result<u32> {
        let highest = |comm: &Self, mine: u32| -> Result<u32> {
            Ok(comm.tell_all(&mine)?.into_iter().max().unwrap_or(mine))
        };
        let mine = self.engine().next_context();
        let context = match self.local_comm() {
            None => highest(self, mine)?,
            Some(own) => {
                let ours = highest(&own, mine)?;
                ours.max(self.through_leader(&own, &ours)?)
            }
        };
        self.engine().use_contexts_below(context + 2);
        Ok(context)
    }

    /// Exchanges values between the leaders of both groups, and returns that of the other group's leader.
    fn through_leader<T>(&self, own: &Self, mine: &T) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
    {
        // On all ranks, because the counter of collective operations must stay the same on all of them.
        let tag = self.next_collective();
        let leads = own.rank() == 0;
        own.hear_from(0, leads.then(|| self.swap_with(0, tag, mine)))
    }

    /// Sends what the leader has received to all ranks; if the leader has got an error instead, all of them get that error.
    fn hear_from<T>(&self, leader: usize, heard: Option<Result<T>>) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
    {
        let (heard, error) = match heard {
            Some(Ok(heard)) => (Some(heard), None),
            Some(Err(error)) => (None, Some(error)),
            None => (None, None),
        };
        let failure = error.as_ref().map(|error| match error {
            MpiError::ProcFailed { rank, why, .. } => LeaderFailure::Death(*rank, why.clone()),
            MpiError::Revoked(comm) => LeaderFailure::Revoked(comm.clone()),
            other => LeaderFailure::Other(other.to_string()),
        });
        let told = self.tell_all(&(heard, failure));
        if let Some(error) = error {
            return Err(error);
        }
        match told?.swap_remove(leader) {
            (Some(heard), _) => Ok(heard),
            (None, Some(LeaderFailure::Death(rank, why))) => {
                Err(MpiError::ProcFailed { rank, why, waiting_for: String::new() })
            }
            (None, Some(LeaderFailure::Revoked(comm))) => Err(MpiError::Revoked(comm)),
            (None, Some(LeaderFailure::Other(why))) => {
                Err(MpiError::Comm(format!("rank {leader} of {} failed: {why}", self.name())))
            }
            (None, None) => Err(MpiError::Stopped),
        }
    }

    /// Sends a value to a rank, and receives one from it.
    fn swap_value<T>(&self, mine: &T, other: usize, tag: i32) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
    {
        let (to, key) = (self.member(other)?, self.key(tag)?);
        let ask = self.ask(Peer::Rank(other), tag.into())?.ok_or(MpiError::Stopped)?;
        self.engine().send_shared(to, key, encode(mine)?.into())?;
        let (_, arrival) = self.engine().receive(&ask, None)?;
        decode(&arrival.map(Arrival::into_bytes).unwrap_or_default())
    }

    fn must_be_intra(&self, what: &str) -> Result {
        if self.is_inter() {
            return Err(MpiError::Comm(format!(
                "{what} is for communicators of one group, {} has two",
                self.name()
            )));
        }
        Ok(())
    }
}

/// Why the leader of a group has heard nothing from the other group, as it tells its group.
#[derive(Serialize, Deserialize)]
enum LeaderFailure {
    /// A rank of the world is gone.
    Death(usize, String),
    /// That communicator was revoked.
    Revoked(String),
    Other(String),
}

fn not_a_member() -> MpiError {
    MpiError::Group("this rank is not in the group of the new communicator".into())
}
