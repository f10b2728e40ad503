//! The shared half of a mailbox: anyone pushes, the owner's thread swaps everything out at once.
//!
//! Waking a parked thread costs ten times more than handing an envelope to a running one, so the owner polls for
//! about one wake-up's worth of time before it parks, with `yield` in the loop so that a machine with more VRs than
//! cores loses nothing by it; and a sender touches the thread only if it sleeps. The last wait predicts the next one: a
//! thread that shares its core yields at once, and a thread that was woken soon after it had parked polls for longer, since
//! otherwise its peers would wait for its wake-up and park in turn.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

use crate::apart::Apart;
use crate::down::Down;
use crate::envelope::Envelope;
use crate::id::{HostId, VrId};
use crate::limit::{Limited, QueueLimit, WhenFull};
use crate::status::VrStatus;

mod pump;

use pump::Polling;
pub(crate) use pump::{Pump, Taker};

/// Polls before the clock is first read, which costs as much as a hand-off. They take about a microsecond.
const SPINS: u32 = 24;
/// How long a thread yields before it parks, if its last waits were long, and if one ended soon after it had parked.
const YIELD: Duration = Duration::from_micros(50);
const YIELD_LONGER: Duration = Duration::from_micros(250);
/// How often a thread that has its core to itself polls between two yields, as a yield takes longer than a poll. Otherwise it
/// polls once, as the thread that it waits for may need the core.
const LOOKS: u32 = 8;

/// How long a thread waits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    Forever,
    /// Until this instant.
    Until(Instant),
    /// For this duration, which begins when the clock is first read.
    For(Duration),
}

impl Limit {
    /// Whether the duration is zero: then the wait polls only once.
    fn is_none(&self) -> bool {
        matches!(self, Limit::For(duration) if duration.is_zero())
    }

    /// Whether the time is over. The first call turns a duration into an instant.
    pub(crate) fn is_over(&mut self, now: Instant) -> bool {
        if let Limit::For(duration) = *self {
            *self = now.checked_add(duration).map_or(Limit::Forever, Limit::Until);
        }
        matches!(*self, Limit::Until(deadline) if now >= deadline)
    }
}

impl From<Option<Instant>> for Limit {
    fn from(deadline: Option<Instant>) -> Self {
        deadline.map_or(Limit::Forever, Limit::Until)
    }
}

/// Something that may arrive.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Envelope(Envelope),
    Down(Down),
    /// The program ends: every receive from now on returns an error.
    Stop,
}

impl Event {
    fn payload_len(&self) -> Option<usize> {
        match self {
            Event::Envelope(envelope) => Some(envelope.payload.len()),
            Event::Down(_) | Event::Stop => None,
        }
    }
}

/// The parts have cache lines of their own: the owner polls `ready` continuously, which must not slow down a thread that
/// holds the queue.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    queue: CachePadded<Mutex<Queue>>,
    /// Length of the queue, readable without the lock. `ready` and `sleeping` are a Dekker pair: the pusher writes
    /// `ready` then reads `sleeping`, the owner writes `sleeping` then reads `ready`, both sequentially consistent,
    /// so one of them sees the other and no wake-up is lost.
    ready: CachePadded<AtomicUsize>,
    sleeping: CachePadded<AtomicBool>,
    owned: CachePadded<Owned>,
    habits: CachePadded<Habits>,
    owner: OnceLock<Thread>,
    /// The owner's name for people.
    name: OnceLock<String>,
    /// Signalled when there is room in a mailbox that has a limit.
    room: Condvar,
}

/// Numbers that only the owner writes, published for monitoring.
#[derive(Debug, Default)]
struct Owned {
    /// Envelopes in its mailbox.
    held: AtomicUsize,
    /// Envelopes that it took before they reached the inbox, and the bytes of their payloads.
    taken: AtomicU64,
    bytes: AtomicU64,
}

/// How the owner waits. Only the owner reads and writes this.
#[derive(Debug, Default)]
struct Habits {
    /// Whether other threads run on its core.
    apart: Apart,
    /// Whether it was woken soon after it had begun to wait, though it had parked.
    hasty: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    events: Vec<Event>,
    /// When the first of the events arrived.
    since: Moment,
    /// Since when the mailbox was never seen empty.
    waiting: Moment,
    /// How many envelopes have arrived in total, and the bytes of their payloads.
    arrived: u64,
    bytes: u64,
    /// How many of them were swapped out.
    swapped: u64,
    /// VRs that are gone with their hosts, and whose notices have arrived and were neither reported by a receive nor dropped.
    losses: Vec<VrId>,
    closed: bool,
    limit: Option<Limited>,
    /// Senders that wait for room are let in, as a checkpoint is being taken.
    lets_in: bool,
}

/// Why an envelope was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The owner is gone.
    Closed,
    /// The mailbox is full, and its owner wants sends to fail then.
    Full,
}

/// A timestamp for ages, accurate to a few milliseconds: an exact one would cost as much as a hand-off.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moment(Duration);

impl Moment {
    pub(crate) fn now() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
        Self(Duration::try_from(time).unwrap_or_default())
    }

    /// Returns how long ago it was.
    pub(crate) fn age(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

impl Inbox {
    /// Makes the calling thread the owner, which waits on this inbox.
    pub(crate) fn adopt(&self) {
        let _ = self.owner.set(thread::current());
        let mut queue = self.lock();
        if queue.events.is_empty() {
            // For envelopes that a restored mailbox holds from the beginning, the waiting time starts anew.
            queue.waiting = Moment::now();
        }
    }

    /// Publishes how many envelopes the owner's mailbox holds.
    #[inline]
    pub(crate) fn holds(&self, envelopes: usize) {
        self.owned.held.store(envelopes, Relaxed);
    }

    /// Counts an envelope of this length, which the owner has taken from where its sender wrote it.
    #[inline]
    pub(crate) fn was_passed_by(&self, bytes: usize) {
        let add = |to: &AtomicU64, count| to.store(to.load(Relaxed) + count, Relaxed);
        add(&self.owned.taken, 1);
        add(&self.owned.bytes, bytes as u64);
    }

    /// Appends an event, whatever the limit; returns it if the owner is gone.
    pub(crate) fn push(&self, event: Event) -> Result<(), Event> {
        let queue = self.lock();
        if queue.closed {
            return Err(event);
        }
        self.append(queue, event);
        Ok(())
    }

    /// Appends an envelope; returns it if the owner is gone or has set a limit, which the caller must then handle.
    pub(crate) fn deliver(&self, envelope: Envelope) -> Result<(), Envelope> {
        let queue = self.lock();
        if queue.closed || queue.limit.is_some() {
            return Err(envelope);
        }
        self.append(queue, Event::Envelope(envelope));
        Ok(())
    }

    /// Appends an envelope of a VR of this process. If the mailbox is full, waits for room or fails, as the owner wants.
    pub(crate) fn offer(&self, envelope: Envelope) -> Result<(), Refused> {
        let mut queue = self.lock();
        loop {
            if queue.closed {
                return Err(Refused::Closed);
            }
            match queue.limit.as_ref().and_then(Limited::full) {
                None => break,
                Some(WhenFull::Wait) if queue.lets_in => break,
                // A VR that waited for room in its own mailbox would wait forever.
                Some(WhenFull::Wait) if envelope.src != envelope.dst => {
                    queue = self.room.wait(queue).unwrap_or_else(PoisonError::into_inner);
                }
                Some(_) => return Err(Refused::Full),
            }
        }
        if let Some(limited) = &mut queue.limit {
            limited.count(envelope.payload.len());
        }
        self.append(queue, Event::Envelope(envelope));
        Ok(())
    }

    /// Appends an envelope of a VR of this process that was accepted before, even if the mailbox is full.
    pub(crate) fn readmit(&self, envelope: Envelope) -> Result<(), Refused> {
        let mut queue = self.lock();
        if queue.closed {
            return Err(Refused::Closed);
        }
        if let Some(limited) = &mut queue.limit {
            limited.count(envelope.payload.len());
        }
        self.append(queue, Event::Envelope(envelope));
        Ok(())
    }

    /// Sets whether senders that wait for room are let in nevertheless.
    pub(crate) fn let_in(&self, all: bool) {
        self.lock().lets_in = all;
        self.room.notify_all();
    }

    /// Appends an envelope of another process. If the mailbox is full then, `hold_off`, which must not block, holds the
    /// process off.
    pub(crate) fn arrive(
        &self,
        envelope: Envelope,
        from: HostId,
        hold_off: impl FnOnce(WhenFull),
    ) -> Result<(), Envelope> {
        let mut queue = self.lock();
        if queue.closed {
            return Err(envelope);
        }
        if let Some(limited) = &mut queue.limit {
            limited.count(envelope.payload.len());
            if let Some(when_full) = limited.full()
                && limited.hold_off(from)
            {
                // Holding the lock, so that no notice of room overtakes it.
                hold_off(when_full);
            }
        }
        self.append(queue, Event::Envelope(envelope));
        Ok(())
    }

    /// Accounts for an envelope that was taken out of the mailbox. Once there is enough room, senders that wait, here and in
    /// other processes, are let in. `let_in` must not block.
    pub(crate) fn took(&self, bytes: usize, let_in: impl FnMut(HostId)) {
        let mut queue = self.lock();
        let Some(limited) = &mut queue.limit else { return };
        limited.uncount(bytes);
        if limited.has_room() {
            limited.let_in().into_iter().for_each(let_in);
            self.room.notify_all();
        }
    }

    /// Sets the limit. `held` are the payload lengths of the envelopes that the owner has already looked at.
    pub(crate) fn set_limit(
        &self,
        limit: Option<QueueLimit>,
        held: impl Iterator<Item = usize>,
        let_in: impl FnMut(HostId),
    ) {
        let mut queue = self.lock();
        let mut old = std::mem::replace(&mut queue.limit, limit.map(Limited::new));
        let fresh: Vec<usize> = queue.events.iter().filter_map(Event::payload_len).collect();
        if let Some(limited) = &mut queue.limit {
            held.chain(fresh).for_each(|bytes| limited.count(bytes));
        }
        // Processes that still send too much are held off again.
        old.iter_mut().flat_map(Limited::let_in).for_each(let_in);
        self.room.notify_all();
    }

    fn append(&self, mut queue: MutexGuard<'_, Queue>, event: Event) {
        if queue.events.is_empty() {
            queue.since = Moment::now();
            if self.owned.held.load(Relaxed) == 0 {
                queue.waiting = queue.since;
            }
        }
        if let Some(bytes) = event.payload_len() {
            queue.arrived += 1;
            queue.bytes += bytes as u64;
        } else if let Event::Down(down) = &event
            && down.is_loss()
        {
            queue.losses.push(down.who);
        }
        queue.events.push(event);
        self.ready.store(queue.events.len(), SeqCst);
        drop(queue);
        if self.sleeping.load(SeqCst)
            && self.sleeping.swap(false, SeqCst)
            && let Some(owner) = self.owner.get()
        {
            owner.unpark();
        }
    }

    /// Exchanges everything that has arrived for the empty `events`, whose memory is reused, and returns when the first of it
    /// came; `None` if nothing was there.
    pub(crate) fn swap(&self, events: &mut Vec<Event>) -> Option<Moment> {
        debug_assert!(events.is_empty());
        if self.ready.load(SeqCst) == 0 {
            return None;
        }
        let mut queue = self.lock();
        std::mem::swap(&mut queue.events, events);
        queue.swapped = queue.arrived;
        self.ready.store(0, SeqCst);
        Some(queue.since)
    }

    /// Sets the owner's name for people.
    pub(crate) fn is_called(&self, name: &str) {
        let _ = self.name.set(name.to_owned());
    }

    /// Returns what is known of other threads on the owner's core.
    pub(crate) fn apart(&self) -> &Apart {
        &self.habits.apart
    }

    /// Returns the status of the mailbox, for monitoring.
    pub(crate) fn status(&self, id: VrId) -> VrStatus {
        let name = self.name.get().cloned().unwrap_or_default();
        let queue = self.lock();
        let queued = queue.arrived - queue.swapped + self.owned.held.load(Relaxed) as u64;
        let waiting = (queued > 0).then(|| queue.waiting.age());
        let arrived = queue.arrived + self.owned.taken.load(Relaxed);
        let bytes = queue.bytes + self.owned.bytes.load(Relaxed);
        VrStatus { id, name, queued, waiting, arrived, bytes }
    }

    /// Returns what has arrived and was not swapped out.
    pub(crate) fn waiting(&self) -> Vec<Event> {
        self.lock().events.clone()
    }

    /// Returns the VRs that are gone with their hosts, and whose notices no receive has reported yet, even if the owner has
    /// swapped them out.
    pub(crate) fn losses(&self) -> Vec<VrId> {
        self.lock().losses.clone()
    }

    /// Notes that the notices of these VRs' ends were reported to the owner, or dropped.
    pub(crate) fn heard(&self, ends: impl Iterator<Item = VrId>) {
        let mut queue = self.lock();
        for end in ends {
            if let Some(index) = queue.losses.iter().position(|lost| *lost == end) {
                queue.losses.swap_remove(index);
            }
        }
    }

    /// Refuses everything from now on and returns what had not been taken. Senders that wait for room are woken.
    pub(crate) fn close(&self, let_in: impl FnMut(HostId)) -> Vec<Event> {
        let mut queue = self.lock();
        queue.closed = true;
        queue.limit.take().iter_mut().flat_map(Limited::let_in).for_each(let_in);
        self.room.notify_all();
        self.ready.store(0, SeqCst);
        std::mem::take(&mut queue.events)
    }

    /// Whether something has arrived that was not swapped out.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(SeqCst) > 0
    }

    /// Waits until something has arrived or was taken (`true`), or the time is over (`false`). Only the owner may call it.
    pub(crate) fn wait(
        &self,
        limit: &mut Limit,
        pump: &impl Pump,
        mut taker: Option<&mut Taker<'_>>,
    ) -> bool {
        let is_there = |taker: &Option<&mut Taker<'_>>| {
            self.is_ready() || taker.as_ref().is_some_and(|taker| taker.taken)
        };
        if limit.is_none() {
            pump.glance(self, taker.as_deref_mut());
            return is_there(&taker);
        }
        let Habits { apart, hasty } = &*self.habits;
        let spins = if apart.is_crowded() { 1 } else { SPINS };
        pump.poll(spins, self, taker.as_deref_mut());
        if is_there(&taker) {
            return true;
        }
        let mut polling = Polling::begin(pump);
        let mut start = Instant::now();
        let mut looks = 1;
        loop {
            pump.poll(looks, self, taker.as_deref_mut());
            if is_there(&taker) {
                return true;
            }
            let now = Instant::now();
            if limit.is_over(now) {
                return false;
            }
            if now - start < if hasty.load(Relaxed) { YIELD_LONGER } else { YIELD } {
                looks = if apart.yield_at(now) { LOOKS } else { 1 };
                continue;
            }
            polling = polling.park(|| {
                self.sleep(limit);
                hasty.store(self.is_ready() && start.elapsed() < YIELD_LONGER, Relaxed);
            });
            // What woke this thread may be followed by more, so it polls again first.
            start = Instant::now();
        }
    }

    /// Sleeps until something arrives, or the time is over.
    fn sleep(&self, limit: &Limit) {
        self.sleeping.store(true, SeqCst);
        if self.ready.load(SeqCst) == 0 {
            match limit {
                Limit::Until(deadline) => {
                    thread::park_timeout(deadline.saturating_duration_since(Instant::now()));
                }
                _ => thread::park(),
            }
        }
        self.sleeping.store(false, SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
