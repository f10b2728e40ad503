//! Time limits: detects VMs that are slow and chunks that are overdue.

use std::time::{Duration, Instant};

use river_rai::{CallError, RemoteSend};

use super::{Event, Farm, Finished, Member};
use crate::scheduler::{Mode, VmIndex};

/// How often a waiting farm checks the clock, if anything depends on it.
pub(super) const TICK: Duration = Duration::from_millis(20);
/// How long a VM may take to end a call that was cancelled before it is abandoned.
const STUCK: Duration = Duration::from_secs(2);

impl<'a, I, R> Farm<'a, I, R>
where
    I: Iterator,
    I::Item: RemoteSend,
    R: RemoteSend,
{
    pub(super) fn now(&self) -> Duration {
        self.pool.vr().uptime()
    }

    /// Until when to wait before the next check of the clock, if anything depends on it.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.needs_clock().then(|| Instant::now() + TICK)
    }

    pub(super) fn is_time_to_look(&self) -> bool {
        self.needs_clock() && self.now().saturating_sub(self.last_look) >= TICK
    }

    fn needs_clock(&self) -> bool {
        let tail = self.options.speculate && self.scheduler.is_tail();
        tail || self.options.deadline.is_some() || self.options.cancellable || self.pool.grows()
    }

    /// Detects slow VMs, overdue chunks and VMs that are stuck.
    pub(super) fn look_at_the_clock(&mut self) -> Event<I::Item, R> {
        let now = self.now();
        self.last_look = now;
        for index in 0..self.vms.len() {
            let vm = VmIndex(index);
            if self.scheduler.is_gone(vm) {
                continue;
            }
            let Member { busy_since, began, stuck_since, .. } = self.vms[index];
            // A VM is not stuck in a batch that it has not begun.
            let stuck = began.and_then(|began| stuck_since.map(|since| since.max(began)));
            if stuck.is_some_and(|since| now.saturating_sub(since) > STUCK) {
                self.pool.give_up(self.vm(vm));
                self.gone(vm, format!("it did not end a call within {STUCK:?} after it was cancelled"));
                continue;
            }
            if let (Some(deadline), Some(began), None) = (self.options.deadline, began, stuck_since)
                && now.saturating_sub(began) > deadline
            {
                return self.overdue(vm, now);
            }
            let Some(busy_for) = busy_since.map(|since| now - since) else { continue };
            if self.options.speculate
                && self.scheduler.is_tail()
                && self.pace.patience().is_some_and(|patience| busy_for > patience)
            {
                self.scheduler.handle_slow(vm);
            }
        }
        Event::Nothing
    }

    fn overdue(&mut self, vm: VmIndex, now: Duration) -> Event<I::Item, R> {
        let closed = self.scheduler.handle_overdue(vm);
        if self.scheduler.mode() == Mode::Held {
            // The call that is still running may change the accumulator at any time.
            let lost = self.scheduler.handle_spoiled(vm);
            self.take_back(&lost);
        }
        for running in self.running.values().filter(|running| running.vm == vm) {
            running.pending.cancel();
        }
        (self.vms[vm.0].busy_since, self.vms[vm.0].stuck_since) = (None, Some(now));
        let opened = closed.iter().filter_map(|chunk| self.open.remove(chunk));
        let chunks: Vec<Finished<I::Item, R>> = opened
            .map(|open| Finished {
                open,
                result: Err(CallError::Timeout { function: "the function".into() }),
            })
            .collect();
        self.done_items +=
            chunks.iter().map(|chunk| chunk.open.items.end - chunk.open.items.start).sum::<u64>();
        Event::Finished { vm, chunks }
    }
}
