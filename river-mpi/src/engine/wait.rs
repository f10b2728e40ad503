//! Waiting: for envelopes, and for the ends of the ranks that could send them. A rank that waits long reports that to the
//! supervisor, which finds deadlocks.

use std::time::{Duration, Instant};

use river_core::{Envelope, Intake, RecvError};

use super::describe::WaitReason;
use super::intake::{Hook, Landing};
use super::ops::reborrow;
use super::{ALL, Engine, LANE, OpId, REPORTS};
use crate::error::Result;
use crate::job::{Report, Waiting};

/// A wait this short never parks the thread.
const BREATH: Duration = Duration::from_micros(20);
/// After this long, every earlier store of another core is visible.
const MOMENT: Duration = Duration::from_millis(1);
/// After this long, a rank reports to the supervisor what it waits for.
const PATIENCE: Duration = Duration::from_secs(1);

impl Engine<'_> {
    /// Waits until something arrives, and handles it. This rank waits for what `hook` asks for or, without a hook, for `what`
    /// (which only describes it); `whom` are the ranks that could end the wait.
    pub(super) fn block(
        &self,
        what: WaitReason<'_>,
        whom: &[u32],
        mut hook: Option<&mut Hook<'_>>,
        mut landing: Option<&mut dyn Landing>,
    ) -> Result {
        // Both are called: the background operations may have taken in a message that makes data due.
        let news = self.advance_background();
        if self.has_due() && self.run_due(reborrow(&mut landing)) || news {
            return Ok(());
        }
        if !self.state.borrow().is_calm() {
            match self.vr.try_receive_where(ALL, |_| true) {
                Ok(Some(envelope)) => {
                    self.handle(envelope, hook);
                    return Ok(());
                }
                Ok(None) => {}
                Err(error) => return self.trouble(error),
            }
            if self.poll_queues(&mut hook, &mut landing) {
                return Ok(());
            }
            let ask = hook.as_ref().map(|hook| hook.ask);
            self.check_wait(whom, ask)
                .map_err(|error| error.while_waiting_for(|| self.describe(ask, what)))?;
        }
        self.watch(whom);
        let awake = self.time_to_read(what.ops());
        match self.look(PATIENCE, awake, whom, hook.as_deref_mut(), reborrow(&mut landing)) {
            Err(RecvError::Timeout { .. }) => {
                // `ask_about` may have taken in messages, too.
                if self.ask_about(whom)? || self.has_due() {
                    return Ok(());
                }
                let text = self.describe(hook.as_ref().map(|hook| hook.ask), what);
                self.wait_on(text, whom, hook)
            }
            Err(error) => self.trouble(error),
            Ok(()) => Ok(()),
        }
    }

    fn has_due(&self) -> bool {
        let state = self.state.borrow();
        !state.due.is_empty() || !state.wanted.is_empty()
    }

    /// Reads the data of matched offers, and sends lent slices that are wanted. Returns `true` if there were any.
    pub(super) fn run_due(&self, mut landing: Option<&mut dyn Landing>) -> bool {
        let read = self.read_due(reborrow(&mut landing));
        self.send_wanted(landing.as_deref()) || read
    }

    /// Waits for `patience` at most until something arrives, and handles it. Does not sleep during the first `awake`.
    fn look(
        &self,
        patience: Duration,
        awake: Duration,
        whom: &[u32],
        mut hook: Option<&mut Hook<'_>>,
        mut landing: Option<&mut dyn Landing>,
    ) -> std::result::Result<(), RecvError> {
        let is_polled = |&rank: &u32| {
            self.is_local[rank as usize] || self.shm.as_ref().is_some_and(|shm| shm.is_open(rank))
        };
        if whom.iter().any(is_polled) {
            let for_others = whom.iter().any(|&rank| !self.is_local[rank as usize]);
            if self.spin((patience, awake), for_others, &mut hook, &mut landing)? {
                return Ok(());
            }
        } else if !awake.is_zero() {
            let start = Instant::now();
            while start.elapsed() < awake {
                match self.sleep(BREATH, &mut hook, &mut landing) {
                    Err(RecvError::Timeout { .. }) => {}
                    result => return result,
                }
            }
        }
        self.sleep(patience, &mut hook, &mut landing)
    }

    /// Like [`look`](Self::look), but does not poll before it sleeps: senders that use queues or rings have to wake this
    /// rank.
    fn sleep(
        &self,
        patience: Duration,
        hook: &mut Option<&mut Hook<'_>>,
        landing: &mut Option<&mut dyn Landing>,
    ) -> std::result::Result<(), RecvError> {
        if !self.fall_asleep(hook, landing) {
            return Ok(());
        }
        let moment = if self.is_alone() { patience } else { patience.min(MOMENT) };
        let mut result = self.receive_arriving(moment, hook, landing);
        if moment < patience && matches!(result, Err(RecvError::Timeout { .. })) {
            // A sender that pushed just when this rank fell asleep may have missed that it sleeps.
            if self.poll_queues(hook, landing) {
                result = Ok(None);
            } else {
                result = self.receive_arriving(patience - moment, hook, landing);
            }
        }
        self.set_asleep(false);
        if let Some(envelope) = result? {
            self.handle(envelope, hook.as_deref_mut());
        }
        Ok(())
    }

    /// Polls the link once, and handles what has arrived. Returns `true` if there was something.
    pub(super) fn poll_link(
        &self,
        hook: &mut Option<&mut Hook<'_>>,
        landing: &mut Option<&mut dyn Landing>,
    ) -> std::result::Result<bool, RecvError> {
        self.deaf.set(0);
        match self.receive_arriving(Duration::ZERO, hook, landing) {
            Ok(Some(envelope)) => self.handle(envelope, hook.as_deref_mut()),
            Ok(None) => {}
            Err(RecvError::Timeout { .. }) => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Waits for something to arrive over the link.
    fn receive_arriving(
        &self,
        patience: Duration,
        hook: &mut Option<&mut Hook<'_>>,
        landing: &mut Option<&mut dyn Landing>,
    ) -> std::result::Result<Option<Envelope>, RecvError> {
        self.vr.receive_arriving(ALL, patience, |arriving| match self.is_ahead(arriving) {
            // `handle` takes first what precedes it in the ring.
            true => Intake::Left,
            false => self.take_in(arriving, hook.as_deref_mut(), reborrow(landing)),
        })
    }

    /// Waits for [`MOMENT`], after which every earlier store of another core is visible, or until `look` finds something. `look`
    /// is called whenever a message has arrived, and once at the end.
    pub(crate) fn sleep_briefly<R>(&self, mut look: impl FnMut() -> Option<R>) -> Result<Option<R>> {
        let start = Instant::now();
        loop {
            let left = MOMENT.saturating_sub(start.elapsed());
            match self.sleep(left, &mut None, &mut None) {
                Ok(()) | Err(RecvError::Timeout { .. }) => {}
                Err(error) => self.trouble(error)?,
            }
            // Others may need this rank meanwhile.
            self.run_due(None);
            self.advance_background();
            let found = look();
            if found.is_some() || left.is_zero() {
                return Ok(found);
            }
        }
    }

    /// Polls for the completion of an operation; gives up when no receiver has taken anything from this rank for `patience`.
    pub(super) fn spin_until(&self, op: OpId, patience: Duration) {
        self.look_for(op, patience);
        self.send_wanted(None);
    }

    fn look_for(&self, op: OpId, patience: Duration) {
        let (mut start, mut matched) = (Instant::now(), self.state.borrow().matched);
        while !self.is_complete(op) {
            self.send_wanted(None);
            let now = Instant::now();
            let others = self.state.borrow().matched;
            if others != std::mem::replace(&mut matched, others) {
                start = now;
            } else if now - start >= patience {
                return;
            }
            let whom = self.needed_by(&[op]);
            let looked = match self.look(BREATH, Duration::ZERO, &whom, None, None) {
                Err(RecvError::Timeout { .. }) => Ok(()),
                Err(error) => self.trouble(error),
                Ok(()) => Ok(()),
            };
            if looked.is_err() {
                // The next wait for this operation reports what that means for it.
                return;
            }
        }
    }

    /// Goes on waiting after this rank's patience has ended, having told the supervisor.
    fn wait_on(&self, what: String, whom: &[u32], mut hook: Option<&mut Hook<'_>>) -> Result {
        let number = self.reports.get() + 1;
        self.reports.set(number);
        *self.reported.borrow_mut() = Some((number, whom.to_vec()));
        {
            let state = self.state.borrow();
            let (sent, received) = (state.sent.clone(), state.received.clone());
            self.report(&Report::Waiting(Waiting { number, what, sent, received }));
        }
        let before = self.state.borrow().arrivals;
        let result = loop {
            match self.sleep(Duration::MAX, &mut hook, &mut None) {
                Ok(()) => {
                    let state = self.state.borrow();
                    // An order of the supervisor alone does not end the wait.
                    if state.ended || !state.agreements.is_empty() || state.arrivals != before {
                        break Ok(());
                    }
                }
                Err(error) => break self.trouble(error),
            }
        };
        *self.reported.borrow_mut() = None;
        result
    }

    /// Tells the supervisor, which has asked, whether this rank is still in the wait that it has reported.
    pub(super) fn confirm_wait(&self) {
        let reported = self.reported.borrow();
        let (number, on) = reported.as_ref().map_or((None, Vec::new()), |(number, whom)| {
            let state = self.state.borrow();
            let lives = |rank: &&u32| **rank != self.me && !state.gone.contains_key(rank);
            (Some(*number), whom.iter().filter(lives).copied().collect())
        });
        self.report(&Report::StillWaiting { number, on });
    }

    /// Sends a report to the supervisor, which lives as long as the program.
    pub(crate) fn report(&self, report: &Report) {
        match postcard::to_stdvec(report) {
            Ok(bytes) => {
                if let Err(error) = self.vr.send_bytes(self.supervisor, REPORTS, LANE, bytes) {
                    tracing::debug!(%error, "a report was not sent");
                }
            }
            Err(error) => tracing::warn!(%error, "a report cannot be encoded"),
        }
    }
}
