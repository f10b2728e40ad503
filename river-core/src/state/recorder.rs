//! A record shared by two threads: the VR's own, which makes calls, and the control plane's, which freezes and copies it.
//!
//! A VR is frozen by freezing its record: it stops at its next call on `Vr`. Whatever it computes until then is invisible
//! from outside, so it counts as stopped from the first moment on. Freezing therefore takes a lock and waits for nobody.

use std::panic;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;

use super::base::{Base, Origin};
use super::line::{Call, Refusal, Sent};
use super::record::{Blocked, Record, Sending};
use super::tape::{Tape, Unwritten};
use super::twin::{Leader, Shipment};
use crate::down::Why;
use crate::error::Divergence;
use crate::id::HostId;
use crate::inbox::{Event, Inbox, Moment};

#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) origin: Origin,
    guarded: Mutex<Guarded>,
    thawed: Condvar,
    /// Notified when the twin has got the log, or when there is no twin any more.
    logged: Condvar,
    replay: Option<Replay>,
    /// Whether a send was recorded that may yet be refused.
    undecided: AtomicBool,
}

#[derive(Debug)]
struct Guarded {
    record: Record,
    frozen: bool,
    /// How the VR has ended, if it has.
    ended: Option<Why>,
    /// Set if the VR has diverged from its record, which makes it useless.
    diverged: Option<Box<Divergence>>,
    /// The VR lives on elsewhere: nothing that this thread still does with it may become visible.
    abandoned: bool,
    /// What remains to be written to files, if the program is recorded.
    tape: Option<Tape>,
    /// Set if the VR is mirrored.
    leader: Option<Leader>,
    /// How many lines and events there were when the VR was last copied for another process.
    given: (usize, usize),
}

impl Guarded {
    /// Whether this is the VR's twin and has not acknowledged the log up to that number.
    fn waits_for(&self, twin: HostId, number: u64) -> bool {
        let leader = self.leader.as_ref().filter(|leader| leader.twin() == twin);
        leader.is_some_and(|leader| !leader.is_acknowledged(number))
    }
}

/// The options of a replay that never goes live.
#[derive(Debug)]
pub(crate) struct Replay {
    /// Called where the record ends, with what the VR is about to do there.
    pub(crate) end: fn(&str) -> !,
    /// Whether each line is printed.
    pub(crate) trace: bool,
    /// Where the states that the VR passes to its safepoints are written, as JSON.
    pub(crate) states: Option<PathBuf>,
}

type Result<T> = std::result::Result<T, Box<Divergence>>;

impl Recorder {
    pub(crate) fn new(origin: Origin, record: Record, frozen: bool) -> Arc<Self> {
        Arc::new(Self::build(origin, record, frozen, None, None))
    }

    /// A recorder that also writes to a file; `vm` is where the VR is.
    pub(crate) fn taped(origin: Origin, record: Record, frozen: bool, vm: &str) -> Arc<Self> {
        let tape = Tape::new(&origin, vm, record.base());
        Arc::new(Self::build(origin, record, frozen, Some(tape), None))
    }

    /// A recorder that ends where the record ends.
    pub(crate) fn replaying(origin: Origin, record: Record, replay: Replay) -> Arc<Self> {
        Arc::new(Self::build(origin, record, false, None, Some(replay)))
    }

    fn build(
        origin: Origin,
        record: Record,
        frozen: bool,
        tape: Option<Tape>,
        replay: Option<Replay>,
    ) -> Self {
        let (ended, diverged, abandoned, leader, given) = (None, None, false, None, (0, 0));
        let guarded = Guarded { record, frozen, ended, diverged, abandoned, tape, leader, given };
        let (guarded, thawed, logged) = (Mutex::new(guarded), Condvar::new(), Condvar::new());
        Self { origin, guarded, thawed, logged, replay, undecided: AtomicBool::new(false) }
    }

    // ---- the VR's side ----

    /// Where the record begins.
    pub(crate) fn base(&self) -> Arc<Base> {
        self.lock().record.base().clone()
    }

    /// Notes that the VR makes a call. Returns whether it is live.
    pub(crate) fn call(&self, call: Call) -> Result<bool> {
        let mut text = String::new();
        if self.replay.is_some() {
            text = call.to_string();
        }
        self.step(&text, |record| record.call(call))
    }

    /// Returns what has arrived for the last call.
    pub(crate) fn arrivals(&self, events: &mut Vec<Event>, inbox: &Inbox) -> Option<Moment> {
        let mut guarded = self.open().ok()?;
        let before = guarded.record.position();
        let arrived = guarded.record.arrivals(events, |events| inbox.swap(events));
        if arrived.is_some() {
            self.done(&mut guarded, before);
        }
        arrived
    }

    pub(crate) fn blocked(&self) -> Result<Blocked> {
        self.step("a receive that waits", Record::blocked)
    }

    pub(crate) fn again(&self) {
        let Ok(mut guarded) = self.open() else { return };
        let before = guarded.record.position();
        guarded.record.again();
        self.done(&mut guarded, before);
    }

    pub(crate) fn timed_out(&self, waited: Duration) {
        let Ok(mut guarded) = self.open() else { return };
        let before = guarded.record.position();
        guarded.record.timed_out(waited);
        self.done(&mut guarded, before);
    }

    pub(crate) fn send(&self, send: Sent) -> Result<Sending> {
        self.step("a send", |record| {
            let sending = record.send(send)?;
            // Under the lock, so that whoever freezes the VR and sees the send sees this as well.
            self.undecided.store(matches!(sending, Sending::Due(_)), SeqCst);
            Ok(sending)
        })
    }

    /// Notes that the last send was accepted, or refused and recorded as such.
    pub(crate) fn decided(&self) {
        self.undecided.store(false, SeqCst);
    }

    /// Whether the record has a send that may not have been made.
    pub(crate) fn is_undecided(&self) -> bool {
        self.undecided.load(SeqCst)
    }

    /// Records that the last send was not accepted, even if the VR is frozen, since the send was made before.
    pub(crate) fn refused(&self, refusal: Refusal) {
        let mut guarded = self.lock();
        let before = guarded.record.position();
        guarded.record.refused(refusal);
        self.done(&mut guarded, before);
    }

    pub(crate) fn recorded_answer(&self) -> Result<Option<Bytes>> {
        self.step("a question whose answer is not there", Record::recorded_answer)
    }

    pub(crate) fn answer(&self, answer: Bytes) {
        let Ok(mut guarded) = self.open() else { return };
        let before = guarded.record.position();
        guarded.record.answer(answer);
        self.done(&mut guarded, before);
    }

    pub(crate) fn uptime(&self, now: impl FnOnce() -> Duration) -> Result<(Duration, bool)> {
        self.step("a question for the time", |record| record.uptime(now))
    }

    /// Starts over from a safepoint.
    pub(crate) fn restart(&self, base: Base) -> Result<()> {
        // Under one lock: a twin that is made between the two has the new record, and would be sent the old one's lines.
        let guarded = &mut *self.open()?;
        let before = self.step_of(guarded, "a safepoint", |record| record.restart(base))?;
        let Some(before) = before else { return Ok(()) };
        if let Some(tape) = &mut guarded.tape {
            tape.safepoint(&before, &guarded.record);
        }
        if let Some(leader) = &mut guarded.leader {
            leader.safepoint(&before, &guarded.record);
        }
        Ok(())
    }

    /// Called before anything of the VR becomes visible; returns what its twin, if it has one, must get first.
    pub(crate) fn due(&self) -> Option<Shipment> {
        let Guarded { record, leader, .. } = &mut *self.lock();
        leader.as_mut()?.due(record)
    }

    /// Waits until the twin has the log up to that number, or until there is no such twin any more.
    pub(crate) fn wait_logged(&self, to: HostId, number: u64) {
        let mut guarded = self.lock();
        while guarded.waits_for(to, number) {
            guarded = self.logged.wait(guarded).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether this run of the VR replaces another one.
    pub(crate) fn has_taken_over(&self) -> bool {
        self.lock().record.has_taken_over()
    }

    /// Whether [`wait_logged`](Self::wait_logged) would not wait.
    #[cfg(test)]
    pub(crate) fn is_logged(&self, to: HostId, number: u64) -> bool {
        !self.lock().waits_for(to, number)
    }

    /// Checks that a replay has come to the end of the record, as the VR has.
    pub(crate) fn replayed(&self) -> Result<()> {
        let mut guarded = self.lock();
        match guarded.diverged.take() {
            Some(diverged) => Err(diverged),
            None => guarded.record.finish().map_err(Box::new),
        }
    }

    /// Where to write the states passed to safepoints, if they are wanted.
    pub(crate) fn states(&self) -> Option<&Path> {
        self.replay.as_ref()?.states.as_deref()
    }

    /// Notes that the VR's `main` has returned or panicked, and returns why the VR ends. Waits while frozen: until then it
    /// has not ended. Returns `None` if it has not, since it lives on elsewhere.
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

    /// Takes one step of the VR. An error is permanent.
    fn step<T>(
        &self,
        what: &str,
        step: impl FnOnce(&mut Record) -> std::result::Result<T, Divergence>,
    ) -> Result<T> {
        self.step_of(&mut *self.open()?, what, step)
    }

    /// Like [`step`](Self::step), with the lock held by the caller.
    fn step_of<T>(
        &self,
        guarded: &mut Guarded,
        what: &str,
        step: impl FnOnce(&mut Record) -> std::result::Result<T, Divergence>,
    ) -> Result<T> {
        if let Some(diverged) = &guarded.diverged {
            return Err(diverged.clone());
        }
        if let Some(replay) = &self.replay
            && guarded.record.is_live()
        {
            (replay.end)(what);
        }
        let before = guarded.record.position();
        let result = step(&mut guarded.record).map_err(|divergence| {
            let divergence = Box::new(divergence);
            guarded.diverged = Some(divergence.clone());
            divergence
        });
        self.done(guarded, before);
        result
    }

    /// Called after something was recorded or replayed.
    #[inline]
    fn done(&self, guarded: &mut Guarded, before: usize) {
        if let Some(tape) = &mut guarded.tape {
            tape.note(&guarded.record);
        }
        if self.replay.as_ref().is_some_and(|replay| replay.trace) {
            for line in (before..guarded.record.position()).filter_map(|line| guarded.record.line(line)) {
                eprintln!("[{}: {line}]", self.origin.id.short());
            }
        }
    }

    /// Locks the record once it is not frozen. What is replayed has happened already, so it does not wait.
    ///
    /// If the VR lives on elsewhere, its thread is unwound from here, without a report. Calls made while it unwinds get an
    /// error, since a panic within a panic would end the process.
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

    /// Ends the VR's thread at its next call, whichever that is: it lives on elsewhere.
    pub(crate) fn abandon(&self) {
        self.lock().abandoned = true;
        self.thawed.notify_all();
    }

    /// Copies the record for another process. `look` may refuse.
    pub(crate) fn give<E>(
        &self,
        look: impl FnOnce(&Record, Option<&Why>) -> std::result::Result<(), E>,
    ) -> std::result::Result<Record, E> {
        let mut guarded = self.lock();
        look(&guarded.record, guarded.ended.as_ref())?;
        guarded.given = guarded.record.lengths();
        Ok(guarded.record.clone())
    }

    /// Notes that the VR has a twin in that process from now on, which has what was copied last.
    pub(crate) fn lead(&self, twin: HostId) {
        let mut guarded = self.lock();
        guarded.leader = Some(Leader::new(twin, guarded.given));
        self.logged.notify_all();
    }

    /// Notes that the twin has the log up to that number.
    pub(crate) fn acknowledge(&self, twin: HostId, number: u64) {
        if let Some(leader) = self.lock().leader.as_mut().filter(|leader| leader.twin() == twin) {
            leader.acknowledge(number);
        }
        self.logged.notify_all();
    }

    /// Removes the VR's twin, if it is this one or if none is named.
    pub(crate) fn unlead(&self, twin: Option<HostId>) {
        self.lock().leader.take_if(|leader| twin.is_none_or(|twin| leader.twin() == twin));
        self.logged.notify_all();
    }

    /// What to write to the VR's file next; `None` if it is not written to one.
    pub(crate) fn flush(&self) -> Option<Unwritten> {
        let Guarded { record, ended, tape, .. } = &mut *self.lock();
        tape.as_mut().map(|tape| tape.flush(record, ended.as_ref()))
    }

    /// Lets `look` inspect the record and, if the VR has ended, the reason.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&Record, Option<&Why>) -> R) -> R {
        let guarded = self.lock();
        look(&guarded.record, guarded.ended.as_ref())
    }
}

#[cfg(test)]
mod tests;
