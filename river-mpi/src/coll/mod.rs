//! Collective operations: algorithms as plans, and what carries them out.
//!
//! An [`Algorithm`] is a pure function from a rank and a [`Shape`] to a [`Plan`]: a list of sends, receives and local
//! steps on ranges of elements. It knows no communicator, no type of element and no request. The same plan serves the
//! blocking and the non-blocking form of an operation, and a simulation without a network, in which [`check`] tests
//! every algorithm and [`cost`] counts its rounds and bytes.
//!
//! # Where things are
//!
//! * `plan`, `shape`, `algorithm`: what an algorithm sees and writes.
//! * One module for each operation, with one file for each algorithm, which opens with its cost, what it needs, and
//!   where it is from: [`barrier`], [`bcast`], [`gather`], [`scatter`], [`allgather`], [`alltoall`], [`reduce`],
//!   [`allreduce`], [`reduce_scatter`], [`scan`]. `tree`, `fold` and `halving` are what several of them have in common;
//!   `inter` has the plans between two groups.
//! * `execute` carries plans out, on the buffers of `memory`, over a `wire`, and knows by `offers` what other processes are
//!   reading; `short` does so if all messages are short, `parcels` for values of any length; `simulate` has a wire of its own;
//!   `oracle` knows what has to come out.
//! * `tuning` chooses, `planner` keeps the plans that a communicator uses again.
//!
//! `docs/guide/collectives.md` shows how to write, check, measure and use an algorithm.

mod algorithm;
pub mod allgather;
pub mod allreduce;
pub mod alltoall;
pub mod barrier;
pub mod bcast;
mod execute;
mod fold;
pub mod gather;
mod halving;
mod inter;
mod memory;
mod offers;
mod oracle;
mod parcels;
mod plan;
mod planner;
pub mod reduce;
pub mod reduce_scatter;
pub mod scan;
pub mod scatter;
mod shape;
mod short;
mod simulate;
mod tree;
mod tuning;
mod wire;

pub use algorithm::{Algorithm, Operation, plan_of};
pub use allgather::{Allgather, Allgatherv};
pub use allreduce::Allreduce;
pub use alltoall::{Alltoall, Alltoallv};
pub use barrier::Barrier;
pub use bcast::Bcast;
pub(crate) use execute::{Execution, LONG_PIECE, NoOperator, Progress};
pub use gather::{Gather, Gatherv};
pub(crate) use inter::{Inter, InterCall, InterRoot, MakeInter, Sides};
pub(crate) use memory::{Input, Memory};
pub use oracle::{Checked, check, check_dyn};
pub(crate) use parcels::Parcels;
pub use plan::{Buffer, NOTHING, Plan, Side, Span, input, output};
pub(crate) use planner::{Planned, Planner};
pub use reduce::Reduce;
pub use reduce_scatter::ReduceScatter;
pub use scan::{Exscan, Scan};
pub use scatter::{Scatter, Scatterv};
pub(crate) use shape::Call;
pub use shape::{Hosts, Shape, consecutive, log2_ceil, share, shares};
pub(crate) use short::{Buffers, run_short};
pub use simulate::{Cost, Outcome, cost};
pub use tuning::{Names, Tuned, Tuning};
pub(crate) use wire::{INLINE, Landed, Message, SHORT, Wire};

/// The programs in the guide, so that they are compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide/collectives.md")]
struct Guide;
