//! Collective operations: algorithms that make plans, and the executor that carries them out.
//!
//! An [`Algorithm`] is a pure function from a rank and a [`Shape`] to a [`Plan`]: a list of sends, receives and local steps
//! on ranges of elements. It depends on no communicator, no element type and no request. The same plan serves the blocking
//! and the non-blocking form of an operation, and a simulation without a network, in which [`check`] tests every algorithm
//! and [`cost`] counts its rounds and bytes.
//!
//! # Modules
//!
//! * `plan`, `span`, `shape`, `algorithm`: the input and the output of an algorithm.
//! * One module for each operation, with one file for each algorithm, whose docs state its cost, its requirements and its
//!   source: [`barrier`], [`bcast`], [`gather`], [`scatter`], [`allgather`], [`alltoall`], [`reduce`], [`allreduce`],
//!   [`reduce_scatter`], [`scan`]. `tree`, `fold` and `halving` are shared by several algorithms; `inter` has the plans
//!   between two groups.
//! * `execute` carries out plans on the buffers of `memory`, over a `wire`; `offers` tracks what other processes are still
//!   reading. `short` is a faster executor for plans whose messages are all short, `parcels` one for values of any length.
//!   `simulate` has a wire of its own; `oracle` computes the expected results.
//! * `tuning` chooses algorithms; `planner` caches the plans of a communicator.
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
mod span;
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
pub use plan::{Plan, Side};
pub(crate) use planner::{Planned, Planner};
pub use reduce::Reduce;
pub use reduce_scatter::ReduceScatter;
pub use scan::{Exscan, Scan};
pub use scatter::{Scatter, Scatterv};
pub(crate) use shape::Call;
pub use shape::{Hosts, Shape, consecutive, log2_ceil, share, shares};
pub(crate) use short::{Buffers, run_short};
pub use simulate::{Cost, Outcome, cost};
pub use span::{Buffer, NOTHING, Span, input, output};
pub use tuning::{Names, Tuned, Tuning};
pub(crate) use wire::{INLINE, Landed, Message, SHORT, Wire};

/// Compiles and runs the programs in the guide.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide/collectives.md")]
struct Guide;
