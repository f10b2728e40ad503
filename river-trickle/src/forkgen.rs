//! `forkgen` and `forkwork`: dynamic scheduling of independent items (paper, section 2.4).

use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use river_core::{Panic, catch_panic_quietly};
use river_rai::{CallError, Packed, Pending, RemoteSend};

use crate::chunk::Chunk;
use crate::error::{Items, TrickleError, concerns_values};
use crate::farm::{Answer, Event, Farm, Finished, Load, Next, Open};
use crate::progress::Progress;
use crate::scheduler::Mode as Keep;
use crate::vm::Vm;
use crate::vms::Vms;
use crate::work::{Work, uptime};

/// A VM's reply for a chunk: the results, or panics in their place.
type Reply<R> = Vec<Result<R, Panic>>;

/// The results of a farm as they arrive, made by [`Vms::forkgen`].
///
/// Lazy in both directions: items are pulled from their iterator only when a VM needs some, and are issued only inside
/// `next`. Dropping it cancels what is queued; a chunk that is being worked on ends after its current item.
///
/// After an error that concerns items ([`TrickleError::Panicked`], [`TrickleError::Items`]) the iteration goes on; any
/// other error is the last item.
#[must_use = "a farm works only while its results are asked for"]
pub struct ForkGen<'a, F, M, I: Iterator, R> {
    function: F,
    mode: PhantomData<fn() -> M>,
    state: State<'a, I, R>,
    /// Results that have arrived, each with the number of its first item.
    ready: VecDeque<(u64, Result<R, TrickleError>)>,
    /// Something has happened, so there may be new work to issue.
    news: bool,
}

enum State<'a, I: Iterator, R> {
    Running(Box<Farm<'a, I, Reply<R>>>),
    /// Failed before it began.
    Refused(TrickleError),
    Over,
}

impl<'a> Vms<'a> {
    /// Distributes the items of `work` to whichever VMs are free, and returns all results in the order of the items.
    ///
    /// The function takes one item (`fn(T) -> R`, one result per item) or a whole chunk (`fn(Vec<T>) -> R`, one result
    /// per chunk). If a VM dies, its work is done by another; every item has exactly one result.
    ///
    /// ```no_run
    /// # fn example(vms: river_trickle::Vms<'_>) -> river_core::Result {
    /// fn sum(numbers: Vec<i64>) -> i64 {
    ///     numbers.into_iter().sum()
    /// }
    /// let sums = vms.forkwork(sum, 0..100, 10)?;
    /// assert_eq!(sums[0], 45);
    /// let squares = vms.forkwork(|x: i64| x * x, 0..100, 10)?;
    /// assert_eq!(squares[9], 81);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The first error that [`forkgen`](Self::forkgen) returns; the rest of the work is abandoned.
    ///
    /// # Blocking
    /// Until everything has been done.
    pub fn forkwork<F, M, W>(
        &self,
        function: F,
        work: W,
        chunk: impl Into<Chunk>,
    ) -> Result<Vec<F::Output>, TrickleError>
    where
        W: IntoIterator<Item: RemoteSend>,
        F: Work<W::Item, M>,
        F::Output: RemoteSend,
        M: 'static,
    {
        self.forkgen(function, work, chunk).in_order()
    }

    /// Like [`forkwork`](Self::forkwork), but returns an iterator over the results as they arrive, so that partial
    /// results can be used while the farm is running.
    ///
    /// ```no_run
    /// # fn example(vms: river_trickle::Vms<'_>) -> river_core::Result {
    /// for square in vms.forkgen(|x: i64| x * x, 0.., 10).on_progress(|p| println!("{} done", p.done_items)) {
    ///     if square? > 1_000_000 {
    ///         break; // the work may be endless
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Items of the iterator may be errors: [`TrickleError::Panicked`] and [`TrickleError::Items`] in place of results;
    /// [`TrickleError::ChunkZero`], [`TrickleError::Unsendable`], [`TrickleError::NoVmLeft`], [`TrickleError::Deadly`]
    /// and [`TrickleError::Stopped`] as the last item.
    ///
    /// # Blocking
    /// `next` waits until a result has arrived.
    pub fn forkgen<F, M, W>(
        &self,
        function: F,
        work: W,
        chunk: impl Into<Chunk>,
    ) -> ForkGen<'a, F, M, W::IntoIter, F::Output>
    where
        W: IntoIterator<Item: RemoteSend>,
        F: Work<W::Item, M>,
        F::Output: RemoteSend,
        M: 'static,
    {
        let farm = Farm::new(self, Keep::Direct, work.into_iter(), chunk.into());
        let state = match farm {
            Ok(farm) => State::Running(Box::new(farm)),
            Err(error) => State::Refused(error),
        };
        ForkGen { function, mode: PhantomData, state, ready: VecDeque::new(), news: true }
    }
}

impl<'a, F, M, I, R> ForkGen<'a, F, M, I, R>
where
    I: Iterator<Item: RemoteSend>,
    F: Work<I::Item, M, Output = R>,
    R: RemoteSend,
    M: 'static,
{
    /// Calls a function whenever a chunk was finished or a VM was lost.
    pub fn on_progress(mut self, callback: impl FnMut(Progress) + 'a) -> Self {
        if let State::Running(farm) = &mut self.state {
            farm.on_progress(callback);
        }
        self
    }

    /// How many times an item is tried again if the function panics on it or takes longer than the
    /// [deadline](Self::deadline). Default: 0.
    pub fn retries(self, retries: u32) -> Self {
        self.with(|options| options.retries = retries)
    }

    /// How long a VM may work on one chunk, not counting earlier requests. A call that takes longer is cancelled and
    /// counts as failed, with [`TrickleError::TimedOut`]; a VM that does not end it within two more seconds is
    /// abandoned. Default: no limit.
    pub fn deadline(self, deadline: Duration) -> Self {
        self.with(|options| options.deadline = Some(deadline))
    }

    /// How many VMs may die of the same work before the farm fails with [`TrickleError::Deadly`]. Default: 3.
    pub fn attempts(self, attempts: usize) -> Self {
        self.with(|options| options.attempts = attempts)
    }

    /// Whether idle VMs also run the chunks of stragglers; the first result counts. Turn it off for functions whose
    /// side effects must not happen twice, though they still may after a death. Default: yes.
    pub fn speculate(self, speculate: bool) -> Self {
        self.with(|options| options.speculate = speculate)
    }

    fn with(mut self, set: impl FnOnce(&mut crate::options::Options)) -> Self {
        if let State::Running(farm) = &mut self.state {
            set(farm.options());
        }
        self
    }

    /// Waits for all results, as [`Vms::forkwork`] does, and returns them in the order of the items.
    ///
    /// # Errors
    /// The first error; the rest of the work is abandoned.
    ///
    /// # Blocking
    /// Until everything has been done.
    pub fn in_order(mut self) -> Result<Vec<R>, TrickleError> {
        let mut results = Vec::new();
        while let Some((item, result)) = self.next_numbered() {
            results.push((item, result?));
        }
        results.sort_by_key(|(item, _)| *item);
        Ok(results.into_iter().map(|(_, result)| result).collect())
    }

    fn next_numbered(&mut self) -> Option<(u64, Result<R, TrickleError>)> {
        while let State::Running(farm) = &mut self.state
            && (self.news || self.ready.is_empty())
        {
            // New work is issued first: no VM should be idle while the caller uses a result.
            self.news = false;
            let function = self.function;
            let next = farm.advance(&mut |vm, _, load| issue::<F, M, I::Item>(vm, function, load));
            match next {
                Err(error) => self.state = State::Refused(error),
                Ok(_) if !self.ready.is_empty() => {}
                // Nothing is held on the VMs, so there is nothing to collect.
                Ok(Next::Done | Next::Collect(_)) => self.state = State::Over,
                Ok(Next::Wait) => match farm.wait() {
                    Err(error) => self.state = State::Refused(error),
                    Ok(Event::Finished { vm, chunks }) => {
                        self.news = true;
                        let vm = farm.vm(vm).name().to_owned();
                        for chunk in chunks {
                            accept(farm, &mut self.ready, chunk, &vm, F::PER_ITEM);
                        }
                    }
                    Ok(Event::Spoiled(_) | Event::Other(_) | Event::Nothing) => {}
                },
            }
            if !self.ready.is_empty() {
                break;
            }
        }
        self.ready.pop_front().or_else(|| match std::mem::replace(&mut self.state, State::Over) {
            State::Refused(error) => Some((u64::MAX, Err(error))),
            _ => None,
        })
    }
}

/// Starts chunks on a VM.
fn issue<'a, F, M, T>(
    vm: &Vm<'a>,
    function: F,
    load: &Load<T>,
) -> Result<Pending<'a, Answer<Reply<F::Output>>>, CallError>
where
    F: Work<T, M>,
    F::Output: RemoteSend,
    T: RemoteSend,
    M: 'static,
{
    // The closures capture only a zero-sized function, so they are zero-sized themselves.
    match load {
        Load::One(args) => {
            vm.rai().call_packed(move |chunk: Vec<T>| timed(|| vec![function.run(chunk)]), args)
        }
        Load::Many(args) => {
            let run = move |chunks: Vec<Vec<T>>| {
                timed(|| chunks.into_iter().map(|chunk| function.run(chunk)).collect())
            };
            vm.rai().call_packed(run, args)
        }
    }
}

/// Returns a result, and how many microseconds it took.
pub(crate) fn timed<R>(work: impl FnOnce() -> R) -> (R, u64) {
    let start = uptime();
    let result = work();
    (result, u64::try_from(uptime().saturating_sub(start).as_micros()).unwrap_or(u64::MAX))
}

/// Takes the results of a chunk, each with the number of its item, or retries the items that failed.
fn accept<'a, I, R>(
    farm: &mut Farm<'a, I, Reply<R>>,
    ready: &mut VecDeque<(u64, Result<R, TrickleError>)>,
    chunk: Finished<I::Item, Reply<R>>,
    vm: &str,
    per_item: bool,
) where
    I: Iterator<Item: RemoteSend>,
    R: RemoteSend,
{
    let Finished { open, result } = chunk;
    let (retries, deadline) = (farm.options().retries, farm.options().deadline);
    let again = open.failures < retries;
    match result {
        Err(CallError::Timeout { .. }) if again => {
            farm.again(Open { failures: open.failures + 1, ..open });
        }
        Err(error) => {
            if per_item
                && concerns_values(&error)
                && let Some(items) = divide(&open)
            {
                return items.into_iter().rev().for_each(|item| farm.again_alone(item));
            }
            let (items, vm) = (Items(open.items.clone()), vm.to_owned());
            let error = match deadline {
                Some(limit) if error.is_timeout() => TrickleError::TimedOut { items, vm, limit },
                _ => TrickleError::Items { items, vm, error: error.into() },
            };
            ready.push_back((open.items.start, Err(error)));
        }
        // It was broken off, as its server is to end; no call that this farm has cancelled gets here.
        Ok(reply) if per_item && reply.len() as u64 != open.items.end - open.items.start => farm.again(open),
        Ok(reply) => {
            let failed = reply.iter().any(Result::is_err);
            // Failed items are decoded only for a retry: each is sent alone from then on.
            let unpacked = (per_item && again && failed).then(|| open.args.unpack().ok()).flatten();
            let mut values = unpacked.map_or_else(Vec::new, |(values,)| values).into_iter();
            for (item, result) in (open.items.start..).zip(reply) {
                let value = values.next();
                let Panic { text, trace } = match result {
                    Ok(result) => {
                        ready.push_back((item, Ok(result)));
                        continue;
                    }
                    Err(panic) => panic,
                };
                let (items, args) = if per_item {
                    (item..item + 1, value.and_then(|value| Packed::new((vec![value],)).ok()))
                } else {
                    (open.items.clone(), again.then(|| open.args.clone()))
                };
                match args {
                    Some(args) => farm.again(Open { items, args, failures: open.failures + 1 }),
                    None => {
                        let (items, vm) = (Items(items), vm.to_owned());
                        let error = TrickleError::Panicked { items, vm, text, trace };
                        ready.push_back((item, Err(error)));
                    }
                }
            }
        }
    }
}

/// A chunk for each item of a chunk that has several, if they can be decoded.
fn divide<T: RemoteSend>(open: &Open<T>) -> Option<Vec<Open<T>>> {
    if open.items.end - open.items.start < 2 {
        return None;
    }
    // What panicked on the VM may panic here, too.
    let (values,) = catch_panic_quietly(|| open.args.unpack()).ok()?.ok()?;
    let items = open.items.clone().zip(values).map(|(item, value)| {
        let args = Packed::new((vec![value],)).ok()?;
        Some(Open { items: item..item + 1, args, failures: open.failures })
    });
    items.collect()
}

impl<F, M, I, R> Iterator for ForkGen<'_, F, M, I, R>
where
    I: Iterator<Item: RemoteSend>,
    F: Work<I::Item, M, Output = R>,
    R: RemoteSend,
    M: 'static,
{
    type Item = Result<R, TrickleError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_numbered().map(|(_, result)| result)
    }
}

impl<F, M, I, R> std::iter::FusedIterator for ForkGen<'_, F, M, I, R>
where
    I: Iterator<Item: RemoteSend>,
    F: Work<I::Item, M, Output = R>,
    R: RemoteSend,
    M: 'static,
{
}

impl<F, M, I: Iterator, R> fmt::Debug for ForkGen<'_, F, M, I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForkGen").field("ready", &self.ready.len()).finish_non_exhaustive()
    }
}
