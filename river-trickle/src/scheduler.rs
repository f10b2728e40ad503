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
//!
//! * `poll`: what to do next
//! * `events`: what has happened, as long as all goes well
//! * `recovery`: what has gone wrong

mod events;
mod poll;
mod recovery;

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

    /// It does not have a batch of so many chunks any more.
    fn lays_down(&mut self, batch: BatchId, chunks: usize) {
        self.outstanding -= chunks;
        self.batches.retain(|other| *other != batch);
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

    /// Whether a VM has yet to answer what was taken from it.
    pub(crate) fn owes(&self, vm: VmIndex) -> bool {
        self.vms[vm.0].stale > 0
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
}

#[cfg(test)]
mod tests;
