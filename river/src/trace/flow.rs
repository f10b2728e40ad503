//! What a trace contains only implicitly: messages, put together from their two ends.

use std::collections::{HashMap, HashSet};

use river_core::trace::{Event, Reason, Run, VrTrace, What};
use river_core::{VrId, naming};

/// A run, with what follows from its events.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Flow {
    /// The run.
    pub run: Run,
    /// The labels of all VRs; the first is empty.
    pub labels: Vec<String>,
    /// All messages, by the time at which they were sent, or received if that is not known.
    pub messages: Vec<Message>,
    /// All waits, by the time at which they began.
    pub waits: Vec<Wait>,
    /// For receives: from the indices of VR and event to the index in `messages`.
    received: HashMap<(usize, usize), usize>,
    index: HashMap<VrId, usize>,
    /// Names that several VRs have.
    shared: HashSet<String>,
}

/// A message from one VR to another. VRs are indices into [`Run::vrs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// The sender.
    pub from: usize,
    /// The receiver.
    pub to: usize,
    /// When it was sent; `None` if the sender's trace no longer has that event.
    pub sent: Option<u64>,
    /// When it was taken out of the mailbox; `None` if it never was, or if the receiver's trace is lost.
    pub received: Option<u64>,
    /// The length of its payload.
    pub bytes: u64,
    /// Its label: an index into [`Flow::labels`].
    pub label: usize,
}

impl Message {
    /// The time of its first known event.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.sent.or(self.received).unwrap_or(0)
    }
}

/// A time during which a VR waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wait {
    /// The VR: an index into [`Run::vrs`].
    pub vr: usize,
    /// When it began.
    pub at: u64,
    /// How long it took, in nanoseconds.
    pub nanos: u64,
    /// What it waited for.
    pub reason: Reason,
    /// The VR that it waited for, if it was one.
    pub on: Option<usize>,
    /// What the VR was doing: an index into [`Flow::labels`].
    pub label: usize,
    /// The message that ended it: an index into [`Flow::messages`].
    pub ended_by: Option<usize>,
}

/// The traffic from one VR to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pair {
    /// The sender: an index into [`Run::vrs`].
    pub from: usize,
    /// The receiver.
    pub to: usize,
    /// How many messages.
    pub messages: u64,
    /// How many bytes of payload.
    pub bytes: u64,
}

/// Assigns numbers to the labels of all VRs.
#[derive(Default)]
struct Interner {
    texts: Vec<String>,
    known: HashMap<String, usize>,
}

impl Interner {
    fn number(&mut self, text: &str) -> usize {
        if let Some(known) = self.known.get(text) {
            return *known;
        }
        self.known.insert(text.to_owned(), self.texts.len());
        self.texts.push(text.to_owned());
        self.texts.len() - 1
    }
}

impl Flow {
    /// Derives messages and waits from a run. Takes time linear in the number of events.
    #[must_use]
    pub fn new(run: Run) -> Self {
        let index: HashMap<VrId, usize> = run.vrs.iter().enumerate().map(|(i, vr)| (vr.id, i)).collect();
        let mut interner = Interner::default();
        interner.number("");
        let mut label_of =
            |vr: usize, event: &Event| run.vrs[vr].label(event).map_or(0, |label| interner.number(label));
        let mut messages = Vec::new();
        // Keyed by VR, not by line: a VR that has moved has several lines.
        let mut sent: HashMap<(VrId, VrId, u64), usize> = HashMap::new();
        each(&run.vrs, |from, _, event| {
            if let What::Send { to: id, seq, bytes } = event.what
                && let Some(&to) = index.get(&id)
            {
                sent.insert((run.vrs[from].id, id, seq), messages.len());
                let label = label_of(from, event);
                messages.push(Message { from, to, sent: Some(event.at), received: None, bytes, label });
            }
        });
        let mut received = HashMap::new();
        each(&run.vrs, |to, number, event| {
            if let What::Receive { from: id, seq, bytes } = event.what
                && let Some(&from) = index.get(&id)
            {
                let message = *sent.entry((id, run.vrs[to].id, seq)).or_insert_with(|| {
                    let label = label_of(to, event);
                    messages.push(Message { from, to, sent: None, received: None, bytes, label });
                    messages.len() - 1
                });
                (messages[message].to, messages[message].received) = (to, Some(event.at));
                received.insert((to, number), message);
            }
        });
        let mut order: Vec<usize> = (0..messages.len()).collect();
        order.sort_by_key(|message| messages[*message].first());
        let mut place = vec![0; order.len()];
        order.iter().enumerate().for_each(|(new, old)| place[*old] = new);
        messages = order.iter().map(|old| messages[*old]).collect();
        received.values_mut().for_each(|message| *message = place[*message]);
        let mut waits = Vec::new();
        each(&run.vrs, |vr, number, event| {
            if let What::Wait { reason, on, nanos } = event.what {
                let on = on.and_then(|on| index.get(&on).copied());
                let ended_by = received.get(&(vr, number + 1)).copied();
                let ended_by = ended_by.filter(|_| reason == Reason::Receive);
                let label = label_of(vr, event);
                waits.push(Wait { vr, at: event.at, nanos, reason, on, label, ended_by });
            }
        });
        waits.sort_by_key(|wait| wait.at);
        let shared = shared(&run.vrs);
        Self { run, labels: interner.texts, messages, waits, received, index, shared }
    }

    /// The message that a receive has taken, given the indices of its VR and event.
    pub(super) fn message(&self, vr: usize, event: usize) -> Option<&Message> {
        self.received.get(&(vr, event)).map(|message| &self.messages[*message])
    }

    pub(super) fn index(&self, vr: VrId) -> Option<usize> {
        self.index.get(&vr).copied()
    }

    /// Who talks to whom, busiest first.
    #[must_use]
    pub fn pairs(&self) -> Vec<Pair> {
        let mut pairs: HashMap<(usize, usize), (u64, u64)> = HashMap::new();
        for Message { from, to, bytes, .. } in &self.messages {
            let pair = pairs.entry((*from, *to)).or_default();
            *pair = (pair.0 + 1, pair.1.saturating_add(*bytes));
        }
        let pair = |((from, to), (messages, bytes))| Pair { from, to, messages, bytes };
        let mut pairs: Vec<Pair> = pairs.into_iter().map(pair).collect();
        pairs.sort_by_key(|pair| (std::cmp::Reverse((pair.messages, pair.bytes)), pair.from, pair.to));
        pairs
    }

    /// The longest waits, longest first.
    #[must_use]
    pub fn longest_waits(&self, count: usize) -> Vec<&Wait> {
        let mut waits: Vec<&Wait> = self.waits.iter().collect();
        waits.sort_by_key(|wait| (std::cmp::Reverse(wait.nanos), wait.at));
        waits.truncate(count);
        waits
    }

    /// The name to show for a VR: its own, or the last part of its type's, and the beginning of its id if other VRs may
    /// have the same name.
    #[must_use]
    pub fn name(&self, vr: usize) -> String {
        let VrTrace { id, name, lost, .. } = &self.run.vrs[vr];
        match (name.as_str(), naming::last_part(name)) {
            ("", _) if *lost => format!("lost {}", id.short()),
            ("", _) => format!("VR {}", id.short()),
            (_, Some(kind)) => format!("{kind} {}", id.short()),
            (name, None) if self.shared.contains(name) => format!("{name} {}", id.short()),
            (name, None) => name.to_owned(),
        }
    }
}

/// The names that several VRs have.
fn shared(vrs: &[VrTrace]) -> HashSet<String> {
    let mut first = HashMap::new();
    // A VR that has moved has several lines.
    let others = vrs.iter().filter(|vr| *first.entry(vr.name.as_str()).or_insert(vr.id) != vr.id);
    others.map(|vr| vr.name.clone()).collect()
}

fn each(vrs: &[VrTrace], mut see: impl FnMut(usize, usize, &Event)) {
    for (vr, trace) in vrs.iter().enumerate() {
        trace.events.iter().enumerate().for_each(|(number, event)| see(vr, number, event));
    }
}
