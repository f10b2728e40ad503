//! The record of a recoverable VR: every answer from outside is recorded, and repeated when the VR is replayed.

use std::cell::Cell;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::Xxh3Default;

use super::{Vr, traced};
use crate::envelope::{Channel, Envelope, Label, Payload};
use crate::error::{DeployError, Divergence, RecvError, SendError, StateError};
use crate::id::{ProgramId, VrId};
use crate::inbox::Refused;
use crate::protocol::{NewVr, Reply, Request};
use crate::state::{Base, Blocked, Call, Recorder, Refusal, Sending, Sent};

/// The recorded side of a VR.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) recorder: Arc<Recorder>,
    /// The state at which this run of the VR began.
    pub(super) began: Arc<Base>,
    /// Whether the VR's record has been replayed completely, so that its calls take effect.
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
    /// Records, or checks, that the VR makes a call. Does nothing if it is not recoverable.
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

    /// Whether the VR's calls take effect, that is, it is not being replayed.
    pub(super) fn is_live(&self) -> bool {
        self.journal.as_ref().is_none_or(|journal| journal.live.get())
    }

    /// The record has been replayed: from now on calls take effect.
    pub(super) fn go_live(&self, journal: &Journal) {
        if journal.live.replace(true) {
            return;
        }
        let observed: Vec<VrId> = self.observed.borrow().iter().copied().collect();
        for who in observed {
            // Within a predicate the mailbox cannot be inspected, so an end may be reported again; the repetition is ignored.
            if self.mailbox.try_borrow().map_or(true, |mailbox| mailbox.why_down(who).is_none()) {
                self.node.watch(self.id, who);
            }
        }
    }

    /// Returns what the record says of a receive that has found nothing.
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

    /// Calls `act`, or returns the recorded result of its first call.
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

    /// Like [`remember`](Self::remember), but `act` runs in a replay too, since it takes in arrivals; its recorded result is
    /// returned, though `act` may return another one.
    pub(super) fn remember_what_is_done_again<T>(&self, call: Call, act: impl FnOnce() -> T) -> T
    where
        T: Serialize + DeserializeOwned,
    {
        let Some(journal) = &self.journal else { return act() };
        // A divergence is reported by the next receive.
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

    /// Sends a request to the program.
    pub(super) fn ask(&self, call: Call, request: Request) -> Result<Option<Reply>, DeployError> {
        let reason = traced::reason(&call);
        let ask = || self.timed(reason, None, || self.node.ask(request));
        self.remember(call, ask).map_err(|error| match error {
            StateError::Diverged(divergence) => DeployError::Diverged(divergence),
            other => DeployError::State { name: "answer of the program".into(), error: other.to_string() },
        })
    }

    /// Returns the name of the VM, as it was when the VR asked for it.
    pub(super) fn recorded_vm(&self) -> &'static str {
        let name = self.remember(Call::VmName, || self.node.vm.clone());
        self.node.intern(name.as_deref().unwrap_or(&self.node.vm))
    }

    /// Returns the id of a VR that is about to be deployed or spawned. A replayed VR gives the same one again.
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

/// Returns a value that distinguishes deployments.
pub(super) fn fingerprint<'a>(vrs: impl Iterator<Item = &'a NewVr>) -> u64 {
    let mut hasher = Xxh3Default::new();
    for new in vrs {
        hasher.update(new.id.as_uuid().as_bytes());
        hasher.update(new.name.as_bytes());
        hasher.update(&new.state);
    }
    hasher.digest()
}

pub(super) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, StateError> {
    let failed = |error: postcard::Error| StateError::Value {
        name: std::any::type_name::<T>().into(),
        error: error.to_string(),
    };
    postcard::to_stdvec(value).map_err(failed)
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StateError> {
    let failed = |error: postcard::Error| StateError::Value {
        name: std::any::type_name::<T>().into(),
        error: error.to_string(),
    };
    postcard::from_bytes(bytes).map_err(failed)
}

#[cfg(test)]
mod tests;
