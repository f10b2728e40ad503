//! What has gone wrong, and how its work is done nevertheless: it goes to others, and who may have caused it travels alone.

use std::collections::VecDeque;

use super::{Batch, BatchId, ChunkId, Life, Scheduler, VmIndex};

impl Scheduler {
    /// A VM did not take a batch, because it is gone. Returns the finished chunks that are lost with it.
    pub(crate) fn handle_refused(&mut self, batch: BatchId) -> Vec<ChunkId> {
        let Some(Batch { vm, chunks, .. }) = self.batches.remove(&batch) else { return Vec::new() };
        // They were never there, so they are not suspected.
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

    /// A VM has not been heard of for long.
    pub(crate) fn handle_slow(&mut self, vm: VmIndex) {
        let state = &mut self.vms[vm.0];
        state.slow = state.outstanding > 0;
    }

    /// The first batch of a VM takes longer than it may. Its chunks, unless another VM has them too, are closed, and
    /// returned; the rest of what the VM has goes to others, and it gets nothing before it has answered everything.
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

    /// A chunk has failed, perhaps: it travels alone from now on.
    pub(crate) fn handle_suspicious(&mut self, chunk: ChunkId) {
        if let Some(open) = self.open.get_mut(&chunk) {
            open.alone = true;
        }
    }

    /// Takes all batches off a VM; their answers are still expected.
    fn strip(&mut self, vm: VmIndex) -> VecDeque<BatchId> {
        let state = &mut self.vms[vm.0];
        let batches = std::mem::take(&mut state.batches);
        state.stale += batches.len();
        (state.outstanding, state.slow) = (0, false);
        batches
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
