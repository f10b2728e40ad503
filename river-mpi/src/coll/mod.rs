//! Collective operations: algorithms as plans, and what carries them out.
//!
//! An [`Algorithm`] is a pure function from a rank and a [`Shape`] to a [`Plan`]: a list of sends, receives
//! and local steps on ranges of elements. It knows no communicator, no element type and no request. The same
//! plan serves the blocking and the non-blocking form of an operation, and a simulation in which all
//! algorithms are tested.

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
mod oracle;
mod plan;
mod planner;
pub mod reduce;
pub mod reduce_scatter;
pub mod scan;
pub mod scatter;
mod shape;
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
pub(crate) use execute::{Execution, Input, Memory, NoOperator, Progress};
pub use gather::{Gather, Gatherv};
pub(crate) use inter::{Inter, InterRoot};
pub use oracle::{Checked, check, check_dyn};
pub use plan::{Buffer, NOTHING, Plan, Side, Span, input, output};
pub(crate) use planner::Planner;
pub use reduce::Reduce;
pub use reduce_scatter::ReduceScatter;
pub use scan::{Exscan, Scan};
pub use scatter::{Scatter, Scatterv};
pub use shape::{Hosts, Shape, consecutive, log2_ceil, share, shares};
pub use simulate::{Cost, Outcome, cost};
pub use tuning::{Names, Tuned, Tuning};
pub(crate) use wire::Wire;
