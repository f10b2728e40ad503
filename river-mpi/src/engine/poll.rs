//! Polling the queues and rings of both transports, and falling asleep when nothing arrives.

use std::time::{Duration, Instant};

use river_core::{Intake, Payload, RecvError};

use super::intake::{Hook, Landing};
use super::ops::reborrow;
use super::shm::Shm;
use super::{Engine, LANE, MESSAGES};
use crate::header::Kind;
use crate::matching::Key;
use crate::queue::Arrived;

/// After this many waits in a row that began with its queues, a rank also polls the link.
const DEAF: u32 = 16;
/// Messages taken from one rank in a row before the others have their turn.
pub(super) const TURN: usize = 64;

/// How long a rank polls for a message before it sleeps.
const PATIENCE: Duration = Duration::from_micros(50);
/// How often it polls before it yields its core: for about a microsecond.
const SPINS: usize = 100;
/// How often it polls between two `spin_loop` hints, which take long on some processors, and between two yields.
const LOOKS: usize = 4;

impl Engine<'_> {
    /// Wakes a rank that sleeps although there is a message in a queue or ring that it polls.
    #[cold]
    pub(super) fn wake(&self, to: u32) {
        let header = self.header(Kind::Wake, Key::NONE, 0, 0);
        // If the rank is gone, the next wait for it says so.
        let _ = self.vr.send_bytes(self.id_of(to), MESSAGES, LANE, header.with(&[]));
    }

    /// Takes messages that have arrived in queues and rings, one turn of each at most, until the caller has what it waits
    /// for. Returns `true` if there was any.
    pub(super) fn poll_queues(
        &self,
        hook: &mut Option<&mut Hook<'_>>,
        landing: &mut Option<&mut dyn Landing>,
    ) -> bool {
        let shm = self.poll_shm(None, hook, landing);
        let mut some = shm.is_some();
        let Some(local) = self.local.as_ref().filter(|_| shm != Some(Intake::Done)) else { return some };
        let (mut queue, mut turns) = (0, 0);
        let mut take = |arrived: Arrived<'_, Payload>| match arrived {
            Arrived::Record(record) => self.take_in(record, hook.as_deref_mut(), reborrow(landing)),
            Arrived::Thing(payload) => self.take_in(&payload, hook.as_deref_mut(), reborrow(landing)),
        };
        while let Some((number, intake)) = local.take(queue, &mut take) {
            some = true;
            if intake == Intake::Done {
                return true;
            }
            turns = if number == queue { turns + 1 } else { 1 };
            queue = number + turns / TURN;
            turns %= TURN;
        }
        some
    }

    /// Polls the queues and rings for [`PATIENCE`], or for `awake` if that is longer, but no longer than `patience`. Polls
    /// the link, too: now and then, or more often if messages over the link are waited for (`for_others`). Returns `true` if
    /// there was a message.
    pub(super) fn spin(
        &self,
        (patience, awake): (Duration, Duration),
        for_others: bool,
        hook: &mut Option<&mut Hook<'_>>,
        landing: &mut Option<&mut dyn Landing>,
    ) -> Result<bool, RecvError> {
        if self.local.is_none() && self.shm.is_none() {
            // A replay could not reproduce how often this polls.
            return Ok(false);
        }
        // A rank that sends without pause must not keep messages over the link from being received.
        if self.deaf.replace(self.deaf.get() + 1) >= DEAF && self.poll_link(hook, landing)? {
            return Ok(true);
        }
        // If not all ranks run at the same time, the awaited one may need this core.
        for look in 1..=if self.at_once { SPINS } else { 1 } {
            if self.poll_queues(hook, landing) {
                return Ok(true);
            }
            self.help_readers();
            if look.is_multiple_of(LOOKS) {
                if for_others && self.poll_link(hook, landing)? {
                    return Ok(true);
                }
                std::hint::spin_loop();
            }
        }
        let start = Instant::now();
        while start.elapsed() < patience.min(PATIENCE.max(awake)) {
            self.vr.yield_core();
            for _ in 0..LOOKS {
                if self.poll_queues(hook, landing) {
                    return Ok(true);
                }
                self.help_readers();
            }
            if self.poll_link(hook, landing)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Helps receivers that are copying from this rank, which counts as progress just as a match does. Only a rank to which
    /// nothing has arrived helps: two ranks that send to each other would only get in each other's way.
    #[inline]
    fn help_readers(&self) {
        let Self { lender, shm, .. } = self;
        if lender.shows_long() && (lender.help() | shm.as_ref().is_some_and(|shm| shm.help(lender))) {
            self.state.borrow_mut().matched += 1;
        }
    }

    /// Publishes that this rank has to be woken from now on. Returns `false` if there is a message already; the rank then
    /// stays awake.
    pub(super) fn fall_asleep(
        &self,
        hook: &mut Option<&mut Hook<'_>>,
        landing: &mut Option<&mut dyn Landing>,
    ) -> bool {
        if self.is_alone() {
            return true;
        }
        self.set_asleep(true);
        let some = self.poll_queues(hook, landing);
        if some {
            self.set_asleep(false);
        }
        !some
    }

    /// Whether messages reach this rank over the link only.
    pub(super) fn is_alone(&self) -> bool {
        self.local.is_none() && self.shm.as_ref().is_none_or(Shm::is_unused)
    }

    pub(super) fn set_asleep(&self, asleep: bool) {
        self.local.iter().for_each(|local| local.set_asleep(asleep));
        self.shm.iter().for_each(|shm| shm.set_asleep(asleep));
    }
}
