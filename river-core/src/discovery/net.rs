//! Discovery on real sockets, blocking: a thin shell around the state machine in `search`.
//!
//! Each VM of a machine has a socket bound to the broadcast address of the loopback network (127.255.255.255) and the same
//! port. The kernel delivers a broadcast to all of them, whereas only one would get a unicast; and it drops whatever comes
//! from the network with such a destination, so nothing but this machine can reach these sockets. A VM that listens on the
//! network has further sockets, bound to the broadcast address of each interface, to a multicast group, and to the
//! interface's own address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use crate::discovery::network::{
    self, Ear, GROUP, Interface, Network, NetworkError, Reach, loopback_broadcasts,
};
use crate::discovery::probe::{PROBE_LEN, Query};
use crate::discovery::search::{DiscoverError, Found, SEARCH_TIME, Search, Sought, Step};
use crate::discovery::service::{FoundServices, ServiceAnnouncement, ServiceQuery};
use crate::key::{ClusterKey, KeyError};

/// The default UDP port on which VMs and programs find each other.
pub const DISCOVERY_PORT: u16 = 7484;

/// `RIVER_PORT` is not a port.
#[derive(Debug, thiserror::Error)]
#[error("RIVER_PORT is {0:?}, not a port number from 1 to 65535")]
pub struct PortError(String);

/// The discovery port of this process: `RIVER_PORT`, or [`DISCOVERY_PORT`] if that is not set.
///
/// # Errors
/// If `RIVER_PORT` is not a port.
pub fn discovery_port() -> Result<u16, PortError> {
    match std::env::var("RIVER_PORT") {
        Ok(text) => text.parse().ok().filter(|port| *port > 0).ok_or(PortError(text)),
        Err(_) => Ok(DISCOVERY_PORT),
    }
}

/// Why a VM cannot be found by others.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResponderError {
    /// Another program has the port and does not share it.
    #[error(
        "UDP port {0} is taken by another program: choose another with `--port` or RIVER_PORT, the same for VMs \
         and programs"
    )]
    PortTaken(u16),
    /// No loopback interface is up.
    #[error("no loopback interface is up: switch it on with `ip link set lo up`")]
    NoLoopback,
    /// No interface has this address.
    #[error("no network interface has the address {0}: `ip -4 address` lists those there are")]
    NoInterface(Ipv4Addr),
    /// The system reported an error.
    #[error("cannot listen for searches on UDP port {port}")]
    Io {
        /// The port.
        port: u16,
        /// The system's error.
        source: io::Error,
    },
}

/// Binds sockets on which a VM receives the searches of this machine's programs, and from which it must answer. Any number
/// of VMs can use the same port.
///
/// # Errors
///
/// If the port is taken by a program that does not share it, or if the machine has no loopback interface.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn bind_responder(port: u16) -> Result<Vec<UdpSocket>, ResponderError> {
    let broadcasts = loopback_broadcasts().map_err(|source| ResponderError::Io { port, source })?;
    broadcasts.into_iter().map(|ip| bind_ear(Ear::Broadcast(ip), port)).collect()
}

/// The addresses on which a VM must listen for searches now.
///
/// # Errors
///
/// If the machine has no loopback interface, or not the interface that the VM should use.
pub(crate) fn responder_ears(network: Network, port: u16) -> Result<Vec<Ear>, ResponderError> {
    let ears = network::ears(network).map_err(|source| ResponderError::Io { port, source })?;
    if !ears.iter().any(|ear| matches!(ear, Ear::Broadcast(_)) && ear.is_local()) {
        return Err(ResponderError::NoLoopback);
    }
    match network {
        Network::One(ip) if !ears.contains(&Ear::Unicast(ip)) => Err(ResponderError::NoInterface(ip)),
        _ => Ok(ears),
    }
}

/// Binds the socket for an address of [`responder_ears`].
///
/// # Errors
///
/// If the port is taken by a program that does not share it.
pub(crate) fn bind_ear(ear: Ear, port: u16) -> Result<UdpSocket, ResponderError> {
    let bind = || {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        // With SO_REUSEPORT instead, all VMs would have to belong to one user.
        socket.set_reuse_address(true)?;
        socket.bind(&SockAddr::from(ear.address(port)))?;
        if let Ear::Group(interface) = ear {
            socket.join_multicast_v4(&GROUP, &interface)?;
            // Other interfaces have their own sockets.
            socket.set_multicast_all_v4(false)?;
        }
        Ok(UdpSocket::from(socket))
    };
    bind().map_err(|source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => ResponderError::PortTaken(port),
        _ => ResponderError::Io { port, source },
    })
}

/// The sockets on which a VM hears searches.
pub(crate) struct Ears {
    pub(crate) sockets: Vec<(Ear, UdpSocket)>,
    /// An address that could not be bound, and why. Only the address of loopback itself is optional: VMs without it are
    /// still found by programs that search everywhere.
    pub(crate) deaf: Option<(Ipv4Addr, ResponderError)>,
}

/// Binds the sockets on which a VM listens, if `wanted`.
///
/// # Errors
///
/// If a VM cannot start without the socket: see [`responder_ears`] and [`bind_ear`].
pub(crate) fn bind_ears(
    network: Network,
    port: u16,
    wanted: impl Fn(&Ear) -> bool,
) -> Result<Ears, ResponderError> {
    let mut ears = Ears { sockets: Vec::new(), deaf: None };
    for ear in responder_ears(network, port)?.into_iter().filter(wanted) {
        match (bind_ear(ear, port), ear) {
            (Ok(socket), _) => ears.sockets.push((ear, socket)),
            (Err(error), Ear::Unicast(ip)) if ip.is_loopback() => ears.deaf = Some((ip, error)),
            (Err(error), _) => return Err(error),
        }
    }
    Ok(ears)
}

/// Why a search could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// There is no usable key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// `RIVER_PORT` is not a port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// `RIVER_NETWORK` or `RIVER_HOSTS` is invalid.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The search failed.
    #[error(transparent)]
    Search(#[from] DiscoverError),
}

/// Searches for VMs from a process that need not be a program, like `river ls`. Blocks for a quarter of a second, or less
/// if `query.count` VMs answer earlier.
///
/// Searches this machine, the network interfaces that `RIVER_NETWORK` allows, and the machines that `RIVER_HOSTS` names.
///
/// # Errors
/// [`FindError`]. Finding none is not an error.
pub fn find(query: &Query) -> Result<Found, FindError> {
    let reach = Reach::from_env()?;
    Ok(search(&reach.key()?, query, discovery_port()?, &reach, SEARCH_TIME)?)
}

/// Searches for VMs on this machine and as far as `reach` goes. Returns as soon as `query.count` VMs are found, and after
/// `timeout` at the latest.
///
/// # Errors
///
/// If the query is too long, or if nothing could be sent to anyone.
pub(crate) fn search(
    key: &ClusterKey,
    query: &Query,
    port: u16,
    reach: &Reach,
    timeout: Duration,
) -> Result<Found, DiscoverError> {
    Ok(run(Search::new(key, query)?.with_timeout(timeout), port, reach)?.finish())
}

/// Searches for the service with this name: for a quarter of a second if nobody has published it; otherwise until other
/// processes that have published it too have had time to answer.
///
/// # Errors
///
/// The same as for [`search`].
pub(crate) fn search_service(
    key: &ClusterKey,
    name: &str,
    port: u16,
    reach: &Reach,
) -> Result<FoundServices, DiscoverError> {
    let query = ServiceQuery { name: name.to_owned() };
    Ok(run(Search::<ServiceAnnouncement>::service(key, &query)?, port, reach)?.finish())
}

/// How often a search checks whether a pending name has been resolved.
const LOOK: Duration = Duration::from_millis(20);

/// Runs a search to its end.
fn run<A: Sought>(mut search: Search<A>, port: u16, reach: &Reach) -> Result<Search<A>, DiscoverError> {
    reach.look_up();
    let mut targets = Target::all(reach, port).map_err(DiscoverError::Socket)?;
    let local = reach.listening() == Network::Loopback && targets.iter().all(Target::is_local);
    let socket = bind_searcher(local).map_err(DiscoverError::Socket)?;

    let start = Instant::now();
    // One byte longer than any answer, so that a longer datagram is not mistaken for its own prefix.
    let mut buffer = [0; PROBE_LEN + 1];
    let mut awaits_names = reach.awaits_names();
    loop {
        if awaits_names {
            awaits_names = reach.awaits_names();
            let mut new: Vec<Target> = reach.addresses(port).into_iter().map(Target::of).collect();
            new.retain(|new| targets.iter().all(|known| known.address != new.address));
            // An error is either reported by the other sendings too, or not worth failing the search.
            let _ = send_to_all(&socket, search.datagram(), &new);
            targets.append(&mut new);
        }
        match search.poll(start.elapsed()) {
            Step::Done => return Ok(search),
            Step::Send => send_to_all(&socket, search.datagram(), &targets)?,
            Step::Wait(time) => {
                // A time-out of zero would mean to wait forever.
                let time = if awaits_names { time.min(LOOK) } else { time }.max(Duration::from_millis(1));
                socket.set_read_timeout(Some(time)).map_err(DiscoverError::Socket)?;
                // A failed receive is a time-out, or news about an unreachable machine; either way, others may still
                // answer, and the search ends by its clock.
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    search.handle(&buffer[..length], from);
                }
            }
        }
    }
}

/// A destination of probes.
#[derive(Clone, Copy, Debug)]
struct Target {
    address: SocketAddr,
    /// The outgoing interface of a multicast.
    interface: Option<Ipv4Addr>,
}

impl Target {
    fn all(reach: &Reach, port: u16) -> io::Result<Vec<Self>> {
        let to = |ip: Ipv4Addr| Self::of((ip, port).into());
        let mut targets: Vec<Self> = loopback_broadcasts()?.into_iter().map(to).collect();
        for Interface { ip, broadcast } in reach.network().interfaces()? {
            targets.extend(broadcast.map(to));
            targets.push(Self { interface: Some(ip), ..to(GROUP) });
        }
        targets.extend(reach.addresses(port).into_iter().map(Self::of));
        Ok(targets)
    }

    fn of(address: SocketAddr) -> Self {
        Self { address, interface: None }
    }

    fn is_local(&self) -> bool {
        self.address.ip().is_loopback()
    }

    fn send(&self, socket: &UdpSocket, datagram: &[u8]) -> io::Result<()> {
        if let Some(interface) = &self.interface {
            SockRef::from(socket).set_multicast_if_v4(interface)?;
        }
        socket.send_to(datagram, self.address).map(drop)
    }
}

/// Binds the socket for a search: on loopback, unless other machines are probed.
fn bind_searcher(local: bool) -> io::Result<UdpSocket> {
    let address = if local { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
    let socket = UdpSocket::bind((IpAddr::from(address), 0))?;
    socket.set_broadcast(true)?;
    // Hundreds of VMs may answer within a millisecond. With a smaller buffer, some would only have to be probed again.
    let _ = SockRef::from(&socket).set_recv_buffer_size(1 << 20);
    Ok(socket)
}

/// Sends to all targets, and succeeds if one sending does: networks come and go, and their errors are not worth failing a
/// search.
fn send_to_all(socket: &UdpSocket, datagram: &[u8], targets: &[Target]) -> Result<(), DiscoverError> {
    let mut error = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let mut sent = false;
    for target in targets {
        match target.send(socket, datagram) {
            Ok(()) => sent = true,
            Err(failed) => error = failed,
        }
    }
    if sent { Ok(()) } else { Err(DiscoverError::Unreachable(error)) }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread::JoinHandle;

    use uuid::Uuid;

    use super::*;
    use crate::discovery::probe::tests::answer;
    use crate::discovery::probe::{Announcement, VmState};
    use crate::id::VmId;

    /// A port that is free for VMs, and a key that no other test has, since a port may be shared.
    struct Place {
        key: ClusterKey,
        port: u16,
        _held: UdpSocket,
    }

    impl Place {
        fn new() -> Self {
            let key = ClusterKey::from_bytes(std::array::from_fn(|_| Uuid::new_v4().as_bytes()[0]));
            loop {
                let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                let port = free.local_addr().unwrap().port();
                match bind_responder(port) {
                    Ok(mut held) => return Self { key, port, _held: held.remove(0) },
                    Err(ResponderError::PortTaken(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }

        fn search(&self, query: &Query, time: Duration) -> Found {
            search(&self.key, query, self.port, &Reach::default(), time).unwrap()
        }
    }

    /// VMs that answer searches until this is dropped.
    struct Vms {
        stop: std::sync::Arc<AtomicBool>,
        threads: Vec<JoinHandle<()>>,
    }

    impl Vms {
        fn start(count: usize, place: &Place) -> Self {
            let stop = std::sync::Arc::new(AtomicBool::new(false));
            let vm = |i: usize| {
                let ours = Announcement {
                    id: VmId::fresh(),
                    name: format!("vm{i:02}"),
                    port: 1000,
                    cores: 1,
                    memory: 1,
                    triple: "x86_64-linux-gnu".to_owned(),
                    labels: Vec::new(),
                    state: VmState::Idle,
                    uptime: Duration::ZERO,
                    version: "0".to_owned(),
                };
                let socket = bind_responder(place.port).unwrap().remove(0);
                socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                let (key, stop) = (place.key.clone(), stop.clone());
                std::thread::spawn(move || {
                    let mut buffer = [0; 2000];
                    while !stop.load(Ordering::Relaxed) {
                        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                        if let Some(answer) = answer(&key, &ours, &buffer[..length]) {
                            socket.send_to(&answer, from).unwrap();
                        }
                    }
                })
            };
            let threads = (0..count).map(vm).collect();
            Self { stop, threads }
        }
    }

    impl Drop for Vms {
        fn drop(&mut self) {
            self.stop.store(true, Ordering::Relaxed);
            for thread in self.threads.drain(..) {
                thread.join().unwrap();
            }
        }
    }

    #[test]
    fn thirty_two_vms_on_one_machine_are_all_found() {
        let place = Place::new();
        let _vms = Vms::start(32, &place);
        let start = Instant::now();
        let query = Query { count: Some(32), ..Query::default() };
        let found = place.search(&query, Duration::from_secs(20));
        assert!(start.elapsed() < Duration::from_secs(10), "ends when all are found");
        assert_eq!(found.vms.len(), 32);
        let names: Vec<&str> = found.vms.iter().map(|vm| vm.name.as_str()).collect();
        assert!(names.is_sorted());
        for vm in &found.vms {
            assert_eq!(vm.address, SocketAddr::from(([127, 0, 0, 1], 1000)));
        }
    }

    #[test]
    fn a_search_lasts_its_time_when_not_enough_are_there() {
        let place = Place::new();
        let _vms = Vms::start(2, &place);
        let start = Instant::now();
        let query = Query { count: Some(3), ..Query::default() };
        let found = place.search(&query, Duration::from_secs(2));
        assert!(start.elapsed() >= Duration::from_secs(2));
        assert_eq!(found.vms.len(), 2);
    }

    #[test]
    fn a_program_with_another_key_finds_nobody() {
        let place = Place::new();
        let _vms = Vms::start(2, &place);
        let stranger = Place { key: ClusterKey::from_bytes([8; 32]), ..place };
        let found = stranger.search(&Query::default(), Duration::from_millis(250));
        assert_eq!(found, Found::default());
    }

    #[test]
    fn extra_addresses_are_asked_and_may_be_dead() {
        let place = Place::new();
        let _vms = Vms::start(1, &place);
        let unused = Place::new().port;
        let hosts = format!("127.255.255.255:{},127.0.0.1:{unused}", place.port);
        let extra = Reach::parse("", &hosts).unwrap();
        let query = Query { count: Some(1), ..Query::default() };
        let found = search(&place.key, &query, unused, &extra, Duration::from_secs(20)).unwrap();
        assert_eq!(found.vms.len(), 1);
    }

    #[test]
    fn garbage_does_not_stop_a_search() {
        let place = Place::new();
        let loud = bind_responder(place.port).unwrap().remove(0);
        loud.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let shouting = std::thread::spawn(move || {
            let (_, from) = loud.recv_from(&mut [0; 2000]).unwrap();
            for length in 0..2000 {
                loud.send_to(&vec![0x52; length], from).unwrap();
            }
        });
        let _vms = Vms::start(4, &place);
        let query = Query { count: Some(4), ..Query::default() };
        let found = place.search(&query, Duration::from_secs(20));
        assert_eq!(found.vms.len(), 4);
        shouting.join().unwrap();
    }

    #[test]
    fn a_port_that_is_not_shared_is_an_error_that_says_what_to_do() {
        let taken = UdpSocket::bind("127.255.255.255:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = bind_responder(port).unwrap_err();
        assert!(matches!(error, ResponderError::PortTaken(p) if p == port), "{error}");
        let text = error.to_string();
        assert!(text.contains(&port.to_string()) && text.contains("--port"), "{text}");
    }

    #[test]
    fn a_search_that_reaches_nobody_is_an_error() {
        let result =
            search(&Place::new().key, &Query::default(), 0, &Reach::default(), Duration::from_millis(100));
        assert!(matches!(result, Err(DiscoverError::Unreachable(_))), "{result:?}");
    }
}
