//! River's core: the layer on which parallel programming models are built.
//!
//! A *program* is one executable. It starts as one *virtual resource* (VR), the initiator. The initiator finds *virtual
//! machines* (VMs), which are started with `river vm`, leases some of them, and deploys further VRs there. A VM need not know
//! the program beforehand: it fetches the program's executable and caches it. Every VR has its own thread, name and mailbox,
//! and interacts with the world through [`Vr`] only.
//!
//! ```
//! use river_core::{Channel, Result, Selector, VirtualResource, Vr};
//! use serde::{Deserialize, Serialize};
//!
//! const DEMO: Channel = Channel::named("demo");
//!
//! #[derive(Serialize, Deserialize)]
//! struct Square {
//!     x: u64,
//! }
//!
//! impl VirtualResource for Square {
//!     fn main(&mut self, vr: &Vr) -> Result {
//!         let parent = vr.parent().expect("it was deployed");
//!         vr.send_bytes(parent, DEMO, 0, (self.x * self.x).to_le_bytes().to_vec())?;
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> Result {
//! let squares = river_core::try_run(|vr| {
//!     let vms = vr.start_local(2)?; // or: vr.allocate(vr.discover(Query { idle_only: true, ..Query::default() })?, 2)?
//!     let group = vr.deploy(&vms, |i| Square { x: i as u64 + 2 })?;
//!     let mut squares = Vec::new();
//!     for square in group.iter() {
//!         let envelope = vr.receive(Selector::on(DEMO).from(square))?;
//!         squares.push(envelope.payload.to_bytes()[0]);
//!     }
//!     Ok(squares)
//! })?;
//! assert_eq!(squares, [4, 9]);
//! # Ok(())
//! # }
//! ```
//!
//! # Delivery
//!
//! * **First in, first out** per pair: envelopes from one VR to another arrive in the order in which they were sent. Only
//!   the receiver can change that order, by a [`Selector`] or a predicate that matches a later envelope first.
//! * **At most once**: an envelope is never received twice.
//! * `Ok` from a send means **accepted, not received**.
//! * An envelope is **lost only together with a [`Down`] notice** about its destination, or about the host in between.
//! * A VR's `Down` notice comes **after everything that it had sent** to the same receiver and that still could be
//!   delivered.
//! * **Nothing hangs forever**: a receive that names its source returns that source's `Down` once no more of its envelopes
//!   can come. A VR is told without asking when a VR that it deployed ends abnormally; to be told about any other VR, use
//!   [`Vr::watch`].
//!
//! # Where things are
//!
//! [`run`] starts a program. A VR implements [`VirtualResource`], and its code is given a [`Vr`]. [`Selector`], [`Envelope`]
//! and [`Payload`] are the messages of this layer. [`find`] and [`Vm`] are for tools that search for machines, or offer them,
//! without being a program. [`code`] names functions across processes, for layers that call them.
//!
//! # Layers, lowest first
//!
//! A module uses only modules above it in this list.
//!
//! * `naming`: readable names of types
//! * `aliasing`: copies of long slices that are fast wherever these lie
//! * `id`: ids
//! * `machine`: names of this machine and this process, for people
//! * `notice`: printing to a terminal that may be closed
//! * `down`: why a VR or a host is gone
//! * `envelope`: what moves between VRs
//! * `arriving`: envelopes that have not reached a mailbox yet
//! * `limit`: limits of mailboxes
//! * `panics`: panics as text, and their backtraces
//! * `status`: reports about processes, for monitoring
//! * `error`: error types
//! * `trace`: records what VRs did, and when
//! * `key`: the cluster key
//! * `noise`: the handshake
//! * `discovery`: how VMs are found
//! * `image`: the program's executable as bytes, and the cache of them
//! * `code`: code pointers
//! * `protocol`: the messages that processes send to each other
//! * `rt`: the asynchronous runtime
//! * `searches`: answers searches
//! * `lease`: which program may use a VM
//! * `control`: control connections
//! * `flood`: drops output that nobody reads fast enough
//! * `pool`: reuses memory of payloads
//! * `frame`: the format of data connections
//! * `apart`: keeps threads that poll for each other on different cores
//! * `inbox`: the shared half of a mailbox
//! * `inboxes`: the inboxes of a process
//! * `mailbox`: the owner's half: selective receive
//! * `state`: the records of recoverable VRs, and how VRs are restored from them
//! * `link`: the ways from one VR to another
//! * `node`: a process's VRs and its router
//! * `service`: connections between programs
//! * `vr`: virtual resources
//! * `cut`: a process's part in a checkpoint
//! * `lifeline`: ends a host together with its VM
//! * `host`: the process in which a VM runs a program's VRs
//! * `vm`: virtual machines
//! * `program`: the initiator's side: leases, hosts, directory
//! * `operate`: requests to a running program from outside
//! * `kept`: checkpoints in the memory of VMs
//! * `replay`: replays one VR of a recording
//! * `run`: starts a program
//! * `start`: starts a host that is a test executable
//! * `fuzzing`: the decoders of untrusted input, for fuzzers
//! * `testing`: helpers for the tests of other layers
//! * `sim`: the delivery guarantees on a simulated network

pub mod aliasing;
mod apart;
mod arriving;
pub mod code;
mod control;
mod cut;
mod discovery;
mod down;
mod envelope;
mod error;
mod flood;
mod frame;
#[cfg(any(test, feature = "testing"))]
pub mod fuzzing;
mod host;
mod id;
mod image;
mod inbox;
mod inboxes;
pub mod kept;
mod key;
mod lease;
mod lifeline;
mod limit;
mod link;
mod machine;
mod mailbox;
pub mod naming;
mod node;
mod noise;
mod notice;
mod operate;
mod panics;
mod pool;
mod program;
mod protocol;
mod replay;
mod rt;
mod run;
mod searches;
mod service;
#[cfg(test)]
mod sim;
#[cfg(feature = "testing")]
mod start;
mod state;
mod status;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod trace;
mod vm;
mod vr;

pub use std::process::ExitCode;

pub use arriving::{Arriving, Intake};
pub use discovery::{
    DISCOVERY_PORT, DiscoverError, FindError, Found, Heard, NetworkError, PortError, Query, ResponderError,
    VmInfo, VmState, discovery_port, find, hear_self,
};
pub use down::{Down, Why};
pub use envelope::{Channel, Envelope, Payload};
pub use error::{
    DeployError, Divergence, MigrateError, RecvError, Result, SendError, ServiceError, StateError, VrError,
};
pub use host::{HostLimits, become_host_if_asked};
pub use id::{HostId, ImageHash, ProgramId, VmId, VrId};
pub use image::{CacheError, CachePlace, cache_place};
pub use key::{ClusterKey, KeyError};
pub use limit::{QueueLimit, WhenFull};
pub use link::{Line, SharedLines, SharedName};
pub use mailbox::{QueueStatus, Selector};
pub use noise::PROTOCOL;
pub use operate::{InspectError, checkpoint, migrate, program_status, vm_status};
pub use panics::{Panic, Trace, catch_panic, catch_panic_quietly, catch_traced};
pub use protocol::{Checkpoint, Count, KeepIn, Migrated};
pub use run::{Launch, restore, run, run_recoverable, try_run, try_run_recoverable};
pub use state::{Happening, RecordedStep, RecordedVr, Recording, Store, Stored, StoredVr};
pub use status::{
    LeaseStatus, LeasedStatus, LinkStatus, ProcessReport, ProcessStatus, ProgramStatus, Usage, VmStatus,
    VrStatus,
};
pub use vm::{StopError, Vm, VmConfig, VmError, drain, stop};
pub use vr::{Group, Handler, Posted, Random, Service, Span, VirtualResource, Vr};
