//! A connection: the calling VR, the server, and the time limit of calls.

use std::time::{Duration, Instant};

use river_core::{Vr, VrId};

use crate::post::Post;

/// The connection of one VR to one server.
#[derive(Clone, Copy)]
pub(crate) struct Connection<'a> {
    pub(crate) vr: &'a Vr,
    pub(crate) server: VrId,
    pub(crate) limit: Option<Duration>,
}

/// The instant that is this far from now; `None` means never, since the clock cannot represent it.
pub(crate) fn from_now(time: Duration) -> Option<Instant> {
    Instant::now().checked_add(time)
}

impl<'a> Connection<'a> {
    pub(crate) fn new(vr: &'a Vr, server: VrId) -> Self {
        if Post::of(vr).with(|calls| calls.add_server(server)) {
            vr.watch(server);
        }
        Self { vr, server, limit: None }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.limit.and_then(from_now)
    }
}
