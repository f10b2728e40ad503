//! The part of tracing that runs in a VR's own thread.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::event::{Event, Reason, What};
use super::traces::{Buffer, Traces, now};
use crate::down::Down;
use crate::envelope::{self, Channel, Envelope, Payload};
use crate::id::VrId;

/// How envelopes of a channel are labelled. Labels should be short and few, such as tags or names of functions.
///
/// The labelling function sees at most the first KiB of a payload that its sender keeps
/// ([`Vr::send_parts`](crate::Vr::send_parts)), or that its receiver copies from where it lies
/// ([`Vr::receive_arriving`](crate::Vr::receive_arriving)).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Label {
    /// All envelopes have the same label.
    None,
    /// All envelopes of a lane other than 0 have the label of the lane's first envelope; those of lane 0 are labelled one
    /// by one.
    Lane(fn(&Envelope) -> Option<String>),
    /// Each envelope is labelled separately.
    Envelope(fn(&Envelope) -> Option<String>),
}

/// Shorter waits, in nanoseconds, do not count: reading the clock takes a good part of that.
const SHORTEST: u64 = 1_000;
/// Handing an envelope to a link takes less time, in nanoseconds, if nothing is in the way.
const HAND_OVER: u64 = 200_000;
/// The maximum length of a label, in characters; longer ones are cut.
const LABEL: usize = 80;
/// At most this many labels are kept; further ones become "(other)".
const LABELS: usize = 1024;

/// The writing side of a [`Buffer`]. Belongs to the VR's thread.
pub(crate) struct Tracer {
    traces: Arc<Traces>,
    buffer: Arc<Buffer>,
    labels: RefCell<Labels>,
    /// The innermost span's label.
    span: Cell<u32>,
}

#[derive(Default)]
struct Labels {
    channels: Vec<(Channel, &'static str, Label)>,
    /// The shared labels of channels and lanes.
    alike: HashMap<(Channel, u64), u32>,
    by_text: HashMap<String, u32>,
}

/// The beginning of something that takes time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun(u64);

/// An envelope that is being sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sending {
    at: u64,
    to: VrId,
    seq: u64,
    bytes: u64,
    label: u32,
}

impl Tracer {
    pub(crate) fn new(traces: Arc<Traces>, vr: VrId, parent: Option<VrId>) -> Self {
        let buffer = traces.begin(vr, parent);
        Self { traces, buffer, labels: RefCell::default(), span: Cell::new(0) }
    }

    pub(crate) fn name(&self, name: &str) {
        let _ = self.buffer.name.set(name.to_owned());
    }

    fn push(&self, at: u64, what: What, label: u32) {
        self.buffer.ring.push(Event { at, what, label }, &self.traces.budget);
    }

    // ---- labels ----

    pub(crate) fn describe(&self, channel: Channel, name: &'static str, label: Label) {
        let channels = &mut self.labels.borrow_mut().channels;
        if !channels.iter().any(|(known, ..)| *known == channel) {
            channels.push((channel, name, label));
        }
    }

    fn label_of(&self, of: &envelope::Label, payload: impl FnOnce() -> Payload) -> u32 {
        let envelope::Label { channel, lane, .. } = of;
        let labels = self.labels.borrow();
        let known = labels.channels.iter().find(|(known, ..)| known == channel).copied();
        // Envelopes that share a label cost one look-up each, except the first.
        let key = match known {
            None | Some((_, _, Label::None)) => Some((*channel, 0)),
            Some((_, _, Label::Lane(_))) if *lane != 0 => Some((*channel, *lane)),
            Some(_) => None,
        };
        if let Some(label) = key.and_then(|key| labels.alike.get(&key)) {
            return *label;
        }
        drop(labels);
        let text = match known {
            None => format!("channel {:x}", channel.to_wire()),
            Some((_, name, Label::None)) => name.to_owned(),
            Some((_, name, Label::Lane(label) | Label::Envelope(label))) => {
                label(&of.with(payload())).map_or_else(|| name.to_owned(), |text| format!("{name}: {text}"))
            }
        };
        let label = self.intern(text);
        let alike = &mut self.labels.borrow_mut().alike;
        if let Some(key) = key.filter(|_| alike.len() < 4 * LABELS) {
            alike.insert(key, label);
        }
        label
    }

    /// Returns the number of a label, adding it if it is new.
    fn intern(&self, mut text: String) -> u32 {
        if let Some((end, _)) = text.char_indices().nth(LABEL) {
            text.truncate(end);
            text.push('…');
        }
        let by_text = &mut self.labels.borrow_mut().by_text;
        if let Some(label) = by_text.get(&text) {
            return *label;
        }
        if by_text.len() == LABELS {
            text = "(other)".into();
            if let Some(label) = by_text.get(&text) {
                return *label;
            }
        }
        let label = self.buffer.add_label(text.clone());
        by_text.insert(text, label);
        label
    }

    // ---- what happens ----

    pub(crate) fn begin(&self) -> Begun {
        Begun(now())
    }

    /// Notes the end of a wait.
    pub(crate) fn waited(&self, Begun(at): Begun, reason: Reason, on: Option<VrId>) {
        let nanos = now().saturating_sub(at);
        let shortest = if reason == Reason::Send { HAND_OVER } else { SHORTEST };
        if nanos >= shortest {
            self.push(at, What::Wait { reason, on, nanos }, self.span.get());
        }
    }

    /// Begins the wait of a receive, which the control plane can see from outside.
    pub(crate) fn begin_receive(&self, on: Option<VrId>) -> Begun {
        let begun = self.begin();
        self.buffer.waits(begun.0, on);
        begun
    }

    pub(crate) fn end_receive(&self, begun: Begun, on: Option<VrId>) {
        self.buffer.waits_no_more();
        self.waited(begun, Reason::Receive, on);
    }

    /// Called when an envelope is about to be handed over.
    pub(crate) fn sending(
        &self,
        of: &envelope::Label,
        len: usize,
        payload: impl FnOnce() -> Payload,
    ) -> Sending {
        Sending { at: now(), to: of.dst, seq: of.seq, bytes: len as u64, label: self.label_of(of, payload) }
    }

    /// Notes that the envelope was accepted; `reason` is what it waited for, if it did.
    pub(crate) fn sent(&self, sending: Sending, reason: Reason) {
        let Sending { at, to, seq, bytes, label } = sending;
        self.push(at, What::Send { to, seq, bytes }, label);
        self.waited(Begun(at), reason, Some(to));
    }

    pub(crate) fn received(&self, of: &envelope::Label, len: usize, payload: impl FnOnce() -> Payload) {
        let what = What::Receive { from: of.src, seq: of.seq, bytes: len as u64 };
        self.push(now(), what, self.label_of(of, payload));
    }

    pub(crate) fn deployed(&self, Begun(at): Begun, child: VrId) {
        self.push(at, What::Deploy { child }, 0);
    }

    pub(crate) fn down(&self, down: &Down) {
        let label = self.intern(down.why.cause().to_string());
        self.push(now(), What::Down { who: down.who }, label);
    }

    pub(crate) fn enter(&self, name: &str) -> (Begun, u32) {
        let label = self.intern(name.to_owned());
        (self.begin(), self.span.replace(label))
    }

    pub(crate) fn leave(&self, (Begun(at), outer): (Begun, u32)) {
        let label = self.span.replace(outer);
        self.push(at, What::Span { nanos: now().saturating_sub(at) }, label);
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").field("buffer", &self.buffer).finish_non_exhaustive()
    }
}
