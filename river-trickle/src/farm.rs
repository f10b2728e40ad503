//! What every farm does: pulls work, has it called where the scheduler says, and tells the scheduler what happened.

use std::collections::HashMap;
use std::ops::Range;

use river_core::Vr;
use river_rai::{CallError, Completions, Packed, Pending, RemoteSend, Ticket};

use crate::chunk::Chunk;
use crate::error::{Death, Items, TrickleError};
use crate::progress::Progress;
use crate::scheduler::{Action, ChunkId, Defeat, Mode, Scheduler, VmIndex};
use crate::vm::Vm;

/// A farm over the items of `I`. `R` is what a VM replies for a chunk.
pub(crate) struct Farm<'a, I: Iterator, R> {
    scheduler: Scheduler,
    vms: Vec<Vm<'a>>,
    work: I,
    size: usize,
    next_item: u64,
    total_items: Option<u64>,
    done_items: u64,
    /// Chunks that are not accepted. Their arguments are kept encoded, so the items need not be `Clone`.
    open: HashMap<ChunkId, Open<I::Item>>,
    running: HashMap<Ticket, Running<'a, R>>,
    completions: Completions<'a>,
    deaths: HashMap<usize, Death>,
    on_progress: Option<Box<dyn FnMut(Progress) + 'a>>,
}

struct Open<T> {
    items: Range<u64>,
    args: Packed<(Vec<T>,)>,
}

struct Running<'a, R> {
    chunk: ChunkId,
    vm: VmIndex,
    pending: Pending<'a, R>,
}

/// What is left to do for who drives the farm when everything that can be issued is issued.
pub(crate) enum Next {
    /// Wait for an event.
    Wait,
    /// Collect what the VM has accumulated.
    Collect(VmIndex),
    /// Everything has been accepted.
    Done,
}

/// What has happened.
pub(crate) enum Event<R> {
    /// A chunk is finished.
    Finished { items: Range<u64>, vm: VmIndex, result: Result<R, CallError> },
    /// A call was answered that the driver has made by itself.
    Other(Ticket),
    /// Nothing that concerns the driver.
    Nothing,
}

/// Calls the function on a VM with a chunk.
pub(crate) type Issue<'f, 'a, T, R> =
    &'f mut dyn FnMut(&Vm<'a>, VmIndex, &Packed<(Vec<T>,)>) -> Result<Pending<'a, R>, CallError>;

impl<'a, I, R> Farm<'a, I, R>
where
    I: Iterator,
    I::Item: RemoteSend,
    R: RemoteSend,
{
    pub(crate) fn new(
        vr: &'a Vr,
        vms: &[Vm<'a>],
        mode: Mode,
        work: I,
        chunk: Chunk,
    ) -> Result<Self, TrickleError> {
        let Chunk::Fixed(size) = chunk;
        if size == 0 {
            return Err(TrickleError::ChunkZero);
        }
        let mut scheduler = Scheduler::new(mode);
        for _ in vms {
            scheduler.handle_joined();
        }
        let (least, most) = work.size_hint();
        Ok(Self {
            scheduler,
            vms: vms.to_vec(),
            work,
            size,
            next_item: 0,
            total_items: most.filter(|most| *most == least).map(|items| items as u64),
            done_items: 0,
            open: HashMap::new(),
            running: HashMap::new(),
            completions: Completions::new(vr),
            deaths: HashMap::new(),
            on_progress: None,
        })
    }

    pub(crate) fn on_progress(&mut self, callback: impl FnMut(Progress) + 'a) {
        self.on_progress = Some(Box::new(callback));
    }

    pub(crate) fn vm(&self, vm: VmIndex) -> &Vm<'a> {
        &self.vms[vm.0]
    }

    /// Issues everything that can be issued now.
    pub(crate) fn advance(&mut self, issue: Issue<'_, 'a, I::Item, R>) -> Result<Next, TrickleError> {
        loop {
            match self.scheduler.poll() {
                Action::Pull => self.pull()?,
                Action::Issue { chunk, vm } => {
                    let open = &self.open[&chunk];
                    match issue(&self.vms[vm.0], vm, &open.args) {
                        Ok(pending) => {
                            self.completions.add(&pending);
                            self.running.insert(pending.ticket(), Running { chunk, vm, pending });
                        }
                        Err(CallError::Down(down)) => {
                            self.note_death(vm, down.why.cause());
                            self.scheduler.handle_refused(vm, chunk);
                            self.report();
                        }
                        Err(CallError::Stopped) => return Err(TrickleError::Stopped),
                        Err(error) => {
                            let (items, vm) = (Items(open.items.clone()), self.vm(vm).name().to_owned());
                            return Err(TrickleError::Items { items, vm, error: error.into() });
                        }
                    }
                }
                Action::Collect { vm } => return Ok(Next::Collect(vm)),
                Action::Wait => return Ok(Next::Wait),
                Action::Done => return Ok(Next::Done),
                Action::GiveUp(defeat) => return Err(self.defeat(defeat)),
            }
        }
    }

    /// Waits for something to happen and tells the scheduler.
    pub(crate) fn wait(&mut self) -> Result<Event<R>, TrickleError> {
        let Some(ticket) = self.completions.next().map_err(|error| TrickleError::waiting(&error))? else {
            // Cannot be: the scheduler waits only while something is outstanding.
            return Err(TrickleError::Stopped);
        };
        let Some(Running { chunk, vm, pending }) = self.running.remove(&ticket) else {
            return Ok(Event::Other(ticket));
        };
        let result = match pending.wait() {
            Err(CallError::Down(down)) => {
                self.lost(vm, down.why.cause());
                return Ok(Event::Nothing);
            }
            Err(CallError::Stopped) => return Err(TrickleError::Stopped),
            result => result,
        };
        if !self.scheduler.handle_finished(vm, chunk) {
            return Ok(Event::Nothing);
        }
        let items = self.open[&chunk].items.clone();
        self.done_items += items.end - items.start;
        if self.scheduler.mode() == Mode::Direct {
            self.open.remove(&chunk);
        }
        self.report();
        Ok(Event::Finished { items, vm, result })
    }

    /// A VM is gone, and with it what it has accumulated.
    pub(crate) fn lost(&mut self, vm: VmIndex, why: String) {
        self.note_death(vm, why);
        for chunk in self.scheduler.handle_down(vm) {
            let items = &self.open[&chunk].items;
            self.done_items -= items.end - items.start;
        }
        self.report();
    }

    /// What a VM has accumulated is here. False: it is not to be used.
    pub(crate) fn collected(&mut self, vm: VmIndex) -> bool {
        let accepted = self.scheduler.handle_collected(vm);
        for chunk in accepted.iter().flatten() {
            self.open.remove(chunk);
        }
        accepted.is_some()
    }

    /// Has the completions name a call that the driver makes by itself.
    pub(crate) fn also_wait_for<X>(&mut self, pending: &Pending<'a, X>) {
        self.completions.add(pending);
    }

    fn pull(&mut self) -> Result<(), TrickleError> {
        let items: Vec<I::Item> = self.work.by_ref().take(self.size).collect();
        if items.is_empty() {
            self.scheduler.handle_exhausted();
            return Ok(());
        }
        let start = self.next_item;
        self.next_item += items.len() as u64;
        let items_numbers = start..self.next_item;
        match Packed::new((items,)) {
            Ok(args) => {
                let chunk = self.scheduler.handle_pulled();
                self.open.insert(chunk, Open { items: items_numbers, args });
                Ok(())
            }
            Err(error) => {
                let (items, vm) =
                    (Items(items_numbers), self.vms.first().map_or("none", Vm::name).to_owned());
                Err(TrickleError::Items { items, vm, error: error.into() })
            }
        }
    }

    fn note_death(&mut self, vm: VmIndex, why: String) {
        if !self.deaths.contains_key(&vm.0) {
            let name = self.vm(vm).name().to_owned();
            tracing::warn!("VM {name} is lost, its work goes to others: {why}");
            self.deaths.insert(vm.0, Death { vm: name, why });
        }
    }

    fn report(&mut self) {
        let progress = Progress {
            done_items: self.done_items,
            total_items: self.total_items,
            vms: self.scheduler.alive(),
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
