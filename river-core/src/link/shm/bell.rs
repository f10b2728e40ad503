//! The bell of a process: tells its peers whether somebody polls the rings that they write to, or whether they must wake it.
//!
//! Publishing a record and checking the bell, and putting the bell to sleep and polling the rings, are a Dekker pair: each
//! side writes its own word, then, behind a [`fence`], reads the other's. So either the writer sees that the reader sleeps,
//! and rings, or the reader sees the record, and stays awake.

use std::io;
use std::sync::atomic::Ordering::SeqCst;

use super::fence;
use super::memory::Memory;
use crate::protocol::MemoryName;

const LENGTH: usize = 4096;
const STATE: usize = 128;
/// Whether the owner's fences reach its writers: written once.
const HEAVY: usize = 256;

const ASLEEP: u32 = 0;
const AWAKE: u32 = 1;
/// A peer has rung already.
const RUNG: u32 = 2;

#[derive(Debug)]
pub(super) struct Bell {
    memory: Memory,
    /// Whether the owner's fences reach its writers.
    heavy: bool,
}

impl Bell {
    pub(super) fn create() -> io::Result<Self> {
        let (memory, heavy) = (Memory::create(LENGTH)?, fence::is_heavy());
        memory.u32_at(HEAVY).store(heavy.into(), SeqCst);
        Ok(Self { memory, heavy })
    }

    pub(super) fn open(name: &MemoryName) -> io::Result<Self> {
        let memory = Memory::open(name, LENGTH)?;
        let heavy = memory.u32_at(HEAVY).load(SeqCst) == 1;
        Ok(Self { memory, heavy })
    }

    pub(super) fn name(&self) -> MemoryName {
        self.memory.name()
    }

    /// Whether peers need not ring.
    pub(super) fn is_awake(&self) -> bool {
        self.memory.u32_at(STATE).load(SeqCst) == AWAKE
    }

    /// The owner polls its rings from now on.
    pub(super) fn wake(&self) {
        self.memory.u32_at(STATE).store(AWAKE, SeqCst);
    }

    /// The owner stops polling, and must poll once more after this.
    pub(super) fn sleep(&self) {
        self.memory.u32_at(STATE).store(ASLEEP, SeqCst);
        fence::heavy();
    }

    /// For a peer that has just written: returns whether this peer must ring.
    pub(super) fn must_ring(&self) -> bool {
        fence::light(self.heavy);
        let state = self.memory.u32_at(STATE);
        state.load(SeqCst) == ASLEEP && state.compare_exchange(ASLEEP, RUNG, SeqCst, SeqCst).is_ok()
    }
}
