//! Counts the handles that this VR has made from each reference that it holds.

use std::cell::RefCell;
use std::collections::HashMap;

use river_core::{Vr, VrId};

use crate::post::Post;
use crate::protocol::{Op, Reference};

/// Kept with the VR.
#[derive(Default)]
pub(crate) struct Handles(RefCell<HashMap<Reference, usize>>);

/// A handle's share of a reference. The server is told when the last share is dropped.
pub(crate) struct Held<'a> {
    vr: &'a Vr,
    server: VrId,
    reference: Reference,
}

impl<'a> Held<'a> {
    pub(crate) fn new(vr: &'a Vr, server: VrId, reference: Reference) -> Self {
        *vr.slot::<Handles>().0.borrow_mut().entry(reference).or_default() += 1;
        Self { vr, server, reference }
    }

    /// Gives up this share; returns `true` if it was the last one.
    fn leave(&self) -> bool {
        let handles = self.vr.slot::<Handles>();
        let mut handles = handles.0.borrow_mut();
        let Some(count) = handles.get_mut(&self.reference) else { return false };
        *count -= 1;
        let last = *count == 0;
        if last {
            handles.remove(&self.reference);
        }
        last
    }
}

impl Clone for Held<'_> {
    fn clone(&self) -> Self {
        Self::new(self.vr, self.server, self.reference)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if self.leave() {
            Post::of(self.vr).tell(self.vr, self.server, Op::Release(self.reference));
        }
    }
}
