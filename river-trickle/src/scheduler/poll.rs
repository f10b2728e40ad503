//! Decides what to do next.

use super::{Action, Batch, BatchId, ChunkId, Defeat, Life, Mode, Scheduler, Vm, VmIndex};

impl Scheduler {
    /// Returns what to do next.
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
        let free = free.min_by_key(|(_, vm)| (vm.lags, vm.outstanding)).map(|(index, _)| VmIndex(index));
        if let Some(vm) = free {
            let alone = self.ready.front().is_some_and(|chunk| self.open[chunk].alone);
            if !self.exhausted && !alone && self.ready.len() < size {
                return Action::Pull;
            }
            let chunks = if self.ready.is_empty() { self.copies(vm, size) } else { self.take_ready(size) };
            if !chunks.is_empty() {
                return self.issue(vm, chunks);
            }
            let batches = self.recall(vm);
            if !batches.is_empty() {
                return Action::Recall { batches };
            }
        }
        if self.alive() == 0 {
            if !self.exhausted && self.ready.is_empty() {
                // To find out whether there is any work left that would need a VM.
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

    /// The next step of a leaving VM that has finished its batches.
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

    /// Chunks of slow VMs that `vm` may run as well, since there is nothing else for it.
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

    /// Batches that slow VMs have not begun, as far as is known, if `vm` has nothing else to do. A VM works in order, so
    /// these are all but its first.
    fn recall(&mut self, vm: VmIndex) -> Vec<BatchId> {
        if self.mode == Mode::Direct || self.vms[vm.0].outstanding > 0 {
            return Vec::new();
        }
        let slow = self.vms.iter().filter(|vm| vm.slow);
        let mut batches: Vec<BatchId> = slow.flat_map(|vm| vm.batches.iter().skip(1)).copied().collect();
        batches.retain(|batch| {
            let batch = self.batches.get_mut(batch);
            batch.is_some_and(|batch| !std::mem::replace(&mut batch.recalled, true))
        });
        batches
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
        self.batches.insert(batch, Batch { vm, chunks: chunks.clone(), stale: false, recalled: false });
        Action::Issue { batch, chunks, vm }
    }
}
