//! Collective operations on communicators (MPI 1.3, chapter 4): all ranks call them, in the same order.
//!
//! These modules contain the methods that programs call; the implementation of the operations is in [`coll`](crate::coll).
//!
//! * `blocking`: one method for each operation
//! * `in_place`: the blocking form with one buffer for input and output
//! * `nonblocking`: the non-blocking form (MPI 3.1, section 5.12); `pending` contains operations in progress
//! * `typed`: operations on data that datatypes describe
//! * `values`: operations on values of any serde type

mod blocking;
mod in_place;
mod nonblocking;
mod pending;
mod port;
mod prepare;
mod root;
mod run;
mod typed;
mod values;

pub use root::{ROOT, Root};
pub use values::RequestValue;
