//! Iterators over messages.

use river_core::Vr;

use crate::error::RecvError;
use crate::message::Message;
use crate::pattern::Pattern;
use crate::receive::{try_take, until};

/// The messages that match a pattern; waits for more. Made by [`Sfm::iter`](crate::Sfm::iter).
#[must_use = "iterators are lazy"]
#[derive(Debug)]
pub struct Iter<'v, 'p> {
    vr: &'v Vr,
    pattern: Pattern<'p>,
    over: bool,
}

impl<'v, 'p> Iter<'v, 'p> {
    pub(crate) fn new(vr: &'v Vr, pattern: Pattern<'p>) -> Self {
        Self { vr, pattern, over: false }
    }
}

impl Iterator for Iter<'_, '_> {
    type Item = Result<Message, RecvError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let result = until(self.vr, &self.pattern, None);
        self.over = result.is_err();
        Some(result)
    }
}

/// The messages that match a pattern and have arrived. Made by [`Sfm::try_iter`](crate::Sfm::try_iter).
#[must_use = "iterators are lazy"]
#[derive(Debug)]
pub struct TryIter<'v, 'p> {
    vr: &'v Vr,
    pattern: Pattern<'p>,
    over: bool,
}

impl<'v, 'p> TryIter<'v, 'p> {
    pub(crate) fn new(vr: &'v Vr, pattern: Pattern<'p>) -> Self {
        Self { vr, pattern, over: false }
    }
}

impl Iterator for TryIter<'_, '_> {
    type Item = Result<Message, RecvError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let result = try_take(self.vr, &self.pattern).transpose();
        self.over = !matches!(result, Some(Ok(_)));
        result
    }
}
