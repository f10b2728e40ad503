//! Work that a thread does while it waits on an inbox.

use super::Inbox;
use crate::arriving::{Arriving, Intake};

/// Work that a waiting thread does: it may itself bring in what it waits for.
pub(crate) trait Pump {
    /// The thread begins to wait.
    fn begin(&self);
    /// Polls this many times for something to bring in (with a spin-loop hint each, or taking about as long), or until
    /// something is in the inbox or was taken. Called repeatedly; within the first microsecond that need not be between
    /// `begin` and `end`.
    fn poll(&self, looks: u32, inbox: &Inbox, taker: Option<&mut Taker<'_>>);
    /// Polls once for something to bring in, if that is cheap or was not done just before. The thread does not wait.
    fn glance(&self, inbox: &Inbox, taker: Option<&mut Taker<'_>>);
    /// The thread has emptied the inbox, and will poll for more when it has nothing left to do.
    fn drained(&self);
    /// The thread has received something, or its time is over.
    fn end(&self);
    /// The thread is about to sleep. Returns whether it may; it then does not count as waiting until it calls `begin`.
    /// Otherwise something may be there for it to bring in.
    fn may_park(&self) -> bool;
}

/// Without ways in, there is nothing to poll.
impl Pump for () {
    fn begin(&self) {}

    fn poll(&self, looks: u32, inbox: &Inbox, _: Option<&mut Taker<'_>>) {
        for _ in 0..looks {
            if inbox.is_ready() {
                return;
            }
            std::hint::spin_loop();
        }
    }

    fn glance(&self, _: &Inbox, _: Option<&mut Taker<'_>>) {}

    fn drained(&self) {}

    fn end(&self) {}

    fn may_park(&self) -> bool {
        true
    }
}

/// A thread that counts as waiting until it sleeps, has received something, or is unwound.
pub(super) struct Polling<'a, P: Pump>(&'a P);

impl<'a, P: Pump> Polling<'a, P> {
    pub(super) fn begin(pump: &'a P) -> Self {
        pump.begin();
        Self(pump)
    }

    /// Calls `sleep`, during which the thread does not count as waiting, unless there may be something to bring in.
    pub(super) fn park(self, sleep: impl FnOnce()) -> Self {
        if !self.0.may_park() {
            return self;
        }
        let pump = self.0;
        std::mem::forget(self);
        sleep();
        Self::begin(pump)
    }
}

impl<P: Pump> Drop for Polling<'_, P> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Lets a waiting thread take envelopes out of a link before they get into the inbox.
pub(crate) struct Taker<'a> {
    offer: &'a mut dyn FnMut(&Arriving<'_>) -> Intake,
    /// Whether something was taken.
    pub(crate) taken: bool,
    /// Whether that was what the thread waits for.
    pub(crate) done: bool,
}

impl<'a> Taker<'a> {
    pub(crate) fn new(offer: &'a mut dyn FnMut(&Arriving<'_>) -> Intake) -> Self {
        Self { offer, taken: false, done: false }
    }

    pub(crate) fn offer(&mut self, arriving: &Arriving<'_>) -> Intake {
        let intake = (self.offer)(arriving);
        self.taken |= intake != Intake::Left;
        self.done |= intake == Intake::Done;
        intake
    }
}
