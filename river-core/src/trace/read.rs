//! Reading a trace: all VRs of a run on one clock.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::Path;

use super::clock::{Clock, Sample};
use super::event::{Event, What};
use super::order;
use super::record::{Piece, Reader, VrRecord, unpack};
use crate::id::{HostId, VrId};

/// What happened while a program ran. Times are in nanoseconds from its beginning, by the clock of its initiator; no
/// envelope is received before it was sent.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Run {
    /// The program: its executable's name and process.
    pub program: String,
    /// The VMs that it ran on, the initiator's machine first.
    pub vms: Vec<VmTrace>,
    /// Its VRs: the initiator first, then by VM and beginning.
    pub vrs: Vec<VrTrace>,
    /// Parts of the trace that were lost.
    pub losses: Vec<Loss>,
    /// When the last event ended.
    pub end: u64,
    /// Whether the program ran to its end, so that the trace is complete.
    pub whole: bool,
    /// How many events had to be moved to a later time.
    pub corrected: usize,
    /// How many VRs are missing for lack of memory.
    pub forgotten: u64,
}

/// A VM of a run.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct VmTrace {
    /// Its name; for the initiator's, the machine's name.
    pub name: String,
    /// The maximum error of its translated clock, in nanoseconds.
    pub clock_error: u64,
}

/// A VR of a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VrTrace {
    /// Its name.
    pub id: VrId,
    /// The VR that deployed it.
    pub parent: Option<VrId>,
    /// [Its own label](crate::VirtualResource::label), if it has one, such as `initiator`; otherwise the name of its type,
    /// which contains `::`; empty if that is unknown.
    pub name: String,
    /// The VM that it was on: an index into [`Run::vms`].
    pub vm: usize,
    /// When it began.
    pub began: u64,
    /// When it ended.
    pub ended: u64,
    /// Why it ended, unless it ended normally.
    pub failure: Option<String>,
    /// Whether its events are lost.
    pub lost: bool,
    /// How many of its oldest events were dropped for lack of memory.
    pub dropped: u64,
    /// The labels that [`Event::label`] refers to.
    pub labels: Vec<String>,
    /// Its events, sorted by [`Event::end`].
    pub events: Vec<Event>,
}

impl VrTrace {
    /// A VR to which nothing has happened yet.
    #[must_use]
    pub fn new(id: VrId, parent: Option<VrId>, vm: usize, began: u64) -> Self {
        Self {
            id,
            parent,
            name: String::new(),
            vm,
            began,
            ended: began,
            failure: None,
            lost: false,
            dropped: 0,
            labels: Vec::new(),
            events: Vec::new(),
        }
    }

    /// The label of one of its events.
    #[must_use]
    pub fn label(&self, event: &Event) -> Option<&str> {
        let index = (event.label as usize).checked_sub(1)?;
        self.labels.get(index).map(String::as_str)
    }
}

/// A part of a trace that is lost.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Loss {
    /// The VM whose host was lost.
    pub vm: String,
    /// When it was lost.
    pub at: u64,
    /// Why it was lost.
    pub why: String,
}

impl Run {
    /// Reads a trace written by a program ([`Launch::trace`](crate::Launch::trace), or `RIVER_TRACE`).
    ///
    /// # Errors
    /// If there is no such file, or it is not a trace. A truncated trace is read as far as it goes, and [`Run::whole`] is
    /// `false`.
    pub fn read(path: impl AsRef<Path>) -> io::Result<Self> {
        Reader::open(path.as_ref()).map(Self::from_pieces)
    }

    pub(crate) fn from_pieces(mut reader: Reader<impl Read>) -> Self {
        let mut pieces = Pieces::default();
        while let Some((host, piece)) = reader.next() {
            pieces.add(host, piece);
        }
        pieces.run()
    }
}

/// The pieces that were read, by process.
#[derive(Default)]
struct Pieces {
    program: String,
    own: Option<HostId>,
    hosts: Vec<(HostId, String, String)>,
    samples: HashMap<HostId, Vec<Sample>>,
    vrs: Vec<(HostId, VrRecord)>,
    events: HashMap<(HostId, VrId), Vec<Event>>,
    lost: Vec<(HostId, String, u64, String, Vec<VrId>)>,
    forgotten: u64,
    end: Option<u64>,
}

impl Pieces {
    fn add(&mut self, of: HostId, piece: Piece) {
        match piece {
            Piece::Program { name, host } => (self.program, self.own) = (name, Some(host)),
            Piece::Host { host, vm, boot } => self.hosts.push((host, vm, boot)),
            Piece::Clock { host, samples } => drop(self.samples.insert(host, samples)),
            Piece::Lost { host, vm, at, why, vrs } => self.lost.push((host, vm, at, why, vrs)),
            Piece::Vr(record) => self.vrs.push((of, record)),
            Piece::Events { vr, peers, events } => {
                self.events.entry((of, vr)).or_default().extend(unpack(&peers, &events));
            }
            Piece::Forgotten(count) => self.forgotten = self.forgotten.saturating_add(count),
            Piece::End { at } => self.end = Some(at),
        }
    }

    fn run(mut self) -> Run {
        let mut run = Run {
            program: self.program,
            whole: self.end.is_some(),
            forgotten: self.forgotten,
            ..Run::default()
        };
        for (host, vm, ..) in &self.lost {
            if !self.hosts.iter().any(|(known, ..)| known == host) {
                self.hosts.push((*host, vm.clone(), String::new()));
            }
        }
        self.hosts.sort_by(|(a, vm_a, _), (b, vm_b, _)| {
            (Some(*a) != self.own, vm_a).cmp(&(Some(*b) != self.own, vm_b))
        });
        let boot = self.hosts.first().map(|(_, _, boot)| boot.clone()).unwrap_or_default();
        let mut clocks = HashMap::new();
        for (index, (host, vm, theirs)) in self.hosts.iter().enumerate() {
            let same = !boot.is_empty() && *theirs == boot;
            let samples = self.samples.get(host).map_or(&[][..], Vec::as_slice);
            let clock = if Some(*host) == self.own { Clock::default() } else { Clock::new(samples, same) };
            run.vms.push(VmTrace { name: vm.clone(), clock_error: clock.error() });
            clocks.insert(*host, (index, clock));
        }
        for (host, record) in self.vrs {
            let events = self.events.remove(&(host, record.vr)).unwrap_or_default();
            let Some((vm, clock)) = clocks.get(&host) else { continue };
            run.vrs.push(on_our_clock(record, *vm, clock, events));
        }
        // A VR that has moved was traced in both places.
        for (host, _, at, _, vrs) in &self.lost {
            let Some((vm, _)) = clocks.get(host) else { continue };
            for id in vrs {
                if !run.vrs.iter().any(|vr| vr.id == *id) {
                    run.vrs.push(VrTrace { lost: true, ..VrTrace::new(*id, None, *vm, *at) });
                }
            }
        }
        run.losses.extend(self.lost.into_iter().map(|(_, vm, at, why, _)| Loss { vm, at, why }));
        run.corrected = correct(&mut run.vrs);
        tell_of_the_lost(&mut run.vrs);
        let begin = run.vrs.iter().map(|vr| vr.began).min().unwrap_or(0);
        start_at_zero(&mut run, begin);
        let ends = run.vrs.iter().map(|vr| vr.ended);
        run.end = ends.max().unwrap_or(0);
        run.vrs.sort_by_key(|vr| (vr.vm, vr.began, vr.id));
        run
    }
}

fn on_our_clock(record: VrRecord, vm: usize, clock: &Clock, mut events: Vec<Event>) -> VrTrace {
    for event in &mut events {
        let end = clock.ours(event.end());
        event.at = clock.ours(event.at);
        if let What::Wait { nanos, .. } | What::Span { nanos } = &mut event.what {
            *nanos = end.saturating_sub(event.at);
        }
    }
    events.sort_by_key(Event::end);
    let VrRecord { vr, parent, name, began, end, dropped, labels } = record;
    let last = events.last().map_or(0, Event::end);
    let ended = end.as_ref().map_or(0, |end| clock.ours(end.at)).max(last);
    let began = clock.ours(began);
    VrTrace {
        id: vr,
        parent,
        name,
        vm,
        began: began.min(events.iter().map(|event| event.at).min().unwrap_or(began)),
        ended: ended.max(began),
        failure: end.filter(|end| !end.normal).map(|end| end.why),
        lost: false,
        dropped,
        labels,
        events,
    }
}

/// Puts the events in a causally possible order, and returns how many were moved.
fn correct(vrs: &mut [VrTrace]) -> usize {
    let mut events: Vec<(VrId, Vec<Event>)> =
        vrs.iter_mut().map(|vr| (vr.id, std::mem::take(&mut vr.events))).collect();
    let moved = order::correct(&mut events);
    for (vr, (_, events)) in vrs.iter_mut().zip(events) {
        vr.ended = events.last().map_or(vr.ended, |last| vr.ended.max(last.end()));
        vr.events = events;
    }
    let began: HashMap<VrId, u64> = vrs.iter().map(|vr| (vr.id, vr.began)).collect();
    for event in vrs.iter_mut().flat_map(|vr| &mut vr.events) {
        if let What::Deploy { child } = event.what
            && let Some(began) = began.get(&child)
        {
            event.at = event.at.min(*began);
        }
    }
    moved
}

/// Fills in what other VRs know about a lost VR: who deployed it, and when.
fn tell_of_the_lost(vrs: &mut [VrTrace]) {
    let deployed = |vr: &VrTrace| {
        let child = |event: &Event| match event.what {
            What::Deploy { child } => Some((child, (vr.id, event.at))),
            _ => None,
        };
        vr.events.iter().filter_map(child).collect::<Vec<_>>()
    };
    let deployed: HashMap<VrId, (VrId, u64)> = vrs.iter().flat_map(deployed).collect();
    for vr in vrs.iter_mut().filter(|vr| vr.lost) {
        if let Some((parent, at)) = deployed.get(&vr.id) {
            vr.parent = Some(*parent);
            vr.began = vr.began.min(*at);
        }
    }
}

fn start_at_zero(run: &mut Run, begin: u64) {
    for vr in &mut run.vrs {
        vr.began = vr.began.saturating_sub(begin);
        vr.ended = vr.ended.saturating_sub(begin);
        vr.events.iter_mut().for_each(|event| event.at = event.at.saturating_sub(begin));
    }
    run.losses.iter_mut().for_each(|loss| loss.at = loss.at.saturating_sub(begin));
}
