//! The part common to all farms: pulls work, issues calls as the scheduler decides, and tells the scheduler what
//! happened.

mod answers;
mod clock;

use std::ops::Range;
use std::time::Duration;

use river_core::Down;
use river_rai::{CallError, Completions, Packed, Pending, RemoteSend, Ticket};
use rustc_hash::FxHashMap;

use crate::chunk::{Chunk, Sizer};
use crate::error::{Death, Items, TrickleError};
use crate::options::Options;
use crate::pace::Pace;
use crate::progress::Progress;
use crate::scheduler::{Action, BatchId, ChunkId, Defeat, Mode, PREFETCH, Scheduler, VmIndex};
use crate::vm::Vm;
use crate::vms::{Pool, Vms};

/// A VM's answer to a batch: a result for each of its chunks, and how long it worked, in microseconds.
pub(crate) type Answer<R> = (Vec<R>, u64);

/// A farm over the items of `I`. `R` is a VM's result for a chunk.
pub(crate) struct Farm<'a, I: Iterator, R> {
    scheduler: Scheduler,
    /// All VMs that ever were in this farm, indexed by [`VmIndex`].
    vms: Vec<Member<'a>>,
    /// Where VMs come from and go to.
    pool: Pool<'a>,
    work: I,
    sizer: Sizer,
    pace: Pace,
    options: Options,
    next_item: u64,
    total_items: Option<u64>,
    done_items: u64,
    /// Chunks that are not accepted yet. Their arguments are kept encoded, so the items need not be `Clone`.
    open: FxHashMap<ChunkId, Open<I::Item>>,
    running: FxHashMap<Ticket, Running<'a, R>>,
    /// Calls that report when a batch begins, if there is a deadline.
    begins: FxHashMap<Ticket, Begin<'a>>,
    completions: Completions<'a>,
    deaths: FxHashMap<usize, Death>,
    /// Times are read from the VR's own clock, so that a recoverable VR reads the same times when it is replayed.
    started: Duration,
    hungry_since: Option<Duration>,
    last_look: Duration,
    on_progress: Option<Box<dyn FnMut(Progress) + 'a>>,
}

struct Member<'a> {
    vm: Vm<'a>,
    /// The time since which it works on its first batch, or on earlier requests of other users.
    busy_since: Option<Duration>,
    /// When it began its current batch, if there is a deadline.
    began: Option<Duration>,
    /// The time since which it should have ended work that was taken from it.
    stuck_since: Option<Duration>,
}

/// A chunk that is not accepted yet.
pub(crate) struct Open<T> {
    pub(crate) items: Range<u64>,
    pub(crate) args: Packed<(Vec<T>,)>,
    /// How many times it has failed.
    pub(crate) failures: u32,
}

struct Running<'a, R> {
    batch: BatchId,
    chunks: usize,
    vm: VmIndex,
    pending: Pending<'a, Answer<R>>,
}

/// A call that does nothing: its answer means that the VM begins the batch issued with it.
struct Begin<'a> {
    vm: VmIndex,
    batch: Ticket,
    pending: Pending<'a, ()>,
}

/// The encoded chunks of a batch.
pub(crate) enum Load<T> {
    One(Packed<(Vec<T>,)>),
    Many(Packed<(Vec<Vec<T>>,)>),
}

/// What the caller of [`Farm::advance`] must do when everything that can be issued has been issued.
pub(crate) enum Next {
    /// Wait for an event.
    Wait,
    /// Collect what the VM has accumulated.
    Collect(VmIndex),
    /// Everything has been accepted.
    Done,
}

/// An event that the driver of the farm must handle.
pub(crate) enum Event<T, R> {
    /// Chunks are finished.
    Finished { vm: VmIndex, chunks: Vec<Finished<T, R>> },
    /// What a VM has accumulated must not be used; all of it will be done again.
    Spoiled(VmIndex),
    /// A call that the driver itself has made was answered.
    Other(Ticket),
    /// Nothing that concerns the driver.
    Nothing,
}

/// A chunk that is finished, successfully or not.
pub(crate) struct Finished<T, R> {
    pub(crate) open: Open<T>,
    pub(crate) result: Result<R, CallError>,
}

/// Calls the function on a VM with the chunks of a batch.
pub(crate) type Issue<'f, 'a, T, R> =
    &'f mut dyn FnMut(&Vm<'a>, VmIndex, &Load<T>) -> Result<Pending<'a, Answer<R>>, CallError>;

impl<'a, I, R> Farm<'a, I, R>
where
    I: Iterator,
    I::Item: RemoteSend,
    R: RemoteSend,
{
    pub(crate) fn new(vms: &Vms<'a>, mode: Mode, work: I, chunk: Chunk) -> Result<Self, TrickleError> {
        let sizer = Sizer::new(chunk).ok_or(TrickleError::ChunkZero)?;
        let (least, most) = work.size_hint();
        let pool = Pool::of(vms);
        let mut farm = Self {
            scheduler: Scheduler::new(mode),
            vms: Vec::new(),
            work,
            sizer,
            pace: Pace::new(PREFETCH),
            options: Options::default(),
            next_item: 0,
            total_items: most.filter(|most| *most == least).map(|items| items as u64),
            done_items: 0,
            open: FxHashMap::default(),
            running: FxHashMap::default(),
            begins: FxHashMap::default(),
            completions: Completions::new(vms.vr()),
            pool,
            deaths: FxHashMap::default(),
            started: vms.vr().uptime(),
            hungry_since: None,
            last_look: vms.vr().uptime(),
            on_progress: None,
        };
        farm.pool.present().into_iter().for_each(|vm| farm.join(vm));
        Ok(farm)
    }

    pub(crate) fn on_progress(&mut self, callback: impl FnMut(Progress) + 'a) {
        self.on_progress = Some(Box::new(callback));
    }

    pub(crate) fn options(&mut self) -> &mut Options {
        &mut self.options
    }

    pub(crate) fn vm(&self, vm: VmIndex) -> &Vm<'a> {
        &self.vms[vm.0].vm
    }

    // ---- issuing ----

    /// Issues everything that can be issued now.
    pub(crate) fn advance(&mut self, issue: Issue<'_, 'a, I::Item, R>) -> Result<Next, TrickleError> {
        self.come_and_go();
        self.scheduler.set_may_join(self.hopes());
        self.scheduler.set_attempts(self.options.attempts);
        // The deadline applies to a single chunk, so batches must not be larger.
        let window = if self.options.deadline.is_some() { PREFETCH } else { self.pace.window() };
        self.scheduler.set_window(window);
        loop {
            match self.scheduler.poll() {
                Action::Pull => self.pull()?,
                Action::Issue { batch, chunks, vm } => self.issue(batch, &chunks, vm, issue)?,
                Action::Recall { batches } => {
                    let recalled = self.running.values().filter(|running| batches.contains(&running.batch));
                    recalled.for_each(|running| running.pending.withdraw());
                }
                Action::Collect { vm } => return Ok(Next::Collect(vm)),
                Action::Release { vm } => {
                    self.pool.release(self.vm(vm));
                    self.report();
                }
                Action::Wait => return Ok(Next::Wait),
                Action::Done => return Ok(Next::Done),
                Action::GiveUp(defeat) => return Err(self.defeat(defeat)),
            }
        }
    }

    fn issue(
        &mut self,
        batch: BatchId,
        chunks: &[ChunkId],
        vm: VmIndex,
        issue: Issue<'_, 'a, I::Item, R>,
    ) -> Result<(), TrickleError> {
        let mut args: Vec<Packed<(Vec<I::Item>,)>> =
            chunks.iter().filter_map(|chunk| self.open.get(chunk)).map(|open| open.args.clone()).collect();
        let load = if args.len() == 1 { Load::One(args.remove(0)) } else { Load::Many(Packed::list(&args)) };
        let now = self.now();
        let member = &mut self.vms[vm.0];
        // Forks and other farms may keep the VM busy first, which must not count against the chunk.
        let begin = self.options.deadline.map(|_| member.vm.rai().call_async(|| (), ())).transpose();
        match begin.and_then(|begin| Ok((begin, issue(&member.vm, vm, &load)?))) {
            Ok((begin, pending)) => {
                if let Some(begin) = begin {
                    self.completions.add(&begin);
                    let begin = Begin { vm, batch: pending.ticket(), pending: begin };
                    self.begins.insert(begin.pending.ticket(), begin);
                }
                self.completions.add(&pending);
                member.busy_since.get_or_insert(now);
                let running = Running { batch, chunks: chunks.len(), vm, pending };
                self.running.insert(running.pending.ticket(), running);
                Ok(())
            }
            Err(CallError::Down(down)) => {
                member.vm.died(&down);
                self.note_death(vm, down.why.cause());
                let lost = self.scheduler.handle_refused(batch);
                self.take_back(&lost);
                self.report();
                Ok(())
            }
            Err(CallError::Stopped) => Err(TrickleError::Stopped),
            Err(error) => {
                let items =
                    chunks.iter().filter_map(|chunk| self.open.get(chunk)).map(|open| open.items.clone());
                let items = items.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)).unwrap_or(0..0);
                let vm = self.vm(vm).name().to_owned();
                Err(TrickleError::Items { items: Items(items), vm, error: error.into() })
            }
        }
    }

    fn pull(&mut self) -> Result<(), TrickleError> {
        let left = self.total_items.map(|total| total.saturating_sub(self.next_item));
        let size = self.sizer.next(left, self.scheduler.working(), self.pace.per_item());
        let start = self.now();
        let items: Vec<I::Item> = self.work.by_ref().take(size).collect();
        if items.is_empty() {
            self.scheduler.handle_exhausted();
            return Ok(());
        }
        let first = self.next_item;
        self.next_item += items.len() as u64;
        let items_numbers = first..self.next_item;
        match Packed::new((items,)) {
            Ok(args) => {
                self.pace.pulled(self.now() - start, args.size());
                let chunk = self.scheduler.handle_pulled();
                self.open.insert(chunk, Open { items: items_numbers, args, failures: 0 });
                Ok(())
            }
            Err(error) => Err(TrickleError::Unsendable { items: Items(items_numbers), error: error.into() }),
        }
    }

    /// Schedules a failed chunk again; its items no longer count as done.
    pub(crate) fn again(&mut self, open: Open<I::Item>) {
        self.reopen(open);
    }

    /// Like [`again`](Self::again), but the chunk will not share a message with others.
    pub(crate) fn again_alone(&mut self, open: Open<I::Item>) {
        let chunk = self.reopen(open);
        self.scheduler.handle_suspicious(chunk);
    }

    fn reopen(&mut self, open: Open<I::Item>) -> ChunkId {
        let chunk = self.scheduler.handle_again();
        self.done_items -= open.items.end - open.items.start;
        self.open.insert(chunk, open);
        chunk
    }

    // ---- VMs ----

    fn join(&mut self, vm: Vm<'a>) {
        self.scheduler.handle_joined();
        self.hungry_since = None;
        self.vms.push(Member { vm, busy_since: None, began: None, stuck_since: None });
    }

    /// Adds VMs that have joined, and marks those that must leave.
    fn come_and_go(&mut self) {
        if self.pool.grows() {
            for vm in self.pool.newcomers(self.vms.iter().map(|member| &member.vm)) {
                self.join(vm);
                self.report();
            }
        }
        for index in self.pool.leaving(self.vms.iter().map(|member| &member.vm)) {
            self.scheduler.handle_leaving(VmIndex(index));
        }
    }

    /// A VM's server is gone, and with it everything that it had accumulated.
    pub(crate) fn lost(&mut self, vm: VmIndex, down: &Down) {
        self.vm(vm).died(down);
        self.gone(vm, down.why.cause());
    }

    /// Continues without a VM.
    fn gone(&mut self, vm: VmIndex, why: String) {
        if self.scheduler.is_gone(vm) {
            return;
        }
        self.note_death(vm, why);
        let lost = self.scheduler.handle_down(vm);
        self.take_back(&lost);
        self.report();
    }

    fn take_back(&mut self, lost: &[ChunkId]) {
        for open in lost.iter().filter_map(|chunk| self.open.get(chunk)) {
            self.done_items -= open.items.end - open.items.start;
        }
    }

    /// The accumulator of a VM has arrived. Returns `false` if it must not be used.
    pub(crate) fn collected(&mut self, vm: VmIndex) -> bool {
        let accepted = self.scheduler.handle_collected(vm);
        for chunk in accepted.iter().flatten() {
            self.open.remove(chunk);
        }
        accepted.is_some()
    }

    fn note_death(&mut self, vm: VmIndex, why: String) {
        if !self.deaths.contains_key(&vm.0) {
            let name = self.vm(vm).name().to_owned();
            tracing::warn!("VM {name} is lost, its work goes to others: {why}");
            self.deaths.insert(vm.0, Death { vm: name, why });
        }
    }

    fn report(&mut self) {
        if self.on_progress.is_none() {
            return;
        }
        let progress = Progress {
            done_items: self.done_items,
            total_items: self.total_items,
            vms: self.scheduler.alive(),
            lost: self.deaths.len(),
            elapsed: self.now() - self.started,
        };
        if let Some(callback) = &mut self.on_progress {
            callback(progress);
        }
    }

    fn defeat(&self, defeat: Defeat) -> TrickleError {
        let how = |vms: Vec<VmIndex>| vms.iter().filter_map(|vm| self.deaths.get(&vm.0)).cloned().collect();
        match defeat {
            Defeat::Deadly { chunk, deaths } => {
                TrickleError::Deadly { items: Items(self.open[&chunk].items.clone()), deaths: how(deaths) }
            }
            Defeat::NoVmLeft { deaths } => TrickleError::NoVmLeft { deaths: how(deaths) },
        }
    }
}

impl<I: Iterator, R> Drop for Farm<'_, I, R> {
    /// Cancels the calls that are no longer wanted, so that they do not begin if it is not too late.
    fn drop(&mut self) {
        for running in self.running.values() {
            running.pending.cancel();
        }
    }
}
