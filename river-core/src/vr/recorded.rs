//! What a recoverable VR does besides: every answer of the world is recorded, and told again when the VR is replayed.

use std::cell::Cell;
use std::convert::Infallible;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rand_core::TryRng;
use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::Xxh3Default;

use super::{Vr, traced};
use crate::envelope::{Channel, Envelope, Label, Payload};
use crate::error::{DeployError, Divergence, RecvError, SendError, StateError};
use crate::id::{ProgramId, VrId};
use crate::inbox::Refused;
use crate::protocol::{Checkpoint, KeepIn, NewVr, Reply, Request};
use crate::state::{Base, Blocked, Call, KEEP, Recorder, Refusal, Sending, Sent};
use crate::trace::Reason;

/// The recorded side of a VR.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) recorder: Arc<Recorder>,
    /// Where this run of the VR began.
    began: Arc<Base>,
    /// Whether the VR does for real what it does: its record has been replayed.
    live: Cell<bool>,
}

impl Journal {
    pub(super) fn new(recorder: Arc<Recorder>, began: Arc<Base>) -> Self {
        Self { recorder, began, live: Cell::new(false) }
    }

    pub(super) fn program(&self) -> ProgramId {
        self.recorder.origin.program
    }
}

impl Vr {
    // ---- what recoverable VRs need instead of what is not deterministic ----

    /// Whether this VR is recorded, so that it can be checkpointed and restored.
    #[must_use]
    pub fn is_recoverable(&self) -> bool {
        self.journal.is_some()
    }

    /// The time. A recoverable VR must use no other clock.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.remember(Call::Now, SystemTime::now).unwrap_or_else(|_| SystemTime::now())
    }

    /// For how long this VR has been running: a clock that never goes back, for measuring. A recoverable VR must use no other
    /// one. The time between a checkpoint and the moment at which it is restored does not count.
    ///
    /// ```
    /// # river_core::testing::threads(1, |vr, _, _| {
    /// let start = vr.uptime();
    /// std::thread::sleep(std::time::Duration::from_millis(2));
    /// assert!((vr.uptime() - start).as_millis() >= 2);
    /// # });
    /// ```
    #[must_use]
    pub fn uptime(&self) -> Duration {
        let (before, then) = self.clock.get();
        let Some(journal) = &self.journal else { return before + then.elapsed() };
        // A divergence is told by the call that follows.
        let Ok((uptime, live)) = journal.recorder.uptime(|| before + then.elapsed()) else { return before };
        if live {
            self.go_live(journal);
        } else {
            self.clock.set((uptime, Instant::now()));
        }
        uptime
    }

    /// Random numbers, for use with the crates `rand` and `rand_distr`: different for every VR, and the same again when a
    /// recoverable VR is replayed. Not for secrets.
    ///
    /// ```
    /// use rand_core::Rng;
    ///
    /// # river_core::testing::threads(1, |vr, _, _| {
    /// let (a, b) = (vr.rng().next_u64(), vr.rng().next_u64());
    /// assert_ne!(a, b);
    /// # });
    /// ```
    #[must_use]
    pub fn rng(&self) -> Random<'_> {
        Random(self)
    }

    /// Does something that is not deterministic, or that must not be done again: reads a file, looks at the machine,
    /// prints. When a recoverable VR is replayed it gets the recorded result, and `act` is not called.
    ///
    /// If the VR is restored from a moment at which `act` was running, it is called once more.
    ///
    /// # Errors
    /// [`StateError::Value`] if the result cannot be encoded; [`StateError::Diverged`].
    ///
    /// ```
    /// # river_core::testing::threads(1, |vr, _, _| {
    /// let cores = vr.effect(|| std::thread::available_parallelism().map_or(1, |n| n.get())).unwrap();
    /// assert!(cores >= 1);
    /// # });
    /// ```
    pub fn effect<T: Serialize + DeserializeOwned>(&self, act: impl FnOnce() -> T) -> Result<T, StateError> {
        self.remember(Call::Effect, act)
    }

    /// Says that `state` is all that `main` needs to go on from here: a VR that is restored later starts from it, with what
    /// is in its queue, and what was recorded before is forgotten. Does nothing in a VR that is not recoverable.
    ///
    /// A deployed VR passes itself: it is made anew from what it looked like then, and its `main` is called. The initiator,
    /// which has no value, gets its state by [`resumed`](Self::resumed). What layers keep in [`slot`](Self::slot)s, open
    /// calls for example, is not part of it.
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
        let down = |who: &VrId| queue.down.iter().any(|(down, _)| down == who);
        let (before, then) = self.clock.get();
        let observed = self.observed.borrow().iter().filter(|who| !down(who)).copied().collect();
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

    /// What was given to the last safepoint, if this run of `main` begins there: how an initiator goes on. `None` if it
    /// begins at the beginning.
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
    /// [`StateError::Value`] if it was of another type.
    pub fn resumed<S: DeserializeOwned>(&self) -> Result<Option<S>, StateError> {
        let began = self.journal.as_ref().map(|journal| &journal.began);
        let began = began.filter(|began| began.safepoints > 0);
        began.map(|began| decode(&began.state)).transpose()
    }

    /// Checkpoints the program: all its VRs, the initiator included, and what is under way between them, at one moment. All
    /// of them have to be recoverable. It is written to a directory on the initiator's machine, together with the
    /// program's image; the two newest checkpoints are kept. `river restore DIRECTORY` goes on from there, whatever has
    /// become of the program and its VMs.
    ///
    /// In the restored program this same call returns once more, with [`resumed`](Checkpoint::resumed) set.
    ///
    /// # Errors
    /// [`StateError::NotRecoverable`], [`StateError::GivenUp`], [`StateError::File`] (a full disk, for example): the program
    /// goes on, and older checkpoints are still there.
    ///
    /// # Blocking
    /// Until it is written. The other VRs are stopped only while they are copied.
    pub fn checkpoint(&self, directory: impl AsRef<Path>) -> Result<Checkpoint, StateError> {
        self.checkpoint_keeping(directory, KEEP)
    }

    /// Like [`checkpoint`](Self::checkpoint), but keeps that many of the newest checkpoints in the directory, at least one.
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

    /// Like [`checkpoint`](Self::checkpoint), but without a disk: the image of each process is kept in the memory of the VM on
    /// which it runs, and of another one, so that the program outlives any VM. One checkpoint is kept: until the next one is
    /// whole.
    ///
    /// They are gone when the program ends. `river run --checkpoint memory --restarts N` goes on from them when it dies.
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint), and [`StateError::Memory`]: the program has fewer than two VMs of its own, or they
    /// have no room for it.
    ///
    /// # Blocking
    /// Until all VMs have their parts. The other VRs are stopped only while they are copied.
    pub fn checkpoint_in_memory(&self) -> Result<Checkpoint, StateError> {
        self.checkpoint_in(KeepIn::Memory, KEEP)
    }

    fn checkpoint_in(&self, to: KeepIn, keep: usize) -> Result<Checkpoint, StateError> {
        let request = Request::Checkpoint { to, keep };
        let take = || match self.timed(Reason::Checkpoint, None, || self.node.ask(request)) {
            Some(Reply::Checkpoint(result)) => result,
            _ => Err(StateError::Stopped),
        };
        let Some(journal) = &self.journal else { return take() };
        let replayed = !journal.recorder.call(Call::Checkpoint)?;
        if let Some(answer) = journal.recorder.recorded_answer()? {
            return decode(&answer)?;
        }
        self.go_live(journal);
        self.node.commit(&journal.recorder);
        // A record that ends within a checkpoint is what that checkpoint holds.
        let resumed = Checkpoint { number: 0, resumed: true, bytes: 0, pause: Duration::ZERO };
        let result = if replayed { Ok(resumed) } else { take() };
        journal.recorder.answer(encode(&result)?.into());
        result
    }

    // ---- recording ----

    /// The VR makes a call. Nothing happens if it is not recoverable.
    pub(super) fn enter(&self, call: impl FnOnce() -> Call) -> Result<(), Box<Divergence>> {
        match &self.journal {
            None => Ok(()),
            Some(journal) => {
                if journal.recorder.call(call())? {
                    self.go_live(journal);
                }
                Ok(())
            }
        }
    }

    /// Whether the VR does things for real.
    pub(super) fn is_live(&self) -> bool {
        self.journal.as_ref().is_none_or(|journal| journal.live.get())
    }

    /// The record has come to its end: from now on things are done for real.
    fn go_live(&self, journal: &Journal) {
        if journal.live.replace(true) {
            return;
        }
        let observed: Vec<VrId> = self.observed.borrow().iter().copied().collect();
        for who in observed {
            if self.mailbox.try_borrow().is_ok_and(|mailbox| mailbox.why_down(who).is_none()) {
                self.node.watch(self.id, who);
            }
        }
    }

    /// What the record says of a receive that has found nothing.
    pub(super) fn recorded_wait(&self) -> Result<Blocked, RecvError> {
        let Some(journal) = self.journal.as_ref().filter(|journal| !journal.live.get()) else {
            return Ok(Blocked::Live);
        };
        let blocked = journal.recorder.blocked()?;
        if blocked == Blocked::Live {
            self.go_live(journal);
        }
        Ok(blocked)
    }

    pub(super) fn recorded_send(
        &self,
        to: VrId,
        channel: Channel,
        lane: u64,
        payload: Payload,
    ) -> Result<(), SendError> {
        let Some(journal) = &self.journal else { return Ok(()) };
        match journal.recorder.send(Sent::new(to, channel, lane, &payload))? {
            Sending::Made(result) => result.map_err(|refusal| match refusal {
                Refusal::Down(down) => SendError::Down(*down),
                Refusal::Full => SendError::Full(to),
            }),
            Sending::Again(number) => {
                let label = Label { src: self.id, dst: to, seq: number, channel, lane };
                self.node.send_again(&label.with(payload));
                Ok(())
            }
            Sending::Due(number) => {
                self.go_live(journal);
                self.node.commit(&journal.recorder);
                let result = if self.node.is_mirrored(to) {
                    let label = Label { src: self.id, dst: to, seq: number, channel, lane };
                    self.dispatch_twice(&label.with(payload))
                } else {
                    self.dispatch(to, Some(number), channel, lane, payload)
                };
                match &result {
                    Err(SendError::Down(down)) => {
                        journal.recorder.refused(Refusal::Down(Box::new(down.clone())));
                    }
                    Err(SendError::Full(_)) => journal.recorder.refused(Refusal::Full),
                    _ => {}
                }
                journal.recorder.decided();
                result
            }
        }
    }

    /// Sends to a VR that has a twin.
    fn dispatch_twice(&self, envelope: &Envelope) -> Result<(), SendError> {
        let (to, number) = (envelope.dst, Some(envelope.seq));
        match self.node.send_mirrored(envelope) {
            Some(Ok(())) => Ok(()),
            Some(Err(Refused::Full)) => Err(SendError::Full(to)),
            Some(Err(Refused::Closed)) => Err(SendError::Down(self.node.post_mortem(to))),
            None => self.dispatch(to, number, envelope.channel, envelope.lane, envelope.payload.clone()),
        }
    }

    /// Calls `act`, or returns what it returned when it was called first.
    pub(super) fn remember<T: Serialize + DeserializeOwned>(
        &self,
        call: Call,
        act: impl FnOnce() -> T,
    ) -> Result<T, StateError> {
        let Some(journal) = &self.journal else { return Ok(act()) };
        let reaches_out = call.reaches_out();
        self.enter(|| call)?;
        if let Some(answer) = journal.recorder.recorded_answer()? {
            return decode(&answer);
        }
        self.go_live(journal);
        if reaches_out {
            self.node.commit(&journal.recorder);
        }
        let result = act();
        journal.recorder.answer(encode(&result)?.into());
        Ok(result)
    }

    /// Like [`remember`](Self::remember) for what is done again on replay, as it takes in what has arrived, though its result
    /// may be another one.
    pub(super) fn remember_what_is_done_again<T>(&self, call: Call, act: impl FnOnce() -> T) -> T
    where
        T: Serialize + DeserializeOwned,
    {
        let Some(journal) = &self.journal else { return act() };
        // A divergence is told by the receive that follows.
        let _ = self.enter(|| call);
        let result = act();
        match journal.recorder.recorded_answer() {
            Ok(Some(answer)) => decode(&answer).unwrap_or(result),
            Ok(None) => {
                self.go_live(journal);
                if let Ok(answer) = encode(&result) {
                    journal.recorder.answer(answer.into());
                }
                result
            }
            Err(_) => result,
        }
    }

    /// Asks the program.
    pub(super) fn ask(&self, call: Call, request: Request) -> Result<Option<Reply>, DeployError> {
        let reason = traced::reason(&call);
        let ask = || self.timed(reason, None, || self.node.ask(request));
        self.remember(call, ask).map_err(|error| match error {
            StateError::Diverged(divergence) => DeployError::Diverged(divergence),
            other => DeployError::State { name: "answer of the program".into(), error: other.to_string() },
        })
    }

    /// The name of the VM, as it was when the VR asked for it.
    pub(super) fn recorded_vm(&self) -> &'static str {
        let name = self.remember(Call::VmName, || self.node.vm.clone());
        self.node.intern(name.as_deref().unwrap_or(&self.node.vm))
    }

    /// The name of a VR that is about to be deployed or spawned: a recoverable VR gives the same one when it is replayed.
    pub(super) fn name_child(&self) -> VrId {
        if self.journal.is_none() {
            return VrId::fresh();
        }
        self.names.set(self.names.get() + 1);
        let mut hasher =
            blake3::Hasher::new_derive_key("river-core: the name of a VR by its parent and a number");
        hasher.update(self.id.as_uuid().as_bytes()).update(&self.names.get().to_le_bytes());
        let mut bytes = [0; 16];
        hasher.finalize_xof().fill(&mut bytes);
        VrId::from_uuid(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }
}

/// Tells deployments apart.
pub(super) fn fingerprint<'a>(vrs: impl Iterator<Item = &'a NewVr>) -> u64 {
    let mut hasher = Xxh3Default::new();
    for new in vrs {
        hasher.update(new.id.as_uuid().as_bytes());
        hasher.update(new.name.as_bytes());
        hasher.update(&new.state);
    }
    hasher.digest()
}

/// Appends a state to a file for people, as JSON; `null` if it has something that JSON does not know.
fn show<S: Serialize + ?Sized>(path: &Path, state: &S) {
    let text = serde_json::to_string(state).unwrap_or_else(|_| "null".into());
    let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
    if let Err(error) = file.and_then(|mut file| writeln!(file, "{text}")) {
        tracing::error!(%error, path = %path.display(), "a state cannot be written");
    }
}

fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, StateError> {
    let failed = |error: postcard::Error| StateError::Value {
        name: std::any::type_name::<T>().into(),
        error: error.to_string(),
    };
    postcard::to_stdvec(value).map_err(failed)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StateError> {
    let failed = |error: postcard::Error| StateError::Value {
        name: std::any::type_name::<T>().into(),
        error: error.to_string(),
    };
    postcard::from_bytes(bytes).map_err(failed)
}

/// A VR's random numbers: see [`Vr::rng`].
#[derive(Debug)]
pub struct Random<'a>(&'a Vr);

impl TryRng for Random<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.0.random.borrow_mut().try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0.random.borrow_mut().try_next_u64()
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.0.random.borrow_mut().try_fill_bytes(out)
    }
}
