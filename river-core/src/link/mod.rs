//! Links: the ways from one VR to another. The router picks a link when a destination is first used; no other code asks
//! whether a VR is near or far.
//!
//! * [`Link::Local`]: both VRs are in one process; the envelope is moved into the other's inbox.
//! * [`Link::Shm`]: a ring in memory that two processes of one machine share; large payloads lie in such memory, too.
//! * [`Link::Tcp`]: a connection that this process dialled and only writes to. The thread of the sending VR writes to the
//!   socket itself.
//!
//! Incoming data is read by the VRs that wait for it, or by the one reader thread of the process while none does.

mod connection;
mod inlets;
mod reader;
mod shm;
#[cfg(test)]
mod sim;
mod sockets;
mod tcp;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::arriving::{Arriving, Intake};
use crate::envelope::{Envelope, Label};
use crate::frame::Kind;
use crate::id::HostId;
use crate::inbox::{Inbox, Refused, Taker};
use crate::status::LinkStatus;

pub(crate) use inlets::Inlets;
pub(crate) use reader::{By, Reader, Sink};
pub use shm::{Line, SharedLines, SharedName};
pub(crate) use shm::{Offer, Rings, ShmLink};
#[cfg(test)]
pub(crate) use sim::{SimLink, SimNet};
pub(crate) use tcp::TcpLink;

/// Counts what was sent on a link.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Traffic {
    /// Counts an envelope with a payload of this length. The caller must hold the link's lock.
    fn count(&self, kind: Kind, len: usize) {
        if kind == Kind::Envelope {
            let add = |to: &AtomicU64, count| to.store(to.load(Relaxed) + count, Relaxed);
            add(&self.messages, 1);
            add(&self.bytes, len as u64);
        }
    }
}

/// A VR that polls, and may take envelopes that are for it.
struct Own<'a, 'b> {
    inbox: &'a Inbox,
    taker: &'a mut Taker<'b>,
}

impl Own<'_, '_> {
    /// Shows it an envelope, unless an envelope in its inbox comes first.
    fn offer(&mut self, sink: &dyn Sink, arriving: &Arriving<'_>) -> Intake {
        if self.inbox.is_ready() || !sink.trusts_all() { Intake::Left } else { self.taker.offer(arriving) }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Link {
    Local(Arc<Inbox>),
    Shm(Arc<ShmLink>),
    Tcp(Arc<TcpLink>),
    #[cfg(test)]
    Sim(SimLink),
}

impl Link {
    /// Sends an envelope. On failure the link is unusable; the router knows why. May block while more than a bounded number
    /// of bytes is queued for a peer that does not read.
    ///
    /// Within the process, the destination's limit is enforced here; for other processes `Gates` does that.
    pub(crate) fn send(&self, envelope: Envelope) -> Result<(), Refused> {
        if let Link::Local(inbox) = self {
            return inbox.offer(envelope);
        }
        self.notify(Kind::Envelope, &envelope).map_err(|()| Refused::Closed)
    }

    /// Like [`send`](Self::send), for a payload that lies in the caller's memory: it is copied directly into the link if that
    /// has a place for it, otherwise once more.
    pub(crate) fn send_parts(&self, label: Label, parts: &[&[u8]]) -> Result<(), Refused> {
        let sent = match self {
            Link::Shm(link) => {
                let len = parts.iter().map(|part| part.len()).sum();
                link.send(Kind::Envelope, &label, len, parts.iter().copied())
            }
            Link::Tcp(link) => link.send_parts(Kind::Envelope, &label, parts),
            _ => return self.send(label.with(parts.concat().into())),
        };
        sent.map_err(|_| Refused::Closed)
    }

    /// Returns the longest payload that it moves in one piece, if it has such a limit.
    pub(crate) fn handy_size(&self) -> Option<usize> {
        match self {
            Link::Shm(_) => Some(ShmLink::WHOLE),
            Link::Tcp(link) if !link.is_sealed() => Some(connection::LONGEST),
            _ => None,
        }
    }

    /// Sends a frame to another process. On failure the link is unusable.
    pub(crate) fn notify(&self, kind: Kind, envelope: &Envelope) -> Result<(), ()> {
        match self {
            Link::Local(_) => Ok(()),
            Link::Shm(link) => {
                let parts = envelope.payload.parts().map(|part| &part[..]);
                link.send(kind, &envelope.label(), envelope.payload.len(), parts).map_err(drop)
            }
            Link::Tcp(link) => link.send(kind, envelope).map_err(drop),
            #[cfg(test)]
            Link::Sim(link) => link.send(kind, envelope).map_err(drop),
        }
    }

    /// Returns what was sent to another process.
    pub(crate) fn status(&self, to: HostId) -> Option<LinkStatus> {
        let (kind, traffic) = match self {
            Link::Shm(link) => ("shm", &link.traffic),
            Link::Tcp(link) => ("tcp", &link.traffic),
            _ => return None,
        };
        let (messages, bytes) = (traffic.messages.load(Relaxed), traffic.bytes.load(Relaxed));
        Some(LinkStatus { to, kind: kind.into(), messages, bytes })
    }

    /// Ends the link: blocked senders return, further sends fail.
    pub(crate) fn close(&self, error: &str) {
        match self {
            Link::Local(_) => {}
            Link::Shm(link) => link.close(error),
            Link::Tcp(link) => link.close(error),
            #[cfg(test)]
            Link::Sim(link) => link.close(),
        }
    }
}
