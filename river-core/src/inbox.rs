//! The shared half of a mailbox: anyone pushes, the owner's thread swaps everything out at once.
//!
//! Waking a parked thread costs ten times more than handing an envelope to a running one, so the owner polls for
//! about one wake-up's worth of time before it parks, with `yield` in the loop so that a machine with more VRs than
//! cores loses nothing by it; and a sender touches the thread only if it sleeps.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

use crate::down::Down;
use crate::envelope::Envelope;

/// Looks before the first `yield`, without the clock, which costs as much as a hand-off: about four microseconds of
/// them if the last wait was as short, which means that the other side has a processor of its own; otherwise one.
const SPINS: u32 = 100;
const SPINS_AFTER_LONG: u32 = 16;
/// Yields within which a wait counts as short.
const SHORT: u32 = 4;
const YIELD: Duration = Duration::from_micros(50);

/// What a waiting thread does besides waiting: it may bring in itself what it waits for.
pub(crate) trait Pump {
    /// The thread begins to wait.
    fn begin(&self);
    /// Looks for something to bring in. Called again and again.
    fn poll(&self);
    /// The thread has something, or its time is over.
    fn end(&self);
    /// The thread is about to sleep. True: it may, and it counts as not waiting until it calls `begin`. False:
    /// something may be there for it to bring in.
    fn may_park(&self) -> bool;
}

/// What may arrive.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Envelope(Envelope),
    Down(Down),
    /// The program ends: every receive from now on returns an error.
    Stop,
}

/// The parts have cache lines of their own: the owner looks at `ready` again and again, which must cost nothing to
/// who holds the queue.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    queue: CachePadded<Mutex<Queue>>,
    /// Length of the queue, readable without the lock. `ready` and `sleeping` are a Dekker pair: the pusher writes
    /// `ready` then reads `sleeping`, the owner writes `sleeping` then reads `ready`, both sequentially consistent,
    /// so one of them sees the other and no wake-up is lost.
    ready: CachePadded<AtomicUsize>,
    sleeping: CachePadded<AtomicBool>,
    /// The owner's last wait was long.
    long: AtomicBool,
    owner: OnceLock<Thread>,
}

#[derive(Debug, Default)]
struct Queue {
    events: Vec<Event>,
    closed: bool,
}

impl Inbox {
    /// Names the thread that waits on this inbox: the caller's.
    pub(crate) fn adopt(&self) {
        let _ = self.owner.set(thread::current());
    }

    /// Appends an event; gives it back if the owner is gone.
    pub(crate) fn push(&self, event: Event) -> Result<(), Event> {
        {
            let mut queue = self.lock();
            if queue.closed {
                return Err(event);
            }
            queue.events.push(event);
            self.ready.store(queue.events.len(), SeqCst);
        }
        if self.sleeping.load(SeqCst)
            && self.sleeping.swap(false, SeqCst)
            && let Some(owner) = self.owner.get()
        {
            owner.unpark();
        }
        Ok(())
    }

    /// Exchanges all that has arrived for the empty `events`, whose memory is used again. False: nothing was there.
    pub(crate) fn swap(&self, events: &mut Vec<Event>) -> bool {
        debug_assert!(events.is_empty());
        if self.ready.load(SeqCst) == 0 {
            return false;
        }
        let mut queue = self.lock();
        std::mem::swap(&mut queue.events, events);
        self.ready.store(0, SeqCst);
        true
    }

    /// What has arrived and was not taken.
    pub(crate) fn waiting(&self) -> Vec<Event> {
        self.lock().events.clone()
    }

    /// Refuses everything from now on and returns what had not been taken.
    pub(crate) fn close(&self) -> Vec<Event> {
        let mut queue = self.lock();
        queue.closed = true;
        self.ready.store(0, SeqCst);
        std::mem::take(&mut queue.events)
    }

    /// Waits until something has arrived (true) or the deadline has passed (false). Only the owner may call it.
    pub(crate) fn wait(&self, deadline: Option<Instant>, pump: &impl Pump) -> bool {
        pump.begin();
        let spins = if self.long.load(Relaxed) { SPINS_AFTER_LONG } else { SPINS };
        for _ in 0..spins {
            pump.poll();
            if self.ready.load(SeqCst) > 0 {
                pump.end();
                return true;
            }
            std::hint::spin_loop();
        }
        let mut start = Instant::now();
        let mut yields = 0_u32;
        loop {
            pump.poll();
            if self.ready.load(SeqCst) > 0 {
                pump.end();
                self.long.store(yields > SHORT, Relaxed);
                return true;
            }
            let waited = start.elapsed();
            if deadline.is_some_and(|deadline| start + waited >= deadline) {
                pump.end();
                return false;
            }
            if waited < YIELD {
                thread::yield_now();
                yields = yields.saturating_add(1);
                continue;
            }
            if pump.may_park() {
                self.sleeping.store(true, SeqCst);
                if self.ready.load(SeqCst) == 0 {
                    match deadline {
                        None => thread::park(),
                        Some(deadline) => {
                            thread::park_timeout(deadline.saturating_duration_since(Instant::now()));
                        }
                    }
                }
                self.sleeping.store(false, SeqCst);
                pump.begin();
            }
            yields = u32::MAX;
            // Awake for a reason: what woke this thread may be followed by more.
            start = Instant::now();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
