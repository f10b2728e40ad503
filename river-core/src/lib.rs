//! River's core: the layer on which parallel programming models are built.
//!
//! A *program* is one executable. It starts as one *virtual resource* (VR), the initiator, finds *virtual machines*
//! (VMs) that somebody has started with `river vm`, leases some of them, and deploys further VRs there. A VM knows
//! nothing of the program: the program's executable travels to it, and is kept in a cache. Every VR has a thread, a
//! name and a mailbox of its own, and sees the world through [`Vr`] only.
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
//! * **First in, first out** per pair: what one VR sends to another is received in that order, if the receiver asks in
//!   that order; a [`Selector`] and a predicate may take a later envelope first, never the system.
//! * **At most once**: an envelope is never received twice.
//! * `Ok` from a send means **accepted, not received**.
//! * An envelope is **lost only together with a [`Down`] notice** about its destination, or about the host in between.
//! * A VR's `Down` notice comes **after everything that it had sent** to the same receiver and that still could be
//!   delivered.
//! * **Nothing hangs for ever**: a receive that names its source ends with that source's `Down` when nothing of it is
//!   left; a VR is told without asking when a VR that it deployed does not end normally; [`Vr::watch`] asks for any
//!   other.
//!
//! # Where things are
//!
//! [`run`] starts a program, [`Vr`] is what its VRs see, [`VirtualResource`] what they are. [`Selector`], [`Envelope`]
//! and [`Payload`] are messages as this layer knows them. [`find`] and [`Vm`] are for who searches or lends machines
//! without being a program. [`code`] names functions across processes, for layers that call them.
//!
//! # Layers, lowest first
//!
//! A module uses only modules above it in this list.
//!
//! * `naming`: names of types, for people
//! * `id`: names
//! * `machine`: this machine and this process, for people
//! * `notice`: what is said on a terminal that may be gone
//! * `down`: why something is gone
//! * `envelope`: what moves between VRs
//! * `arriving`: envelopes that have not reached a mailbox yet
//! * `limit`: limits of mailboxes
//! * `panics`: panics as text, and how it came to them
//! * `status`: what processes look like from outside
//! * `error`: what can go wrong
//! * `trace`: what VRs did, and when
//! * `key`: the cluster key
//! * `noise`: the handshake
//! * `discovery`: how VMs are found
//! * `image`: the program's executable as bytes, and the cache of them
//! * `code`: code pointers
//! * `protocol`: what processes say to each other
//! * `rt`: the asynchronous runtime
//! * `searches`: how searches are answered
//! * `lease`: who may use a VM
//! * `control`: control connections
//! * `flood`: what to do with too much output
//! * `pool`: memory for payloads, used again
//! * `frame`: the format of data connections
//! * `fuzzing`: the decoders of what comes from outside, for fuzzers
//! * `apart`: threads that wait for each other, each on a core of its own
//! * `inbox`: the shared half of a mailbox
//! * `inboxes`: the inboxes of a process
//! * `mailbox`: the owner's half: selective receive
//! * `state`: what VRs were told, and how they are restored from it
//! * `link`: the ways from one VR to another
//! * `node`: a process's VRs and its router
//! * `service`: connections between programs
//! * `vr`: virtual resources
//! * `cut`: a process's part in a checkpoint
//! * `lifeline`: what ends a host with its VM
//! * `host`: the process in which a VM runs a program's VRs
//! * `vm`: virtual machines
//! * `program`: the initiator's side: leases, hosts, directory
//! * `operate`: what others may want of a running program
//! * `kept`: checkpoints in the memory of VMs
//! * `replay`: one VR of a recording, run again alone
//! * `run`: the start of a program
//! * `start`: the start of a host that is a test executable
//! * `testing`: help for the tests of other layers
//! * `sim`: the delivery guarantees on a simulated network

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
pub use state::{Happening, RecordedStep, RecordedVr, Recording, Stored, StoredVr};
pub use status::{
    LeaseStatus, LeasedStatus, LinkStatus, ProcessReport, ProcessStatus, ProgramStatus, Usage, VmStatus,
    VrStatus,
};
pub use vm::{StopError, Vm, VmConfig, VmError, drain, stop};
pub use vr::{Group, Handler, Posted, Random, Service, Span, VirtualResource, Vr};
