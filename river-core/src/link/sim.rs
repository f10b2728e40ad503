//! A simulated network for tests: nodes of one process, joined by links from which a driver delivers in an order of its own
//! choice, and which it can break or cut.
//!
//! Everything happens on the driver's thread, so a run is determined by its seed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::envelope::Envelope;
use crate::frame::{Frame, Kind};
use crate::id::HostId;
use crate::link::Sink;

/// The network, shared by all nodes of a simulation.
#[derive(Default)]
pub(crate) struct SimNet(Mutex<State>);

#[derive(Default)]
struct State {
    hosts: BTreeMap<HostId, Arc<dyn Sink>>,
    lanes: BTreeMap<(HostId, HostId), Lane>,
}

#[derive(Default)]
struct Lane {
    frames: VecDeque<Frame>,
    broken: bool,
    /// Whether the sender is gone: the end follows the last frame.
    ending: bool,
}

/// The sending end of a lane.
#[derive(Clone)]
pub(crate) struct SimLink {
    net: Arc<SimNet>,
    from: HostId,
    to: HostId,
}

impl std::fmt::Debug for SimNet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimNet({} lanes)", self.state().lanes.len())
    }
}

impl std::fmt::Debug for SimLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimLink({:?} -> {:?})", self.from, self.to)
    }
}

impl Lane {
    fn is_busy(&self) -> bool {
        !self.frames.is_empty() || (self.ending && !self.broken)
    }
}

impl SimLink {
    pub(crate) fn send(&self, kind: Kind, envelope: &Envelope) -> Result<(), String> {
        let mut state = self.net.state();
        match state.lanes.get_mut(&(self.from, self.to)) {
            Some(lane) if !lane.broken => {
                lane.frames.push_back(Frame { kind, envelope: envelope.clone() });
                Ok(())
            }
            _ => Err("the lane is broken".into()),
        }
    }

    pub(crate) fn close(&self) {
        self.net.break_lane(self.from, self.to);
    }
}

impl SimNet {
    /// Adds a host; frames that arrive for it go into the sink.
    pub(crate) fn add(&self, host: HostId, sink: Arc<dyn Sink>) {
        self.state().hosts.insert(host, sink);
    }

    /// Returns the only lane from a host to another, if both are alive and the lane was not broken before.
    pub(crate) fn connect(self: &Arc<Self>, from: HostId, to: HostId) -> Option<SimLink> {
        let mut state = self.state();
        if !state.hosts.contains_key(&from) || !state.hosts.contains_key(&to) {
            return None;
        }
        let lane = state.lanes.entry((from, to)).or_default();
        if lane.broken {
            return None;
        }
        let sink = state.hosts.get(&to).cloned();
        drop(state);
        if let Some(sink) = sink {
            sink.opened(from);
        }
        Some(SimLink { net: self.clone(), from, to })
    }

    /// Returns the lanes on which frames are in transit.
    pub(crate) fn busy(&self) -> Vec<(HostId, HostId)> {
        let state = self.state();
        state.lanes.iter().filter(|(_, lane)| lane.is_busy()).map(|(ends, _)| *ends).collect()
    }

    /// Returns the lanes that were used and are not broken.
    pub(crate) fn whole(&self) -> Vec<(HostId, HostId)> {
        self.state().lanes.iter().filter(|(_, lane)| !lane.broken).map(|(ends, _)| *ends).collect()
    }

    /// Delivers the first frame of a lane, or its end.
    pub(crate) fn deliver(&self, from: HostId, to: HostId) {
        let (sink, frame) = {
            let mut state = self.state();
            let frame = state.lanes.get_mut(&(from, to)).and_then(|lane| lane.frames.pop_front());
            (state.hosts.get(&to).cloned(), frame)
        };
        match (sink, frame) {
            (Some(sink), Some(frame)) => sink.frame(from, frame),
            (_, None) => self.break_lane(from, to),
            (None, Some(_)) => {}
        }
    }

    /// Breaks a lane: frames in transit on it are lost, and the receiver notices.
    pub(crate) fn break_lane(&self, from: HostId, to: HostId) {
        let sink = {
            let mut state = self.state();
            match state.lanes.get_mut(&(from, to)) {
                Some(lane) if !lane.broken => {
                    lane.broken = true;
                    lane.frames.clear();
                }
                _ => return,
            }
            state.hosts.get(&to).cloned()
        };
        if let Some(sink) = sink {
            sink.closed(from, "the lane broke".into());
        }
    }

    /// Ends a host at once. What it had sent is still in transit, followed by the end of each of its lanes, as with a process
    /// whose sockets the system closes.
    pub(crate) fn kill(&self, host: HostId) {
        let mut state = self.state();
        state.hosts.remove(&host);
        for ((from, to), lane) in &mut state.lanes {
            if *from == host {
                lane.ending = true;
            } else if *to == host {
                lane.broken = true;
                lane.frames.clear();
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
