//! Trickle: task farming over River's virtual machines.
//!
//! A program connects to the VMs that are there, calls functions on them, forks and joins, or has a pile of work
//! spread over whichever VM is free. After "Python-based Distributed Programming with Trickle" (Benson and Fedosov);
//! its `inject` is needed for data only, as the program itself travels.
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
//! that tells how. A function that panics kills nothing; its items have an error for a result, or are
//! [tried again](ForkGen::retries). What takes too long is [cancelled](ForkGen::deadline); what is slow is also done by
//! another VM when there is nothing else to do. Calls and forks name one VM and fail with it.
//!
//! VMs may [join](Vms::grow) while a farm works, and [leave](Vms::drain) without a loss. [`Vms::release`] gives them all back.
//!
//! # Where things are
//!
//! [`connect`], [`connect_or_start`] and [`start`] give [`Vms`]; a [`Vm`] calls, forks and creates objects; [`join`] and
//! [`joinany`] end what [`fork`] began; [`Vms::inject`] leaves data where functions find it. A farm over items is [`Vms::forkwork`], [`Vms::forkgen`] or, if results are large and are to
//! be combined, [`Vms::forkfold`]; [`Work`] says which functions it takes, [`Chunk`] how many items travel together.
//!
//! # Layers, lowest first
//!
//! A module uses only modules above it in this list.
//!
//! * `chunk`: how work is cut
//! * `pace`: how long things take
//! * `progress`: how far a farm has come
//! * `work`: what a farm can call
//! * `error`: what can go wrong
//! * `scheduler`: who works on what, a state machine
//! * `options`: how a farm deals with what goes wrong
//! * `scout`: finding further VMs
//! * `lot`: who comes and goes
//! * `vm`: a handle on one VM
//! * `vms`: handles on all of them
//! * `inject`: data, functions and objects with names
//! * `fork`: fork and join
//! * `connect`: finding VMs
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
pub use fork::{Each, Fork, Handle, Join, Listed, ListedEach, Mapped, Same, each, fork, join, joinany};
pub use forkfold::ForkFold;
pub use forkgen::ForkGen;
pub use progress::{Progress, progress_bar};
pub use river_rai::current;
pub use vm::Vm;
pub use vms::Vms;
pub use work::{PerChunk, PerItem, Work};
