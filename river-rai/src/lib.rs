//! Remote access and invocation: functions, objects and data on other machines.
//!
//! A *server* is a VR that calls functions and keeps objects for others; a *client* has typed handles. Functions are
//! named by code pointers, as all processes of a program run the same image: there is nothing to register, annotate or
//! inject.
//!
//! ```
//! use river_core::VirtualResource;
//! use river_rai::{CallError, Rai, RaiServer};
//!
//! fn add(a: i64, b: i64, c: i64) -> i64 {
//!     a + b + c
//! }
//!
//! # fn client(vr: &river_core::Vr, server: river_core::VrId) -> Result<(), CallError> {
//! let r = Rai::connect(vr, server);
//! assert_eq!(r.call(add, (1, 2, 3))?, 6); // a function
//! assert_eq!(r.call(|x: i64| x + 10, (5,))?, 15); // a closure that captures nothing
//!
//! let first = r.call_async(add, (1, 2, 3))?; // many may be under way
//! let second = r.call_async(add, (4, 5, 6))?;
//! assert_eq!((second.wait()?, first.wait()?), (15, 6));
//!
//! let stack = r.create(Vec::<String>::new, ())?; // an object, held by reference
//! stack.call(Vec::push, ("A".to_string(),))?;
//! assert_eq!(stack.take()?, ["A"]);
//! # r.stop()
//! # }
//! # river_core::testing::threads(2, |vr, index, vrs| match index {
//! #     0 => client(vr, vrs[1]).unwrap(),
//! #     _ => RaiServer::unrestricted().main(vr).unwrap(),
//! # });
//! ```
//!
//! # What success means
//!
//! A result means that the function ran exactly once and returned it. [`CallError::Panicked`] means that it ran once
//! but did not finish; if `RUST_BACKTRACE` is set, `{:?}` of the error shows the backtrace. After [`CallError::Down`]
//! the outcome is unknown: the function ran once, partly, or not at all.
//! **No call hangs forever**: it ends with the function, or with its server.
//!
//! If a client [limits its mailbox](river_core::Vr::limit_queue) and it is full, the server keeps an answer until there
//! is room. The client must make room: while it waits for a call, its other messages are not received. If they alone
//! fill the mailbox, only a [time limit](Rai::timeout) ends the call. Calls to a server whose own mailbox is full fail
//! with [`CallError::Full`].
//!
//! A server executes one request at a time, and those of one client in the order in which they were made. A function
//! that blocks keeps the server from everything else, unless the server is [concurrent](RaiServer::concurrent); a
//! function that waits for a call to its own server gets an error ([`CallError::Itself`]).
//!
//! # Servers of other programs
//!
//! A server that is [published](RaiServer::published) under a name can be found by programs that were built from other
//! sources and started independently, if they have the same key ([`Rai::look_up`]). Between programs there are no code
//! pointers: everything is called by the name under which it was exported, and the server compares the argument and
//! result types that the caller expects with the actual ones: names, fields and variants, as their `Deserialize` reveals
//! them ([`CallError::Signature`]). The type of an object, which stays on the server, is identified by its name alone.
//! Programs that share a type should share the crate that defines it.
//!
//! ```no_run
//! use river_rai::{Exports, Rai, RaiServer};
//! # use river_core::{Result, VirtualResource, Vr};
//!
//! fn server(vr: &Vr) -> Result { // one program
//!     let exports = Exports::new()
//!         .function("add", |a: i64, b: i64| a + b)
//!         .constructor("stack", Vec::<String>::new)
//!         .method("push", Vec::<String>::push);
//!     RaiServer::restricted(exports).published("calculator").main(vr)
//! }
//!
//! fn client(vr: &Vr) -> Result { // another
//!     let calculator = Rai::look_up(vr, "calculator")?;
//!     let three: i64 = calculator.call_named("add", (1_i64, 2_i64))?;
//!     let stack = calculator.create_named::<Vec<String>, _>("stack", ())?;
//!     let () = stack.call_named("push", ("A".to_string(),))?;
//!     Ok(())
//! }
//! ```
//!
//! When either program ends, is killed or stopped, the other is notified as for a VR of its own: calls end with
//! [`CallError::Down`], and what a client held is freed.
//!
//! # Where things are
//!
//! [`RaiServer`] is deployed, [`Rai`] connects to it, [`Pending`] is a call in progress, [`Object`] a handle, which is
//! sent to another VR as a [`Remote`]. [`Exports`] are the functions that a restricted server lets clients call,
//! perhaps only clients that hold a [`Capability`]. [`current`] is for functions that run on a server. [`Blob`] is
//! memory that is sent as it is. [`Completions`] and [`Packed`] are for layers that schedule calls. [`RemoteFn`],
//! [`RemoteMethod`], [`RemoteSend`] and [`Items`] define what can be called, with which values, and what can be read
//! item by item.
//!
//! # Layers, lowest first
//!
//! A module uses only modules above it in this list.
//!
//! * `data`: types whose values can be sent
//! * `body`: arguments and results as bytes
//! * `items`: collections whose items can be read and set individually
//! * `function`: functions and methods that can be called remotely
//! * `shape`: structs and enums, as their `Deserialize` reveals them
//! * `signature`: the argument and result types of a function, as text, and its hash
//! * `protocol`: requests and failures
//! * `error`: what can go wrong
//! * `packed`: arguments as bytes
//! * `trampoline`: turns a code pointer into a call
//! * `wire`: requests and replies as envelopes
//! * `unsent`: replies that wait for room
//! * `calls`: calls without an answer, and answers that have not been taken
//! * `post`: receives a VR's replies
//! * `connection`: the calling VR, the server, and the time limit of calls
//! * `pending`: calls in progress
//! * `completions`: waits for whichever call is answered first
//! * `handles`: counts the handles that a VR has made from a reference
//! * `object`: handles on objects
//! * `exports`: what a restricted server exposes
//! * `foreign`: what other programs may request
//! * `client`: the client's end of a connection
//! * `put`: values that a client puts on a server
//! * `references`: which VR holds which object
//! * `store`: the objects and exports of a server
//! * `handed_out`: calls that helpers of a server execute
//! * `intake`: what a server still has to handle
//! * `current`: the call that runs on this thread
//! * `work`: executes requests
//! * `pool`: executes several calls at a time
//! * `server`: the server

mod body;
mod calls;
mod client;
mod completions;
mod connection;
pub mod current;
mod data;
mod error;
mod exports;
mod foreign;
mod function;
mod handed_out;
mod handles;
mod intake;
mod items;
mod object;
mod packed;
mod pending;
mod pool;
mod post;
mod protocol;
mod put;
mod references;
mod server;
mod shape;
mod signature;
mod store;
mod trampoline;
mod unsent;
mod wire;
mod work;

pub use body::Blob;
pub use client::Rai;
pub use completions::{Completion, Completions};
pub use data::RemoteSend;
pub use error::CallError;
pub use exports::Exports;
pub use function::{ByMut, ByRef, RemoteFn, RemoteMethod};
pub use items::Items;
pub use object::{Object, Remote};
pub use packed::Packed;
pub use pending::Pending;
pub use protocol::{Capability, Ticket};
pub use server::RaiServer;
