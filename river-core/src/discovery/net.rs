//! Discovery on real sockets, blocking: a thin shell around the state machine in `search`.
//!
//! In this version VMs are found on their own machine. Each VM of the machine has a socket bound to the broadcast
//! address of the loopback network (127.255.255.255) and the same port. The kernel hands a broadcast to all of
//! them, other than a unicast, which only one gets; and it drops whatever comes from the network with such a
//! destination, so nothing but this machine can reach these sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use if_addrs::IfAddr;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::discovery::probe::{PROBE_LEN, Query};
use crate::discovery::search::{DiscoverError, Found, SEARCH_TIME, Search, Step};
use crate::key::{ClusterKey, KeyError};

/// The UDP port on which VMs and programs find each other unless they are told otherwise.
pub const DISCOVERY_PORT: u16 = 7484;

/// `RIVER_PORT` is not a port.
#[derive(Debug, thiserror::Error)]
#[error("RIVER_PORT is {0:?}, not a port number from 1 to 65535")]
pub struct PortError(String);

/// The discovery port of this process: `RIVER_PORT`, else [`DISCOVERY_PORT`].
pub(crate) fn default_port() -> Result<u16, PortError> {
    match std::env::var("RIVER_PORT") {
        Ok(text) => text.parse().ok().filter(|port| *port > 0).ok_or(PortError(text)),
        Err(_) => Ok(DISCOVERY_PORT),
    }
}

/// Why a VM cannot be found by others.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResponderError {
    /// A program that does not share its port has it.
    #[error(
        "UDP port {0} is taken by another program: choose another with `--port` or RIVER_PORT, the same for VMs \
         and programs"
    )]
    PortTaken(u16),
    /// There is nothing to listen on.
    #[error("no loopback interface is up: switch it on with `ip link set lo up`")]
    NoLoopback,
    /// The system refused.
    #[error("cannot listen for searches on UDP port {port}")]
    Io {
        /// The port.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
}

/// The broadcast addresses of all loopback networks, usually the one.
fn loopback_broadcasts() -> io::Result<Vec<Ipv4Addr>> {
    let mut addresses: Vec<Ipv4Addr> = if_addrs::get_if_addrs()?
        .into_iter()
        .filter_map(|interface| match interface.addr {
            IfAddr::V4(v4) if v4.ip.is_loopback() => Some((v4.ip, v4.ip | !v4.netmask)),
            _ => None,
        })
        // An alias such as 127.0.0.2/32 has no broadcast address.
        .filter(|(ip, broadcast)| ip != broadcast && broadcast.is_loopback())
        .map(|(_, broadcast)| broadcast)
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// Sockets on which a VM receives the searches of this machine's programs, and from which it is to send its
/// answers to whoever asked. Any number of VMs may do so with the same port.
///
/// # Errors
///
/// When the port is taken by a program that does not share it, or the machine has no loopback interface.
pub(crate) fn bind_responder(port: u16) -> Result<Vec<UdpSocket>, ResponderError> {
    let addresses = loopback_broadcasts().map_err(|source| ResponderError::Io { port, source })?;
    if addresses.is_empty() {
        return Err(ResponderError::NoLoopback);
    }
    let bind = |address| {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        // With SO_REUSEPORT instead, all VMs would have to belong to one user.
        socket.set_reuse_address(true)?;
        socket.bind(&SockAddr::from(SocketAddrV4::new(address, port)))?;
        Ok(UdpSocket::from(socket))
    };
    addresses.into_iter().map(bind).collect::<io::Result<_>>().map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ResponderError::PortTaken(port),
        _ => ResponderError::Io { port, source },
    })
}

/// Why a search on behalf of a person could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// There is no usable key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// `RIVER_PORT` is not a port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The search failed.
    #[error(transparent)]
    Search(#[from] DiscoverError),
}

/// Searches for VMs without being a program: what `river ls` does. Blocks for a quarter of a second, or less if
/// `query.count` VMs answer earlier.
///
/// # Errors
/// [`FindError`]. Finding none is not an error.
pub fn find(query: &Query) -> Result<Found, FindError> {
    let key = ClusterKey::load_or_create()?;
    Ok(search(&key, query, default_port()?, &[], SEARCH_TIME)?)
}

/// Searches for VMs: on this machine, where they share `port`, and at the IPv4 addresses `extra`. Returns as soon
/// as `query.count` VMs are found, at the latest after `timeout`.
///
/// Probes leave this machine only towards `extra`.
///
/// # Errors
///
/// When the query is too long, or nothing could be sent to anyone.
pub(crate) fn search(
    key: &ClusterKey,
    query: &Query,
    port: u16,
    extra: &[SocketAddr],
    timeout: Duration,
) -> Result<Found, DiscoverError> {
    let mut search = Search::new(key, query)?.with_timeout(timeout);
    let broadcasts = loopback_broadcasts().map_err(DiscoverError::Socket)?;
    let targets: Vec<SocketAddr> = broadcasts
        .into_iter()
        .map(|ip| SocketAddr::new(ip.into(), port))
        .chain(extra.iter().copied())
        .collect();
    let socket = bind_searcher(&targets).map_err(DiscoverError::Socket)?;

    let start = Instant::now();
    // One byte more than any answer, so that a longer datagram does not pass for its beginning.
    let mut buffer = [0; PROBE_LEN + 1];
    loop {
        match search.poll(start.elapsed()) {
            Step::Done => return Ok(search.finish()),
            Step::Send => send_to_all(&socket, search.datagram(), &targets)?,
            Step::Wait(time) => {
                // A time-out of zero would mean to wait for ever.
                let time = time.max(Duration::from_millis(1));
                socket.set_read_timeout(Some(time)).map_err(DiscoverError::Socket)?;
                // A failed receive is a time-out, or news about an unreachable `extra`; either way others may
                // still answer, and the search ends by its clock.
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    search.handle(&buffer[..length], from);
                }
            }
        }
    }
}

/// The socket that a search is sent from: one of loopback, unless somebody outside is asked.
fn bind_searcher(targets: &[SocketAddr]) -> io::Result<UdpSocket> {
    let local = targets.iter().all(|target| target.ip().is_loopback());
    let address = if local { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
    let socket = UdpSocket::bind((IpAddr::from(address), 0))?;
    socket.set_broadcast(true)?;
    // Hundreds of VMs answer within a millisecond. Without the room some would have to be asked again, no more.
    let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(1 << 20);
    Ok(socket)
}

/// Succeeds if one sending does: networks come and go, and their errors are not worth a search.
fn send_to_all(socket: &UdpSocket, datagram: &[u8], targets: &[SocketAddr]) -> Result<(), DiscoverError> {
    let mut error = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let mut sent = false;
    for target in targets {
        match socket.send_to(datagram, target) {
            Ok(_) => sent = true,
            Err(failed) => error = failed,
        }
    }
    if sent { Ok(()) } else { Err(DiscoverError::Unreachable(error)) }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread::JoinHandle;

    use super::*;
    use crate::discovery::probe::{Announcement, VmState, answer};
    use crate::id::VmId;

    fn key() -> ClusterKey {
        ClusterKey::from_bytes([7; 32])
    }

    fn free_port() -> u16 {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
    }

    /// VMs that answer searches until this is dropped.
    struct Vms {
        stop: std::sync::Arc<AtomicBool>,
        threads: Vec<JoinHandle<()>>,
    }

    impl Vms {
        fn start(count: usize, port: u16) -> Self {
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
                let socket = bind_responder(port).unwrap().remove(0);
                socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                let stop = stop.clone();
                std::thread::spawn(move || {
                    let mut buffer = [0; 2000];
                    while !stop.load(Ordering::Relaxed) {
                        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                        if let Some(answer) = answer(&key(), &ours, &buffer[..length]) {
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
        let port = free_port();
        let _vms = Vms::start(32, port);
        let start = Instant::now();
        let query = Query { count: Some(32), ..Query::default() };
        let found = search(&key(), &query, port, &[], Duration::from_secs(20)).unwrap();
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
        let port = free_port();
        let _vms = Vms::start(2, port);
        let start = Instant::now();
        let query = Query { count: Some(3), ..Query::default() };
        let found = search(&key(), &query, port, &[], Duration::from_millis(300)).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(300));
        assert_eq!(found.vms.len(), 2);
    }

    #[test]
    fn a_program_with_another_key_finds_nobody() {
        let port = free_port();
        let _vms = Vms::start(2, port);
        let stranger = ClusterKey::from_bytes([8; 32]);
        let found = search(&stranger, &Query::default(), port, &[], Duration::from_millis(250)).unwrap();
        assert_eq!(found, Found::default());
    }

    #[test]
    fn extra_addresses_are_asked_and_may_be_dead() {
        let port = free_port();
        let _vms = Vms::start(1, port);
        let unused = free_port();
        let extra = [
            SocketAddr::from(([127, 255, 255, 255], port)),
            SocketAddr::from(([127, 0, 0, 1], unused)),
            SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], unused)),
        ];
        let query = Query { count: Some(1), ..Query::default() };
        let found = search(&key(), &query, unused, &extra, Duration::from_secs(20)).unwrap();
        assert_eq!(found.vms.len(), 1);
    }

    #[test]
    fn garbage_does_not_stop_a_search() {
        let port = free_port();
        let loud = bind_responder(port).unwrap().remove(0);
        loud.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let shouting = std::thread::spawn(move || {
            let (_, from) = loud.recv_from(&mut [0; 2000]).unwrap();
            for length in 0..2000 {
                loud.send_to(&vec![0x52; length], from).unwrap();
            }
        });
        let _vms = Vms::start(4, port);
        let query = Query { count: Some(4), ..Query::default() };
        let found = search(&key(), &query, port, &[], Duration::from_secs(20)).unwrap();
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
        let result = search(&key(), &Query::default(), 0, &[], Duration::from_millis(100));
        assert!(matches!(result, Err(DiscoverError::Unreachable(_))), "{result:?}");
    }
}
