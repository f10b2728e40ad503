//! The courier: a thread that sends notices for threads that must not block.
//!
//! Dialling a process that is stopped can take up to twenty seconds. So for the first notice to a process another thread
//! dials it, and further notices to that process wait meanwhile, in order.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::{Arc, Weak};
use std::thread;

use crossbeam_channel::Receiver;

use super::{Node, SYSTEM};
use crate::down::Down;
use crate::envelope::Envelope;
use crate::frame::{Kind, gate};
use crate::id::{HostId, VrId};
use crate::limit::WhenFull;

/// A notice from a thread that must not block.
#[derive(Debug)]
pub(crate) enum Notice {
    Down {
        to: VrId,
        down: Down,
    },
    /// To a process: the mailbox of a VR of this one is full, or has room again.
    Gate {
        to: HostId,
        vr: VrId,
        full: Option<WhenFull>,
    },
    /// A watch on a VR that has moved elsewhere.
    Watch {
        watcher: VrId,
        watched: VrId,
    },
    /// To a process that has a mirrored VR or its twin, about that VR.
    Mirror {
        to: HostId,
        vr: VrId,
        lane: u64,
        number: u64,
    },
    /// To the courier itself: a process was dialled, successfully or not.
    Dialled(HostId),
}

/// Starts the courier of a node; it ends with the node.
pub(super) fn start(node: Weak<Node>, notices: Receiver<Notice>) -> io::Result<()> {
    let deliver = move || {
        let mut waiting: HashMap<HostId, Vec<Notice>> = HashMap::new();
        while let Ok(notice) = notices.recv() {
            let Some(node) = node.upgrade() else { return };
            if let Notice::Dialled(host) = notice {
                waiting.remove(&host).into_iter().flatten().for_each(|notice| node.carry(notice));
                continue;
            }
            let Some(host) = node.destination(&notice) else {
                node.carry(notice);
                continue;
            };
            match waiting.entry(host) {
                Entry::Occupied(mut others) => others.get_mut().push(notice),
                Entry::Vacant(_) if node.is_connected(host) => node.carry(notice),
                Entry::Vacant(place) => {
                    place.insert(vec![notice]);
                    node.dial_aside(host);
                }
            }
        }
    };
    thread::Builder::new().name("river-notices".into()).spawn(deliver).map(drop)
}

impl Node {
    /// Tells a process that the mailbox of a VR of this one is full, or has room again. Does not block.
    pub(crate) fn gate(&self, to: HostId, vr: VrId, full: Option<WhenFull>) {
        let _ = self.courier.send(Notice::Gate { to, vr, full });
    }

    fn tell_gate(&self, to: HostId, vr: VrId, full: Option<WhenFull>) {
        if let Ok(link) = self.connect(to) {
            let payload = vec![gate::encode(full)].into();
            let _ = link.notify(
                Kind::Gate,
                &Envelope { src: vr, dst: vr, seq: 0, channel: SYSTEM, lane: 0, payload },
            );
        }
    }

    /// Returns the other process that a notice is for, if there is one and it is known.
    fn destination(&self, notice: &Notice) -> Option<HostId> {
        match notice {
            Notice::Gate { to, .. } | Notice::Mirror { to, .. } | Notice::Dialled(to) => Some(*to),
            Notice::Down { to: vr, .. } | Notice::Watch { watched: vr, .. } if self.inbox(*vr).is_none() => {
                self.book().located.get(vr).copied()
            }
            _ => None,
        }
        .filter(|host| *host != self.place.host)
    }

    /// Whether a notice need not wait for a connection to that process; also true of a process that is gone.
    fn is_connected(&self, host: HostId) -> bool {
        let book = self.book();
        let Some(peer) = book.peers.get(&host) else { return false };
        peer.down.is_some() || peer.link.try_lock().is_ok_and(|link| link.is_some())
    }

    fn dial_aside(self: &Arc<Self>, host: HostId) {
        let node = self.clone();
        let dial = move || {
            // If it cannot be reached, the thread that sends the notice then finds out at once. But if this process has no
            // files left, keep trying: a notice is not sent again.
            while node.connect(host).is_err_and(|unreached| unreached.alive.is_some()) && !node.book().stopped
            {
            }
            let _ = node.courier.send(Notice::Dialled(host));
        };
        if thread::Builder::new().name("river-dial".into()).spawn(dial).is_err() {
            let _ = self.courier.send(Notice::Dialled(host));
        }
    }

    /// Sends a notice. May block.
    pub(super) fn carry(&self, notice: Notice) {
        match notice {
            Notice::Down { to, down } => self.tell(to, &down),
            Notice::Gate { to, vr, full } => self.tell_gate(to, vr, full),
            Notice::Watch { watcher, watched } => self.pass_on_watch(watcher, watched),
            Notice::Mirror { to, vr, lane, number } => self.carry_mirror(to, vr, lane, number),
            Notice::Dialled(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;
    use crate::discovery::Network;
    use crate::id::ProgramId;
    use crate::key::ClusterKey;
    use crate::noise::FIRST_LEN;
    use crate::protocol::Place;
    use crate::rt;

    #[test]
    fn a_process_that_answers_nobody_does_not_keep_notices_from_others() {
        let (requests, _) = rt::unbounded();
        let (program, key) = (ProgramId::fresh(), ClusterKey::from_bytes([0; 32]));
        let own = Place { host: HostId::fresh(), address: (Ipv4Addr::LOCALHOST, 1).into() };
        let node = Node::start((own, Network::Loopback), program, "test".into(), key, requests, false);
        let node = node.unwrap();
        let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let [stopped, other] = listeners.each_ref().map(|listener| {
            let place = Place { host: HostId::fresh(), address: listener.local_addr().unwrap() };
            node.learn(VrId::fresh(), place);
            place.host
        });
        node.gate(stopped, VrId::fresh(), None);
        let (mut silence, _) = listeners[0].accept().unwrap();
        silence.read_exact(&mut [0; FIRST_LEN]).unwrap();
        node.gate(other, VrId::fresh(), None);
        listeners[1].accept().unwrap();
        // Its dialler has not given up yet.
        silence.set_nonblocking(true).unwrap();
        assert_eq!(silence.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}
