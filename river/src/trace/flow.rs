//! What is in a trace without being written there: messages, of their two ends.

use std::collections::{HashMap, HashSet};

use river_core::trace::{Event, Reason, Run, VrTrace, What};
use river_core::{VrId, naming};

/// A run, and what follows from it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Flow {
    /// What it is of.
    pub run: Run,
    /// The labels of all VRs; the first is empty.
    pub labels: Vec<String>,
    /// By when they were sent, or received if that is not known.
    pub messages: Vec<Message>,
    /// By when they began.
    pub waits: Vec<Wait>,
    /// Index by VR and event, of receives, into `messages`.
    received: HashMap<(usize, usize), usize>,
    index: HashMap<VrId, usize>,
    /// Names that several VRs have.
    shared: HashSet<String>,
}

/// A message from one VR to another, which are indices into [`Run::vrs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// Who sent it.
    pub from: usize,
    /// For whom it was.
    pub to: usize,
    /// When it was sent; `None` if the sender's trace no longer says.
    pub sent: Option<u64>,
    /// When it was taken out of the mailbox; `None` if it never was, or the receiver's trace is lost.
    pub received: Option<u64>,
    /// The length of its payload.
    pub bytes: u64,
    /// Its label: an index into [`Flow::labels`].
    pub label: usize,
}

impl Message {
    /// When it first shows up.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.sent.or(self.received).unwrap_or(0)
    }
}

/// A time in which a VR did not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wait {
    /// Which VR: an index into [`Run::vrs`].
    pub vr: usize,
    /// When it began.
    pub at: u64,
    /// How long it took, in nanoseconds.
    pub nanos: u64,
    /// What for.
    pub reason: Reason,
    /// Without which VR it could not go on.
    pub on: Option<usize>,
    /// What the VR was doing: an index into [`Flow::labels`].
    pub label: usize,
    /// The message that ended it: an index into [`Flow::messages`].
    pub ended_by: Option<usize>,
}

/// What went from one VR to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pair {
    /// Who sent: an index into [`Run::vrs`].
    pub from: usize,
    /// For whom.
    pub to: usize,
    /// How many messages.
    pub messages: u64,
    /// How many bytes of payload.
    pub bytes: u64,
}

/// Numbers labels of several VRs.
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
    /// Costs as much as there are events.
    #[must_use]
    pub fn new(run: Run) -> Self {
        let index: HashMap<VrId, usize> = run.vrs.iter().enumerate().map(|(i, vr)| (vr.id, i)).collect();
        let mut interner = Interner::default();
        interner.number("");
        let mut label_of =
            |vr: usize, event: &Event| run.vrs[vr].label(event).map_or(0, |label| interner.number(label));
        let mut messages = Vec::new();
        // By VRs, not by their lines: one that has moved has several.
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

    /// Which of the messages a receive has taken: the event of that number of that VR.
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

    /// What people call a VR: its own name, or the last part of its type's; and the beginning of its id, if others may be
    /// called that, too.
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
    // One that has moved has several lines.
    let others = vrs.iter().filter(|vr| *first.entry(vr.name.as_str()).or_insert(vr.id) != vr.id);
    others.map(|vr| vr.name.clone()).collect()
}

fn each(vrs: &[VrTrace], mut see: impl FnMut(usize, usize, &Event)) {
    for (vr, trace) in vrs.iter().enumerate() {
        trace.events.iter().enumerate().for_each(|(number, event)| see(vr, number, event));
    }
}
