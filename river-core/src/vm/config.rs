//! The configuration of a VM.

use std::net::Ipv4Addr;

use crate::host::HostLimits;

/// Options of a VM, all of which have defaults.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VmConfig {
    /// The name that is shown to people. Default: the machine's name and the process id.
    pub name: Option<String>,
    /// Labels by which programs can select it.
    pub labels: Vec<String>,
    /// The TCP port on which programs talk to it. Default: any free one.
    pub listen: Option<u16>,
    /// The UDP port on which it is searched for. Default: [`DISCOVERY_PORT`](crate::DISCOVERY_PORT), or `RIVER_PORT`.
    pub discovery_port: Option<u16>,
    /// Whether it is hidden from searches. Default: no.
    pub hidden: bool,
    /// The network interface on which other machines can find and use it, given by its IPv4 address; 0.0.0.0 means all
    /// interfaces. Default: none; only programs on its own machine can use it.
    pub network: Option<Ipv4Addr>,
    /// Resource limits of a program's host. Default: those of this process.
    pub limits: HostLimits,
    /// How many bytes of memory it lends for checkpoints of programs that use it. Default: an eighth of the machine's
    /// memory, which the VMs of [`Vm::start_many`](crate::Vm::start_many) share.
    pub checkpoint_memory: Option<u64>,
}

impl VmConfig {
    /// Sets the name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.labels.push(label.into());
        self
    }

    /// Sets the TCP port to listen on.
    #[must_use]
    pub fn listen(mut self, port: u16) -> Self {
        self.listen = Some(port);
        self
    }

    /// Sets the UDP port on which it is searched for.
    #[must_use]
    pub fn discovery_port(mut self, port: u16) -> Self {
        self.discovery_port = Some(port);
        self
    }

    /// Sets the limits for hosts.
    #[must_use]
    pub fn limits(mut self, limits: HostLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how many bytes of memory it lends for checkpoints.
    #[must_use]
    pub fn checkpoint_memory(mut self, bytes: u64) -> Self {
        self.checkpoint_memory = Some(bytes);
        self
    }

    /// Lets other machines find and use it on the network interface with this IPv4 address, or on all interfaces if it is
    /// `Ipv4Addr::UNSPECIFIED`.
    ///
    /// This requires an existing cluster key, since all machines must have the same one. Anyone who has the key can run
    /// programs on the VM with the rights of its user; nobody else can, nor can they read or alter the traffic.
    #[must_use]
    pub fn network(mut self, address: Ipv4Addr) -> Self {
        self.network = Some(address);
        self
    }

    /// Hides it from searches: only programs that are given its address can use it.
    #[must_use]
    pub fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }
}
