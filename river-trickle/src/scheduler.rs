//! Who works on what: the state machine under every farm.
//!
//! It knows numbers of chunks and VMs only: no messages, no values, no clock. Events are told by `handle_*`;
//! [`Scheduler::poll`] says what to do next until it says `Wait`. Two promises are kept whatever the order of events:
//!
//! * every chunk is accepted exactly once: what was on a VM that died goes to another, and what that VM, or a copy
//!   that was slower, may still say is ignored;
//! * it ends: with `Done`, or with a [`Defeat`] that says which deaths were too many.
//!
//! Every VM has up to a *window* of chunks outstanding, so that it has the next one when it finishes one. If chunks are
//! so small that a message costs more than the work, the window is made larger, and half a window travels as one
//! *batch*. A VM works in order of arrival, so when it dies only its first batch is suspected of having killed it. If that
//! was more than one chunk, each of them travels alone from then on, and the next death tells which one it is.
//!
//! A farm is *direct* (a finished chunk is accepted at once) or *held*: results stay on the VM, accumulated, and
//! the chunks are accepted together when the accumulated result has been collected.

use std::collections::{HashMap, VecDeque};

/// Chunks outstanding per VM at least: one that is worked on, and one so that the VM need not wait for a round trip.
pub(crate) const PREFETCH: usize = 2;
/// VMs that may die of the same chunk before it is given up.
pub(crate) const ATTEMPTS: usize = 3;

/// Counts chunks in the order in which they were pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ChunkId(pub(crate) u64);

/// Counts batches in the order in which they were issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct BatchId(pub(crate) u64);

/// Counts VMs in the order in which they joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct VmIndex(pub(crate) usize);

/// Where results stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Direct,
    Held,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Cut a chunk off the work; answer with `handle_pulled` or `handle_exhausted`.
    Pull,
    /// Send chunks to a VM, in one message.
    Issue { batch: BatchId, chunks: Vec<ChunkId>, vm: VmIndex },
    /// Fetch what a VM has accumulated; answer with `handle_collected`.
    Collect { vm: VmIndex },
    /// Give back a VM that was to leave and has nothing left to do.
    Release { vm: VmIndex },
    /// Nothing until the next event.
    Wait,
    /// Every chunk has been accepted.
    Done,
    /// There is no way to go on.
    GiveUp(Defeat),
}

/// Why there is no way to go on. Deaths are VMs in the order in which they died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Defeat {
    Deadly { chunk: ChunkId, deaths: Vec<VmIndex> },
    NoVmLeft { deaths: Vec<VmIndex> },
}

#[derive(Debug)]
pub(crate) struct Scheduler {
    mode: Mode,
    vms: Vec<Vm>,
    /// Chunks that are not accepted.
    open: HashMap<ChunkId, Open>,
    batches: HashMap<BatchId, Batch>,
    /// Chunks that no VM has, to be issued before new ones are pulled.
    ready: VecDeque<ChunkId>,
    pulled: u64,
    issued: u64,
    exhausted: bool,
    deaths: Vec<VmIndex>,
    deadly: Option<ChunkId>,
    window: usize,
    /// Deaths after which a chunk is given up.
    attempts: usize,
    /// VMs may still come, so having none is no defeat.
    may_join: bool,
}

#[derive(Debug, Default)]
struct Open {
    /// The deaths of which it is suspected.
    deaths: Vec<VmIndex>,
    /// How many VMs have it.
    copies: usize,
    /// It may be deadly, or never end, so it does not share a batch, and is not copied.
    alone: bool,
}

#[derive(Debug)]
struct Batch {
    vm: VmIndex,
    chunks: Vec<ChunkId>,
    /// Its chunks have been given to others; only its answer is still expected.
    stale: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Life {
    #[default]
    Working,
    /// Finishes what it has and leaves.
    Leaving,
    Gone,
}

#[derive(Debug, Default)]
struct Vm {
    life: Life,
    /// Issued and not finished, oldest first.
    batches: VecDeque<BatchId>,
    /// How many chunks they are.
    outstanding: usize,
    /// Answers that come too late to be of use, and that have not come.
    stale: usize,
    /// It has not been heard of for long: others may do its work as well.
    slow: bool,
    /// Finished but not collected.
    held: Vec<ChunkId>,
    collecting: bool,
}

impl Vm {
    fn is_free(&self, window: usize, batch: usize) -> bool {
        self.life == Life::Working
            && !self.collecting
            && !self.slow
            && self.stale == 0
            && self.outstanding + batch <= window
    }
}

impl Scheduler {
    pub(crate) fn new(mode: Mode) -> Self {
        Self {
            mode,
            vms: Vec::new(),
            open: HashMap::new(),
            batches: HashMap::new(),
            ready: VecDeque::new(),
            pulled: 0,
            issued: 0,
            exhausted: false,
            deaths: Vec::new(),
            deadly: None,
            window: PREFETCH,
            attempts: ATTEMPTS,
            may_join: false,
        }
    }

    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// How many VMs are there.
    pub(crate) fn alive(&self) -> usize {
        self.vms.iter().filter(|vm| vm.life != Life::Gone).count()
    }

    /// How many VMs take work.
    pub(crate) fn working(&self) -> usize {
        self.vms.iter().filter(|vm| vm.life == Life::Working).count()
    }

    pub(crate) fn is_gone(&self, vm: VmIndex) -> bool {
        self.vms[vm.0].life == Life::Gone
    }

    /// The batch that a VM works on.
    pub(crate) fn first_batch(&self, vm: VmIndex) -> Option<BatchId> {
        self.vms[vm.0].batches.front().copied()
    }

    /// Whether all work has been pulled and none of it waits for a VM.
    pub(crate) fn is_tail(&self) -> bool {
        self.exhausted && self.ready.is_empty()
    }

    /// Sets how many chunks a VM has outstanding, at least [`PREFETCH`].
    pub(crate) fn set_window(&mut self, window: usize) {
        self.window = window.max(PREFETCH);
    }

    pub(crate) fn set_attempts(&mut self, attempts: usize) {
        self.attempts = attempts.max(1);
    }

    pub(crate) fn set_may_join(&mut self, may_join: bool) {
        self.may_join = may_join;
    }

    // ---- what to do ----

    /// What to do next.
    pub(crate) fn poll(&mut self) -> Action {
        if let Some(chunk) = self.deadly {
            return Action::GiveUp(Defeat::Deadly { chunk, deaths: self.open[&chunk].deaths.clone() });
        }
        if self.is_tail() && self.open.is_empty() {
            return Action::Done;
        }
        if let Some(action) = self.let_go() {
            return action;
        }
        let size = (self.window / 2).max(1);
        let free = self.vms.iter().enumerate().filter(|(_, vm)| vm.is_free(self.window, size));
        let free = free.min_by_key(|(_, vm)| vm.outstanding).map(|(index, _)| VmIndex(index));
        if let Some(vm) = free {
            let alone = self.ready.front().is_some_and(|chunk| self.open[chunk].alone);
            if !self.exhausted && !alone && self.ready.len() < size {
                return Action::Pull;
            }
            let chunks = if self.ready.is_empty() { self.copies(vm, size) } else { self.take_ready(size) };
            if !chunks.is_empty() {
                return self.issue(vm, chunks);
            }
        }
        if self.alive() == 0 {
            if !self.exhausted && self.ready.is_empty() {
                // This finds out whether there is any work left for which somebody would be needed.
                return Action::Pull;
            }
            if !self.may_join {
                return Action::GiveUp(Defeat::NoVmLeft { deaths: self.deaths.clone() });
            }
        }
        if self.is_tail() {
            let idle = |vm: &Vm| vm.batches.is_empty() && !vm.held.is_empty() && !vm.collecting;
            if let Some(index) = self.vms.iter().position(idle) {
                self.vms[index].collecting = true;
                return Action::Collect { vm: VmIndex(index) };
            }
        }
        Action::Wait
    }

    /// The next step of a VM that leaves and has finished its batches.
    fn let_go(&mut self) -> Option<Action> {
        let leaves = |vm: &Vm| vm.life == Life::Leaving && vm.batches.is_empty() && !vm.collecting;
        let index = self.vms.iter().position(leaves)?;
        let vm = &mut self.vms[index];
        if vm.held.is_empty() {
            vm.life = Life::Gone;
            Some(Action::Release { vm: VmIndex(index) })
        } else {
            vm.collecting = true;
            Some(Action::Collect { vm: VmIndex(index) })
        }
    }

    fn take_ready(&mut self, size: usize) -> Vec<ChunkId> {
        let mut chunks = Vec::with_capacity(size.min(self.ready.len()));
        while chunks.len() < size
            && let Some(chunk) = self.ready.front()
        {
            let alone = self.open[chunk].alone;
            if alone && !chunks.is_empty() {
                break;
            }
            chunks.extend(self.ready.pop_front());
            if alone {
                break;
            }
        }
        chunks
    }

    /// Chunks of slow VMs that `vm` may do as well, now that there is nothing else for it.
    fn copies(&self, vm: VmIndex, size: usize) -> Vec<ChunkId> {
        if self.mode == Mode::Held || self.vms[vm.0].outstanding > 0 {
            return Vec::new();
        }
        let slow = self.vms.iter().filter(|vm| vm.slow && vm.life != Life::Gone);
        let batches = slow.flat_map(|vm| &vm.batches).map(|batch| &self.batches[batch]);
        let chunks = batches.filter(|batch| !batch.stale).flat_map(|batch| &batch.chunks);
        let single =
            chunks.filter(|chunk| self.open.get(chunk).is_some_and(|open| open.copies == 1 && !open.alone));
        single.take(size).copied().collect()
    }

    fn issue(&mut self, vm: VmIndex, chunks: Vec<ChunkId>) -> Action {
        let batch = BatchId(self.issued);
        self.issued += 1;
        for chunk in &chunks {
            if let Some(open) = self.open.get_mut(chunk) {
                open.copies += 1;
            }
        }
        let state = &mut self.vms[vm.0];
        state.batches.push_back(batch);
        state.outstanding += chunks.len();
        self.batches.insert(batch, Batch { vm, chunks: chunks.clone(), stale: false });
        Action::Issue { batch, chunks, vm }
    }

    // ---- what has happened ----

    /// A VM is there to work.
    pub(crate) fn handle_joined(&mut self) -> VmIndex {
        self.vms.push(Vm::default());
        VmIndex(self.vms.len() - 1)
    }

    /// The work had another chunk; its number.
    pub(crate) fn handle_pulled(&mut self) -> ChunkId {
        let chunk = self.new_chunk();
        self.ready.push_back(chunk);
        chunk
    }

    /// Something has to be done again; the number of the chunk that it becomes.
    pub(crate) fn handle_again(&mut self) -> ChunkId {
        let chunk = self.new_chunk();
        self.ready.push_front(chunk);
        chunk
    }

    fn new_chunk(&mut self) -> ChunkId {
        let chunk = ChunkId(self.pulled);
        self.pulled += 1;
        self.open.insert(chunk, Open::default());
        chunk
    }

    /// The work had no more.
    pub(crate) fn handle_exhausted(&mut self) {
        self.exhausted = true;
    }

    /// A VM has answered a batch, well or not: the chunks whose results are to be used. Ignore the others.
    pub(crate) fn handle_finished(&mut self, batch: BatchId) -> Vec<ChunkId> {
        let Some(Batch { vm, chunks, stale }) = self.batches.remove(&batch) else { return Vec::new() };
        let state = &mut self.vms[vm.0];
        if stale {
            state.stale -= 1;
            return Vec::new();
        }
        state.slow = false;
        state.outstanding -= chunks.len();
        state.batches.retain(|other| *other != batch);
        match self.mode {
            Mode::Direct => chunks.into_iter().filter(|chunk| self.open.remove(chunk).is_some()).collect(),
            Mode::Held => {
                state.held.extend(&chunks);
                chunks
            }
        }
    }

    /// What a VM had accumulated is here: the chunks that this accepts, or `None` if it is to be ignored.
    pub(crate) fn handle_collected(&mut self, vm: VmIndex) -> Option<Vec<ChunkId>> {
        let state = &mut self.vms[vm.0];
        if !state.collecting {
            return None;
        }
        state.collecting = false;
        let accepted = std::mem::take(&mut state.held);
        for chunk in &accepted {
            self.open.remove(chunk);
        }
        Some(accepted)
    }

    /// A VM did not take a batch, because it is gone. Returns the finished chunks that are lost with it.
    pub(crate) fn handle_refused(&mut self, batch: BatchId) -> Vec<ChunkId> {
        let Some(Batch { vm, chunks, .. }) = self.batches.remove(&batch) else { return Vec::new() };
        // They were never there, so they are not suspected.
        let state = &mut self.vms[vm.0];
        state.outstanding -= chunks.len();
        state.batches.retain(|other| *other != batch);
        for chunk in chunks.into_iter().rev() {
            self.give_back(chunk, true);
        }
        self.handle_down(vm)
    }

    /// A VM is gone. Returns the finished chunks that are lost with it.
    pub(crate) fn handle_down(&mut self, vm: VmIndex) -> Vec<ChunkId> {
        let state = &mut self.vms[vm.0];
        if state.life == Life::Gone {
            return Vec::new();
        }
        state.life = Life::Gone;
        (state.collecting, state.slow) = (false, false);
        state.outstanding = 0;
        self.deaths.push(vm);
        let lost = std::mem::take(&mut state.held);
        let batches = std::mem::take(&mut state.batches);
        self.suspect(vm, batches.front().copied());
        for chunk in self.take_batches(batches) {
            self.give_back(chunk, false);
        }
        self.batches.retain(|_, batch| batch.vm != vm);
        for chunk in &lost {
            if let Some(open) = self.open.get_mut(chunk) {
                open.copies = 1;
            }
            self.give_back(*chunk, false);
        }
        lost
    }

    /// A VM has not been heard of for long.
    pub(crate) fn handle_slow(&mut self, vm: VmIndex) {
        let state = &mut self.vms[vm.0];
        state.slow = state.outstanding > 0;
    }

    /// A VM is to leave when it has finished what it has.
    pub(crate) fn handle_leaving(&mut self, vm: VmIndex) {
        let state = &mut self.vms[vm.0];
        if state.life == Life::Working {
            state.life = Life::Leaving;
        }
    }

    /// The first batch of a VM takes longer than it may. Its chunks, unless another VM has them too, are closed, and
    /// returned; the rest of what the VM has goes to others, and it gets nothing before it has answered everything.
    pub(crate) fn handle_overdue(&mut self, vm: VmIndex) -> Vec<ChunkId> {
        let batches = std::mem::take(&mut self.vms[vm.0].batches);
        self.vms[vm.0].stale += batches.len();
        self.vms[vm.0].outstanding = 0;
        self.vms[vm.0].slow = false;
        let first =
            batches.front().and_then(|batch| self.batches.get(batch)).map_or(0, |batch| batch.chunks.len());
        let mut closed = Vec::new();
        for (index, chunk) in self.take_batches(batches).into_iter().enumerate() {
            if index >= first {
                self.give_back(chunk, false);
            } else if let Some(open) = self.open.get_mut(&chunk) {
                open.copies -= 1;
                // With a new copy whenever the time of one is over, one that never ends would always have one left.
                open.alone = true;
                if open.copies == 0 {
                    self.open.remove(&chunk);
                    closed.push(chunk);
                }
            }
        }
        closed
    }

    /// What a VM accumulates is not to be used: all of it goes to others, and so does what the VM still has. It gets nothing
    /// before it has answered everything. Returns the finished chunks that are lost with it.
    pub(crate) fn handle_spoiled(&mut self, vm: VmIndex) -> Vec<ChunkId> {
        let state = &mut self.vms[vm.0];
        let (batches, lost) = (std::mem::take(&mut state.batches), std::mem::take(&mut state.held));
        state.stale += batches.len();
        state.outstanding = 0;
        (state.collecting, state.slow) = (false, false);
        for chunk in self.take_batches(batches) {
            self.give_back(chunk, false);
        }
        for chunk in &lost {
            self.give_back(*chunk, false);
        }
        lost
    }

    /// A chunk has failed, perhaps: it travels alone from now on.
    pub(crate) fn handle_suspicious(&mut self, chunk: ChunkId) {
        if let Some(open) = self.open.get_mut(&chunk) {
            open.alone = true;
        }
    }

    /// Takes the chunks out of batches, which are stale from then on.
    fn take_batches(&mut self, batches: VecDeque<BatchId>) -> Vec<ChunkId> {
        let mut chunks = Vec::new();
        for batch in batches {
            if let Some(batch) = self.batches.get_mut(&batch) {
                batch.stale = true;
                chunks.append(&mut batch.chunks);
            }
        }
        chunks
    }

    /// Notes what a VM may have died of.
    fn suspect(&mut self, vm: VmIndex, batch: Option<BatchId>) {
        let Some(batch) = batch.and_then(|batch| self.batches.get(&batch)) else { return };
        let exact = batch.chunks.len() == 1;
        for chunk in &batch.chunks {
            let Some(open) = self.open.get_mut(chunk) else { continue };
            open.alone = true;
            if exact {
                open.deaths.push(vm);
                if open.deaths.len() >= self.attempts {
                    self.deadly = Some(*chunk);
                }
            }
        }
    }

    /// A VM does not have a chunk any more. If no other has, it waits for one.
    fn give_back(&mut self, chunk: ChunkId, first: bool) {
        let Some(open) = self.open.get_mut(&chunk) else { return };
        open.copies = open.copies.saturating_sub(1);
        if open.copies == 0 {
            if first { self.ready.push_front(chunk) } else { self.ready.push_back(chunk) }
        }
    }
}

#[cfg(test)]
mod tests;
