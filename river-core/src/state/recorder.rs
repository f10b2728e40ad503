//! A record that two threads know: the VR's own, which makes calls, and the control plane's, which freezes and copies it.
//!
//! A VR is frozen by its record alone: it stops at its next call on `Vr`, whatever it computes until then, and since
//! nothing that it does in between can be seen from outside, it counts as stopped from the first moment on. So freezing
//! takes a lock and waits for nobody.

use std::panic;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;

use super::base::{Base, Origin};
use super::record::{Blocked, Call, Record, Refusal, Sending, Sent};
use crate::down::Why;
use crate::error::Divergence;
use crate::inbox::{Event, Inbox, Moment};

#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) origin: Origin,
    guarded: Mutex<Guarded>,
    thawed: Condvar,
}

#[derive(Debug)]
struct Guarded {
    record: Record,
    frozen: bool,
    /// The VR has ended, and how.
    ended: Option<Why>,
    /// It is of no more use: it has diverged.
    diverged: Option<Box<Divergence>>,
    /// The VR lives on elsewhere: what this thread would do with it must not be seen.
    abandoned: bool,
}

type Result<T> = std::result::Result<T, Box<Divergence>>;

impl Recorder {
    pub(crate) fn new(origin: Origin, record: Record, frozen: bool) -> Arc<Self> {
        let guarded = Mutex::new(Guarded { record, frozen, ended: None, diverged: None, abandoned: false });
        Arc::new(Self { origin, guarded, thawed: Condvar::new() })
    }

    // ---- the VR's side ----

    /// Where the record begins.
    pub(crate) fn base(&self) -> Arc<Base> {
        self.lock().record.base().clone()
    }

    /// The VR makes a call. True: it is live.
    pub(crate) fn call(&self, call: Call) -> Result<bool> {
        self.step(|record| record.call(call))
    }

    /// What has arrived for the call that was made last.
    pub(crate) fn arrivals(&self, events: &mut Vec<Event>, inbox: &Inbox) -> Option<Moment> {
        self.open().ok()?.record.arrivals(events, |events| inbox.swap(events))
    }

    pub(crate) fn blocked(&self) -> Result<Blocked> {
        self.step(Record::blocked)
    }

    pub(crate) fn again(&self) {
        if let Ok(mut guarded) = self.open() {
            guarded.record.again();
        }
    }

    pub(crate) fn timed_out(&self, waited: Duration) {
        if let Ok(mut guarded) = self.open() {
            guarded.record.timed_out(waited);
        }
    }

    pub(crate) fn send(&self, send: Sent) -> Result<Sending> {
        self.step(|record| record.send(send))
    }

    /// The send that was made last was not accepted: even a frozen VR's record says so, as it was made before.
    pub(crate) fn refused(&self, refusal: Refusal) {
        self.lock().record.refused(refusal);
    }

    pub(crate) fn recorded_answer(&self) -> Result<Option<Bytes>> {
        self.step(Record::recorded_answer)
    }

    pub(crate) fn answer(&self, answer: Bytes) {
        if let Ok(mut guarded) = self.open() {
            guarded.record.answer(answer);
        }
    }

    /// Begins anew from a safepoint. The old record, if it is over.
    pub(crate) fn restart(&self, base: Base) -> Result<Option<Record>> {
        self.step(|record| record.restart(base))
    }

    /// The VR's `main` has returned, or panicked: why the VR ends. Waits while frozen: until then it has not ended. `None`: it has
    /// not, as it lives on elsewhere.
    pub(crate) fn finish(&self, why: Why) -> Option<Why> {
        let mut guarded = self.lock();
        while guarded.frozen && !guarded.abandoned {
            guarded = self.thawed.wait(guarded).unwrap_or_else(PoisonError::into_inner);
        }
        if guarded.abandoned {
            return None;
        }
        let finished = guarded.record.finish();
        let diverged = guarded.diverged.take().map(|diverged| *diverged).or(finished.err());
        let why = diverged.map_or(why, |diverged| Why::Failed(diverged.to_string()));
        guarded.ended = Some(why.clone());
        Some(why)
    }

    /// One step of the VR. An error stays one.
    fn step<T>(&self, step: impl FnOnce(&mut Record) -> std::result::Result<T, Divergence>) -> Result<T> {
        let mut guarded = self.open()?;
        if let Some(diverged) = &guarded.diverged {
            return Err(diverged.clone());
        }
        step(&mut guarded.record).map_err(|divergence| {
            let divergence = Box::new(divergence);
            guarded.diverged = Some(divergence.clone());
            divergence
        })
    }

    /// The record, as soon as it is not frozen. What is replayed has happened already and waits for nobody.
    ///
    /// Of a VR that lives on elsewhere the thread is unwound from here, without a report; what is called while it is unwound gets
    /// an error, as a panic within a panic would end the process.
    fn open(&self) -> Result<MutexGuard<'_, Guarded>> {
        let mut guarded = self.lock();
        while guarded.frozen && guarded.record.is_live() && !guarded.abandoned {
            guarded = self.thawed.wait(guarded).unwrap_or_else(PoisonError::into_inner);
        }
        if !guarded.abandoned {
            return Ok(guarded);
        }
        drop(guarded);
        if !thread::panicking() {
            panic::resume_unwind(Box::new("this VR lives on elsewhere"));
        }
        let (recorded, done) = ("that this VR lives on elsewhere".into(), "a call".into());
        Err(Box::new(Divergence { line: 0, safepoints: 0, recorded, done }))
    }

    fn lock(&self) -> MutexGuard<'_, Guarded> {
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- the control plane's side ----

    /// Stops the VR at its next live call.
    pub(crate) fn freeze(&self) {
        self.lock().frozen = true;
    }

    pub(crate) fn thaw(&self) {
        self.lock().frozen = false;
        self.thawed.notify_all();
    }

    /// Ends the VR's thread at its next call, whatever it is: it lives on elsewhere.
    pub(crate) fn abandon(&self) {
        self.lock().abandoned = true;
        self.thawed.notify_all();
    }

    /// Looks at the record, and at how the VR has ended if it has.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&Record, Option<&Why>) -> R) -> R {
        let guarded = self.lock();
        look(&guarded.record, guarded.ended.as_ref())
    }
}
