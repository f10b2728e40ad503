//! The Message Passing Interface over River, for people who use it, study it or change its algorithms: ranks are VRs.
//!
//! It is MPI 1.3 as a Rust programmer would have it: slices instead of addresses and counts, values instead of handles,
//! `Result`s instead of codes, and requests that own or borrow their buffer, so that no message can be written to memory
//! that is in use. If you know MPI, you can read it.
//!
//! ```no_run
//! use river_mpi::{Communicator, ExitCode};
//!
//! fn hello(world: &Communicator) -> river_core::Result {
//!     let (rank, np) = (world.rank(), world.size());
//!     println!("Hello from rank {rank}");
//!     if rank == 0 {
//!         let mut value = [0.0];
//!         for i in 1..np {
//!             world.recv_into(&mut value, i, 0)?;
//!             println!("From rank {i}: {}", value[0]);
//!         }
//!     } else {
//!         world.send(&[rank as f64 * 100.0], 0, 0)?;
//!     }
//!     Ok(())
//! }
//!
//! fn main() -> ExitCode {
//!     river_mpi::run(4, hello)
//! }
//! ```
//!
//! # Running
//!
//! [`run`] starts the ranks on virtual machines that it finds, or, if there are none, as threads of one process on this
//! machine; with `..` for the number, `river run -n 4 PROGRAM` decides it. [`Launch`] says how many share a VM.
//! [`run_on`] is for a program that does more than MPI. The function that ranks run captures nothing; the command line is
//! the same on all of them, and what they return comes back to [`try_run`].
//!
//! # Messages
//!
//! Two families. Slices of an [`Element`] (numbers, [`Complex`], `bool`, structs that are `Pod`) travel as the bytes that
//! they are: [`send`](Communicator::send), [`recv_into`](Communicator::recv_into), and in the shape of a [`Datatype`]
//! [`send_as`](Communicator::send_as). Values of any serde type are encoded:
//! [`send_value`](Communicator::send_value).
//!
//! Short messages are sent eagerly: up to 4 KiB within a process, 8 KiB within a machine, 64 KiB between machines. A longer
//! message is sent once a receive has matched it. There is no progress thread: operations advance only while their rank is
//! inside some call of this crate. Eager messages are not flow-controlled: those that a rank does not receive pile up in its
//! memory.
//!
//! # Collective operations
//!
//! All ranks call [`allreduce`](Communicator::allreduce) and the like. The algorithm is chosen by the number of ranks, the
//! number of bytes, and where the ranks are. The algorithms are in [`coll`], one file each;
//! [`Communicator::with_tuning`] and variables like `RIVER_MPI_ALLREDUCE=ring` choose another one, and a new one is a
//! dozen lines.
//!
//! # Errors, deaths, deadlocks
//!
//! Operations return an [`MpiError`], which has MPI's [class](ErrorClass). By default an error ends the whole job:
//! rank and error are printed where the job was started, and no process is left. [`ErrorHandler::Return`] leaves it to the program.
//! A rank that fails, panics or dies ends the job too, unless it was started with [`Launch::survive_failures`]; then the
//! others can [`revoke`](Communicator::revoke), [`agree`](Communicator::agree) and [`shrink`](Communicator::shrink). If
//! every rank waits and no message is in flight, the job ends with a report of which rank waits for what. (A rank that polls
//! with [`Request::test`] or [`iprobe`](Communicator::iprobe) counts as running: while one does, no deadlock is reported.)
//!
//! # Conformance to MPI 1.3
//!
//! | section | | where, and what differs | tests |
//! |---|---|---|---|
//! | 3.2 | blocking send and receive, status | [`send`](Communicator::send), [`recv_into`](Communicator::recv_into), [`recv`](Communicator::recv), [`Status`]; counts are `usize` | `p2p` |
//! | 3.3 | type matching | by the size of elements | `p2p` |
//! | 3.4 | modes | [`ssend`](Communicator::ssend), [`bsend`](Communicator::bsend), [`rsend`](Communicator::rsend), which is a standard send | `p2p` |
//! | 3.5 | order, progress | non-overtaking, tested against a model | `random`, unit |
//! | 3.6 | buffers | [`buffer_attach`](Communicator::buffer_attach) takes a size; a short message needs room but does not keep it | `p2p` |
//! | 3.7 | non-blocking | [`Request`], [`Receive`], [`wait_all`], [`wait_any`], [`wait_some`], [`test_all`], [`test_any`], [`test_some`] | `p2p` |
//! | 3.8 | probe and cancel | [`probe`](Communicator::probe), [`iprobe`](Communicator::iprobe), [`Request::cancel`], which asks the receiver: it waits for it, and fails if that is gone | `p2p` |
//! | 3.9 | persistent requests | [`Persistent`] owns its buffer; [`request`](Persistent::request) gives it to [`wait_all`] and the others; [`start_all`] is for those of one type | `persistent` |
//! | 3.10 | send-receive | [`sendrecv`](Communicator::sendrecv), [`sendrecv_replace`](Communicator::sendrecv_replace) | `p2p` |
//! | 3.11 | null processes | [`PROC_NULL`] | `p2p` |
//! | 3.12 | derived datatypes | [`Datatype`], in every call of chapters 3 and 4 ([`sendrecv_as`](Communicator::sendrecv_as) for instance; persistent requests: pack); bounds are set by [`with_bounds`](Datatype::with_bounds) instead of `MPI_LB`, `MPI_UB`; displacements are from the buffer's beginning, there is no `MPI_BOTTOM`; buffers are of `Pod` types, which `bool` and `char` are not: those travel as slices | `datatypes`, unit |
//! | 3.13 | pack and unpack | [`Committed::pack_onto`], [`Committed::unpack`] | unit |
//! | 4.3 | barrier | [`barrier`](Communicator::barrier) | `coll` |
//! | 4.4 | broadcast | [`bcast`](Communicator::bcast) | `coll` |
//! | 4.5, 4.6 | gather, scatter | [`gather`](Communicator::gather), [`gatherv`](Communicator::gatherv), [`scatter`](Communicator::scatter), [`scatterv`](Communicator::scatterv); blocks are ranges | `coll` |
//! | 4.7, 4.8 | gather to all, all to all | [`allgather`](Communicator::allgather), [`allgatherv`](Communicator::allgatherv), [`alltoall`](Communicator::alltoall), [`alltoallv`](Communicator::alltoallv) | `coll` |
//! | 4.9 | reductions | [`reduce`](Communicator::reduce), [`allreduce`](Communicator::allreduce), operators in [`op`], those of users by [`Operator`] | `coll`, unit |
//! | 4.10, 4.11 | reduce-scatter, scan | [`reduce_scatter`](Communicator::reduce_scatter), [`scan`](Communicator::scan), [`exscan`](Communicator::exscan) | `coll` |
//! | 4 | of later standards | in place, between groups (`ROOT`), non-blocking ([`iallreduce`](Communicator::iallreduce) and the others) | `coll` |
//! | 4 | datatypes | in every call, blocking and not: [`gatherv_as`](Communicator::gatherv_as), [`iscan_as`](Communicator::iscan_as) and the others | `coll` |
//! | 4 | values | any serde type, blocking and not: [`allgather_values`](Communicator::allgather_values), [`ibcast_value`](Communicator::ibcast_value) and the others; with a root not between groups | `coll` |
//! | 5.3 | groups | [`Group`] | unit |
//! | 5.4 | communicators | [`dup`](Communicator::dup), [`create`](Communicator::create), [`split`](Communicator::split), [`compare`](Communicator::compare); freed when the last handle is dropped | `communicators` |
//! | 5.6 | intercommunicators | [`create_intercomm`](Communicator::create_intercomm), [`merge`](Communicator::merge) | `communicators` |
//! | 5.7 | caching | [`Keyval`], whose functions may fail, [`set_attribute`](Communicator::set_attribute) | `communicators` |
//! | 6 | topologies | [`Cartesian`], [`Graph`], [`dims_create`] | `communicators` |
//! | 7.1 | inquiry | [`processor_name`](Communicator::processor_name); tags go to `i32::MAX` | `communicators` |
//! | 7.2, 7.3 | error handling, classes | [`ErrorHandler`], [`ErrorClass`]; there is no `MPI_ERR_OP` (operators are types), `MPI_ERR_UNKNOWN`, `MPI_ERR_INTERN` (nothing ends so), `MPI_ERR_IN_STATUS`, `MPI_ERR_PENDING` ([`wait_all`] returns the first error and leaves the other requests as they are) | `p2p`, `jobs` |
//! | 7.4 | timers | `std::time::Instant` | none |
//! | 7.5 | startup | [`run`], [`abort`](Communicator::abort), [`abort_with`](Communicator::abort_with); a rank is initialised when it has a world, and finalised when it returns | `jobs` |
//! | 8 | profiling interface | none: wrap [`Communicator`] | none |
//!
//! # Layers, lowest first
//!
//! A module uses only modules above it in this list.
//!
//! * `error`: error classes as values
//! * `element`: what typed buffers are made of
//! * `op`: operators of reductions
//! * `lend`: memory that ranks of one machine lend each other
//! * `coll`: algorithms of collective operations, as plans
//! * `matching`: which message goes to which receive
//! * `header`: the header of every message between ranks
//! * `pool`: buffers that are used again
//! * `queue`: single-producer queues between threads, and rings between processes
//! * `job`: what ranks and supervisor say to each other
//! * `engine`: progress
//! * `peer`: ranks and tags as arguments
//! * `status`: what is known of a message
//! * `group`: ordered sets of ranks
//! * `attribute`: what libraries keep with a communicator
//! * `fast_path`: the shared-memory fast path of blocking collectives
//! * `communicator`: groups with a context
//! * `target`: where a message goes
//! * `request`: operations under way
//! * `p2p`: point-to-point communication
//! * `internal`: internal messages, which create communicators
//! * `exchange`: an allgather of values, which creates communicators
//! * `create`: communicators made of others
//! * `datatype`: which bytes a message is made of
//! * `typed`: point-to-point communication by datatypes
//! * `value`: values of any serde type
//! * `collective`: collective operations
//! * `persistent`: operations that are started again and again
//! * `topology`: grids and graphs
//! * `survive`: going on after a failure
//! * `supervisor`: who watches over a job
//! * `supervise`: starting the ranks, and listening to them
//! * `rank`: what a rank is
//! * `launch`: starting a job
//! * `testing`: worlds without VMs

mod attribute;
pub mod coll;
mod collective;
mod communicator;
mod create;
mod datatype;
mod element;
mod engine;
mod error;
mod exchange;
mod fast_path;
mod group;
mod header;
mod internal;
mod job;
mod launch;
mod lend;
mod matching;
pub mod op;
mod p2p;
mod peer;
mod persistent;
mod pool;
mod queue;
mod rank;
mod request;
mod status;
mod supervise;
mod supervisor;
mod survive;
mod target;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod topology;
mod typed;
mod value;

pub use attribute::Keyval;
pub use collective::{ROOT, RequestValue, Root};
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
