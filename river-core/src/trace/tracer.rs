//! What a VR's own thread writes down.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::event::{Event, Reason, What};
use super::traces::{Buffer, Traces, now};
use crate::down::Down;
use crate::envelope::{self, Channel, Envelope, Payload};
use crate::id::VrId;

/// How envelopes of a channel are labelled: with what is short, and one of few, such as a tag or the name of a function.
///
/// Of an envelope whose payload its sender keeps ([`Vr::send_parts`](crate::Vr::send_parts)), or that its receiver copies from
/// where it lies ([`Vr::receive_arriving`](crate::Vr::receive_arriving)), no more than the first KiB is shown.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Label {
    /// All alike.
    None,
    /// All of a lane alike, if it is not 0: by the first of them.
    Lane(fn(&Envelope) -> Option<String>),
    /// Each by itself.
    Envelope(fn(&Envelope) -> Option<String>),
}

/// Shorter waits are none: looking at the clock takes a good part of that.
const SHORTEST: u64 = 1_000;
/// Handing an envelope to a link takes less, as long as nobody is in the way.
const HAND_OVER: u64 = 200_000;
/// A longer label is cut.
const LABEL: usize = 80;
/// Of so many labels the names are kept; what is labelled otherwise is "(other)".
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
    /// Of a channel, or of one of its lanes.
    alike: HashMap<(Channel, u64), u32>,
    by_text: HashMap<String, u32>,
}

/// Something that takes time has begun.
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
        // Of the envelopes that are labelled alike all but the first cost one look-up.
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

    /// The number of a label.
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

    /// The wait that had begun is over.
    pub(crate) fn waited(&self, Begun(at): Begun, reason: Reason, on: Option<VrId>) {
        let nanos = now().saturating_sub(at);
        let shortest = if reason == Reason::Send { HAND_OVER } else { SHORTEST };
        if nanos >= shortest {
            self.push(at, What::Wait { reason, on, nanos }, self.span.get());
        }
    }

    /// A wait of a receive begins; who looks at the VR from elsewhere may see it.
    pub(crate) fn begin_receive(&self, on: Option<VrId>) -> Begun {
        let begun = self.begin();
        self.buffer.waits(begun.0, on);
        begun
    }

    pub(crate) fn end_receive(&self, begun: Begun, on: Option<VrId>) {
        self.buffer.waits_no_more();
        self.waited(begun, Reason::Receive, on);
    }

    /// The envelope is about to be handed over.
    pub(crate) fn sending(
        &self,
        of: &envelope::Label,
        len: usize,
        payload: impl FnOnce() -> Payload,
    ) -> Sending {
        Sending { at: now(), to: of.dst, seq: of.seq, bytes: len as u64, label: self.label_of(of, payload) }
    }

    /// It was taken; that it was not at once has this reason.
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
