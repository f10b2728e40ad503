//! Who works on what: the state machine under every farm.
//!
//! It knows numbers of chunks and VMs only: no messages, no values, no clock. Events are told by `handle_*`;
//! [`Scheduler::poll`] says what to do next until it says `Wait`. Two promises are kept whatever the order of events:
//!
//! * every chunk is accepted exactly once: what was on a VM that died goes to another, and what that VM may still
//!   have said is ignored;
//! * it ends: with `Done`, or with a [`Defeat`] that says which deaths were too many.
//!
//! Every VM has up to [`PREFETCH`] chunks outstanding, so that it has the next one when it finishes one. It works in
//! order of arrival, so of the chunks of a VM that dies only the first is suspected of having killed it.
//!
//! A farm is *direct* (a finished chunk is accepted at once) or *held*: results stay on the VM, accumulated, and
//! the chunks are accepted together when the accumulated result has been collected.

use std::collections::{HashMap, VecDeque};

/// Chunks outstanding per VM: one that is worked on, and one so that the VM need not wait for a round trip.
pub(crate) const PREFETCH: usize = 2;
/// VMs that may die of the same chunk before it is given up.
pub(crate) const ATTEMPTS: usize = 3;

/// Counts chunks in the order in which they were pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ChunkId(pub(crate) u64);

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
    /// Send a chunk to a VM.
    Issue { chunk: ChunkId, vm: VmIndex },
    /// Fetch what a VM has accumulated; answer with `handle_collected`.
    Collect { vm: VmIndex },
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
    /// The deaths of which each chunk that is not accepted is suspected.
    open: HashMap<ChunkId, Vec<VmIndex>>,
    /// Chunks that no VM has, to be issued before new ones are pulled.
    ready: VecDeque<ChunkId>,
    pulled: u64,
    exhausted: bool,
    deaths: Vec<VmIndex>,
    deadly: Option<ChunkId>,
}

#[derive(Debug, Default)]
struct Vm {
    dead: bool,
    /// Issued and not finished, oldest first.
    outstanding: VecDeque<ChunkId>,
    /// Finished but not collected.
    held: Vec<ChunkId>,
    collecting: bool,
}

impl Vm {
    fn is_free(&self) -> bool {
        !self.dead && !self.collecting && self.outstanding.len() < PREFETCH
    }
}

impl Scheduler {
    pub(crate) fn new(mode: Mode) -> Self {
        let (open, ready) = (HashMap::new(), VecDeque::new());
        let (pulled, exhausted, deadly) = (0, false, None);
        Self { mode, vms: Vec::new(), open, ready, pulled, exhausted, deaths: Vec::new(), deadly }
    }

    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// How many VMs are alive.
    pub(crate) fn alive(&self) -> usize {
        self.vms.len() - self.deaths.len()
    }

    /// What to do next.
    pub(crate) fn poll(&mut self) -> Action {
        if let Some(chunk) = self.deadly {
            return Action::GiveUp(Defeat::Deadly { chunk, deaths: self.open[&chunk].clone() });
        }
        let free = self.vms.iter().enumerate().filter(|(_, vm)| vm.is_free());
        let free = free.min_by_key(|(_, vm)| vm.outstanding.len()).map(|(index, _)| VmIndex(index));
        if let Some(vm) = free
            && let Some(chunk) = self.ready.pop_front()
        {
            self.vms[vm.0].outstanding.push_back(chunk);
            return Action::Issue { chunk, vm };
        }
        let nobody = self.alive() == 0;
        if !self.exhausted && self.ready.is_empty() && (free.is_some() || nobody) {
            // With nobody left, this finds out whether there was any work left for them.
            return Action::Pull;
        }
        if nobody && !self.ready.is_empty() {
            return Action::GiveUp(Defeat::NoVmLeft { deaths: self.deaths.clone() });
        }
        if self.exhausted && self.ready.is_empty() {
            if self.open.is_empty() {
                return Action::Done;
            }
            let idle = |vm: &Vm| vm.outstanding.is_empty() && !vm.held.is_empty() && !vm.collecting;
            if let Some(index) = self.vms.iter().position(idle) {
                self.vms[index].collecting = true;
                return Action::Collect { vm: VmIndex(index) };
            }
        }
        Action::Wait
    }

    /// A VM is there to work.
    pub(crate) fn handle_joined(&mut self) -> VmIndex {
        self.vms.push(Vm::default());
        VmIndex(self.vms.len() - 1)
    }

    /// The work had another chunk; its number.
    pub(crate) fn handle_pulled(&mut self) -> ChunkId {
        let chunk = ChunkId(self.pulled);
        self.pulled += 1;
        self.open.insert(chunk, Vec::new());
        self.ready.push_back(chunk);
        chunk
    }

    /// The work had no more.
    pub(crate) fn handle_exhausted(&mut self) {
        self.exhausted = true;
    }

    /// A VM has finished a chunk, well or not. False: this is not its business any more, ignore what it says.
    pub(crate) fn handle_finished(&mut self, vm: VmIndex, chunk: ChunkId) -> bool {
        let state = &mut self.vms[vm.0];
        let Some(at) = state.outstanding.iter().position(|c| *c == chunk) else { return false };
        state.outstanding.remove(at);
        match self.mode {
            Mode::Direct => {
                self.open.remove(&chunk);
            }
            Mode::Held => state.held.push(chunk),
        }
        true
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

    /// A VM did not take a chunk, because it is gone.
    pub(crate) fn handle_refused(&mut self, vm: VmIndex, chunk: ChunkId) {
        // It was never there, so it is not suspected.
        let outstanding = &mut self.vms[vm.0].outstanding;
        if let Some(at) = outstanding.iter().position(|c| *c == chunk) {
            outstanding.remove(at);
            self.ready.push_front(chunk);
        }
        self.handle_down(vm);
    }

    /// A VM is gone. Returns the finished chunks that are lost with it.
    pub(crate) fn handle_down(&mut self, vm: VmIndex) -> Vec<ChunkId> {
        let state = &mut self.vms[vm.0];
        if state.dead {
            return Vec::new();
        }
        state.dead = true;
        state.collecting = false;
        self.deaths.push(vm);
        let lost = std::mem::take(&mut state.held);
        let outstanding = std::mem::take(&mut state.outstanding);
        if let Some(suspect) = outstanding.front()
            && let Some(deaths) = self.open.get_mut(suspect)
        {
            deaths.push(vm);
            if deaths.len() == ATTEMPTS {
                self.deadly = Some(*suspect);
            }
        }
        self.ready.extend(outstanding);
        self.ready.extend(&lost);
        lost
    }
}

#[cfg(test)]
mod tests;
