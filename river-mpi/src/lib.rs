//! The Message Passing Interface over River, for people who use it, study it or change its algorithms: ranks are VRs.
//!
//! # Layers, lowest first
//!
//! A module uses only modules above it in this list.
//!
//! * `error`: error classes as values
//! * `element`: what typed buffers are made of
//! * `op`: operators of reductions
//! * `coll`: algorithms of collective operations, as plans
//! * `matching`: which message goes to which receive
//! * `header`: what stands before a message's data
//! * `job`: what ranks and supervisor say to each other
//! * `engine`: progress
//! * `peer`: ranks and tags as arguments
//! * `status`: what is known of a message
//! * `group`: ordered sets of ranks
//! * `attribute`: what libraries keep with a communicator
//! * `communicator`: groups with a context
//! * `target`: where a message goes
//! * `request`: operations under way
//! * `p2p`: point-to-point communication
//! * `hidden`: the messages of collective operations
//! * `consensus`: what making a communicator needs
//! * `create`: communicators made of others
//! * `datatype`: which bytes a message is made of
//! * `typed`: point-to-point communication by datatypes
//! * `value`: values of any serde type
//! * `collective`: collective operations
//! * `persistent`: operations that are started again and again
//! * `topology`: grids and graphs
//! * `survive`: going on after a failure
//! * `supervisor`: who watches over a job
//! * `launch`: starting a job
//! * `testing`: worlds without VMs

mod attribute;
pub mod coll;
mod collective;
mod communicator;
mod consensus;
mod create;
mod datatype;
mod element;
mod engine;
mod error;
mod group;
mod header;
mod hidden;
mod job;
mod launch;
mod matching;
pub mod op;
mod p2p;
mod peer;
mod persistent;
mod request;
mod status;
mod supervisor;
mod survive;
mod target;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod topology;
mod typed;
mod value;

pub use attribute::Keyval;
pub use collective::{ROOT, Root};
pub use communicator::{Communicator, ErrorHandler};
pub use datatype::{Committed, Datatype};
pub use element::{Complex, Complex32, Complex64, Element, Located};
pub use error::{ErrorClass, MpiError, Result};
pub use group::{Comparison, Group};
pub use launch::{Launch, Ranks, run, run_on, try_run};
pub use op::{BAND, BOR, BXOR, LAND, LOR, LXOR, MAX, MAXLOC, MIN, MINLOC, Operator, PROD, SUM};
pub use peer::{ANY_SOURCE, ANY_TAG, PROC_NULL, Peer, Tag};
pub use persistent::{Persistent, start_all};
pub use request::{Receive, Request, test_all, test_any, test_some, wait_all, wait_any, wait_some};
pub use river_core::ExitCode;
pub use status::Status;
pub use topology::{Cartesian, Graph, dims_create};
pub use value::ReceiveValue;
