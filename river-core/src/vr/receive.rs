//! Receiving: taking an envelope that the selector admits and the predicate accepts, at once or when it arrives.

use std::time::{Duration, Instant};

use super::Vr;
use crate::arriving::{Arriving, Intake};
use crate::envelope::Envelope;
use crate::error::RecvError;
use crate::inbox::{Limit, Pump, Taker};
use crate::mailbox::{Found, Mailbox, Selector, Swap};
use crate::state::{Blocked, Call};

/// What a wait does after handlers have run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Handled {
    GoesOn,
    Ends,
}

impl Vr {
    /// Takes the earliest envelope that the selector admits, waiting for it if necessary.
    ///
    /// # Errors
    /// [`RecvError::Down`] if the only VR that the selector admits is gone and has nothing left in the queue, or if a watched
    /// VR is gone or a child has ended abnormally; [`RecvError::Stopped`] when the program ends.
    pub fn receive(&self, selector: Selector) -> Result<Envelope, RecvError> {
        self.receive_until(selector, None, |_| true)
    }

    /// Takes the earliest envelope that the selector admits and the predicate accepts, waiting for it if necessary. The
    /// predicate runs on this thread and must not receive.
    ///
    /// ```
    /// # use river_core::{Channel, Selector};
    /// # const CHANNEL: Channel = Channel::named("doc");
    /// # river_core::testing::threads(1, |vr, _, _| {
    /// for word in ["a", "list", "of", "words"] {
    ///     vr.send_bytes(vr.id(), CHANNEL, 0, word.as_bytes().to_vec()).unwrap();
    /// }
    /// let long = vr.receive_where(Selector::on(CHANNEL), |envelope| envelope.payload.len() > 2).unwrap();
    /// assert_eq!(&long.payload.to_bytes()[..], b"list");
    /// // The others wait where they were.
    /// assert_eq!(&vr.receive(Selector::on(CHANNEL)).unwrap().payload.to_bytes()[..], b"a");
    /// # });
    /// ```
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn receive_where(
        &self,
        selector: Selector,
        accept: impl FnMut(&Envelope) -> bool,
    ) -> Result<Envelope, RecvError> {
        self.receive_until(selector, None, accept)
    }

    /// Like [`receive_where`](Self::receive_where), but returns at once, with `None` if no matching envelope is there. It
    /// polls TCP connections at most every 20 us; if the VR has nothing else to do, a blocking receive is faster.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn try_receive_where(
        &self,
        selector: Selector,
        mut accept: impl FnMut(&Envelope) -> bool,
    ) -> Result<Option<Envelope>, RecvError> {
        self.enter(|| Call::TryReceive(selector))?;
        match self.attempt(selector, &mut accept)? {
            (None, _) if self.glance() => Ok(self.attempt(selector, &mut accept)?.0),
            (found, _) => Ok(found),
        }
    }

    /// Polls rings and sockets for what has arrived but was not yet brought in. Returns whether something has come since the
    /// last check of the inbox.
    pub(super) fn glance(&self) -> bool {
        if self.journal.is_some() {
            return false;
        }
        self.node.pump().glance(&self.inbox, None);
        self.inbox.is_ready()
    }

    /// Takes the earliest envelope that the selector and the predicate accept, if there is one. The flag is that of
    /// [`look`](Self::look).
    fn attempt(
        &self,
        selector: Selector,
        accept: &mut dyn FnMut(&Envelope) -> bool,
    ) -> Result<(Option<Envelope>, bool), RecvError> {
        self.look(|mailbox, swap| mailbox.take(&selector, accept, swap))
    }

    /// Looks for an envelope in the mailbox, and runs handlers before it returns. The flag says whether at least one has run:
    /// another look may then find more without any new arrival.
    pub(super) fn look(
        &self,
        look: impl FnOnce(&mut Mailbox, &mut Swap<'_>) -> Found,
    ) -> Result<(Option<Envelope>, bool), RecvError> {
        let found = self.with_mailbox(look).map_err(|_| RecvError::Reentrant)?;
        let served = self.serve();
        match found {
            Found::Envelope(envelope) => Ok((Some(self.taken(envelope)), served)),
            Found::Nothing => Ok((None, served)),
            Found::Down(down) => Err(self.forget(down)),
            Found::Stopped => Err(RecvError::Stopped),
        }
    }

    /// Like [`receive_where`](Self::receive_where), but waits no longer than until the deadline.
    ///
    /// ```
    /// # use std::time::{Duration, Instant};
    /// # use river_core::{Channel, RecvError, Selector};
    /// # const CHANNEL: Channel = Channel::named("doc");
    /// # river_core::testing::threads(1, |vr, _, _| {
    /// let deadline = Instant::now() + Duration::from_millis(5);
    /// let nothing = vr.receive_until(Selector::on(CHANNEL), Some(deadline), |_| true);
    /// assert!(matches!(nothing, Err(RecvError::Timeout { .. })));
    /// # });
    /// ```
    ///
    /// # Errors
    /// As [`receive`](Self::receive), and [`RecvError::Timeout`].
    pub fn receive_until(
        &self,
        selector: Selector,
        deadline: Option<Instant>,
        mut accept: impl FnMut(&Envelope) -> bool,
    ) -> Result<Envelope, RecvError> {
        self.enter(|| Call::Receive(selector))?;
        let attempt = || self.attempt(selector, &mut accept);
        let found = self.wait_for(selector, deadline.into(), Handled::GoesOn, None, attempt)?;
        // Without a taker, nothing else ends the wait.
        found.ok_or(RecvError::Stopped)
    }

    /// Like [`receive_until`](Self::receive_until), but returns `None` as soon as [handlers](Self::handle) have run, without another
    /// look: check what they have filed, and call it again. If the deadline has passed meanwhile, it returns
    /// [`RecvError::Timeout`]; check what was filed then, too. For layers that file what they receive: a handler may have
    /// received and filed the very envelope that this waits for, so that no other would come.
    ///
    /// ```
    /// # use std::cell::Cell;
    /// # use std::rc::Rc;
    /// # use river_core::{Channel, Selector};
    /// # const PING: Channel = Channel::named("ping");
    /// # const WORK: Channel = Channel::named("work");
    /// # river_core::testing::threads(1, |vr, _, _| {
    /// let filed = Rc::new(Cell::new(0));
    /// let files = filed.clone();
    /// let handler = vr.handle(Selector::on(PING), |_| true, move |vr, _| {
    ///     let work = vr.receive(Selector::on(WORK)).unwrap();
    ///     files.set(files.get() + work.payload.len());
    /// });
    /// vr.send_bytes(vr.id(), PING, 0, vec![]).unwrap();
    /// vr.send_bytes(vr.id(), WORK, 0, vec![1, 2]).unwrap();
    /// while filed.get() == 0 {
    ///     if let Some(work) = vr.receive_until_handled(Selector::on(WORK).lane(0), None, |_| false).unwrap() {
    ///         filed.set(work.payload.len());
    ///     }
    /// }
    /// # drop(handler);
    /// # });
    /// ```
    ///
    /// # Errors
    /// As [`receive_until`](Self::receive_until).
    pub fn receive_until_handled(
        &self,
        selector: Selector,
        deadline: Option<Instant>,
        mut accept: impl FnMut(&Envelope) -> bool,
    ) -> Result<Option<Envelope>, RecvError> {
        self.enter(|| Call::Receive(selector))?;
        let attempt = || self.attempt(selector, &mut accept);
        self.wait_for(selector, deadline.into(), Handled::Ends, None, attempt)
    }

    /// Waits up to `patience` for an envelope that the selector admits; if that is zero it checks once, as
    /// [`try_receive_where`](Self::try_receive_where) does. An envelope that still lies in memory shared with its sender's
    /// process, or is still arriving on a connection, is passed to `take`, which may copy its payload directly to its
    /// destination. The envelope is then received, and `Ok(None)` means that this has happened at least once. An envelope
    /// that arrives another way, or that `take` leaves, is returned. So a payload that its receiver is waiting for is copied
    /// only twice between two processes, and needs no buffer in between.
    ///
    /// `take` must neither send nor receive. It is passed envelopes in the order in which they would otherwise be received.
    /// No envelopes are passed to it in a VR that is recorded or has a limit, or one with [posted](Self::post) receives or
    /// handlers for the same channel.
    ///
    /// # Errors
    /// As [`receive_until`](Self::receive_until).
    pub fn receive_arriving(
        &self,
        selector: Selector,
        patience: Duration,
        mut take: impl FnMut(&Arriving<'_>) -> Intake,
    ) -> Result<Option<Envelope>, RecvError> {
        self.enter(|| Call::Receive(selector))?;
        let shown = self.journal.is_none()
            && !self.limited.get()
            && self.mailbox.try_borrow().is_ok_and(|mailbox| !mailbox.is_posted(&selector));
        let mut noted = Vec::new();
        let mut offer = |arriving: &Arriving<'_>| {
            if arriving.label.dst != self.id || !selector.admits_label(&arriving.label) {
                return Intake::Left;
            }
            let intake = take(arriving);
            let intake = if arriving.payload.is_read() { intake } else { Intake::Left };
            if intake != Intake::Left {
                self.inbox.was_passed_by(arriving.len);
                self.note(arriving, &mut noted);
            }
            intake
        };
        let mut taker = Taker::new(&mut offer);
        let attempt = || self.attempt(selector, &mut |_| true);
        let taker = shown.then_some(&mut taker);
        let found = self.wait_for(selector, Limit::For(patience), Handled::GoesOn, taker, attempt);
        self.trace_noted(noted);
        found
    }

    /// Calls `attempt` until it finds an envelope, waiting for arrivals in between. Returns `None` if the taker has taken
    /// one, or if handlers have run and that ends the wait.
    pub(super) fn wait_for(
        &self,
        selector: Selector,
        mut limit: Limit,
        handled: Handled,
        mut taker: Option<&mut Taker<'_>>,
        mut attempt: impl FnMut() -> Result<(Option<Envelope>, bool), RecvError>,
    ) -> Result<Option<Envelope>, RecvError> {
        // The clock is needed only if there is a deadline.
        let start = matches!(limit, Limit::Until(_)).then(Instant::now);
        let patience = if let Limit::For(patience) = limit { patience } else { Duration::ZERO };
        let mut watched = false;
        loop {
            let (found, served) = attempt()?;
            if found.is_some() {
                return Ok(found);
            }
            let ends = served && handled == Handled::Ends;
            match self.recorded_wait()? {
                Blocked::Live => {}
                Blocked::Again if ends => return Ok(None),
                Blocked::Again => continue,
                Blocked::TimedOut(waited) => {
                    let queued = self.mailbox.borrow().len();
                    return Err(RecvError::Timeout { waited, queued });
                }
            }
            if let Some(src) = selector.awaited()
                && !watched
                && !ends
                && src != self.id
            {
                // From now on, the end of the only VR that could answer ends the wait.
                watched = true;
                if self.expect_from(src) {
                    continue;
                }
            }
            // A handler that receives may have brought into the mailbox what this call waits for, so there may be no further
            // arrival to wait for. A handler that sends to its own VR may run forever, so the deadline is checked.
            let is_worth_a_look = if served {
                !limit.is_over(Instant::now())
            } else {
                self.wait_for_arrivals(&mut limit, selector.awaited(), taker.as_deref_mut())
            };
            if !is_worth_a_look {
                let queued = self.mailbox.borrow().len();
                let waited = start.map_or(patience, |start| start.elapsed());
                self.journal.iter().for_each(|journal| journal.recorder.timed_out(waited));
                return Err(RecvError::Timeout { waited, queued });
            }
            if taker.as_ref().is_some_and(|taker| taker.taken) {
                return Ok(None);
            }
            // Handlers run between two looks: a replay must not show at the first one what arrived for the second.
            if let Some(journal) = &self.journal
                && (served || !self.handlers.is_empty())
            {
                journal.recorder.again();
            }
            if ends {
                return Ok(None);
            }
        }
    }

    /// Waits until something that no receive has looked at has arrived, or the deadline has passed.
    ///
    /// For layers that run a receive loop of their own. Returns whether something has arrived.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> bool {
        let wait = || self.wait_for_arrivals(&mut Limit::For(timeout), None, None);
        // A divergence is reported by the next receive.
        self.remember(Call::Wait, wait).unwrap_or(true)
    }
}
