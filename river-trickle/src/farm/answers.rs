//! Waits for the answers of VMs, and processes them.

use std::time::{Duration, Instant};

use river_rai::{CallError, Completion, Pending, RemoteSend, Ticket};

use super::clock::TICK;
use super::{Begin, Event, Farm, Finished, Open, Running};
use crate::error::{TrickleError, concerns_values};
use crate::scheduler::{ChunkId, Mode, VmIndex};

/// How long a farm without VMs waits for new ones, if it is searching for them.
const FAMINE: Duration = Duration::from_secs(30);

impl<'a, I, R> Farm<'a, I, R>
where
    I: Iterator,
    I::Item: RemoteSend,
    R: RemoteSend,
{
    /// Waits for an event and tells the scheduler.
    pub(crate) fn wait(&mut self) -> Result<Event<I::Item, R>, TrickleError> {
        let waiting = |error: CallError| TrickleError::waiting(&error);
        // Deadlines must expire however many answers arrive.
        let looked = self.is_time_to_look();
        if looked {
            match self.look_at_the_clock() {
                Event::Nothing => {}
                event => return Ok(event),
            }
        }
        // A look at the clock may have made something ready to issue.
        let until = if looked { Some(Instant::now()) } else { self.next_look() };
        match self.completions.next_until(until).map_err(waiting)? {
            Completion::Answered(ticket) => self.answered(ticket),
            Completion::Timeout if looked => Ok(Event::Nothing),
            Completion::Timeout => Ok(self.look_at_the_clock()),
            Completion::Empty if self.scheduler.alive() == 0 => {
                // The farm goes on only because VMs may still join.
                let now = self.now();
                self.hungry_since.get_or_insert(now);
                let _ = self.pool.vr().wait(TICK);
                Ok(Event::Nothing)
            }
            // Unreachable: the scheduler waits only while something is outstanding.
            Completion::Empty => Err(TrickleError::Stopped),
        }
    }

    /// Whether a farm without VMs may still get some.
    pub(super) fn hopes(&self) -> bool {
        let starved = self.hungry_since.is_some_and(|since| self.now().saturating_sub(since) > FAMINE);
        self.pool.grows() && !starved
    }

    fn answered(&mut self, ticket: Ticket) -> Result<Event<I::Item, R>, TrickleError> {
        let Some(Running { batch, vm, pending, chunks }) = self.running.remove(&ticket) else {
            return self.begun(ticket);
        };
        self.vms[vm.0].began = None;
        let result = match pending.wait() {
            Err(CallError::Down(down)) => {
                self.lost(vm, &down);
                return Ok(Event::Nothing);
            }
            Err(CallError::Stopped) => return Err(TrickleError::Stopped),
            result => result,
        };
        if let Err(CallError::Cancelled(_)) = &result
            && self.scheduler.handle_not_begun(batch)
        {
            let busy = self.scheduler.first_batch(vm).is_some();
            self.vms[vm.0].busy_since = busy.then(|| self.now());
            return Ok(Event::Nothing);
        }
        let used = self.scheduler.handle_finished(batch);
        let items = used
            .iter()
            .filter_map(|chunk| self.open.get(chunk))
            .map(|open| open.items.end - open.items.start);
        let items: u64 = items.sum();
        // Includes failed items: they are subtracted again on a retry.
        self.done_items += items;
        if let (Err(CallError::Panicked { .. }), Mode::Held) = (&result, self.scheduler.mode())
            && self.may_try_again(&used)
        {
            self.spoil(vm);
            return Ok(Event::Spoiled(vm));
        }
        // The call has one answer for all its chunks, though probably only one of them has failed.
        let divided = chunks > 1
            && self.scheduler.mode() == Mode::Direct
            && result.as_ref().err().is_some_and(concerns_values);
        let (busy, owes) = (self.scheduler.first_batch(vm).is_some(), self.scheduler.owes(vm));
        let now = self.now();
        let member = &mut self.vms[vm.0];
        member.busy_since = busy.then_some(now);
        // It may have begun the next batch before it received that cancellation too.
        member.stuck_since = member.stuck_since.and(owes.then_some(now));
        if divided {
            for chunk in used.iter().rev() {
                self.open.remove(chunk).into_iter().for_each(|open| self.again_alone(open));
            }
            return Ok(Event::Nothing);
        }
        if used.is_empty() {
            return Ok(Event::Nothing);
        }
        let results = match result {
            Ok((results, micros)) => {
                self.pace.finished(Duration::from_micros(micros), chunks, items);
                Ok(results)
            }
            Err(error) => Err(error),
        };
        let chunks = self.settle(used, results, vm);
        self.report();
        Ok(Event::Finished { vm, chunks })
    }

    /// Handles the report that a VM has begun a batch.
    fn begun(&mut self, ticket: Ticket) -> Result<Event<I::Item, R>, TrickleError> {
        let Some(Begin { vm, batch, pending }) = self.begins.remove(&ticket) else {
            return Ok(Event::Other(ticket));
        };
        match pending.wait() {
            Err(CallError::Down(down)) => self.lost(vm, &down),
            Err(CallError::Stopped) => return Err(TrickleError::Stopped),
            _ if self.running.contains_key(&batch) => self.vms[vm.0].began = Some(self.now()),
            _ => {}
        }
        Ok(Event::Nothing)
    }

    /// Whether a VM's accumulated result may be thrown away and done again because something in a batch has failed. In
    /// a batch of several chunks it is not known which one failed; each is sent alone from then on, which will show it.
    fn may_try_again(&mut self, batch: &[ChunkId]) -> bool {
        let retries = self.options.retries;
        if retries == 0 || batch.is_empty() {
            return false;
        }
        if let [chunk] = batch
            && let Some(open) = self.open.get_mut(chunk)
        {
            open.failures += 1;
            if open.failures > retries {
                return false;
            }
        }
        batch.iter().for_each(|chunk| self.scheduler.handle_suspicious(*chunk));
        true
    }

    /// Discards what a VM accumulates.
    fn spoil(&mut self, vm: VmIndex) {
        for running in self.running.values().filter(|running| running.vm == vm) {
            running.pending.cancel();
        }
        let lost = self.scheduler.handle_spoiled(vm);
        self.take_back(&lost);
        // It may have begun the next batch before it received the cancellation, and is allowed the deadline for that.
        let deadline = self.options.deadline.filter(|_| self.scheduler.owes(vm));
        let stuck_since = deadline.and_then(|deadline| self.now().checked_add(deadline));
        (self.vms[vm.0].busy_since, self.vms[vm.0].stuck_since) = (None, stuck_since);
        self.report();
    }

    /// Pairs the chunks of a batch with their results.
    fn settle(
        &mut self,
        chunks: Vec<ChunkId>,
        results: Result<Vec<R>, CallError>,
        vm: VmIndex,
    ) -> Vec<Finished<I::Item, R>> {
        let direct = self.scheduler.mode() == Mode::Direct;
        let (results, error) = match results {
            Ok(results) => (results, CallError::Cancelled(self.vm(vm).name().to_owned())),
            Err(error) => (Vec::new(), error),
        };
        let mut results = results.into_iter();
        let mut finished = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let result = results.next().ok_or_else(|| error.clone());
            let open = if direct {
                self.open.remove(&chunk)
            } else {
                // Held chunks may have to be done again.
                self.open.get(&chunk).map(|open| Open {
                    items: open.items.clone(),
                    args: open.args.clone(),
                    ..*open
                })
            };
            finished.extend(open.map(|open| Finished { open, result }));
        }
        finished
    }

    /// Also waits for a call that the driver itself has made.
    pub(crate) fn also_wait_for<X>(&mut self, pending: &Pending<'a, X>) {
        self.completions.add(pending);
    }
}
