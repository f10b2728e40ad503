//! Collective operations on communicators (MPI 1.3, chapter 4): all ranks call them, in the same order.
//!
//! Here is what a program calls; how the operations are done is in [`coll`](crate::coll).
//!
//! * `blocking`: one method for each operation
//! * `in_place`: the same with one buffer for input and output
//! * `nonblocking`: the same as requests (MPI 3.1, section 5.12); `pending` is what is under way then
//! * `typed`: the same on what datatypes describe
//! * `values`: the same for any value that serde knows

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
