//! Failures: work that was lost goes to other VMs, and chunks that may have caused the failure are sent alone.

use std::collections::VecDeque;

use super::{Batch, BatchId, ChunkId, Life, Scheduler, VmIndex};

impl Scheduler {
    /// A VM is gone and did not take a batch. Returns the finished chunks that are lost with it.
    pub(crate) fn handle_refused(&mut self, batch: BatchId) -> Vec<ChunkId> {
        let Some(Batch { vm, chunks, .. }) = self.batches.remove(&batch) else { return Vec::new() };
        // They never reached the VM, so they are not suspected.
        self.vms[vm.0].lays_down(batch, chunks.len());
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
            self.give_back(*chunk, false);
        }
        lost
    }

    /// A VM has been silent for long.
    pub(crate) fn handle_slow(&mut self, vm: VmIndex) {
        let state = &mut self.vms[vm.0];
        state.slow = state.outstanding > 0;
    }

    /// A VM has not begun a batch, and will not. If it was recalled, its chunks go to others; otherwise returns `false`,
    /// and nothing has changed.
    pub(crate) fn handle_not_begun(&mut self, batch: BatchId) -> bool {
        if !self.batches.get(&batch).is_some_and(|batch| batch.recalled && !batch.stale) {
            return false;
        }
        let Some(Batch { vm, chunks, .. }) = self.batches.remove(&batch) else { return false };
        let state = &mut self.vms[vm.0];
        state.lays_down(batch, chunks.len());
        state.slow &= state.outstanding > 0;
        state.lags = true;
        for chunk in chunks {
            self.give_back(chunk, false);
        }
        true
    }

    /// The first batch of a VM is overdue. Its chunks, unless another VM has them too, are closed and returned; the
    /// other chunks of the VM go to others, and it gets no more until it has answered everything.
    pub(crate) fn handle_overdue(&mut self, vm: VmIndex) -> Vec<ChunkId> {
        let batches = self.strip(vm);
        let first =
            batches.front().and_then(|batch| self.batches.get(batch)).map_or(0, |batch| batch.chunks.len());
        let mut closed = Vec::new();
        for (index, chunk) in self.take_batches(batches).into_iter().enumerate() {
            if index >= first {
                self.give_back(chunk, false);
            } else if let Some(open) = self.open.get_mut(&chunk) {
                open.copies -= 1;
                // If each timeout allowed a new copy, a chunk that never ends would always have a copy left.
                open.alone = true;
                if open.copies == 0 {
                    self.open.remove(&chunk);
                    closed.push(chunk);
                }
            }
        }
        closed
    }

    /// A VM's accumulator must not be used: everything in it goes to other VMs, and so do the chunks that the VM still
    /// has. It gets no more until it has answered everything. Returns the finished chunks that are lost with it.
    pub(crate) fn handle_spoiled(&mut self, vm: VmIndex) -> Vec<ChunkId> {
        let batches = self.strip(vm);
        let state = &mut self.vms[vm.0];
        state.collecting = false;
        let lost = std::mem::take(&mut state.held);
        for chunk in self.take_batches(batches) {
            self.give_back(chunk, false);
        }
        for chunk in &lost {
            self.give_back(*chunk, false);
        }
        lost
    }

    /// A chunk may have failed: it is sent alone from now on.
    pub(crate) fn handle_suspicious(&mut self, chunk: ChunkId) {
        if let Some(open) = self.open.get_mut(&chunk) {
            open.alone = true;
        }
    }

    /// Takes all batches from a VM; their answers are still expected.
    fn strip(&mut self, vm: VmIndex) -> VecDeque<BatchId> {
        let state = &mut self.vms[vm.0];
        let batches = std::mem::take(&mut state.batches);
        state.stale += batches.len();
        (state.outstanding, state.slow) = (0, false);
        batches
    }

    /// Takes the chunks out of batches and marks the batches as stale.
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

    /// Records which chunks a VM may have died of.
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

    /// A VM no longer has a chunk. If no other VM has it, it becomes ready again.
    fn give_back(&mut self, chunk: ChunkId, first: bool) {
        let Some(open) = self.open.get_mut(&chunk) else { return };
        open.copies = open.copies.saturating_sub(1);
        if open.copies == 0 {
            if first { self.ready.push_front(chunk) } else { self.ready.push_back(chunk) }
        }
    }
}
