//! The bell of a process: tells its peers whether somebody looks into the rings that they write to, or whether they
//! have to wake it.
//!
//! Publishing and looking at the bell, and putting the bell to sleep and looking into the rings, are a Dekker pair:
//! each side writes its own word, then reads the other's, sequentially consistent. So either the writer sees that the
//! reader sleeps, and rings, or the reader sees what was written, and stays awake.

use std::io;
use std::sync::atomic::Ordering::SeqCst;

use super::memory::Memory;
use crate::protocol::MemoryName;

const LENGTH: usize = 4096;
const STATE: usize = 128;

const ASLEEP: u32 = 0;
const AWAKE: u32 = 1;
/// Somebody has rung already.
const RUNG: u32 = 2;

#[derive(Debug)]
pub(super) struct Bell(Memory);

impl Bell {
    pub(super) fn create() -> io::Result<Self> {
        Ok(Self(Memory::create(LENGTH)?))
    }

    pub(super) fn open(name: &MemoryName) -> io::Result<Self> {
        Ok(Self(Memory::open(name, LENGTH)?))
    }

    pub(super) fn name(&self) -> MemoryName {
        self.0.name()
    }

    /// Whether peers need not ring.
    pub(super) fn is_awake(&self) -> bool {
        self.0.u32_at(STATE).load(SeqCst) == AWAKE
    }

    /// The owner looks into its rings from now on.
    pub(super) fn wake(&self) {
        self.0.u32_at(STATE).store(AWAKE, SeqCst);
    }

    /// The owner stops looking, and must look once more after this.
    pub(super) fn sleep(&self) {
        self.0.u32_at(STATE).store(ASLEEP, SeqCst);
    }

    /// For a peer that has just written: whether it is the one that has to ring.
    pub(super) fn must_ring(&self) -> bool {
        let state = self.0.u32_at(STATE);
        state.load(SeqCst) == ASLEEP && state.compare_exchange(ASLEEP, RUNG, SeqCst, SeqCst).is_ok()
    }
}
