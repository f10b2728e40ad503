//! Which VM works on what: the state machine under every farm.
//!
//! It only knows the numbers of chunks and VMs: no messages, no values, no clock. Events are reported by `handle_*`;
//! [`Scheduler::poll`] returns what to do next, until it returns `Wait`. It keeps two guarantees, whatever the order of
//! events:
//!
//! * every chunk is accepted exactly once: the chunks of a VM that died go to others, and late results, from that VM or
//!   from a slower copy, are ignored;
//! * it terminates: with `Done`, or with a [`Defeat`] that names the fatal deaths.
//!
//! Every VM has up to a *window* of chunks outstanding, so that it has the next one when it finishes one. If chunks are
//! so small that a message costs more than the work, the window grows, and half a window is sent as one *batch*. A VM
//! works in order of arrival, so when it dies only its first batch is suspected of having killed it. If that was more
//! than one chunk, each of them is sent alone from then on, and the next death shows which one it is.
//!
//! A farm is *direct* (a finished chunk is accepted at once) or *held*: results accumulate on the VM, and the chunks
//! are accepted together when the accumulated result has been collected. In the tail, when no work is left to be
//! issued, idle VMs help slow ones. In a direct farm they run copies of their chunks. In a held farm a copy would be
//! counted twice; there, batches that a slow VM has not begun are recalled, and issued again when it has confirmed that.
//!
//! * `poll`: decides what to do next
//! * `events`: events of the normal case
//! * `recovery`: failures

mod events;
mod poll;
mod recovery;

use std::collections::{HashMap, VecDeque};

/// The minimum number of chunks outstanding per VM: one that is worked on, and one that hides the round trip.
pub(crate) const PREFETCH: usize = 2;
/// How many VMs may die of the same chunk before it is given up.
pub(crate) const ATTEMPTS: usize = 3;

/// Identifies a chunk; numbered in the order in which they were pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ChunkId(pub(crate) u64);

/// Identifies a batch; numbered in the order in which they were issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct BatchId(pub(crate) u64);

/// Identifies a VM; numbered in the order in which they joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct VmIndex(pub(crate) usize);

/// What happens to results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Direct,
    Held,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Pull a chunk from the work; answer with `handle_pulled` or `handle_exhausted`.
    Pull,
    /// Send chunks to a VM, in one message.
    Issue { batch: BatchId, chunks: Vec<ChunkId>, vm: VmIndex },
    /// Ask that these batches not be begun; answer with `handle_not_begun` or `handle_finished`.
    Recall { batches: Vec<BatchId> },
    /// Fetch what a VM has accumulated; answer with `handle_collected`.
    Collect { vm: VmIndex },
    /// Give back a VM that was leaving and has nothing left to do.
    Release { vm: VmIndex },
    /// Nothing until the next event.
    Wait,
    /// Every chunk has been accepted.
    Done,
    /// The farm cannot go on.
    GiveUp(Defeat),
}

/// Why the farm cannot go on. Deaths are VMs in the order in which they died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Defeat {
    Deadly { chunk: ChunkId, deaths: Vec<VmIndex> },
    NoVmLeft { deaths: Vec<VmIndex> },
}

#[derive(Debug)]
pub(crate) struct Scheduler {
    mode: Mode,
    vms: Vec<Vm>,
    /// Chunks that are not accepted yet.
    open: HashMap<ChunkId, Open>,
    batches: HashMap<BatchId, Batch>,
    /// Chunks that no VM has; they are issued before new ones are pulled.
    ready: VecDeque<ChunkId>,
    pulled: u64,
    issued: u64,
    exhausted: bool,
    deaths: Vec<VmIndex>,
    deadly: Option<ChunkId>,
    window: usize,
    /// The number of deaths after which a chunk is given up.
    attempts: usize,
    /// Whether VMs may still join, so that having none is not a defeat.
    may_join: bool,
}

#[derive(Debug, Default)]
struct Open {
    /// The deaths that it is suspected of.
    deaths: Vec<VmIndex>,
    /// How many VMs have it.
    copies: usize,
    /// Whether it may be deadly, or never end, so that it must not share a batch nor be copied.
    alone: bool,
}

#[derive(Debug)]
struct Batch {
    vm: VmIndex,
    chunks: Vec<ChunkId>,
    /// Its chunks have been given to others; only its answer is still expected.
    stale: bool,
    /// The VM was asked not to begin it.
    recalled: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Life {
    #[default]
    Working,
    /// Finishes its batches and leaves.
    Leaving,
    Gone,
}

#[derive(Debug, Default)]
struct Vm {
    life: Life,
    /// Batches that were issued and are not finished, oldest first.
    batches: VecDeque<BatchId>,
    /// The number of their chunks.
    outstanding: usize,
    /// The number of answers that are still expected but will be ignored.
    stale: usize,
    /// It has been silent for long: others may run its chunks as well.
    slow: bool,
    /// It was slow, and others do what it had not begun: it gets more work only if no other VM is free.
    lags: bool,
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

    /// Removes a batch of this many chunks.
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

    /// The number of VMs that are not gone.
    pub(crate) fn alive(&self) -> usize {
        self.vms.iter().filter(|vm| vm.life != Life::Gone).count()
    }

    /// The number of VMs that take work.
    pub(crate) fn working(&self) -> usize {
        self.vms.iter().filter(|vm| vm.life == Life::Working).count()
    }

    pub(crate) fn is_gone(&self, vm: VmIndex) -> bool {
        self.vms[vm.0].life == Life::Gone
    }

    /// The batch that a VM is working on.
    pub(crate) fn first_batch(&self, vm: VmIndex) -> Option<BatchId> {
        self.vms[vm.0].batches.front().copied()
    }

    /// Whether a VM still has to answer for work that was taken from it.
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
