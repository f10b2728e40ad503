//! The Message Passing Interface over River, for those who use it, study it or change its algorithms. Ranks are VRs.
//!
//! It is MPI 1.3 in idiomatic Rust: slices instead of addresses and counts, values instead of handles, `Result`s instead of
//! error codes, and requests that own or borrow their buffer, so that no message is ever written to memory that is in use.
//! Programs are readable for anyone who knows MPI.
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
//! machine. If the number of ranks is given as `..`, `river run -n 4 PROGRAM` determines it. [`Launch`] sets how many ranks
//! share a VM. [`run_on`] is for programs that do more than MPI. The function that ranks run captures nothing; all ranks get
//! the same command line, and [`try_run`] returns their results.
//!
//! # Messages
//!
//! There are two families of operations. Slices of an [`Element`] (numbers, [`Complex`], `bool`, structs that are `Pod`) are
//! sent as their bytes in memory: [`send`](Communicator::send), [`recv_into`](Communicator::recv_into), or, with the layout
//! of a [`Datatype`], [`send_as`](Communicator::send_as). Values of any serde type are encoded:
//! [`send_value`](Communicator::send_value).
//!
//! Short messages are sent eagerly: up to 4 KiB within a process, 8 KiB within a machine, 64 KiB between machines. Longer
//! messages use a rendezvous: they are sent once a receive has matched them. There is no progress thread: operations make
//! progress only while their rank is inside some call of this crate. Eager messages are not flow-controlled: unexpected ones
//! accumulate in the receiver's memory.
//!
//! # Collective operations
//!
//! All ranks call [`allreduce`](Communicator::allreduce) or another collective operation. The algorithm is chosen by the
//! number of ranks, the number of bytes, and the placement of the ranks. The algorithms are in [`coll`], one file each;
//! [`Communicator::with_tuning`] and variables like `RIVER_MPI_ALLREDUCE=ring` choose a specific one, and adding one takes a
//! dozen lines.
//!
//! # Errors, deaths, deadlocks
//!
//! Operations return an [`MpiError`], which has MPI's [class](ErrorClass). By default an error ends the whole job: rank and
//! error are printed where the job was started, and no process is left. With [`ErrorHandler::Return`] the program handles the
//! error. A rank that fails, panics or dies also ends the job, unless it was started with [`Launch::survive_failures`]; then
//! the other ranks can [`revoke`](Communicator::revoke), [`agree`](Communicator::agree) and [`shrink`](Communicator::shrink).
//! If every rank waits and no message is in flight, the job ends with a report of which rank waits for what. (A rank that
//! polls with [`Request::test`] or [`iprobe`](Communicator::iprobe) counts as running: no deadlock is reported meanwhile.)
//!
//! # Conformance to MPI 1.3
//!
//! | section | subject | API, and differences | tests |
//! |---|---|---|---|
//! | 3.2 | blocking send and receive, status | [`send`](Communicator::send), [`recv_into`](Communicator::recv_into), [`recv`](Communicator::recv), [`Status`]; counts are `usize` | `p2p` |
//! | 3.3 | type matching | by the size of elements only | `p2p` |
//! | 3.4 | modes | [`ssend`](Communicator::ssend), [`bsend`](Communicator::bsend), [`rsend`](Communicator::rsend), which equals a standard send | `p2p` |
//! | 3.5 | order, progress | non-overtaking, tested against a model | `random`, unit |
//! | 3.6 | buffers | [`buffer_attach`](Communicator::buffer_attach) takes a size; a short message must fit into the buffer but does not occupy it | `p2p` |
//! | 3.7 | non-blocking | [`Request`], [`Receive`], [`wait_all`], [`wait_any`], [`wait_some`], [`test_all`], [`test_any`], [`test_some`] | `p2p` |
//! | 3.8 | probe and cancel | [`probe`](Communicator::probe), [`iprobe`](Communicator::iprobe), [`Request::cancel`], which waits for an answer from the receiver, and fails if the receiver is gone | `p2p` |
//! | 3.9 | persistent requests | [`Persistent`] owns its buffer; [`request`](Persistent::request) passes it to [`wait_all`] and the like; [`start_all`] takes operations of one element type | `persistent` |
//! | 3.10 | send-receive | [`sendrecv`](Communicator::sendrecv), [`sendrecv_replace`](Communicator::sendrecv_replace) | `p2p` |
//! | 3.11 | null processes | [`PROC_NULL`] | `p2p` |
//! | 3.12 | derived datatypes | [`Datatype`], in every call of chapters 3 and 4 ([`sendrecv_as`](Communicator::sendrecv_as) for instance; [`Persistent`] operations, which own their buffers, take packed data); bounds are set by [`with_bounds`](Datatype::with_bounds) instead of `MPI_LB`, `MPI_UB`; displacements are from the buffer's beginning, there is no `MPI_BOTTOM`; buffers have `Pod` types, which excludes `bool` and `char`: send those as slices | `datatypes`, unit |
//! | 3.13 | pack and unpack | [`Committed::pack_onto`], [`Committed::unpack`] | unit |
//! | 4.3 | barrier | [`barrier`](Communicator::barrier) | `coll` |
//! | 4.4 | broadcast | [`bcast`](Communicator::bcast) | `coll` |
//! | 4.5, 4.6 | gather, scatter | [`gather`](Communicator::gather), [`gatherv`](Communicator::gatherv), [`scatter`](Communicator::scatter), [`scatterv`](Communicator::scatterv); blocks are ranges | `coll` |
//! | 4.7, 4.8 | gather to all, all to all | [`allgather`](Communicator::allgather), [`allgatherv`](Communicator::allgatherv), [`alltoall`](Communicator::alltoall), [`alltoallv`](Communicator::alltoallv) | `coll` |
//! | 4.9 | reductions | [`reduce`](Communicator::reduce), [`allreduce`](Communicator::allreduce), predefined operators in [`op`], user-defined ones by [`Operator`] | `coll`, unit |
//! | 4.10, 4.11 | reduce-scatter, scan | [`reduce_scatter`](Communicator::reduce_scatter), [`scan`](Communicator::scan), [`exscan`](Communicator::exscan) | `coll` |
//! | 4 | later standards | in place, between groups (`ROOT`), non-blocking ([`iallreduce`](Communicator::iallreduce) and the others) | `coll` |
//! | 4 | datatypes | in every call, blocking or not: [`gatherv_as`](Communicator::gatherv_as), [`iscan_as`](Communicator::iscan_as) and the others | `coll` |
//! | 4 | values | any serde type, blocking or not: [`allgather_values`](Communicator::allgather_values), [`ibcast_value`](Communicator::ibcast_value) and the others; those with a root not between groups | `coll` |
//! | 5.3 | groups | [`Group`] | unit |
//! | 5.4 | communicators | [`dup`](Communicator::dup), [`create`](Communicator::create), [`split`](Communicator::split), [`compare`](Communicator::compare); freed when the last handle is dropped | `communicators` |
//! | 5.6 | intercommunicators | [`create_intercomm`](Communicator::create_intercomm), [`merge`](Communicator::merge) | `communicators` |
//! | 5.7 | caching | [`Keyval`], whose callbacks may fail, [`set_attribute`](Communicator::set_attribute) | `communicators` |
//! | 6 | topologies | [`Cartesian`], [`Graph`], [`dims_create`] | `communicators` |
//! | 7.1 | inquiry | [`processor_name`](Communicator::processor_name); the largest tag is `i32::MAX` | `communicators` |
//! | 7.2, 7.3 | error handling, classes | [`ErrorHandler`], [`ErrorClass`]; there is no `MPI_ERR_OP` (operators are types), `MPI_ERR_UNKNOWN`, `MPI_ERR_INTERN` (no operation fails with it), `MPI_ERR_IN_STATUS`, `MPI_ERR_PENDING` ([`wait_all`] returns the first error and leaves the other requests as they are) | `p2p`, `jobs` |
//! | 7.4 | timers | `std::time::Instant` | none |
//! | 7.5 | startup | [`run`], [`abort`](Communicator::abort), [`abort_with`](Communicator::abort_with); a rank is initialised when it gets its world, and finalised when it returns | `jobs` |
//! | 8 | profiling interface | none: wrap [`Communicator`] | none |
//!
//! # Layers, lowest first
//!
//! A module uses only modules above it in this list.
//!
//! * `error`: error classes as values
//! * `element`: the elements of typed buffers
//! * `op`: operators of reductions
//! * `lend`: memory that ranks of one machine lend each other
//! * `coll`: algorithms of collective operations, as plans
//! * `matching`: matches messages with receives
//! * `header`: the header of every message between ranks
//! * `pool`: reuses buffers
//! * `queue`: single-producer queues between threads, and rings between processes
//! * `job`: messages between ranks and supervisor
//! * `engine`: sends, receives, and makes progress
//! * `peer`: ranks and tags as arguments
//! * `status`: the source, tag and length of a message
//! * `group`: ordered sets of ranks
//! * `attribute`: values that libraries attach to a communicator
//! * `fast_path`: the shared-memory fast path of blocking collectives
//! * `communicator`: groups with a context
//! * `target`: the memory that a message is received into or sent from
//! * `request`: operations in progress
//! * `p2p`: point-to-point communication
//! * `internal`: internal messages, which create communicators
//! * `exchange`: an allgather of values, which creates communicators
//! * `create`: communicators created from others
//! * `datatype`: descriptions of the bytes that a message consists of
//! * `typed`: point-to-point communication with datatypes
//! * `value`: values of any serde type
//! * `collective`: collective operations
//! * `persistent`: operations that can be started repeatedly
//! * `topology`: grids and graphs
//! * `survive`: continuing after a failure
//! * `supervisor`: the state machine that watches over a job
//! * `supervise`: starts the ranks, and connects them to the supervisor
//! * `rank`: the VR that runs a rank
//! * `launch`: starts jobs
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
