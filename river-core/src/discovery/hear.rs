//! Tests whether a VM on this machine would hear a search: binds the sockets that a VM binds, and sends datagrams to them.
//!
//! They are sent to this machine's own addresses only.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::discovery::net::{ResponderError, bind_ears};
use crate::discovery::network::{Ear, Network};

/// How often a datagram is sent, since even loopback may lose one, and how long to wait for each.
const SENDINGS: u32 = 3;
const PATIENCE: Duration = Duration::from_millis(500);

/// The fate of a datagram to one address of this machine.
#[derive(Debug)]
#[non_exhaustive]
pub struct Heard {
    /// The address that it was sent to.
    pub address: Ipv4Addr,
    /// Whether it arrived. A time-out means that something filters it. For the address of loopback itself, any other error
    /// means that it could not be bound, most likely because another program has the port there; a VM works without it.
    pub result: io::Result<()>,
}

/// Binds all sockets on which a VM would hear searches, and sends a datagram to each that can be reached without leaving
/// the machine: by broadcast on loopback, and to the addresses of loopback and of the interfaces. `network` is the same as
/// for [`VmConfig::network`](crate::VmConfig::network); `None` means loopback only.
///
/// Blocks for a second and a half for each address where nothing arrives, and otherwise hardly at all.
///
/// # Errors
///
/// If a VM could not start: the port is taken, or there is no loopback interface, or no interface with that address.
pub fn hear_self(port: u16, network: Option<Ipv4Addr>) -> Result<Vec<Heard>, ResponderError> {
    let ears = bind_ears(Network::from(network), port, |_| true)?;
    let own = ears.sockets.iter().filter_map(|(ear, socket)| match ear {
        Ear::Broadcast(address) if ear.is_local() => Some((*address, socket)),
        Ear::Unicast(address) => Some((*address, socket)),
        _ => None,
    });
    let heard = own.map(|(address, ear)| Heard { address, result: send_and_hear(ear, address, port) });
    let unheard = |(address, error)| Heard { address, result: Err(io::Error::other(error)) };
    Ok(heard.chain(ears.deaf.map(unheard)).collect())
}

fn send_and_hear(ear: &UdpSocket, address: Ipv4Addr, port: u16) -> io::Result<()> {
    let sender = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    sender.set_broadcast(true)?;
    // Too short for a probe: VMs that hear it drop it unread.
    let sent = Uuid::new_v4().into_bytes();
    for _ in 0..SENDINGS {
        sender.send_to(&sent, (address, port))?;
        let start = Instant::now();
        while let Some(rest) = PATIENCE.checked_sub(start.elapsed()).filter(|rest| !rest.is_zero()) {
            ear.set_read_timeout(Some(rest))?;
            let mut buffer = [0; 64];
            // Searches by others arrive here, too.
            match ear.recv(&mut buffer) {
                Ok(length) if buffer[..length] == sent => return Ok(()),
                _ => {}
            }
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "nothing arrived"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::net::bind_ear;

    fn free_port() -> u16 {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
    }

    #[test]
    fn loopback_is_heard_beside_other_vms() {
        let attempt = |port| {
            let _other = bind_ear(Ear::Broadcast(Ipv4Addr::new(127, 255, 255, 255)), port).ok()?;
            let heard = hear_self(port, None).ok()?;
            heard.iter().all(|heard| heard.result.is_ok()).then_some(heard)
        };
        // Another program may have taken the port by then.
        let heard = (0..10).find_map(|_| attempt(free_port())).expect("a free port");
        assert!(heard.len() >= 2 && heard.iter().all(|heard| heard.address.is_loopback()), "{heard:?}");
    }

    #[test]
    fn a_port_of_another_program_and_an_address_of_another_machine_are_errors() {
        let taken = UdpSocket::bind(("127.255.255.255", 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(matches!(hear_self(port, None), Err(ResponderError::PortTaken(_))));
        // The address of loopback itself is a special case.
        let own = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let heard = hear_self(own.local_addr().unwrap().port(), None).unwrap();
        assert!(heard.iter().all(|heard| heard.result.is_ok() != (heard.address == Ipv4Addr::LOCALHOST)));
        let foreign = Some(Ipv4Addr::new(192, 0, 2, 7));
        assert!(matches!(hear_self(free_port(), foreign), Err(ResponderError::NoInterface(_))));
    }
}
