//! Connections: one to each peer that is sent to, dialled for the first send, and those on which peers send, which the reader
//! reads. Between processes of one machine a ring in shared memory takes the place of either.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Node;
use crate::control;
use crate::down::Why;
use crate::id::HostId;
#[cfg(test)]
use crate::link::SimNet;
use crate::link::{By, Inlets, Link, Offer, Reader, Rings, TcpLink};
use crate::noise::{self, Dialed, HandshakeError, Session};
use crate::protocol::{Hello, MemoryName, Place, Welcome};

const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait before trying again when no files are left.
const PAUSE: Duration = Duration::from_millis(10);

/// How envelopes leave and enter this process.
#[derive(Debug)]
pub(super) enum Ways {
    Real {
        reader: Reader,
        /// Whether rings are offered and accepted.
        rings: bool,
    },
    #[cfg(test)]
    Sim(Arc<SimNet>),
}

impl Node {
    /// Returns what a waiting VR polls.
    pub(crate) fn pump(&self) -> Option<&Inlets> {
        self.reader().map(|reader| &**reader.inlets())
    }

    fn reader(&self) -> Option<&Reader> {
        match &self.ways {
            Ways::Real { reader, .. } => Some(reader),
            #[cfg(test)]
            Ways::Sim(_) => None,
        }
    }

    /// Returns the answer for connections to this process's address.
    pub(crate) fn welcome(&self) -> Welcome {
        Welcome::Host(self.place.host, self.rings().map(Rings::bell))
    }

    /// Returns the rings of this process, if it accepts any.
    fn rings(&self) -> Option<&Rings> {
        match &self.ways {
            Ways::Real { reader, rings: true } => Some(reader.rings()),
            _ => None,
        }
    }

    /// Returns the link to a process, dialling it if necessary. If there is none, returns why; the program was asked for
    /// that, unless this process itself is the cause.
    pub(super) fn connect(&self, host: HostId) -> Result<Link, Unreached> {
        let (slot, address) = {
            let mut book = self.book();
            let peer = book.peers.entry(host).or_default();
            if let Some(why) = &peer.down {
                return Err(why.clone().into());
            }
            (peer.link.clone(), peer.address)
        };
        // One dialler per peer: a second connection would break the order of two concurrent sends.
        let mut link = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = &*link {
            return Ok(link.clone());
        }
        // The peer may have been buried meanwhile.
        if let Some(why) = self.book().why_down(host) {
            return Err(why.into());
        }
        let dialled = match address {
            Some(address) => self.dial(Place { host, address }),
            None => Err(DialError::Unknown),
        };
        match dialled {
            Ok(new) => {
                let book = self.book();
                if let Some(why) = book.why_down(host) {
                    new.close(&why.to_string());
                    return Err(why.into());
                }
                *link = Some(new.clone());
                // Before the book: a thread that buries the peer from here on finds the link in its place, and removes it.
                drop(link);
                Ok(new)
            }
            Err(error) => {
                drop(link);
                if error.is_shortage() {
                    let error = format!("no connection can be made from here: {error}");
                    let why = Why::LostLink { vm: self.vm.clone(), error };
                    return Err(Unreached { why, alive: Some(host) });
                }
                Err(self.verdict(host, &error.to_string()).into())
            }
        }
    }

    /// Asks for a verdict on a process that must receive everything or be declared gone, though it may well live.
    pub(super) fn give_up(&self, unreached: &Unreached) {
        if let Some(host) = unreached.alive {
            self.report(host, unreached.why.cause());
        }
    }

    fn dial(&self, to: Place) -> Result<Link, DialError> {
        #[cfg(test)]
        if let Ways::Sim(net) = &self.ways {
            return net.connect(self.place.host, to.host).map(Link::Sim).ok_or(DialError::Unknown);
        }
        let (mut rings, since) = (self.rings(), Instant::now());
        loop {
            match self.dial_once(to, rings) {
                Err(DialError::Deaf(error)) => {
                    tracing::debug!(%error, "no shared memory with a process of this machine");
                    rings = None;
                }
                Err(error) if error.is_shortage() && since.elapsed() < DIAL_TIMEOUT => {
                    if self.book().why_down(to.host).is_some() {
                        return Err(error);
                    }
                    thread::sleep(PAUSE);
                }
                dialled => return dialled,
            }
        }
    }

    fn dial_once(&self, to: Place, rings: Option<&Rings>) -> Result<Link, DialError> {
        let mut stream = TcpStream::connect_timeout(&to.address, DIAL_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DIAL_TIMEOUT))?;
        // On one machine a ring is tried; if there is no memory for it, the connection is used instead.
        let sealed = noise::must_be_sealed(to.address.ip());
        if sealed {
            control::give_up_early(&stream)?;
        }
        let rings = rings.filter(|_| !sealed);
        let offer = rings.and_then(|rings| Offer::new(rings.segments()).ok());
        let ring = offer.as_ref().map(Offer::name);
        let port = self.place.address.port();
        let program = self.program_of(to.host);
        let hello = Hello::Data { program, from: self.place.host, port, ring };
        let hello = postcard::to_stdvec(&hello)?;
        let Dialed { payload, confirm, session } = noise::dial(&mut stream, &self.key, &hello, sealed)?;
        let bell = match postcard::from_bytes(&payload)? {
            Welcome::Host(host, bell) if host == to.host => bell,
            _ => return Err(DialError::Stranger(to.address)),
        };
        let offered = offer.is_some();
        // The listener has accepted nothing yet, so this connection can still be dropped without any effect.
        let proposal = offer.zip(bell).map(|(offer, bell)| offer.to(&bell)).transpose();
        let proposal = proposal.map_err(DialError::Deaf)?;
        stream.write_all(&confirm)?;
        if offered {
            let mut taken = [0];
            stream.read_exact(&mut taken)?;
            if let (1, Some(proposal), Some(rings)) = (taken[0], proposal, rings) {
                return Ok(Link::Shm(Arc::new(proposal.accepted(stream, to.host, rings.segments()))));
            }
        }
        let inlets = self.reader().ok_or(DialError::Unknown)?.inlets().clone();
        Ok(Link::Tcp(Arc::new(TcpLink::new(stream, session, inlets)?)))
    }

    /// Accepts an authenticated connection on which `from` will send, through a ring if it offers one.
    pub(crate) fn accept(
        &self,
        from: Place,
        (mut stream, session): (TcpStream, Option<Session>),
        ring: Option<&MemoryName>,
    ) -> io::Result<()> {
        {
            let mut book = self.book();
            let peer = book.peers.entry(from.host).or_default();
            // The directory's address is better: a machine with several addresses may listen on one and dial from another.
            peer.address.get_or_insert(from.address);
            peer.inbound += 1;
        }
        let taken =
            ring.is_some_and(|ring| self.rings().is_some_and(|rings| rings.attach(from.host, ring).is_ok()));
        // Unsealed even on a sealed connection: it reveals nothing that the traffic would not.
        let told = if ring.is_some() { stream.write_all(&[u8::from(taken)]) } else { Ok(()) };
        let by = if taken { By::Ring } else { By::Connection(session) };
        let read = told.and_then(|()| match &self.ways {
            Ways::Real { reader, .. } => reader.add(from.host, stream, by),
            #[cfg(test)]
            Ways::Sim(_) => Ok(()),
        });
        if let Err(error) = &read {
            if let Some(rings) = self.rings().filter(|_| taken) {
                rings.detach(from.host);
            }
            // No reader will report that this connection has ended, but the death of its process waits for that.
            self.inbound_closed(from.host, &error.to_string());
        }
        read
    }
}

/// Why a process, or a VR, cannot be reached.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreached {
    pub(super) why: Why,
    /// The process, if it may well be alive: this process has no files left.
    pub(super) alive: Option<HostId>,
}

impl From<Why> for Unreached {
    fn from(why: Why) -> Self {
        Self { why, alive: None }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    #[error("the peer sent an invalid message: {0}")]
    Nonsense(#[from] postcard::Error),
    #[error("another process answers at {0}")]
    Stranger(SocketAddr),
    #[error("its address is not known")]
    Unknown,
    #[error("its memory cannot be opened: {0}")]
    Deaf(io::Error),
}

impl DialError {
    /// Whether this process or the machine lacks a resource, which says nothing about the other process.
    fn is_shortage(&self) -> bool {
        matches!(self, Self::Io(error) if control::is_shortage(error))
    }
}

/// Whether processes of one machine may use shared memory: yes, unless `RIVER_LINKS` is `tcp`, or `sealed`, which means TCP
/// as between machines.
pub(super) fn rings_allowed() -> io::Result<bool> {
    match std::env::var("RIVER_LINKS").as_deref() {
        Err(_) | Ok("" | "auto") => Ok(true),
        Ok("tcp" | "sealed") => Ok(false),
        Ok(other) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "RIVER_LINKS is {other:?}: say tcp to do without shared memory, sealed to encrypt besides, auto or \
                 nothing for the fastest"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener};

    use super::*;
    use crate::discovery::Network;
    use crate::id::{ProgramId, VrId};
    use crate::inbox::Event;
    use crate::key::ClusterKey;
    use crate::rt;

    fn place() -> Place {
        Place { host: HostId::fresh(), address: SocketAddr::from(([127, 0, 0, 1], 1)) }
    }

    /// Returns a node that knows a peer, of which only the listener exists.
    fn node_and_peer() -> (Arc<Node>, ClusterKey, TcpListener, Place) {
        let (requests, _) = rt::unbounded();
        let (program, key) = (ProgramId::fresh(), ClusterKey::from_bytes([0; 32]));
        let node =
            Node::start((place(), Network::Loopback), program, "test".into(), key.clone(), requests, false);
        let node = node.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = Place { host: HostId::fresh(), address: listener.local_addr().unwrap() };
        node.learn(VrId::fresh(), peer);
        (node, key, listener, peer)
    }

    #[test]
    fn who_is_buried_while_it_is_dialled_leaves_no_link() {
        let (node, key, listener, peer) = node_and_peer();
        let gone = Why::LostLink { vm: "lab".into(), error: "silence".into() };
        thread::scope(|scope| {
            let dialling = scope.spawn(|| node.connect(peer.host).map(drop));
            let (mut stream, _) = listener.accept().unwrap();
            let mut first = [0; noise::FIRST_LEN];
            stream.read_exact(&mut first).unwrap();
            node.host_down(peer.host, &gone);
            let (_, handshake) =
                noise::Listener::accept(&key, &first).map_err(|refusal| refusal.error).unwrap();
            let welcome = postcard::to_stdvec(&Welcome::Host(peer.host, None)).unwrap();
            stream.write_all(&handshake.reply(&welcome, false).unwrap().0).unwrap();
            // No ring.
            stream.write_all(&[0]).unwrap();
            assert_eq!(dialling.join().unwrap(), Err(gone.clone().into()));
        });
        let book = node.book();
        assert!(book.peers[&peer.host].link.lock().unwrap().is_none());
    }

    #[test]
    fn a_peer_whose_bell_cannot_be_opened_is_sent_to_without_a_ring() {
        let (node, key, listener, peer) = node_and_peer();
        let bell = MemoryName { process: 0, descriptor: -1, length: 4096, token: [0; 16] };
        thread::scope(|scope| {
            let dialling = scope.spawn(|| node.connect(peer.host));
            for offered in [true, false] {
                let (mut stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(DIAL_TIMEOUT)).unwrap();
                let mut first = [0; noise::FIRST_LEN];
                stream.read_exact(&mut first).unwrap();
                let (hello, handshake) =
                    noise::Listener::accept(&key, &first).map_err(|refusal| refusal.error).unwrap();
                let hello: Hello = postcard::from_bytes(&hello).unwrap();
                assert!(matches!(hello, Hello::Data { ring, .. } if ring.is_some() == offered));
                let welcome = postcard::to_stdvec(&Welcome::Host(peer.host, Some(bell))).unwrap();
                stream.write_all(&handshake.reply(&welcome, false).unwrap().0).unwrap();
                // A listener that had received the confirmation would wait for data from the ring.
                let mut confirm = [0; noise::CONFIRM_LEN];
                assert_eq!(stream.read_exact(&mut confirm).is_ok(), !offered);
            }
            assert!(matches!(dialling.join().unwrap(), Ok(Link::Tcp(_))));
        });
    }

    #[test]
    fn the_death_of_a_process_is_told_though_its_connection_could_not_be_taken_over() {
        let (requests, _asked) = rt::unbounded();
        let (program, key) = (ProgramId::fresh(), ClusterKey::from_bytes([0; 32]));
        let node = Node::start((place(), Network::Loopback), program, "test".into(), key, requests, false);
        let node = node.unwrap();
        let (peer, watcher, watched) = (place(), VrId::fresh(), VrId::fresh());
        let inbox = node.add(watcher);
        node.learn(watched, peer);
        node.expect(watcher, watched);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, _) = listener.accept().unwrap();
        // As if the process of this connection were gone.
        near.shutdown(Shutdown::Write).unwrap();
        let ring = MemoryName { process: 0, descriptor: -1, length: 0, token: [0; 16] };
        node.accept(peer, (near, None), Some(&ring)).unwrap_err();
        node.host_down(
            peer.host,
            &Why::HostDied { vm: "lab".into(), how: "killed".into(), last_lines: vec![] },
        );
        let mut events = Vec::new();
        inbox.swap(&mut events);
        assert!(matches!(&events[..], [Event::Down(down)] if down.who == watched), "{events:?}");
    }
}
