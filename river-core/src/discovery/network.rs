//! How far a process reaches beyond its own machine: not at all, unless it is told to.
//!
//! Programs take this from the environment: `RIVER_NETWORK` (the interfaces on which they search, and on which they listen
//! for their own processes on other machines) and `RIVER_HOSTS` (machines that are probed one by one, for clouds and other
//! networks without broadcast).

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use if_addrs::IfAddr;

use crate::discovery::names::Names;
use crate::key::{ClusterKey, KeyError};

/// How long a search waits for names that no earlier search has waited for. Machines whose names are resolved later are
/// probed as soon as they are.
const PATIENCE: Duration = Duration::from_secs(1);

/// The multicast group that VMs on the network join. Its range is administratively scoped.
pub(crate) const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 77, 77);

/// An invalid network setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// `RIVER_NETWORK`.
    #[error(
        "RIVER_NETWORK is {0:?}: set it to 1 for all network interfaces, to the IPv4 address of one, or to 0 for this machine only"
    )]
    Network(String),
    /// `RIVER_HOSTS`.
    #[error("RIVER_HOSTS contains {0:?}: it must be a list of HOST or HOST:PORT, separated by commas")]
    Hosts(String),
}

/// The interfaces that may be used. Loopback always may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Network {
    /// No other interfaces.
    #[default]
    Loopback,
    /// All interfaces.
    All,
    /// The interface with this address.
    One(Ipv4Addr),
}

impl From<Option<Ipv4Addr>> for Network {
    /// The unspecified address stands for all interfaces.
    fn from(address: Option<Ipv4Addr>) -> Self {
        match address {
            None => Self::Loopback,
            Some(address) if address.is_loopback() => Self::Loopback,
            Some(Ipv4Addr::UNSPECIFIED) => Self::All,
            Some(address) => Self::One(address),
        }
    }
}

/// An interface other than loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) ip: Ipv4Addr,
    /// `None` on a point-to-point link.
    pub(super) broadcast: Option<Ipv4Addr>,
}

impl Network {
    /// The network of a process that listens on these addresses.
    pub(crate) fn of(addresses: &[IpAddr]) -> Self {
        let beyond = addresses.iter().find_map(|address| match address {
            IpAddr::V4(address) if !address.is_loopback() => Some(*address),
            _ => None,
        });
        beyond.into()
    }

    fn parse(text: &str) -> Result<Self, NetworkError> {
        match text {
            "" | "0" => Ok(Self::Loopback),
            "1" => Ok(Self::All),
            address => match address.parse() {
                Ok(address) => Ok(Some(address).into()),
                Err(_) => Err(NetworkError::Network(text.to_owned())),
            },
        }
    }

    /// The addresses to bind, so that every process that may reach this one can.
    pub(crate) fn addresses(self) -> Vec<IpAddr> {
        match self {
            Self::Loopback => vec![Ipv4Addr::LOCALHOST.into()],
            Self::All => vec![Ipv4Addr::UNSPECIFIED.into()],
            Self::One(address) => vec![Ipv4Addr::LOCALHOST.into(), address.into()],
        }
    }

    /// The usable interfaces besides loopback, as they are now.
    pub(super) fn interfaces(self) -> io::Result<Vec<Interface>> {
        if self == Self::Loopback {
            return Ok(Vec::new());
        }
        let usable = |interface: if_addrs::Interface| match interface.addr {
            IfAddr::V4(v4) if !v4.ip.is_loopback() && (self == Self::All || self == Self::One(v4.ip)) => {
                let broadcast = v4.broadcast.unwrap_or(v4.ip | !v4.netmask);
                let broadcast =
                    (broadcast != v4.ip && v4.netmask != Ipv4Addr::BROADCAST).then_some(broadcast);
                Some(Interface { ip: v4.ip, broadcast })
            }
            _ => None,
        };
        Ok(if_addrs::get_if_addrs()?.into_iter().filter_map(usable).collect())
    }
}

/// A machine to probe directly.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Host {
    name: String,
    port: Option<u16>,
}

impl Host {
    fn ip(&self) -> Option<Ipv4Addr> {
        self.name.parse().ok()
    }

    fn is_this_machine(&self) -> bool {
        self.name == "localhost" || self.ip().is_some_and(|ip| ip.is_loopback())
    }
}

/// How far a program reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    /// The interfaces on which it searches.
    network: Network,
    hosts: Vec<Host>,
}

impl Reach {
    /// Reads `RIVER_NETWORK` and `RIVER_HOSTS`.
    pub(crate) fn from_env() -> Result<Self, NetworkError> {
        let text =
            |name| std::env::var_os(name).map_or_else(String::new, |v| v.to_string_lossy().into_owned());
        Self::parse(&text("RIVER_NETWORK"), &text("RIVER_HOSTS"))
    }

    pub(super) fn parse(network: &str, hosts: &str) -> Result<Self, NetworkError> {
        let network = Network::parse(network.trim())?;
        let host = |entry: &str| {
            let wrong = || NetworkError::Hosts(entry.to_owned());
            let (name, port) = match entry.split_once(':') {
                Some((name, port)) => (name, Some(port.parse().ok().filter(|p| *p > 0).ok_or_else(wrong)?)),
                None => (entry, None),
            };
            let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            if name.is_empty() || !name.chars().all(fits) {
                return Err(wrong());
            }
            Ok(Host { name: name.to_owned(), port })
        };
        let hosts = hosts.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        Ok(Self { network, hosts: hosts.map(host).collect::<Result<_, _>>()? })
    }

    /// Extends a reach that is limited to loopback to `network`, the one on which this process can be reached.
    pub(crate) fn from(mut self, network: Network) -> Self {
        if self.network == Network::Loopback {
            self.network = network;
        }
        self
    }

    /// The interfaces on which the program searches by broadcast.
    pub(super) fn network(&self) -> Network {
        self.network
    }

    /// The interfaces on which the program's processes listen: all of them if it probes other machines by name, unless one
    /// is set.
    pub(crate) fn listening(&self) -> Network {
        match self.network {
            Network::Loopback if self.hosts.iter().any(|host| !host.is_this_machine()) => Network::All,
            network => network,
        }
    }

    /// The cluster key. A new one is made only for a program that stays on its machine: on the network, a key that nobody
    /// else has would be useless, and would hide that the cluster's key is missing.
    pub(crate) fn key(&self) -> Result<ClusterKey, KeyError> {
        key_for(self.listening())
    }

    /// Looks up the names of the machines that are probed directly. Blocks for a bounded time for names that are new.
    pub(super) fn look_up(&self) {
        let names = self.hosts.iter().filter(|host| host.ip().is_none());
        Names::of_process().look_up(names.map(|host| &*host.name), PATIENCE);
    }

    /// Whether some names are still being looked up.
    pub(super) fn awaits_names(&self) -> bool {
        self.hosts.iter().any(|host| Names::of_process().is_under_way(&host.name))
    }

    /// The addresses of these machines, as far as they are known. A name without an address is logged and left out, since
    /// that machine may be off.
    pub(super) fn addresses(&self, default_port: u16) -> Vec<SocketAddr> {
        let mut addresses = Vec::new();
        for host in &self.hosts {
            let port = host.port.unwrap_or(default_port);
            let ips =
                host.ip().map_or_else(|| Names::of_process().addresses(&host.name), |ip| vec![ip.into()]);
            addresses.extend(ips.into_iter().map(|ip| SocketAddr::new(ip, port)));
        }
        addresses
    }
}

/// The key for a process that listens on this network.
pub(crate) fn key_for(network: Network) -> Result<ClusterKey, KeyError> {
    if network == Network::Loopback { ClusterKey::load_or_create() } else { ClusterKey::load() }
}

/// The broadcast addresses of all loopback networks; usually there is only one.
pub(super) fn loopback_broadcasts() -> io::Result<Vec<Ipv4Addr>> {
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

/// An address on which a VM listens for searches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ear {
    /// Searches by broadcast, on this machine or on an interface: every VM of the machine receives them.
    Broadcast(Ipv4Addr),
    /// Searches by multicast on the interface with this address.
    Group(Ipv4Addr),
    /// Searches that were sent to this machine only: just one of its VMs receives them.
    Unicast(Ipv4Addr),
}

impl Ear {
    /// The address to bind for it.
    pub(super) fn address(self, port: u16) -> SocketAddrV4 {
        match self {
            Self::Broadcast(ip) | Self::Unicast(ip) => SocketAddrV4::new(ip, port),
            Self::Group(_) => SocketAddrV4::new(GROUP, port),
        }
    }

    /// Whether only this machine can send to it.
    pub(crate) fn is_local(self) -> bool {
        match self {
            Self::Broadcast(ip) | Self::Group(ip) | Self::Unicast(ip) => ip.is_loopback(),
        }
    }
}

/// All addresses on which a VM should listen for searches, given the interfaces as they are now.
pub(crate) fn ears(network: Network) -> io::Result<Vec<Ear>> {
    let mut ears: Vec<Ear> = loopback_broadcasts()?.into_iter().map(Ear::Broadcast).collect();
    ears.push(Ear::Unicast(Ipv4Addr::LOCALHOST));
    for Interface { ip, broadcast } in network.interfaces()? {
        ears.extend(broadcast.map(Ear::Broadcast));
        ears.extend([Ear::Group(ip), Ear::Unicast(ip)]);
    }
    Ok(ears)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_said_means_this_machine_only() {
        for (network, hosts) in
            [("", ""), ("0", ""), ("", "localhost"), ("", "127.0.0.1:7, ,"), ("127.0.0.1", "")]
        {
            let reach = Reach::parse(network, hosts).unwrap();
            assert_eq!(reach.listening(), Network::Loopback, "{network} {hosts}");
            assert!(reach.network().interfaces().unwrap().is_empty());
        }
    }

    #[test]
    fn the_network_is_used_as_far_as_asked() {
        assert_eq!(Reach::parse("1", "").unwrap().listening(), Network::All);
        assert_eq!(Reach::parse("0.0.0.0", "").unwrap().listening(), Network::All);
        let one = Network::One(Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(Reach::parse(" 10.0.0.1 ", "other").unwrap().listening(), one);
        assert_eq!(one.addresses().len(), 2);
        let named = Reach::parse("", "other.example:9").unwrap();
        assert_eq!((named.listening(), named.network()), (Network::All, Network::Loopback));
    }

    #[test]
    fn nonsense_is_named() {
        for network in ["yes", "2", "eth0", "::1", "10.0.0"] {
            let error = Reach::parse(network, "").unwrap_err();
            assert!(
                error.to_string().contains(network) && error.to_string().contains("set it to 1"),
                "{error}"
            );
        }
        for host in [":7", "host:", "host:0", "host:70000", "a b", "[::1]:7", "http://host"] {
            let error = Reach::parse("", &format!("good,{host}")).unwrap_err();
            assert_eq!(error, NetworkError::Hosts(host.to_owned()));
        }
    }

    #[test]
    fn hosts_are_resolved_with_the_port_of_the_cluster() {
        let reach = Reach::parse("", "127.0.0.1, 127.0.0.2:9").unwrap();
        let expected: [SocketAddr; 2] = ["127.0.0.1:7".parse().unwrap(), "127.0.0.2:9".parse().unwrap()];
        assert_eq!(reach.addresses(7), expected);
    }
}
