//! All the ways into a process, rings and sockets, and who polls them.
//!
//! A VR that waits polls them itself, so that what it waits for comes straight from the writer to its own core. Before the
//! last such VR parks, it puts the bell to sleep and arms the sockets: from then on, writers that ring and packets that
//! arrive wake the reader thread. A VR that has got what it waited for leaves things as they are, since it will most likely
//! wait again at once; the reader thread makes sure, within two [`TICK`]s, that nothing lies unread while every VR is busy.
//! It then polls until nothing comes, or a VR waits, or busy VRs are seen to take what it brings in: they will poll for the
//! rest themselves.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize};
use std::time::Duration;

use mio::{Registry, Token, Waker};

use super::Sink;
use super::shm::Rings;
use super::sockets::{Look, Sockets};
use crate::inbox::{Inbox, Pump, Taker};
use crate::pool::Pool;

/// When the reader thread has found something this often, and what it brought in was taken as often as [`TAKES`] says, the
/// VRs at work keep coming back: they read the rest themselves. That saves a hand-over, and keeps no second thread awake.
const FINDS: u32 = 16;
/// See [`FINDS`]. Once is not enough: a VR that is woken for one envelope may be busy with it for long.
const TAKES: u32 = 2;
/// How long something may lie unread while nobody polls and the reader thread is not woken for it.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// The ways into this process.
pub(crate) struct Inlets {
    pub(super) rings: Rings,
    pub(super) sockets: Sockets,
    /// The number of VRs that are waiting and polling.
    pollers: AtomicUsize,
    /// Whether anybody has polled since the last tick.
    touched: AtomicBool,
    /// Whether the reader thread ticks.
    watched: AtomicBool,
    /// Whether the reader thread has been asked to poll.
    handed_over: AtomicBool,
    /// The number of threads that block in a write; the reader thread polls for them.
    blocked: AtomicUsize,
    /// Whether the reader thread polls.
    looking: AtomicBool,
    /// How often VRs have taken arrivals since the reader thread began to poll.
    takes: AtomicU32,
    waker: Arc<Waker>,
    sink: Arc<dyn Sink>,
}

impl Inlets {
    /// Creates the inlets of a process whose reader thread waits at this registry, where the token `data` reports data.
    pub(super) fn new(
        (registry, data): (Registry, Token),
        waker: Arc<Waker>,
        sink: Arc<dyn Sink>,
        pool: Arc<Pool>,
    ) -> io::Result<Self> {
        Ok(Self {
            rings: Rings::new(waker.clone(), sink.clone(), pool)?,
            sockets: Sockets::new(registry, data)?,
            pollers: AtomicUsize::new(0),
            touched: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            handed_over: AtomicBool::new(false),
            blocked: AtomicUsize::new(0),
            looking: AtomicBool::new(false),
            takes: AtomicU32::new(0),
            waker,
            sink,
        })
    }

    /// Runs a write that blocks. Meanwhile the reader thread reads the connections, and does so at once: the other side may
    /// not read before what it has sent was read.
    pub(super) fn blocking<R>(&self, write: impl FnOnce() -> R) -> R {
        self.blocked.fetch_add(1, SeqCst);
        if !self.sockets.arm_blindly() && !self.handed_over.swap(true, SeqCst) {
            self.wake();
        }
        let result = write();
        self.blocked.fetch_sub(1, SeqCst);
        result
    }

    /// Arranges for the reader thread to be woken by whatever arrives, if nobody waits and nothing is there. Returns `false`
    /// if somebody must go on polling.
    fn try_sleep(&self) -> bool {
        self.rings.sleep();
        let look = self.sockets.look_and_arm(&*self.sink);
        self.tell_ends(look);
        if look.some || self.pollers.load(SeqCst) > 0 || !self.rings.all_empty() || !self.sockets.is_armed() {
            self.rings.wake();
            return false;
        }
        true
    }

    fn look(&self, looks: u32, rings: bool, sockets: bool, inbox: &Inbox, mut taker: Option<&mut Taker<'_>>) {
        if !rings && !sockets {
            return ().poll(looks, inbox, taker);
        }
        if rings {
            self.rings.wake();
            self.rings.look_for(looks, inbox, taker.as_deref_mut());
        }
        if sockets {
            self.look_at_sockets(if rings { 1 } else { looks }, inbox, taker);
        }
        // After polling, which has woken the bell and disarmed the sockets: the reader thread must know of that.
        if !self.touched.load(Relaxed) {
            self.touched.store(true, SeqCst);
            if !self.watched.swap(true, SeqCst) {
                self.wake();
            }
        }
    }

    fn look_at_sockets(&self, looks: u32, inbox: &Inbox, mut taker: Option<&mut Taker<'_>>) {
        for _ in 0..looks {
            if inbox.is_ready() || taker.as_ref().is_some_and(|taker| taker.taken) {
                return;
            }
            self.tell_ends(self.sockets.look_for(&*self.sink, inbox, taker.as_deref_mut()));
        }
    }

    /// Whether the reader thread polls, since it was woken or something was left for it.
    pub(super) fn is_looking(&self) -> bool {
        self.looking.load(Relaxed)
    }

    /// Called by the reader thread: sets whether it polls from now on.
    fn set_looking(&self, looks: bool) {
        if looks != self.is_looking() {
            self.takes.store(0, Relaxed);
            self.looking.store(looks, Relaxed);
        }
    }

    /// Whether writers ring and packets wake the reader thread.
    fn is_asleep(&self) -> bool {
        !self.rings.is_awake() && self.sockets.is_armed()
    }

    fn tell_ends(&self, look: Look) {
        if look.ended {
            self.wake();
        }
    }

    /// Wakes the reader thread.
    pub(super) fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            tracing::warn!(%error, "the reader thread cannot be woken");
        }
    }
}

impl Pump for Inlets {
    fn begin(&self) {
        self.pollers.fetch_add(1, SeqCst);
    }

    fn poll(&self, looks: u32, inbox: &Inbox, taker: Option<&mut Taker<'_>>) {
        self.look(looks, self.rings.is_used(), self.sockets.is_hot(), inbox, taker);
    }

    fn glance(&self, inbox: &Inbox, taker: Option<&mut Taker<'_>>) {
        let (rings, sockets) = (self.rings.is_used(), self.sockets.is_hot() && self.sockets.is_glance_due());
        self.look(1, rings, sockets, inbox, taker);
    }

    fn drained(&self) {
        if self.is_looking() {
            self.takes.fetch_add(1, Relaxed);
        }
    }

    fn end(&self) {
        self.pollers.fetch_sub(1, SeqCst);
    }

    fn may_park(&self) -> bool {
        if self.pollers.fetch_sub(1, SeqCst) > 1 || self.try_sleep() {
            return true;
        }
        self.pollers.fetch_add(1, SeqCst);
        false
    }
}

impl Pump for Option<&Inlets> {
    fn begin(&self) {
        self.iter().for_each(|inlets| inlets.begin());
    }

    fn poll(&self, looks: u32, inbox: &Inbox, taker: Option<&mut Taker<'_>>) {
        match self {
            Some(inlets) => inlets.poll(looks, inbox, taker),
            None => ().poll(looks, inbox, taker),
        }
    }

    fn glance(&self, inbox: &Inbox, taker: Option<&mut Taker<'_>>) {
        if let Some(inlets) = self {
            inlets.glance(inbox, taker);
        }
    }

    fn drained(&self) {
        self.iter().for_each(|inlets| inlets.drained());
    }

    fn end(&self) {
        self.iter().for_each(|inlets| inlets.end());
    }

    fn may_park(&self) -> bool {
        self.is_none_or(Inlets::may_park)
    }
}

impl std::fmt::Debug for Inlets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inlets")
            .field("rings", &self.rings)
            .field("pollers", &self.pollers)
            .finish_non_exhaustive()
    }
}

/// The state of the reader thread.
#[derive(Debug, Default)]
pub(super) struct Watch {
    idle_ticks: u32,
    /// How often the thread has found something since it began to poll, or data was reported.
    finds: u32,
}

/// After this many ticks without anybody polling, the reader thread stops ticking.
const IDLE_TICKS: u32 = 100;

impl Watch {
    /// The thread was woken by another thread.
    pub(super) fn woken(&mut self, inlets: &Inlets) {
        if inlets.handed_over.swap(false, SeqCst) {
            self.begin(inlets);
        }
    }

    /// Starts to poll. Earlier activity of VRs no longer counts.
    fn begin(&mut self, inlets: &Inlets) {
        inlets.set_looking(true);
        inlets.takes.store(0, Relaxed);
        self.finds = 0;
    }

    /// Data has arrived on a connection.
    pub(super) fn called(&mut self, inlets: &Inlets) {
        inlets.sockets.heat();
        // A thread that polls is notified again and again, but nothing is disarmed by that.
        if !inlets.is_looking() {
            self.rung(inlets);
        }
    }

    /// A peer has rung.
    pub(super) fn rung(&mut self, inlets: &Inlets) {
        if inlets.rings.is_used() {
            inlets.rings.wake();
        }
        self.begin(inlets);
    }

    /// Returns how long the thread may sleep: not at all, one tick, or forever.
    pub(super) fn timeout(&self, inlets: &Inlets) -> Option<Duration> {
        if inlets.is_looking() {
            Some(Duration::ZERO)
        } else if inlets.watched.load(SeqCst) {
            Some(TICK)
        } else {
            None
        }
    }

    /// Polls, if it is this thread's turn. Returns whether anything was there.
    pub(super) fn look(&mut self, inlets: &Inlets) -> bool {
        if !inlets.is_looking() {
            return false;
        }
        let waited_for = || inlets.pollers.load(SeqCst) > 0;
        let at_work =
            self.finds >= FINDS && inlets.takes.load(Relaxed) >= TAKES && inlets.blocked.load(SeqCst) == 0;
        if waited_for() || at_work {
            // Two pollers would get in each other's way. If the VRs are about to stop, the next ticks notice that nothing is
            // armed.
            inlets.tell_ends(inlets.sockets.leave(&*inlets.sink));
            inlets.watched.store(true, SeqCst);
            if waited_for() || at_work {
                if at_work {
                    // That somebody has polled before is no reason to wait for another tick.
                    inlets.touched.store(false, SeqCst);
                    self.idle_ticks = 0;
                }
                self.finds = 0;
                inlets.set_looking(false);
                return false;
            }
        }
        let rings = inlets.rings.is_used() && inlets.rings.look();
        let some = inlets.sockets.look(&*inlets.sink).some || rings;
        self.finds += u32::from(some);
        some
    }

    /// Nothing has arrived for a while.
    pub(super) fn rest(&mut self, inlets: &Inlets) {
        self.finds = 0;
        if inlets.try_sleep() {
            inlets.set_looking(false);
        } else {
            inlets.watched.store(true, SeqCst);
            inlets.set_looking(inlets.pollers.load(SeqCst) == 0);
        }
    }

    /// A tick has passed.
    pub(super) fn tick(&mut self, inlets: &Inlets) {
        if inlets.is_looking() || !inlets.watched.load(SeqCst) {
            return;
        }
        if inlets.touched.swap(false, SeqCst) {
            self.idle_ticks = 0;
            if inlets.sockets.is_neglected() {
                // VRs that find something in a ring every time never get to the connections.
                inlets.tell_ends(inlets.sockets.look_and_arm(&*inlets.sink));
            }
            return;
        }
        self.idle_ticks += 1;
        if !inlets.is_asleep() && inlets.pollers.load(SeqCst) == 0 && !inlets.try_sleep() {
            self.begin(inlets);
        }
        if self.idle_ticks > IDLE_TICKS && inlets.is_asleep() {
            inlets.watched.store(false, SeqCst);
            self.idle_ticks = 0;
            // A VR that has polled just before may have seen `watched` still set.
            if inlets.touched.load(SeqCst) {
                inlets.watched.store(true, SeqCst);
            }
        }
    }
}

#[cfg(test)]
mod tests;
