//! The address of a process as another process sees it. A machine has several addresses, not all of which are reachable
//! from every other machine. All listeners of a process have the same port.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::protocol::{NewVr, Pair, Place, Reply, Step, ToHost};

/// The point of view of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct View {
    /// The host's address, as the initiator knows it; loopback if it runs on the initiator's machine.
    pub(super) own: IpAddr,
    /// The initiator's address, as the host's machine knows it.
    pub(super) initiator: IpAddr,
}

impl View {
    /// Translates a place from the initiator's point of view to the host's.
    fn of(self, place: Place) -> Place {
        let there = place.address.ip();
        let seen = if there.is_loopback() {
            // On the initiator's machine.
            self.initiator
        } else if there == self.own {
            // On the same machine: processes of one machine need no encryption, and may share memory.
            Ipv4Addr::LOCALHOST.into()
        } else {
            there
        };
        Place { host: place.host, address: SocketAddr::new(seen, place.address.port()) }
    }

    /// Translates the places in a message to the host's point of view.
    pub(super) fn translate(self, message: ToHost) -> ToHost {
        match message {
            ToHost::Reply { ticket, reply: Reply::At(place) } => {
                ToHost::Reply { ticket, reply: Reply::At(self.of(place)) }
            }
            ToHost::Reply { ticket, reply: Reply::Deployed(places) } => {
                let places = places.into_iter().map(|(vr, place)| (vr, self.of(place))).collect();
                ToHost::Reply { ticket, reply: Reply::Deployed(places) }
            }
            ToHost::Create { ticket, vrs } => {
                let seen = |new: NewVr| NewVr { parent_at: self.of(new.parent_at), ..new };
                ToHost::Create { ticket, vrs: vrs.into_iter().map(seen).collect() }
            }
            ToHost::State { round, step: Step::Moved(moves) } => {
                let moves = moves.into_iter().map(|(vr, place)| (vr, self.of(place))).collect();
                ToHost::State { round, step: Step::Moved(moves) }
            }
            ToHost::State { round, step: Step::Mirrored(pairs) } => {
                let seen = |pair: Pair| Pair { main: self.of(pair.main), twin: self.of(pair.twin) };
                let pairs = pairs.into_iter().map(|(vr, pair)| (vr, seen(pair))).collect();
                ToHost::State { round, step: Step::Mirrored(pairs) }
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::HostId;

    fn seen(own: &str, initiator: &str, place: &str) -> String {
        let view = View { own: own.parse().unwrap(), initiator: initiator.parse().unwrap() };
        let place = Place { host: HostId::fresh(), address: place.parse().unwrap() };
        view.of(place).address.to_string()
    }

    #[test]
    fn each_host_sees_the_others_where_it_can_reach_them() {
        // Seen from the initiator's machine.
        assert_eq!(seen("127.0.0.1", "127.0.0.1", "127.0.0.1:1"), "127.0.0.1:1");
        assert_eq!(seen("127.0.0.1", "127.0.0.1", "10.0.0.2:1"), "10.0.0.2:1");
        // Seen from another machine.
        assert_eq!(seen("10.0.0.2", "10.0.0.1", "127.0.0.1:1"), "10.0.0.1:1");
        assert_eq!(seen("10.0.0.2", "10.0.0.1", "10.0.0.2:1"), "127.0.0.1:1");
        assert_eq!(seen("10.0.0.2", "10.0.0.1", "10.0.0.3:1"), "10.0.0.3:1");
        // The initiator's machine, found by its own address.
        assert_eq!(seen("10.0.0.1", "10.0.0.1", "127.0.0.1:1"), "10.0.0.1:1");
    }
}
