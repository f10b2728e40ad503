//! `forkfold`: results accumulate where they are computed, and only the sums travel.

use std::any::type_name;
use std::fmt;

use river_rai::{ByMut, CallError, Object, Pending, RemoteSend, Ticket};
use rustc_hash::FxHashMap;

use crate::chunk::Chunk;
use crate::error::{Items, TrickleError};
use crate::farm::{Event, Farm, Finished, Load, Next};
use crate::forkgen::timed;
use crate::progress::Progress;
use crate::scheduler::{Mode, VmIndex};
use crate::vms::Vms;

/// A fold that is ready to run; of [`Vms::forkfold`].
#[must_use = "nothing happens before `run`"]
pub struct ForkFold<'a, A, S, G, I: Iterator> {
    step: S,
    merge: G,
    farm: Result<Farm<'a, I, ()>, TrickleError>,
    /// The accumulators that live on VMs.
    accumulators: FxHashMap<VmIndex, Object<'a, A>>,
    /// Accumulators on their way here.
    collecting: FxHashMap<Ticket, (VmIndex, Pending<'a, A>)>,
}

impl<'a> Vms<'a> {
    /// Folds all items of `work` into one value. Every VM has an accumulator of its own, which begins as the default;
    /// `step` folds a chunk into it. When no work is left the accumulators travel here and `merge` folds the second
    /// into the first.
    ///
    /// For work whose results are large and overlap: the accumulators travel once per VM, not once per chunk. Neither
    /// the order of chunks nor which chunks meet in one accumulator is promised, so `step` and `merge` have to be
    /// such that it does not matter. If a VM dies, everything that it had folded is folded again on others: every item
    /// is in the result exactly once.
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
        ForkFold { step, merge, farm, accumulators: FxHashMap::default(), collecting: FxHashMap::default() }
    }
}

impl<'a, A, S, G, I> ForkFold<'a, A, S, G, I>
where
    I: Iterator<Item: RemoteSend>,
    A: Default + RemoteSend,
    S: Fn(&mut A, Vec<I::Item>) + Copy + Send + 'static,
    G: Fn(&mut A, A) + Copy + Send + 'static,
{
    /// How many VMs may die of the same work before it is given up, with [`TrickleError::Deadly`]. Default: 3.
    pub fn attempts(mut self, attempts: usize) -> Self {
        if let Ok(farm) = &mut self.farm {
            farm.options().attempts = attempts;
        }
        self
    }

    /// Has a function called each time that a chunk was folded or a VM was lost.
    pub fn on_progress(mut self, callback: impl FnMut(Progress) + 'a) -> Self {
        if let Ok(farm) = &mut self.farm {
            farm.on_progress(callback);
        }
        self
    }

    /// Runs the fold and returns its result; the default value if there was no work.
    ///
    /// # Errors
    /// [`TrickleError::Panicked`] if `step` panicked: its accumulator cannot be trusted any more, so the fold ends.
    /// [`TrickleError::NoVmLeft`], [`TrickleError::Deadly`], [`TrickleError::ChunkZero`], [`TrickleError::Items`],
    /// [`TrickleError::Call`] if an accumulator cannot travel, [`TrickleError::Stopped`].
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
                        // Work queues up behind the creation; should that fail, the work says so.
                        entry.insert(vm.rai().create_async(A::default, ())?.0)
                    }
                };
                // The closures capture a function that has no bytes, so they have none themselves.
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
            match next {
                Next::Done => return Ok(total.unwrap_or_default()),
                Next::Collect(vm) => {
                    // The scheduler collects only from a VM that has folded something.
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
                    Event::Finished { vm, chunks } => {
                        let failed = |chunk: Finished<_, ()>| Some((chunk.open.items, chunk.result.err()?));
                        let Some((items, error)) = chunks.into_iter().find_map(failed) else { continue };
                        let (items, vm) = (Items(items), farm.vm(vm).name().to_owned());
                        return Err(match error {
                            CallError::Panicked { text, .. } => TrickleError::Panicked { items, vm, text },
                            error => TrickleError::Items { items, vm, error: error.into() },
                        });
                    }
                    Event::Other(ticket) => {
                        let Some((vm, pending)) = self.collecting.remove(&ticket) else { continue };
                        match pending.wait() {
                            // While this one is merged, the others go on.
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

/// An accumulator could not be fetched: because its VM is gone, which costs only time, or for a worse reason.
fn lost<'a, I>(farm: &mut Farm<'a, I, ()>, vm: VmIndex, error: CallError) -> Result<(), TrickleError>
where
    I: Iterator<Item: RemoteSend>,
{
    match error {
        CallError::Down(down) => {
            farm.lost(vm, down.why.cause());
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
