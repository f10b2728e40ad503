//! Safepoints and checkpoints: the state from which a recoverable VR continues, and saving the whole program.

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Vr;
use super::recorded::{decode, encode};
use crate::error::StateError;
use crate::id::VrId;
use crate::protocol::{Checkpoint, KeepIn, Reply, Request};
use crate::state::{Base, Call, KEEP};
use crate::trace::Reason;

impl Vr {
    /// Whether this VR is recorded, so that it can be checkpointed and restored.
    #[must_use]
    pub fn is_recoverable(&self) -> bool {
        self.journal.is_some()
    }

    /// Declares that `state` is all that `main` needs to continue from here. A VR that is restored later starts from it, with
    /// the contents of its queue; what was recorded before is discarded. Does nothing in a VR that is not recoverable.
    ///
    /// A deployed VR passes itself: it is recreated from the state that it had then, and its `main` is called. The initiator,
    /// which has no value, gets its state from [`resumed`](Self::resumed). Data that layers keep in [`slot`](Self::slot)s,
    /// for example open calls, is not part of the state.
    ///
    /// # Errors
    /// [`StateError::Posted`] while receives are posted; [`StateError::Value`] if the state cannot be encoded.
    ///
    /// # Blocking
    /// While a checkpoint is being taken. Costs the encoding of `state` and of the queue's headers.
    pub fn safepoint<S: Serialize + ?Sized>(&self, state: &S) -> Result<(), StateError> {
        let Some(journal) = &self.journal else { return Ok(()) };
        if let Some(path) = journal.recorder.states() {
            show(path, state);
        }
        let state = encode::<S>(state)?;
        let queue = self.mailbox.try_borrow().ok().and_then(|mailbox| mailbox.queue());
        let queue = queue.ok_or(StateError::Posted)?;
        let down: HashSet<VrId> = queue.down.iter().map(|(down, _)| *down).collect();
        let (before, then) = self.clock.get();
        let observed = self.observed.borrow().iter().filter(|who| !down.contains(who)).copied().collect();
        journal.recorder.restart(Base {
            state: state.into(),
            safepoints: 0,
            queue,
            sent: Vec::new(),
            received: Vec::new(),
            observed,
            fresh_number: self.fresh_number.get(),
            names: self.names.get(),
            random: self.random.borrow().clone(),
            uptime: before + then.elapsed(),
        })?;
        Ok(())
    }

    /// Returns the state that was given to the last safepoint, if this run of `main` begins there: an initiator continues
    /// from it. `None` if this run begins at the beginning.
    ///
    /// ```
    /// # use river_core::{Result, Vr};
    /// fn program(vr: &Vr) -> Result {
    ///     let mut round = vr.resumed()?.unwrap_or(0_u32);
    ///     while round < 100 {
    ///         // ...
    ///         round += 1;
    ///         vr.safepoint(&round)?;
    ///     }
    ///     Ok(())
    /// }
    /// # river_core::try_run(program).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`StateError::Value`] if the state was of another type.
    pub fn resumed<S: DeserializeOwned>(&self) -> Result<Option<S>, StateError> {
        let began = self.journal.as_ref().map(|journal| &journal.began);
        let began = began.filter(|began| began.safepoints > 0);
        began.map(|began| decode(&began.state)).transpose()
    }

    /// Checkpoints the program: all its VRs, the initiator included, and the messages in transit between them, as a
    /// consistent whole. All VRs must be recoverable. The checkpoint is written to a directory on the initiator's machine,
    /// together with the program's image; the two newest checkpoints are kept. `river restore DIRECTORY` continues from
    /// there, whatever has become of the program and its VMs.
    ///
    /// In the restored program this same call returns again, with [`resumed`](Checkpoint::resumed) set.
    ///
    /// # Errors
    /// [`StateError::NotRecoverable`], [`StateError::GivenUp`], [`StateError::File`] (a full disk, for example). The program
    /// continues, and older checkpoints are still there.
    ///
    /// # Blocking
    /// Until the checkpoint is written. The other VRs are stopped only while they are copied.
    pub fn checkpoint(&self, directory: impl AsRef<Path>) -> Result<Checkpoint, StateError> {
        self.checkpoint_keeping(directory, KEEP)
    }

    /// Like [`checkpoint`](Self::checkpoint), but keeps this many of the newest checkpoints in the directory, at least one.
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint).
    pub fn checkpoint_keeping(
        &self,
        directory: impl AsRef<Path>,
        keep: usize,
    ) -> Result<Checkpoint, StateError> {
        self.checkpoint_in(KeepIn::Directory(directory.as_ref().to_owned()), keep)
    }

    /// Like [`checkpoint`](Self::checkpoint), but in memory instead of on a disk: the image of each process is kept by the VM
    /// on which it runs, and by another one, so that the program survives the loss of any one VM. A checkpoint is kept until
    /// the next one is complete.
    ///
    /// Checkpoints in memory are gone when the program ends. If it dies, `river run --checkpoint memory --restarts N`
    /// restarts it from them.
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint), and [`StateError::Memory`]: the program has fewer than two VMs of its own, or
    /// they have not enough memory for the checkpoint.
    ///
    /// # Blocking
    /// Until all VMs have their parts. The other VRs are stopped only while they are copied.
    pub fn checkpoint_in_memory(&self) -> Result<Checkpoint, StateError> {
        self.checkpoint_in(KeepIn::Memory, KEEP)
    }

    /// Like [`checkpoint`](Self::checkpoint), but in the store that the program was given with
    /// [`Launch::store`](crate::Launch::store).
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint), and [`StateError::Store`]: the program has no store, or the store returned an
    /// error.
    ///
    /// # Blocking
    /// Until the checkpoint is in the store. The other VRs are stopped only while they are copied.
    pub fn checkpoint_in_store(&self) -> Result<Checkpoint, StateError> {
        self.checkpoint_in(KeepIn::Store, KEEP)
    }

    fn checkpoint_in(&self, to: KeepIn, keep: usize) -> Result<Checkpoint, StateError> {
        let request = Request::Checkpoint { to, keep };
        let take = || match self.timed(Reason::Checkpoint, None, || self.node.ask(request)) {
            Some(Reply::Checkpoint(result)) => result,
            _ => Err(StateError::Stopped),
        };
        let Some(journal) = &self.journal else { return take() };
        // A record that ends within a checkpoint is what that checkpoint saved, so the VR has been restored from it; unless
        // the VR is a twin that has taken over from a VR that had not heard the result of the checkpoint.
        let is_resumed = !journal.recorder.call(Call::Checkpoint)? && !journal.recorder.has_taken_over();
        if let Some(answer) = journal.recorder.recorded_answer()? {
            return decode(&answer)?;
        }
        self.go_live(journal);
        self.node.commit(&journal.recorder);
        let resumed = Checkpoint { number: 0, resumed: true, bytes: 0, pause: Duration::ZERO };
        let result = if is_resumed { Ok(resumed) } else { take() };
        journal.recorder.answer(encode(&result)?.into());
        result
    }
}

/// Appends a state to a file for people, as JSON; `null` if JSON cannot represent it.
fn show<S: Serialize + ?Sized>(path: &Path, state: &S) {
    let text = serde_json::to_string(state).unwrap_or_else(|_| "null".into());
    let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
    if let Err(error) = file.and_then(|mut file| writeln!(file, "{text}")) {
        tracing::error!(%error, path = %path.display(), "a state cannot be written");
    }
}
