//! MPI's *posted queue*: receives that were posted, earliest first, and the envelopes that they have got.

use std::collections::VecDeque;
use std::fmt;

use super::selector::Selector;
use crate::envelope::Envelope;

/// Identifies a posted receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PostId(u64);

struct Posted {
    id: PostId,
    selector: Selector,
    accept: Box<dyn FnMut(&Envelope) -> bool>,
    /// Whether it wants every envelope that matches, not only one.
    standing: bool,
    got: VecDeque<(u64, Envelope)>,
}

impl Posted {
    fn wants(&mut self, envelope: &Envelope) -> bool {
        (self.standing || self.got.is_empty()) && self.selector.admits(envelope) && (self.accept)(envelope)
    }
}

impl fmt::Debug for Posted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Posted")
            .field("id", &self.id)
            .field("selector", &self.selector)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
pub(super) struct PostedReceives {
    queue: VecDeque<Posted>,
    posts: u64,
    /// How many envelopes standing receives have got.
    standing: usize,
    /// How many envelopes all receives have got.
    got: usize,
}

impl PostedReceives {
    /// Posts a receive that has already got these envelopes, with their arrival numbers.
    pub(super) fn post(
        &mut self,
        selector: Selector,
        accept: Box<dyn FnMut(&Envelope) -> bool>,
        standing: bool,
        got: VecDeque<(u64, Envelope)>,
    ) -> PostId {
        self.posts += 1;
        self.got += got.len();
        if standing {
            self.standing += got.len();
        }
        let id = PostId(self.posts);
        self.queue.push_back(Posted { id, selector, accept, standing, got });
        id
    }

    /// Gives an envelope to the earliest receive that wants it, or returns it.
    pub(super) fn give(&mut self, number: u64, envelope: Envelope) -> Option<Envelope> {
        let Some(posted) = self.queue.iter_mut().find_map(|posted| posted.wants(&envelope).then_some(posted))
        else {
            return Some(envelope);
        };
        self.standing += usize::from(posted.standing);
        self.got += 1;
        // At the end, unless the envelope was given back by another.
        let at = posted.got.partition_point(|(other, _)| *other < number);
        posted.got.insert(at, (number, envelope));
        None
    }

    /// Returns the selector of a posted receive.
    pub(super) fn selector(&self, id: PostId) -> Option<Selector> {
        self.queue.iter().find(|posted| posted.id == id).map(|posted| posted.selector)
    }

    /// Takes the envelope that a receive has got; the receive is then no longer posted.
    pub(super) fn complete(&mut self, id: PostId) -> Option<Envelope> {
        let index = self.queue.iter().position(|posted| posted.id == id && !posted.got.is_empty())?;
        let posted = self.queue.remove(index)?;
        self.got -= posted.got.len();
        posted.got.into_iter().next().map(|(_, envelope)| envelope)
    }

    /// Cancels a receive, and returns what it had got.
    pub(super) fn unpost(&mut self, id: PostId) -> VecDeque<(u64, Envelope)> {
        let index = self.queue.iter().position(|posted| posted.id == id);
        let Some(posted) = index.and_then(|index| self.queue.remove(index)) else { return VecDeque::new() };
        self.got -= posted.got.len();
        if posted.standing {
            self.standing -= posted.got.len();
        }
        posted.got
    }

    /// Whether a standing receive has got an envelope.
    pub(super) fn has_standing(&self) -> bool {
        self.standing > 0
    }

    /// Takes the earliest envelope that a standing receive has got, except those that are busy.
    pub(super) fn take_standing(&mut self, busy: &[PostId]) -> Option<(PostId, Envelope)> {
        let standing = self.queue.iter_mut().filter(|posted| posted.standing && !busy.contains(&posted.id));
        let first = standing.filter(|posted| !posted.got.is_empty());
        let first = first.min_by_key(|posted| posted.got.front().map(|(number, _)| *number))?;
        let (_, envelope) = first.got.pop_front()?;
        self.standing -= 1;
        self.got -= 1;
        Some((first.id, envelope))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether any receive may want an envelope that the selector admits.
    pub(super) fn may_want(&self, selector: &Selector) -> bool {
        self.queue.iter().any(|posted| posted.selector.channel == selector.channel)
    }

    /// Returns how many envelopes all receives have got.
    #[inline]
    pub(super) fn got(&self) -> usize {
        self.got
    }

    /// Returns the envelopes that all receives have got.
    pub(super) fn envelopes(&self) -> impl Iterator<Item = &Envelope> {
        self.queue.iter().flat_map(|posted| &posted.got).map(|(_, envelope)| envelope)
    }
}
