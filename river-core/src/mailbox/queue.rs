//! The saved form of a mailbox.

use super::Mailbox;
use super::deaths::Deaths;
use crate::down::{Down, Why};
use crate::envelope::Envelope;
use crate::id::VrId;
use crate::inbox::Event;

/// A mailbox without posted receives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    /// Arrivals that were not yet examined, oldest first.
    pub(crate) fresh: Vec<Event>,
    /// Envelopes that were examined and not taken, with their arrival numbers.
    pub(crate) held: Vec<(u64, Envelope)>,
    pub(crate) arrivals: u64,
    pub(crate) watched: Vec<VrId>,
    pub(crate) children: Vec<VrId>,
    pub(crate) down: Vec<(VrId, Why)>,
    pub(crate) notices: Vec<Down>,
    pub(crate) stopped: bool,
}

impl From<Queue> for Mailbox {
    fn from(queue: Queue) -> Self {
        let deaths = Deaths {
            watched: queue.watched.into_iter().collect(),
            children: queue.children.into_iter().collect(),
            down: queue.down.into_iter().collect(),
            notices: queue.notices.into(),
            heard: Vec::new(),
        };
        let fresh = queue.fresh.into_iter().rev().collect();
        let (arrivals, stopped) = (queue.arrivals, queue.stopped);
        let mut mailbox = Self { fresh, arrivals, deaths, stopped, ..Self::default() };
        for (number, envelope) in queue.held {
            mailbox.hold(number, envelope);
        }
        mailbox
    }
}

impl Mailbox {
    /// Returns the contents of the mailbox; `None` if receives are posted, whose predicates cannot be saved.
    pub(crate) fn queue(&self) -> Option<Queue> {
        let deaths = &self.deaths;
        self.posted.is_empty().then(|| Queue {
            fresh: self.fresh.iter().rev().cloned().collect(),
            held: self.unexpected.iter().map(|(number, envelope)| (number, envelope.clone())).collect(),
            arrivals: self.arrivals,
            watched: deaths.watched.iter().copied().collect(),
            children: deaths.children.iter().copied().collect(),
            down: deaths.down.iter().map(|(who, why)| (*who, why.clone())).collect(),
            notices: deaths.notices.iter().cloned().collect(),
            stopped: self.stopped,
        })
    }
}
