//! Tracing of a VR's calls. If the program is not traced, each traced call costs one branch.

use super::Vr;
use super::content::BEGINNING;
use crate::arriving::Arriving;
use crate::envelope::{self, Channel, Payload};
use crate::id::VrId;
use crate::inbox::{Limit, Taker};
use crate::state::Call;
use crate::trace::{Begun, Label, Reason};

impl Vr {
    /// Whether the program is traced: by `river trace`, or [`Launch::trace`](crate::Launch::trace).
    #[must_use]
    pub fn is_traced(&self) -> bool {
        self.tracer.is_some()
    }

    /// Names a channel and describes its envelopes in traces; called by the layer that uses the channel. Costs one branch if
    /// the program is not traced, and little if the VR already knows the channel, so a layer may call it as often as it
    /// likes.
    ///
    /// ```
    /// # use river_core::Channel;
    /// # use river_core::trace::Label;
    /// const ORDERS: Channel = Channel::named("orders");
    /// # river_core::testing::threads(1, |vr, _, _| {
    /// let length = Label::Envelope(|envelope| Some(format!("{} bytes", envelope.payload.len())));
    /// vr.describe_channel(ORDERS, "orders", length);
    /// vr.send_bytes(vr.id(), ORDERS, 0, b"two of each".to_vec()).unwrap();
    /// # });
    /// ```
    #[inline]
    pub fn describe_channel(&self, channel: Channel, name: &'static str, label: Label) {
        if let Some(tracer) = &self.tracer {
            tracer.describe(channel, name, label);
        }
    }

    /// Gives a name in the trace to what the VR does until the guard is dropped, waits included. Costs one branch if the
    /// program is not traced.
    ///
    /// ```
    /// # river_core::testing::threads(1, |vr, _, _| {
    /// let span = vr.span("sorting");
    /// // ...
    /// drop(span);
    /// # });
    /// ```
    #[must_use = "a span ends when it is dropped"]
    #[inline]
    pub fn span(&self, name: &str) -> Span<'_> {
        Span { vr: self, begun: self.tracer.as_ref().map(|tracer| tracer.enter(name)) }
    }

    /// Sets the VR's name for people.
    pub(crate) fn is_called(&self, name: &str) {
        self.inbox.is_called(name);
        if let Some(tracer) = &self.tracer {
            tracer.name(name);
        }
    }

    /// Does something that may take time, and traces it.
    #[inline]
    pub(super) fn timed<T>(&self, reason: Reason, on: Option<VrId>, work: impl FnOnce() -> T) -> T {
        let Some(tracer) = &self.tracer else { return work() };
        let begun = tracer.begin();
        let result = work();
        tracer.waited(begun, reason, on);
        result
    }

    /// Waits until something has arrived or was taken, and returns `true`, or until the time is over.
    #[inline]
    pub(super) fn wait_for_arrivals(
        &self,
        limit: &mut Limit,
        on: Option<VrId>,
        taker: Option<&mut Taker<'_>>,
    ) -> bool {
        let wait = || self.inbox.wait(limit, &self.node.pump(), taker);
        let Some(tracer) = &self.tracer else { return wait() };
        let begun = tracer.begin_receive(on);
        let arrived = wait();
        tracer.end_receive(begun, on);
        arrived
    }

    /// Notes what the trace needs of an envelope that was taken in place; it is recorded when the wait is over.
    #[inline]
    pub(super) fn note(&self, arriving: &Arriving<'_>, noted: &mut Vec<Noted>) {
        if self.tracer.is_some() {
            let mut beginning = vec![0; arriving.here.min(BEGINNING)];
            let _ = arriving.copy_to(0, &mut beginning);
            noted.push((arriving.label, arriving.len, beginning.into()));
        }
    }

    #[inline]
    pub(super) fn trace_noted(&self, noted: Vec<Noted>) {
        if let Some(tracer) = &self.tracer {
            for (label, len, beginning) in noted {
                tracer.received(&label, len, || beginning);
            }
        }
    }

    pub(super) fn begin_deploying(&self) -> Option<Begun> {
        self.tracer.as_ref().filter(|_| self.is_live()).map(|tracer| tracer.begin())
    }

    pub(super) fn deployed(&self, begun: Option<Begun>, child: VrId) {
        if let (Some(tracer), Some(begun)) = (&self.tracer, begun) {
            tracer.deployed(begun, child);
        }
    }
}

/// A named section of what a VR does: see [`Vr::span`].
#[derive(Debug)]
pub struct Span<'a> {
    vr: &'a Vr,
    begun: Option<(Begun, u32)>,
}

impl Drop for Span<'_> {
    fn drop(&mut self) {
        if let (Some(tracer), Some(begun)) = (&self.vr.tracer, self.begun) {
            tracer.leave(begun);
        }
    }
}

/// An envelope that was taken in place: its header, the length of its payload, and the beginning of that.
pub(super) type Noted = (envelope::Label, usize, Payload);

/// Returns what a VR waits for while it makes a request to its program.
pub(super) fn reason(call: &Call) -> Reason {
    match call {
        Call::Discover => Reason::Discover,
        Call::Allocate | Call::Release => Reason::Lease,
        Call::Checkpoint => Reason::Checkpoint,
        _ => Reason::Deploy,
    }
}
