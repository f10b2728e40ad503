//! Mirrored VRs: what a VR sends to its twin, and what the twin keeps.
//!
//! The twin is a record without a thread, in the memory of another process. Envelopes to the VR are sent to both processes.
//! The VR's process ships the VR's inputs, in their order, in a *log*. Nothing of the VR becomes visible outside before the
//! twin has all inputs up to then (*output commit*). So when the VR's process has died, the twin replays `main` from the
//! log, does what the VR did, and goes on without anyone being able to tell the difference.
//!
//! The log does not hold the contents of sends, only that they were made: the twin makes them again. Hence a record from
//! before a safepoint is kept until everything sent before it has arrived, which the receivers' processes report to the
//! twin's.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::base::{Base, Origin};
use super::record::{Record, Told};
use super::saved::Saved;
use crate::envelope::Envelope;
use crate::id::{HostId, IdMap, VrId};
use crate::inbox::Event;

/// This many pieces are sent to a twin even if nothing waits for them, so that they do not pile up.
const GATHER: usize = 64;

#[derive(Serialize, Deserialize)]
enum Piece {
    Told(Told),
    Safepoint(Box<Base>),
}

impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Piece")
    }
}

/// A part of the log, to be sent to the twin.
#[derive(Debug)]
pub(crate) struct Shipment {
    /// The twin's process.
    pub(crate) to: HostId,
    /// Counts from 1.
    pub(crate) number: u64,
    pub(crate) bytes: Vec<u8>,
    /// Whether the twin must have it before anything of the VR becomes visible.
    pub(crate) binding: bool,
}

/// The VR's side: what its twin has been sent.
#[derive(Debug)]
pub(crate) struct Leader {
    twin: HostId,
    pieces: Vec<Piece>,
    /// How much of the record is in the pieces, or has been sent to the twin.
    lines: usize,
    events: usize,
    /// How many lines have been examined, and whether among those that the twin lacks is one that it must have before
    /// anything becomes visible.
    looked: usize,
    binds: bool,
    shipped: u64,
    acknowledged: u64,
}

impl Leader {
    /// A twin in that process that has this many lines and events of the record.
    pub(crate) fn new(twin: HostId, (lines, events): (usize, usize)) -> Self {
        // If the last line is a look at the queue, the twin cannot know that it found nothing: only the next line says so.
        let (pieces, looked, binds) = (Vec::new(), lines, true);
        Self { twin, pieces, lines, events, looked, binds, shipped: 0, acknowledged: 0 }
    }

    pub(crate) fn twin(&self) -> HostId {
        self.twin
    }

    /// Notes a safepoint of the VR, given the record before it and the new one.
    pub(crate) fn safepoint(&mut self, before: &Record, after: &Record) {
        self.look(before);
        self.take_in(before);
        self.pieces.push(Piece::Safepoint(Box::new((**after.base()).clone())));
        (self.lines, self.events, self.looked) = (0, 0, 0);
    }

    /// Called before anything of the VR becomes visible; returns what the twin must get first, or pieces that have piled
    /// up.
    pub(crate) fn due(&mut self, record: &Record) -> Option<Shipment> {
        self.look(record);
        if !self.binds && self.pieces.len() < GATHER {
            return None;
        }
        self.take_in(record);
        let (to, binding) = (self.twin, std::mem::take(&mut self.binds));
        self.shipped += 1;
        let bytes = postcard::to_stdvec(&std::mem::take(&mut self.pieces)).unwrap_or_else(|error| {
            // The twin detects this, and reports it.
            tracing::error!(%error, "an input of a VR cannot be encoded for its twin");
            Vec::new()
        });
        Some(Shipment { to, number: self.shipped, bytes, binding })
    }

    /// Notes that the twin has the log up to that number.
    pub(crate) fn acknowledge(&mut self, number: u64) {
        self.acknowledged = self.acknowledged.max(number);
    }

    pub(crate) fn is_acknowledged(&self, number: u64) -> bool {
        self.acknowledged >= number
    }

    fn look(&mut self, record: &Record) {
        self.binds |= record.was_told_since(self.looked);
        self.looked = record.len();
    }

    fn take_in(&mut self, record: &Record) {
        let told = record.since(self.lines, self.events);
        if !told.is_empty() {
            (self.lines, self.events) = record.lengths();
            self.pieces.push(Piece::Told(told));
        }
    }
}

/// How many envelopes of a mirrored VR have arrived at a receiver.
#[derive(Clone, Copy, Debug, Default)]
struct Acknowledged {
    /// In the receiver's process.
    main: u64,
    /// In the process of the receiver's twin, if it has one.
    twin: u64,
}

/// What a process keeps of a VR that lives in another one, in order to take it over.
#[derive(Debug)]
pub(crate) struct Twin {
    origin: Origin,
    /// One record for each safepoint, from the oldest one that may be needed.
    stretches: VecDeque<Record>,
    /// What was sent to the VR and is not in the log, by sender, with arrival numbers.
    waiting: IdMap<VrId, VecDeque<(u64, Envelope)>>,
    arrivals: u64,
    next: IdMap<VrId, u64>,
    logged: u64,
    acknowledged: IdMap<VrId, Acknowledged>,
}

impl Twin {
    pub(crate) fn new(saved: Saved) -> Self {
        let Saved { origin, record, pending } = saved;
        // The copy was made when everything sent had arrived. Nothing more will be reported for receivers that have ended
        // since.
        let arrived = |(to, count): (&VrId, &u64)| (*to, Acknowledged { main: *count, twin: 0 });
        let mut this = Self {
            origin,
            next: record.received().clone(),
            acknowledged: record.sent().iter().map(arrived).collect(),
            stretches: [record].into(),
            waiting: IdMap::default(),
            arrivals: 0,
            logged: 0,
        };
        for event in pending {
            if let Event::Envelope(envelope) = event {
                this.copy(envelope);
            }
        }
        this
    }

    /// Takes an envelope that was sent to the VR; it may come twice.
    pub(crate) fn copy(&mut self, envelope: Envelope) {
        let next = self.next.entry(envelope.src).or_default();
        if envelope.seq < *next {
            return;
        }
        *next = envelope.seq + 1;
        self.arrivals += 1;
        self.waiting.entry(envelope.src).or_default().push_back((self.arrivals, envelope));
    }

    /// Takes a part of the log, and returns up to which number the twin has it. Returns `None` if it is invalid, which
    /// makes the twin useless.
    pub(crate) fn log(&mut self, number: u64, bytes: &[u8]) -> Option<u64> {
        if number != self.logged + 1 {
            return None;
        }
        for piece in postcard::from_bytes::<Vec<Piece>>(bytes).ok()? {
            match piece {
                Piece::Safepoint(base) => self.stretches.push_back(Record::new(*base)),
                Piece::Told(told) => {
                    let senders: Vec<VrId> = told.senders().collect();
                    self.stretches.back_mut()?.follow(told);
                    senders.into_iter().for_each(|sender| self.pass(sender));
                }
            }
        }
        self.logged = number;
        Some(number)
    }

    /// Drops the envelopes of a sender that the VR has received.
    fn pass(&mut self, sender: VrId) {
        let received = self.received(sender);
        let next = self.next.entry(sender).or_default();
        *next = received.max(*next);
        if let Some(waiting) = self.waiting.get_mut(&sender) {
            while waiting.front().is_some_and(|(_, envelope)| envelope.seq < received) {
                waiting.pop_front();
            }
            if waiting.is_empty() {
                self.waiting.remove(&sender);
            }
        }
    }

    fn received(&self, sender: VrId) -> u64 {
        let last = self.stretches.back().and_then(|record| record.received().get(&sender));
        last.copied().unwrap_or_default()
    }

    /// How many envelopes from a sender have arrived.
    pub(crate) fn arrived(&self, sender: VrId) -> u64 {
        self.next.get(&sender).copied().unwrap_or_default()
    }

    /// Notes how many envelopes of the VR have arrived at a receiver, or at the receiver's twin.
    pub(crate) fn acknowledge(&mut self, receiver: VrId, at_twin: bool, count: u64) {
        let acknowledged = self.acknowledged.entry(receiver).or_default();
        let which = if at_twin { &mut acknowledged.twin } else { &mut acknowledged.main };
        *which = count.max(*which);
    }

    /// Forgets what was recorded before a safepoint if everything sent before it has arrived.
    pub(crate) fn trim(&mut self, is_mirrored: impl Fn(VrId) -> bool) {
        let has_arrived = |(to, count): &(VrId, u64)| {
            let Acknowledged { main, twin } = self.acknowledged.get(to).copied().unwrap_or_default();
            main >= *count && (twin >= *count || !is_mirrored(*to))
        };
        let needless =
            self.stretches.iter().skip(1).rposition(|record| record.base().sent.iter().all(has_arrived));
        if let Some(last) = needless {
            self.stretches.drain(..=last);
        }
    }

    /// Turns the twin into the VR. `arrived` is an upper bound of how much of what it sent has arrived, by receiver. Also
    /// returns how many envelopes from each sender have arrived.
    pub(crate) fn take_over(
        self,
        arrived: IdMap<VrId, u64>,
        is_mirrored: impl Fn(VrId) -> bool,
    ) -> Option<(Saved, IdMap<VrId, u64>)> {
        let settled = |(to, known): (&VrId, &Acknowledged)| {
            (*to, if is_mirrored(*to) { known.main.min(known.twin) } else { known.main })
        };
        let settled = self.acknowledged.iter().map(settled).collect();
        let mut waiting: Vec<(u64, Envelope)> = self.waiting.into_values().flatten().collect();
        waiting.sort_unstable_by_key(|(number, _)| *number);
        let pending = waiting.into_iter().map(|(_, envelope)| Event::Envelope(envelope)).collect();
        let mut record = Record::chain(self.stretches)?;
        record.resend(settled, arrived);
        Some((Saved { origin: self.origin, record, pending }, self.next))
    }
}
