//! What a thread does while it waits on an inbox.

use super::Inbox;
use crate::arriving::{Arriving, Intake};

/// What a waiting thread does besides waiting: it may bring in itself what it waits for.
pub(crate) trait Pump {
    /// The thread begins to wait.
    fn begin(&self);
    /// Looks so many times (with a pause of the processor each, or as long as that takes) for something to bring in, or
    /// until something is in the inbox or was taken. Called again and again; within the first microsecond that need not be
    /// between `begin` and `end`.
    fn poll(&self, looks: u32, inbox: &Inbox, taker: Option<&mut Taker<'_>>);
    /// Looks once for something to bring in, if that costs little or was not done just before. The thread does not wait.
    fn glance(&self, inbox: &Inbox, taker: Option<&mut Taker<'_>>);
    /// The thread has emptied the inbox, and will look for more when it has nothing left.
    fn drained(&self);
    /// The thread has something, or its time is over.
    fn end(&self);
    /// The thread is about to sleep. True: it may, and it counts as not waiting until it calls `begin`. False:
    /// something may be there for it to bring in.
    fn may_park(&self) -> bool;
}

/// Without ways in there is nothing to look into.
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

/// A thread that counts as waiting until it sleeps, has something, or is unwound.
pub(super) struct Polling<'a, P: Pump>(&'a P);

impl<'a, P: Pump> Polling<'a, P> {
    pub(super) fn begin(pump: &'a P) -> Self {
        pump.begin();
        Self(pump)
    }

    /// Calls `sleep` unless there may be something to bring in; only then it counts as waiting meanwhile.
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

/// What a waiting thread takes out of a link itself, before it gets into the inbox.
pub(crate) struct Taker<'a> {
    offer: &'a mut dyn FnMut(&Arriving<'_>) -> Intake,
    /// Something was taken.
    pub(crate) taken: bool,
    /// And that was what it waits for.
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
