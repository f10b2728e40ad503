//! The configuration of a VM.

use std::net::Ipv4Addr;

use crate::host::HostLimits;

/// Configuration of a VM.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VmConfig {
    /// The name that people see. Default: the machine's name and the process id.
    pub name: Option<String>,
    /// Words by which programs may choose it.
    pub labels: Vec<String>,
    /// The TCP port on which programs talk to it. Default: any free one.
    pub listen: Option<u16>,
    /// The UDP port on which it is searched for. Default: [`DISCOVERY_PORT`](crate::DISCOVERY_PORT), or `RIVER_PORT`.
    pub discovery_port: Option<u16>,
    /// Whether it is hidden from searches. Default: no.
    pub hidden: bool,
    /// The network interface on which other machines can find and use it, by its IPv4 address; 0.0.0.0 stands for all of
    /// them. Default: none, the VM is for its own machine.
    pub network: Option<Ipv4Addr>,
    /// What a program's host may use. Default: as much as this process may.
    pub limits: HostLimits,
    /// How many bytes of its memory it lends for checkpoints of programs that use it. Default: an eighth of the machine's.
    pub checkpoint_memory: Option<u64>,
}

impl VmConfig {
    /// The same with this name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The same with one more label.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.labels.push(label.into());
        self
    }

    /// The same, listening on this TCP port.
    #[must_use]
    pub fn listen(mut self, port: u16) -> Self {
        self.listen = Some(port);
        self
    }

    /// The same, searched for on this UDP port.
    #[must_use]
    pub fn discovery_port(mut self, port: u16) -> Self {
        self.discovery_port = Some(port);
        self
    }

    /// The same, with these limits for hosts.
    #[must_use]
    pub fn limits(mut self, limits: HostLimits) -> Self {
        self.limits = limits;
        self
    }

    /// The same, lending at most so many bytes of its memory for checkpoints.
    #[must_use]
    pub fn checkpoint_memory(mut self, bytes: u64) -> Self {
        self.checkpoint_memory = Some(bytes);
        self
    }

    /// The same, for other machines too: they can find and use it on the network interface with this IPv4 address, or on
    /// all of them if it is `Ipv4Addr::UNSPECIFIED`.
    ///
    /// That takes a cluster key which is there already, as the machines have to have the same one. Whoever has it can run
    /// programs on the VM, with the rights of its user; nobody else can, nor read or change what they say.
    #[must_use]
    pub fn network(mut self, address: Ipv4Addr) -> Self {
        self.network = Some(address);
        self
    }

    /// The same, found by nobody: only who is told its address can use it.
    #[must_use]
    pub fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }
}
