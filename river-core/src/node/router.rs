//! The router: where a VR lives, and why it cannot be reached.
//!
//! It checks, in this order: whether the VR lives here, whether it has ended here, whether its host is known, and whether the
//! program's directory knows it. Results are kept in the book, so the directory is asked once per VR and process.

use super::Node;
use super::connect::Unreached;
use crate::down::{Down, Why};
use crate::id::{HostId, VrId};
use crate::link::Link;
use crate::protocol::{Place, Reply, Request};

impl Node {
    /// Records where a VR lives, unless that is known already: what is known is as new, or newer if the VR has moved
    /// meanwhile.
    pub(crate) fn learn(&self, vr: VrId, place: Place) {
        if place.host != self.place.host && self.inbox(vr).is_none() {
            let mut book = self.book();
            book.located.entry(vr).or_insert(place.host);
            book.peers.entry(place.host).or_default().address = Some(place.address);
        }
    }

    /// Returns the link to a VR, dialling if necessary. Blocks for the directory's answer or for dialling.
    pub(crate) fn route(&self, to: VrId) -> Result<Link, Down> {
        self.reach(to).map_err(|unreached| Down { who: to, why: unreached.why })
    }

    /// Like [`route`](Self::route), for callers that must know whether the VR is gone.
    pub(super) fn reach(&self, to: VrId) -> Result<Link, Unreached> {
        loop {
            if let Some(inbox) = self.inbox(to) {
                return Ok(Link::Local(inbox));
            }
            let (ended, host) = {
                let book = self.book();
                (book.ended.get(&to).cloned(), book.located.get(&to).copied())
            };
            if let Some(why) = ended {
                return Err(why.into());
            }
            if let Some(host) = host {
                return self.connect(host);
            }
            match self.ask(Request::Locate(to)) {
                Some(Reply::At(place)) if place.host == self.place.host => {
                    // The directory says that it is here, but it has ended in the meantime or is just being created.
                    let why = self.book().ended.get(&to).cloned();
                    return self.inbox(to).map(Link::Local).ok_or(why.unwrap_or(Why::Unknown).into());
                }
                Some(Reply::At(place)) => self.learn(to, place),
                Some(Reply::Dead { host, why }) => {
                    self.book().located.insert(to, host);
                    self.host_down(host, &why);
                    return Err(why.into());
                }
                Some(Reply::Gone(why)) => return Err(why.into()),
                _ => return Err(Why::ProgramEnded.into()),
            }
        }
    }

    /// Returns why sending to `to` failed, once that is known. Blocks, for a bounded time, for the verdict on its host.
    pub(crate) fn post_mortem(&self, to: VrId) -> Down {
        let host = {
            let book = self.book();
            if let Some(why) = book.ended.get(&to) {
                return Down { who: to, why: why.clone() };
            }
            book.located.get(&to).copied()
        };
        let why = host.map_or(Why::Finished, |host| self.verdict(host, "the connection broke"));
        Down { who: to, why }
    }

    /// Returns why a host is gone whose connection failed, as the program decides. Blocks for the answer.
    pub(super) fn verdict(&self, host: HostId, error: &str) -> Why {
        if let Some(why) = self.book().why_down(host) {
            return why;
        }
        if let Some(why) = self.lose_foreign(host, error) {
            return why;
        }
        match self.ask(Request::Verdict { host, error: error.into() }) {
            Some(Reply::Gone(why)) => why,
            _ => Why::ProgramEnded,
        }
    }
}
