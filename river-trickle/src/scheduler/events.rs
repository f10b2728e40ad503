//! The normal case: VMs join and leave, chunks are pulled, finished and collected.

use super::{Batch, BatchId, ChunkId, Life, Mode, Open, Scheduler, Vm, VmIndex};

impl Scheduler {
    /// A VM has joined.
    pub(crate) fn handle_joined(&mut self) -> VmIndex {
        self.vms.push(Vm::default());
        VmIndex(self.vms.len() - 1)
    }

    /// The work had another chunk; returns its number.
    pub(crate) fn handle_pulled(&mut self) -> ChunkId {
        let chunk = self.new_chunk();
        self.ready.push_back(chunk);
        chunk
    }

    /// A failed chunk must be done again; returns its new number.
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

    /// The work has no more chunks.
    pub(crate) fn handle_exhausted(&mut self) {
        self.exhausted = true;
    }

    /// A VM has answered a batch, successfully or not. Returns the chunks whose results count; ignore the others.
    pub(crate) fn handle_finished(&mut self, batch: BatchId) -> Vec<ChunkId> {
        let Some(Batch { vm, chunks, stale, .. }) = self.batches.remove(&batch) else { return Vec::new() };
        let state = &mut self.vms[vm.0];
        if stale {
            state.stale -= 1;
            return Vec::new();
        }
        state.slow = false;
        state.lays_down(batch, chunks.len());
        match self.mode {
            Mode::Direct => chunks.into_iter().filter(|chunk| self.open.remove(chunk).is_some()).collect(),
            Mode::Held => {
                state.held.extend(&chunks);
                chunks
            }
        }
    }

    /// A VM's accumulator has arrived. Returns the chunks that are thereby accepted, or `None` if it must be ignored.
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

    /// A VM must leave when it has finished its batches.
    pub(crate) fn handle_leaving(&mut self, vm: VmIndex) {
        let state = &mut self.vms[vm.0];
        if state.life == Life::Working {
            state.life = Life::Leaving;
        }
    }
}
