//! The traces of a process's VRs, until they are collected.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::time::{ClockId, clock_gettime};
use uuid::Uuid;

use super::buffer::{Budget, Held, Ring};
use super::event::{Event, Reason, What};
use super::record::{Ending, PIECE, Piece, VrRecord};
use crate::down::Why;
use crate::id::VrId;

/// The maximum number of events that all VRs of a process hold together, of 48 bytes each: 192 MiB.
const TOTAL: usize = 4 << 20;
/// How many VRs that end after memory has run out are remembered at all.
const REMEMBERED: usize = 100_000;

/// The time of this machine's monotonic clock, in nanoseconds.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// The trace of one VR.
#[derive(Debug)]
pub(crate) struct Buffer {
    vr: VrId,
    parent: Option<VrId>,
    began: u64,
    pub(super) name: OnceLock<String>,
    pub(super) ring: Ring,
    /// Locked by the VR only when it meets a label for the first time.
    labels: Mutex<Vec<String>>,
    /// Since when it has been waiting for an envelope, 0 if it is not, and from which VR.
    waits: [AtomicU64; 3],
}

impl Buffer {
    pub(super) fn add_label(&self, text: String) -> u32 {
        let mut labels = lock(&self.labels);
        labels.push(text);
        labels.len() as u32
    }

    pub(super) fn waits(&self, since: u64, on: Option<VrId>) {
        let (high, low) = on.map_or((0, 0), |on| on.as_uuid().as_u64_pair());
        self.waits[1].store(high, Relaxed);
        self.waits[2].store(low, Relaxed);
        self.waits[0].store(since.max(1), Relaxed);
    }

    pub(super) fn waits_no_more(&self) {
        self.waits[0].store(0, Relaxed);
    }

    /// The wait that it is in, if any.
    fn waiting(&self) -> Option<Event> {
        let [since, high, low] = [0, 1, 2].map(|i: usize| self.waits[i].load(Relaxed));
        let on = Uuid::from_u64_pair(high, low);
        let on = (!on.is_nil()).then(|| VrId::from_uuid(on));
        let wait = |nanos| What::Wait { reason: Reason::Receive, on, nanos };
        (since > 0).then(|| Event { at: since, what: wait(now().saturating_sub(since)), label: 0 })
    }

    fn record(&self, end: Option<Ending>) -> (VrRecord, Held) {
        let mut held = self.ring.read();
        held.events.extend(self.waiting());
        let record = VrRecord {
            vr: self.vr,
            parent: self.parent,
            name: self.name.get().cloned().unwrap_or_default(),
            began: self.began,
            end,
            dropped: held.dropped,
            labels: lock(&self.labels).clone(),
        };
        (record, held)
    }
}

/// The traces of the live and ended VRs of this process.
#[derive(Debug)]
pub(crate) struct Traces {
    per_vr: usize,
    pub(super) budget: Budget,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    live: HashMap<VrId, Arc<Buffer>>,
    ended: Vec<(VrRecord, Held)>,
    /// How many ended VRs were not remembered.
    forgotten: u64,
}

impl Traces {
    /// Traces with this many events for each VR.
    pub(crate) fn new(per_vr: u32) -> Arc<Self> {
        let per_vr = (per_vr as usize).clamp(1, TOTAL);
        Arc::new(Self { per_vr, budget: Budget::new(TOTAL), state: Mutex::default() })
    }

    /// How many events of each VR are kept.
    pub(crate) fn per_vr(&self) -> u32 {
        self.per_vr as u32
    }

    pub(super) fn begin(&self, vr: VrId, parent: Option<VrId>) -> Arc<Buffer> {
        let buffer = Arc::new(Buffer {
            vr,
            parent,
            began: now(),
            name: OnceLock::new(),
            ring: Ring::new(self.per_vr),
            labels: Mutex::default(),
            waits: Default::default(),
        });
        lock(&self.state).live.insert(vr, buffer.clone());
        buffer
    }

    /// Compacts the trace of a VR that has ended.
    pub(crate) fn ended(&self, vr: VrId, why: &Why) {
        let Some(buffer) = lock(&self.state).live.remove(&vr) else { return };
        let end = Ending { at: now(), normal: why.is_normal(), why: why.cause().to_string() };
        let (mut record, mut held) = buffer.record(Some(end));
        self.budget.give_back(buffer.ring.taken());
        if !self.budget.take(held.events.len()) {
            record.dropped += held.events.len() as u64;
            held.events = Vec::new();
        }
        let mut state = lock(&self.state);
        if held.events.is_empty() && record.dropped > 0 && state.ended.len() >= REMEMBERED {
            state.forgotten += 1;
        } else {
            state.ended.push((record, held));
        }
    }

    /// Hands out everything, in pieces for [`Reader`](super::record::Reader). Forgets the VRs that have ended.
    pub(crate) fn collect(&self, mut piece: impl FnMut(Piece)) {
        let (ended, live, forgotten) = {
            let mut state = lock(&self.state);
            let live: Vec<Arc<Buffer>> = state.live.values().cloned().collect();
            (std::mem::take(&mut state.ended), live, std::mem::take(&mut state.forgotten))
        };
        let live = live.iter().map(|buffer| buffer.record(None));
        for (record, held) in ended.into_iter().chain(live) {
            let vr = record.vr;
            piece(Piece::Vr(record));
            for events in held.events.chunks(PIECE) {
                piece(Piece::events(vr, events));
            }
        }
        if forgotten > 0 {
            piece(Piece::Forgotten(forgotten));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
