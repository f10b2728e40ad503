//! Trickle: task farming over River's virtual machines.
//!
//! A program connects to the available VMs, calls functions on them, forks and joins, or distributes a large number of
//! work items to whichever VMs are free. After "Python-based Distributed Programming with Trickle" (Benson and
//! Fedosov); unlike there, `inject` is needed for data only, as the program itself is sent to the VMs.
//!
//! ```no_run
//! use river_core::{ExitCode, Vr};
//! use river_trickle as trickle;
//!
//! fn foo(x: i64) -> i64 {
//!     x + 10
//! }
//!
//! fn program(vr: &Vr) -> river_core::Result {
//!     let vms = trickle::connect(vr, ..)?;
//!     let results = vms.iter().map(|vm| vm.call(foo, (10,))).collect::<Result<Vec<_>, _>>()?;
//!     println!("{results:?}");
//!
//!     let squares = vms.forkwork(|x: i64| x * x, 0..100, 10)?;
//!     println!("{squares:?}");
//!     Ok(())
//! }
//!
//! fn main() -> ExitCode {
//!     river_core::run(program)
//! }
//! ```
//!
//! # What happens when a VM dies
//!
//! [`Vms::forkwork`], [`Vms::forkgen`] and [`Vms::forkfold`] give its work to the others: every item has exactly one
//! accepted result, though a function may have begun twice. Items on which three VMs died are given up, with an error
//! that shows how they died. A function that panics does not end its VM; its items yield an error, or are
//! [retried](ForkGen::retries). Chunks that take too long are [cancelled](ForkGen::deadline); those of stragglers are
//! also run by another VM that is idle; in a `forkfold`, where that would count them twice, only those that the straggler
//! has not begun. Calls and forks name one VM and fail with it.
//!
//! VMs may [join](Vms::grow) while a farm runs, and be [drained](Vms::drain) without losing work. [`Vms::release`]
//! gives all of them back.
//!
//! # Where things are
//!
//! [`connect`], [`connect_or_start`] and [`start`] return [`Vms`]; a [`Vm`] calls, forks and creates objects; [`join`]
//! and [`joinany`] wait for what [`fork`] and [`Vm::fork_method`] started; [`Vms::inject`] puts data where functions find it. A farm over items
//! is [`Vms::forkwork`], [`Vms::forkgen`] or, if results are large and must be combined, [`Vms::forkfold`]; [`Work`]
//! describes the functions that it takes, [`Chunk`] how many items are sent together.
//!
//! # Layers, lowest first
//!
//! A module uses only modules above it in this list.
//!
//! * `chunk`: how work is cut into chunks
//! * `pace`: measures how long things take
//! * `progress`: the progress of a farm
//! * `work`: functions that a farm can call
//! * `error`: what can go wrong
//! * `scheduler`: which VM works on what, a state machine
//! * `options`: how a farm deals with failures
//! * `scout`: finds further VMs
//! * `lot`: which VMs come and go
//! * `vm`: a handle to one VM
//! * `vms`: a handle to all of them
//! * `inject`: data, functions and objects with names
//! * `fork`: starts functions and methods
//! * `join`: waits for what was forked
//! * `connect`: finds VMs
//! * `farm`: the scheduler, driven by calls and their answers
//! * `forkgen`: independent items
//! * `forkfold`: items that are folded into one value

mod chunk;
mod connect;
mod error;
mod farm;
mod fork;
mod forkfold;
mod forkgen;
mod inject;
mod join;
mod lot;
mod options;
mod pace;
mod progress;
mod scheduler;
mod scout;
mod vm;
mod vms;
mod work;

pub use chunk::Chunk;
pub use connect::{connect, connect_or_start, start};
pub use error::{Death, Items, TrickleError};
pub use fork::{Each, Fork, Handle, Listed, ListedEach, Mapped, Same, each, fork};
pub use forkfold::ForkFold;
pub use forkgen::ForkGen;
pub use join::{Join, join, joinany};
pub use progress::{Progress, progress_bar};
pub use river_rai::current;
pub use vm::Vm;
pub use vms::Vms;
pub use work::{PerChunk, PerItem, Work};
