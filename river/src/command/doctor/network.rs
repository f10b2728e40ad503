//! Checks that what is sent to this machine arrives: datagrams of searches, and connections. Nothing is sent to other
//! machines.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use if_addrs::IfAddr;
use river::VrError;
use river::core::{Heard, NetworkError, ResponderError, discovery_port, hear_self};

use super::finding::Finding;

/// How long a connection may take: within a machine it takes microseconds, unless something drops it.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a thread of this process may take to answer on a busy machine.
const ANSWER: Duration = Duration::from_secs(20);

/// How far programs reach beyond this machine, as their environment message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    /// `RIVER_NETWORK`, in the form of `--network`.
    pub(super) network: Option<Ipv4Addr>,
    /// Whether `RIVER_HOSTS` names other machines, which makes programs use the network.
    pub(super) by_name: bool,
}

impl Reach {
    pub(super) fn from_environment() -> Result<Self, NetworkError> {
        let text = |name| std::env::var_os(name).unwrap_or_default().to_string_lossy().into_owned();
        Self::parse(&text("RIVER_NETWORK"), &text("RIVER_HOSTS"))
    }

    /// Accepts what a search accepts, but makes no search: that would create a key.
    fn parse(network: &str, hosts: &str) -> Result<Self, NetworkError> {
        let network = match network.trim() {
            "" | "0" => None,
            "1" => Some(Ipv4Addr::UNSPECIFIED),
            text => {
                let address: Result<Ipv4Addr, _> = text.parse();
                let address = address.map_err(|_| NetworkError::Network(text.to_owned()))?;
                (!address.is_loopback()).then_some(address)
            }
        };
        let mut by_name = false;
        for entry in hosts.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let (name, port) = entry.split_once(':').map_or((entry, None), |(name, port)| (name, Some(port)));
            let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            let is_port = |port: &str| port.parse().is_ok_and(|port: u16| port > 0);
            if name.is_empty() || !name.chars().all(fits) || !port.is_none_or(is_port) {
                return Err(NetworkError::Hosts(entry.to_owned()));
            }
            let loopback = name == "localhost" || name.parse().is_ok_and(|ip: Ipv4Addr| ip.is_loopback());
            by_name |= !loopback;
        }
        Ok(Self { network, by_name })
    }
}

pub(super) fn invalid(error: &NetworkError) -> Finding {
    Finding::fail("environment", error.to_string(), "correct that variable, or unset it")
}

pub(super) fn check(network: Option<Ipv4Addr>) -> Vec<Finding> {
    let port = match discovery_port() {
        Ok(port) => port,
        Err(error) => {
            return vec![Finding::fail(
                "discovery",
                error.to_string(),
                "set RIVER_PORT to a port, or unset it",
            )];
        }
    };
    let mut findings = Vec::new();
    let mut addresses = vec![Ipv4Addr::LOCALHOST];
    match hear_self(port, network) {
        Ok(heard) => {
            addresses
                .extend(heard.iter().map(|heard| heard.address).filter(|address| !address.is_loopback()));
            findings.push(judge_heard(port, &heard));
        }
        Err(error) => findings.push(judge_deaf(port, error)),
    }
    findings
        .push(judge_connections(addresses.into_iter().map(|address| (address, connect(address))).collect()));
    if network.is_some() {
        findings.push(match if_addrs::get_if_addrs() {
            Ok(all) => judge_interfaces(network, &all.iter().filter_map(interface).collect::<Vec<_>>()),
            Err(error) => Finding::fail("interfaces", error.to_string(), "see what `ip -4 address` says"),
        });
    }
    findings
}

fn judge_heard(port: u16, heard: &[Heard]) -> Finding {
    // `None` if it arrived.
    let failed = |heard: &Heard| heard.result.as_ref().err().map(io::Error::kind);
    let list = |which: &dyn Fn(Option<io::ErrorKind>) -> bool| {
        let those = heard.iter().filter(|heard| which(failed(heard)));
        those.map(|heard| heard.address.to_string()).collect::<Vec<_>>().join(", ")
    };
    let lost = list(&|failed| failed == Some(io::ErrorKind::TimedOut));
    let unbound = list(&|failed| failed.is_some_and(|kind| kind != io::ErrorKind::TimedOut));
    let arrive = format!("searches arrive on UDP port {port} of {}", list(&|failed| failed.is_none()));
    if lost.is_empty() && unbound.is_empty() {
        return Finding::ok("discovery", arrive);
    }
    if lost.is_empty() {
        return Finding::warn(
            "discovery",
            format!(
                "{arrive}, so that VMs start and are found; but another program has the port of {unbound}, and searches \
                 that are sent to that address alone are not answered"
            ),
            format!("{}; or ignore this if `river ls` shows the expected VMs", free_the_port(port)),
        );
    }
    Finding::fail(
        "discovery",
        format!(
            "datagrams to UDP port {port} of {lost} do not arrive: a firewall drops what this machine sends itself"
        ),
        format!("allow UDP port {port} (nftables: `nft add rule inet filter input udp dport {port} accept`)"),
    )
}

/// The finding if no VM could start here.
fn judge_deaf(port: u16, error: ResponderError) -> Finding {
    let fix = match error {
        ResponderError::PortTaken(_) => free_the_port(port),
        ResponderError::NoLoopback => "`ip link set lo up`".into(),
        ResponderError::NoInterface(_) => "`ip -4 address` lists those there are".into(),
        _ => "see what `ip -4 address` and `ulimit -n` say".into(),
    };
    Finding::fail("discovery", VrError::from(error).to_string(), fix)
}

fn free_the_port(port: u16) -> String {
    format!(
        "`ss -ulpn 'sport = {port}'` says which program has it: end it, or set RIVER_PORT to another port"
    )
}

/// Connects to this machine, and has one byte sent back.
fn connect(address: Ipv4Addr) -> io::Result<()> {
    let listener = TcpListener::bind((address, 0))?;
    let to = listener.local_addr()?;
    // The system accepts the connection until the listener is dropped, so no thread is left waiting for a peer that never
    // comes.
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    let answer = thread::spawn(move || listener.accept()?.0.write_all(&[7]));
    stream.set_read_timeout(Some(ANSWER))?;
    stream.read_exact(&mut [0])?;
    answer.join().map_err(|_| io::Error::other("the answering thread panicked"))?
}

/// Checks that a peer accepts a connection; it need not send anything.
pub(super) fn reach(address: SocketAddr) -> io::Result<()> {
    TcpStream::connect_timeout(&address, PATIENCE).map(drop)
}

fn judge_connections(results: Vec<(Ipv4Addr, io::Result<()>)>) -> Finding {
    let addresses = results.iter().map(|(address, _)| address.to_string()).collect::<Vec<_>>().join(", ");
    match results.into_iter().find_map(|(address, result)| Some((address, result.err()?))) {
        None => Finding::ok("connections", format!("TCP connections to {addresses} work")),
        Some((address, error)) => Finding::fail(
            "connections",
            format!("TCP connections to {address}, which is this machine, fail: {error}"),
            "let the firewall accept connections from this machine to itself, and from the machines of the cluster",
        ),
    }
}

/// A network interface: name, address, and whether there is broadcast.
#[derive(Clone, Debug)]
struct Interface {
    name: String,
    address: Ipv4Addr,
    broadcast: bool,
}

fn interface(interface: &if_addrs::Interface) -> Option<Interface> {
    match &interface.addr {
        IfAddr::V4(v4) if !v4.ip.is_loopback() => {
            let broadcast =
                v4.netmask != Ipv4Addr::BROADCAST && v4.broadcast.is_none_or(|address| address != v4.ip);
            Some(Interface { name: interface.name.clone(), address: v4.ip, broadcast })
        }
        _ => None,
    }
}

fn judge_interfaces(network: Option<Ipv4Addr>, all: &[Interface]) -> Finding {
    let used: Vec<&Interface> = all
        .iter()
        .filter(|interface| {
            network.is_none_or(|address| address.is_unspecified() || address == interface.address)
        })
        .collect();
    let names = |interfaces: &[&Interface]| {
        let name = |interface: &&Interface| format!("{} ({})", interface.name, interface.address);
        interfaces.iter().map(name).collect::<Vec<_>>().join(", ")
    };
    let (with, without): (Vec<&Interface>, Vec<&Interface>) =
        used.iter().partition(|interface| interface.broadcast);
    let by_name = "list the machines in RIVER_HOSTS: they are then asked one by one";
    if used.is_empty() {
        return Finding::fail(
            "interfaces",
            "there is no IPv4 interface but loopback",
            "connect this machine to a network, or do without --network and RIVER_NETWORK",
        );
    }
    if with.is_empty() {
        return Finding::warn("interfaces", format!("there is no broadcast on {}", names(&without)), by_name);
    }
    let without = if without.is_empty() { String::new() } else { format!("; not on {}", names(&without)) };
    Finding::ok("interfaces", format!("searches are broadcast on {}{without}", names(&with)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::doctor::finding::Verdict;

    fn interface(name: &str, last: u8, broadcast: bool) -> Interface {
        Interface { name: name.into(), address: Ipv4Addr::new(192, 0, 2, last), broadcast }
    }

    #[test]
    fn interfaces_without_broadcast_need_a_list_of_hosts() {
        let (lan, vpn) = (interface("eth0", 1, true), interface("tun0", 2, false));
        let all = Some(Ipv4Addr::UNSPECIFIED);
        let judge = |network, interfaces: &[Interface]| judge_interfaces(network, interfaces);
        let both = judge(all, &[lan.clone(), vpn.clone()]);
        assert_eq!(both.verdict, Verdict::Ok);
        assert!(both.message.contains("on eth0 (192.0.2.1); not on tun0"), "{}", both.message);
        let one = judge(Some(vpn.address), &[lan, vpn]);
        assert_eq!(one.verdict, Verdict::Warn);
        assert!(one.fix.is_some_and(|fix| fix.contains("RIVER_HOSTS")));
        assert_eq!(judge(all, &[]).verdict, Verdict::Fail);
    }

    #[test]
    fn hosts_are_others_unless_they_are_this_machine() {
        let by_name = |hosts: &str| Reach::parse("", hosts).unwrap().by_name;
        for hosts in ["", "localhost", " 127.0.0.1:7, ,localhost:8"] {
            assert!(!by_name(hosts), "{hosts}");
        }
        for hosts in ["lab1", "localhost, lab1:7", "192.0.2.1"] {
            assert!(by_name(hosts), "{hosts}");
        }
    }

    #[test]
    fn this_machine_can_be_connected_to() {
        assert!(connect(Ipv4Addr::LOCALHOST).is_ok());
        // An address reserved for documentation.
        let foreign = connect(Ipv4Addr::new(192, 0, 2, 1));
        assert!(foreign.is_err(), "nothing can be bound to it");
    }
}
