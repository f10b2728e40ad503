//! `forkfold`: results accumulate where they are computed, and only the accumulators are sent.

use std::any::type_name;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use river_rai::{ByMut, CallError, Object, Pending, RemoteSend, Ticket};
use rustc_hash::FxHashMap;

use crate::chunk::Chunk;
use crate::error::{Items, TrickleError};
use crate::farm::{Event, Farm, Finished, Load, Next, Open};
use crate::forkgen::timed;
use crate::options::Options;
use crate::progress::Progress;
use crate::scheduler::{Mode, VmIndex};
use crate::vms::Vms;

/// A fold that is ready to run, made by [`Vms::forkfold`].
#[must_use = "nothing happens before `run`"]
pub struct ForkFold<'a, A, S, G, I: Iterator> {
    step: S,
    merge: G,
    farm: Result<Farm<'a, I, ()>, TrickleError>,
    /// The accumulators that live on VMs.
    accumulators: FxHashMap<VmIndex, Object<'a, A>>,
    /// Accumulators that are being fetched.
    collecting: FxHashMap<Ticket, (VmIndex, Pending<'a, A>)>,
    /// Whether to cancel the fold.
    cancelled: Option<Box<dyn FnMut() -> bool + 'a>>,
}

impl<'a> Vms<'a> {
    /// Folds all items of `work` into one value. Every VM has an accumulator of its own, initially the default value,
    /// into which `step` folds chunks. When no work is left, the accumulators are fetched, and `merge` folds its second
    /// argument into the first.
    ///
    /// For work whose results are large and overlap: the accumulators are sent once per VM, not once per chunk. Neither
    /// the order of chunks nor their assignment to accumulators is specified, so the result of `step` and `merge` must
    /// not depend on it. If a VM dies, everything that it had folded is folded again on others: every item is in the
    /// result exactly once.
    ///
    /// ```no_run
    /// # fn example(vms: river_trickle::Vms<'_>, lines: Vec<String>) -> river_core::Result {
    /// use std::collections::HashMap;
    /// type Counts = HashMap<String, u64>;
    ///
    /// fn count(counts: &mut Counts, lines: Vec<String>) {
    ///     for word in lines.iter().flat_map(|line| line.split_whitespace()) {
    ///         *counts.entry(word.to_string()).or_default() += 1;
    ///     }
    /// }
    ///
    /// fn merge(counts: &mut Counts, more: Counts) {
    ///     for (word, n) in more {
    ///         *counts.entry(word).or_default() += n;
    ///     }
    /// }
    ///
    /// let counts: Counts = vms.forkfold(count, merge, lines, 100).run()?;
    /// # Ok(()) }
    /// ```
    pub fn forkfold<A, S, G, W>(
        &self,
        step: S,
        merge: G,
        work: W,
        chunk: impl Into<Chunk>,
    ) -> ForkFold<'a, A, S, G, W::IntoIter>
    where
        W: IntoIterator<Item: RemoteSend>,
        A: Default + RemoteSend,
        S: Fn(&mut A, Vec<W::Item>) + Copy + Send + 'static,
        G: Fn(&mut A, A) + Copy + Send + 'static,
    {
        let farm = Farm::new(self, Mode::Held, work.into_iter(), chunk.into());
        let (accumulators, collecting) = (FxHashMap::default(), FxHashMap::default());
        ForkFold { step, merge, farm, accumulators, collecting, cancelled: None }
    }
}

impl<'a, A, S, G, I> ForkFold<'a, A, S, G, I>
where
    I: Iterator<Item: RemoteSend>,
    A: Default + RemoteSend,
    S: Fn(&mut A, Vec<I::Item>) + Copy + Send + 'static,
    G: Fn(&mut A, A) + Copy + Send + 'static,
{
    /// How many VMs may die of the same work before the fold fails with [`TrickleError::Deadly`]. Default: 3.
    pub fn attempts(self, attempts: usize) -> Self {
        self.with(|options| options.attempts = attempts)
    }

    /// How many times a chunk is folded again if `step` panics on it or takes longer than the
    /// [deadline](Self::deadline). The accumulator concerned is thrown away, and everything else in it is folded again
    /// as well. Default: 0.
    pub fn retries(self, retries: u32) -> Self {
        self.with(|options| options.retries = retries)
    }

    /// How long `step` may take for one chunk. A call that takes longer is cancelled (`step` can check
    /// [`is_cancelled`](river_rai::current::is_cancelled)), and everything else that its VM had folded is folded again
    /// by others; if there are no [retries](Self::retries) left, the fold ends with [`TrickleError::TimedOut`]. A VM
    /// that does not end the call within two more seconds is abandoned. Default: no limit.
    pub fn deadline(self, deadline: Duration) -> Self {
        self.with(|options| options.deadline = Some(deadline))
    }

    /// Polls that function, after every chunk and at least every 20 ms, for whether to cancel the fold, which then ends
    /// with [`TrickleError::Cancelled`]; chunks that have not begun never will.
    pub fn cancel_when(mut self, cancelled: impl FnMut() -> bool + 'a) -> Self {
        self.cancelled = Some(Box::new(cancelled));
        self.with(|options| options.cancellable = true)
    }

    fn with(mut self, set: impl FnOnce(&mut Options)) -> Self {
        if let Ok(farm) = &mut self.farm {
            set(farm.options());
        }
        self
    }

    /// Calls a function whenever a chunk was folded or a VM was lost.
    pub fn on_progress(mut self, callback: impl FnMut(Progress) + 'a) -> Self {
        if let Ok(farm) = &mut self.farm {
            farm.on_progress(callback);
        }
        self
    }

    /// Runs the fold and returns its result; the default value if there was no work.
    ///
    /// # Errors
    /// [`TrickleError::Panicked`] if `step` panicked, or [`TrickleError::TimedOut`], and there are no
    /// [retries](Self::retries) left: the accumulator can no longer be trusted, so the fold ends.
    /// [`TrickleError::Cancelled`], [`TrickleError::NoVmLeft`], [`TrickleError::Deadly`], [`TrickleError::ChunkZero`],
    /// [`TrickleError::Unsendable`], [`TrickleError::Items`], [`TrickleError::Call`] if an accumulator cannot be sent,
    /// [`TrickleError::Stopped`].
    ///
    /// # Blocking
    /// Until everything has been folded and merged.
    pub fn run(mut self) -> Result<A, TrickleError> {
        let mut farm = self.farm?;
        let mut total: Option<A> = None;
        loop {
            let (step, accumulators) = (self.step, &mut self.accumulators);
            let next = farm.advance(&mut |vm, index, load| {
                let accumulator = match accumulators.entry(index) {
                    std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                    std::collections::hash_map::Entry::Vacant(entry) => {
                        // Work queues up behind the creation; if the creation fails, so does the work.
                        entry.insert(vm.rai().create_async(A::default, ())?.0)
                    }
                };
                // The closures capture only a zero-sized function, so they are zero-sized themselves.
                match load {
                    Load::One(args) => {
                        let fold = move |acc: &mut A, chunk: Vec<I::Item>| timed(|| vec![step(acc, chunk)]);
                        accumulator.call_packed::<_, _, ByMut>(fold, args)
                    }
                    Load::Many(args) => {
                        let fold = move |acc: &mut A, chunks: Vec<Vec<I::Item>>| {
                            timed(|| chunks.into_iter().map(|chunk| step(acc, chunk)).collect())
                        };
                        accumulator.call_packed::<_, _, ByMut>(fold, args)
                    }
                }
            })?;
            if self.cancelled.as_mut().is_some_and(|cancelled| cancelled()) {
                return Err(TrickleError::Cancelled);
            }
            match next {
                Next::Done => return Ok(total.unwrap_or_default()),
                Next::Collect(vm) => {
                    // The scheduler collects only from VMs that have folded something.
                    let Some(accumulator) = self.accumulators.remove(&vm) else { continue };
                    match accumulator.take_async() {
                        Ok(pending) => {
                            farm.also_wait_for(&pending);
                            self.collecting.insert(pending.ticket(), (vm, pending));
                        }
                        Err(error) => lost(&mut farm, vm, error)?,
                    }
                }
                Next::Wait => match farm.wait()? {
                    Event::Nothing => {}
                    Event::Spoiled(vm) => drop(self.accumulators.remove(&vm)),
                    Event::Finished { vm, chunks } => {
                        for Finished { open, result } in chunks {
                            let Err(error) = result else { continue };
                            if error.is_timeout() {
                                self.accumulators.remove(&vm);
                                if open.failures < farm.options().retries {
                                    farm.again(Open { failures: open.failures + 1, ..open });
                                    continue;
                                }
                            }
                            return Err(failed(&mut farm, vm, open.items, error));
                        }
                    }
                    Event::Other(ticket) => {
                        let Some((vm, pending)) = self.collecting.remove(&ticket) else { continue };
                        match pending.wait() {
                            // The others go on while this one is merged.
                            Ok(part) if farm.collected(vm) => match &mut total {
                                Some(total) => (self.merge)(total, part),
                                None => total = Some(part),
                            },
                            Ok(_) => {}
                            Err(error) => lost(&mut farm, vm, error)?,
                        }
                    }
                },
            }
        }
    }
}

/// The error with which the fold ends because some items failed.
fn failed<'a, I>(farm: &mut Farm<'a, I, ()>, vm: VmIndex, items: Range<u64>, error: CallError) -> TrickleError
where
    I: Iterator<Item: RemoteSend>,
{
    let (items, vm, deadline) = (Items(items), farm.vm(vm).name().to_owned(), farm.options().deadline);
    match (error, deadline) {
        (CallError::Panicked { text, trace, .. }, _) => TrickleError::Panicked { items, vm, text, trace },
        (CallError::Timeout { .. }, Some(limit)) => TrickleError::TimedOut { items, vm, limit },
        (error, _) => TrickleError::Items { items, vm, error: error.into() },
    }
}

/// An accumulator could not be fetched: either its VM is gone, which only costs time, or the fold fails.
fn lost<'a, I>(farm: &mut Farm<'a, I, ()>, vm: VmIndex, error: CallError) -> Result<(), TrickleError>
where
    I: Iterator<Item: RemoteSend>,
{
    match error {
        CallError::Down(down) => {
            farm.lost(vm, &down);
            Ok(())
        }
        error => Err(farm.vm(vm).error(error)),
    }
}

impl<A, S, G, I: Iterator> fmt::Debug for ForkFold<'_, A, S, G, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ForkFold({})", type_name::<S>())
    }
}
