//! River: a framework for prototyping parallel programming models on real machines, and for writing parallel
//! programs with the models that come with it.
//!
//! A program is made of *virtual resources* (VRs), process-like values each with its own thread, name and message queue,
//! that run on *virtual machines* (VMs): processes that anyone may start with `river vm`, and that need not have the
//! program, since it is shipped to them.
//!
//! This crate is the facade: it re-exports the layers, and holds the `river` command. If you need only one layer, depend on
//! that layer alone.
//!
//! ```no_run
//! use river::prelude::*;
//!
//! fn foo(x: i64) -> i64 {
//!     x + 10
//! }
//!
//! fn program(vr: &Vr) -> river::Result {
//!     let vms = trickle::connect(vr, ..)?;
//!     let results = vms.iter().map(|vm| vm.call(foo, (10,))).collect::<Result<Vec<i64>, _>>()?;
//!     println!("{results:?}");
//!     Ok(())
//! }
//!
//! fn main() -> river::ExitCode {
//!     river::run(program)
//! }
//! ```
//!
//! # Layers, lowest first
//!
//! * [`core`]: virtual machines, virtual resources, discovery, leases, deployment, envelopes, failure.
//! * [`sfm`]: super flexible messaging: messages are sets of named attributes, received by pattern.
//! * [`rai`]: remote access and invocation of functions and objects.
//! * [`trickle`]: task farming.
//! * [`mpi`]: the Message Passing Interface.
//! * [`mapreduce`]: map, combine, shuffle, reduce.
//! * [`trace`]: traces of what a program did, and pages that show them.
//!
//! # Features
//!
//! * `command` (default): the command `river`, and what only it needs. A program needs just
//!   `river = { ..., default-features = false }`.
//! * `testing`: test executables can be hosts of the programs that they test.

mod log;
pub mod trace;

pub use log::log_to_stderr;
pub use river_core::{
    ExitCode, Launch, Result, VrError, become_host_if_asked, restore, run, run_recoverable, try_run,
    try_run_recoverable,
};
pub use {
    river_core as core, river_mapreduce as mapreduce, river_mpi as mpi, river_rai as rai, river_sfm as sfm,
    river_trickle as trickle,
};

// What is marked `no_run` below needs VMs that are running, a second program, or a test harness.

/// The programs in README.md, so that they are compiled, and run if they have a `main`.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// The programs in the guide for model builders, so that they are compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/core.md")]
struct Guide;

/// The programs in the guide to new models, so that they are compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/new-model.md")]
struct NewModel;

/// The programs in the guide to MPI, so that they are compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/mpi.md")]
struct MpiGuide;

/// The programs in the guide for MapReduce, so that they are compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/mapreduce.md")]
struct MapReduceGuide;

/// The programs in the guide to state, so that they are compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/state.md")]
struct StateGuide;

/// The programs in the guide to traces, so that they are compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/trace.md")]
struct TraceGuide;

/// The programs in the guide to Trickle, so that they are compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/trickle.md")]
struct TrickleGuide;

/// The programs in the other pages of the guide, so that they are compiled and run.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../docs/guide/first-hour.md")]
    struct FirstHour;
    #[doc = include_str!("../../docs/guide/sfm.md")]
    struct Sfm;
    #[doc = include_str!("../../docs/guide/rai.md")]
    struct Rai;
    #[doc = include_str!("../../docs/guide/failure.md")]
    struct Failure;
}

/// What most programs want in scope.
pub mod prelude {
    pub use river_core::{Query, VirtualResource, Vr, VrId};
    pub use river_sfm::{ANY, Message, Sfm, msg, pat};
    pub use river_trickle as trickle;
}
